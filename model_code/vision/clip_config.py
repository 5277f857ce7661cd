"""How the embedded CLIP is built and trained; apart from the networks, which need torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ClipConfig(BaseModel):
    """A small CLIP for one view, from scratch.

    `pairs` are rendered for training and `held_out` more to set the weight of CLIPScore, such that
    the mean score of matched pairs is `matched_score`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["embedded"] = "embedded"
    pairs: int = Field(4000, ge=2)
    held_out: int = Field(200, ge=2)
    matched_score: float = Field(0.6, gt=0, lt=1)
    embed_dim: int = Field(64, ge=2)
    shrink: int = Field(2, ge=1, description="pictures are seen at their size over this")
    patch_px: int = Field(16, ge=1, description="side of a patch of the shrunk picture")
    image_width: int = Field(64, ge=32, multiple_of=32)
    image_layers: int = Field(2, ge=1)
    text_width: int = Field(64, ge=32, multiple_of=32)
    text_layers: int = Field(1, ge=1)
    context: int = Field(77, ge=8, description="tokens that the text tower reads")
    topics: int = Field(20, ge=1, description="directions of what is said that towers predict")
    topic_weight: float = Field(5.0, ge=0, description="of that prediction beside InfoNCE")
    epochs: int = Field(16, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
