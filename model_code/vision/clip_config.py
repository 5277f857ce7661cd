"""How the embedded CLIP is built and trained; apart from the networks, which need torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClipConfig(BaseModel):
    """A small CLIP for one view, from scratch.

    `pairs` are rendered for training and `held_out` more to set the weight of CLIPScore, such that
    the mean score of matched pairs is `matched_score`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pairs: int = Field(3000, ge=2)
    held_out: int = Field(400, ge=2)
    matched_score: float = Field(0.6, gt=0, lt=1)
    embed_dim: int = Field(96, ge=2)
    patch_px: int = Field(16, ge=1)
    image_width: int = Field(128, ge=32, multiple_of=32)
    image_layers: int = Field(3, ge=1)
    text_width: int = Field(96, ge=32, multiple_of=32)
    text_layers: int = Field(2, ge=1)
    context: int = Field(77, ge=8, description="tokens that the text tower reads")
    epochs: int = Field(8, ge=1)
    batch: int = Field(128, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
