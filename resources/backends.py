"""Opens what a city's YAML names behind captions and encoders; see `model_code.backends`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_code.backends import Captioner, Clip, Painter, Segmenter, TextEmbedding, View
    from resources.lake import Handle

# Modules that make rows: their code is a part of what a kept row rests on.
CODE = {
    "captioner": ("model_code.text.captioner",),
    "segmenter": ("model_code.vision.segmentation",),
    "painter": ("model_code.vision.painter",),
    "text_embedding": ("model_code.text.embedding",),
}


def captioner(config: Any) -> Captioner:
    """The captioner of the section `captions`."""
    from model_code.text.captioner import TemplateCaptioner

    return TemplateCaptioner(config.wrong_share)


def segmenter(config: Any, view: View) -> Segmenter:
    """The segmenter of a view."""
    from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

    return StreetSegmenter() if view == "street_view" else LandCoverSegmenter()


def painter(config: Any, view: View, size_px: tuple[int, int]) -> Painter:
    """The painter of a view; its pictures have the size (height, width)."""
    from model_code.vision.painter import ScenePainter

    return ScenePainter(view, size_px)


def clip(checkpoints: Handle, view: View) -> Clip:
    """The towers of a view, from the asset `clip_checkpoint`."""
    from model_code.vision.clip import EmbeddedClip

    return EmbeddedClip(checkpoints.checkpoint(view))


def text_embedding(config: Any) -> TextEmbedding:
    """The sentence encoder of the section `captions`."""
    from model_code.text.embedding import HashedEmbedding

    return HashedEmbedding()
