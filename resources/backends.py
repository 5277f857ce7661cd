"""Opens what a city's YAML names behind captions and encoders; see `model_code.backends`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from model_code.fingerprint import code_digests, digest
from model_code.hub import stamp
from model_code.vision.model_choices import of_view

if TYPE_CHECKING:
    from model_code.backends import (
        Captioner,
        Clip,
        Identity,
        ImageEncoder,
        Painter,
        Segmenter,
        TextEmbedding,
        View,
    )
    from model_code.vision.loading import Memory
    from resources.lake import Handle

# Code that makes rows, by kind of model: a part of what a kept row rests on (see `who`). Captions are
# paid for, so of a captioner it counts for the stage alone.
_CLIP = ("model_code.vision.clip:EmbeddedClip", "model_code.vision.open_clip_models:PretrainedClip")
CODE = {
    "captioner": ("model_code.text.captioner",),
    "clip": _CLIP,
    "image_encoder": ("model_code.vision.features", *_CLIP),
    "segmenter": ("model_code.vision.segmentation", "model_code.vision.segmenters"),
    "painter": ("model_code.vision.painter", "model_code.vision.sdxl"),
    "text_embedding": ("model_code.text.embedding", "model_code.text.sentence_model"),
}


def who(identity: Identity, kind: str) -> str:
    """What tells a row's maker from another: the model, and the code around it (a key of `CODE`)."""
    return digest([asdict(identity), code_digests(CODE[kind])])


def captioner(config: Any, memory: Memory | None = None) -> Captioner:
    """The captioner of the section `captions`; nothing is loaded before its first ask. One that holds its
    weights in this process has its place in `memory` beside the models that judge.

    Raises:
        CityloomError: it cannot be opened; names the key.
    """
    choice = config.captioner
    if choice.kind == "openai":
        from resources.captioners.server import ServerCaptioner

        return ServerCaptioner(choice)
    if choice.kind == "vllm":
        from resources.captioners.vllm_engine import VllmCaptioner

        return VllmCaptioner(choice, memory)
    if choice.kind == "transformers":
        from resources.captioners.hugging_face import TransformersCaptioner

        return TransformersCaptioner(choice, memory)
    if choice.kind == "custom":
        from resources.captioners.custom import open_custom

        return open_custom(choice)
    from model_code.text.captioner import TemplateCaptioner

    return TemplateCaptioner(config.wrong_share)


@contextmanager
def captioning(config: Any) -> Iterator[Captioner]:
    """The captioner, of a stage that needs no other model; at the end it goes, if it is in this process.

    Raises:
        CityloomError: it cannot be opened; names the key.
    """
    with _room(config.captioner.kind in ("vllm", "transformers")) as room:
        yield captioner(config, room)


def segmenter(config: Any, view: View, memory: Memory | None = None) -> Segmenter | None:
    """The segmenter of a view, by `captions.segmenter`; None where the city names none."""
    choice = of_view(config, view)
    if choice.kind == "none":
        return None
    if choice.kind == "transformers":
        from model_code.vision.segmenters import TransformersSegmenter

        return TransformersSegmenter(choice, memory)
    if choice.kind == "mmsegmentation":
        from model_code.vision.segmenters import MmsegSegmenter

        return MmsegSegmenter(choice, memory)
    from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

    return StreetSegmenter() if view == "street_view" else LandCoverSegmenter()


@contextmanager
def segmenting(config: Any, view: View) -> Iterator[Segmenter | None]:
    """The segmenter of a view where no other model stands beside it; at the end it goes, so that the one
    of the next view finds the room."""
    with _room(of_view(config, view).kind not in ("none", "embedded")) as room:
        yield segmenter(config, view, room)


def painter(
    config: Any, view: View, size_px: tuple[int, int], memory: Memory | None = None
) -> Painter:
    """The painter of a view, by `captions.painter`; its pictures have the size (height, width)."""
    if config.kind == "sdxl":
        from model_code.vision.sdxl import SdxlPainter

        return SdxlPainter(config, size_px, memory)
    from model_code.vision.painter import ScenePainter

    return ScenePainter(view, size_px)


@contextmanager
def painting(config: Any, view: View, size_px: tuple[int, int]) -> Iterator[Painter]:
    """The painter of a view where no other model stands beside it; at the end it goes."""
    with _room(config.kind != "embedded") as room:
        yield painter(config, view, size_px, room)


def clip(checkpoints: Handle, view: View, memory: Memory | None = None) -> Clip:
    """The towers of a view, from the asset `clip_checkpoint`."""
    record = checkpoints.record(view)
    if "open_clip" in record["model"]:
        from model_code.vision.open_clip_models import PretrainedClip

        return PretrainedClip(record, lambda: checkpoints.checkpoint(view), memory)
    from model_code.vision.clip import EmbeddedClip

    return EmbeddedClip(checkpoints.checkpoint(view))


def image_encoder(choice: Any, view: View, towers: Handle | None) -> ImageEncoder:
    """The encoder of `image_encoder`: a backbone, or the towers of a view from `clip_checkpoint`."""
    if choice.kind == "clip":
        assert towers is not None
        return clip(towers, view)
    from model_code.vision.features import BackboneFeatures

    return BackboneFeatures(choice)


def text_embedding(config: Any) -> TextEmbedding:
    """The sentence embedding of the section `captions`."""
    if config.text_embedding.kind == "sentence_transformers":
        from model_code.text.sentence_model import SentenceModel

        return SentenceModel(config.text_embedding)
    from model_code.text.embedding import HashedEmbedding

    return HashedEmbedding()


@contextmanager
def memory(limit_gib: float | None = None) -> Iterator[Memory]:
    """Room for the models that are not embedded, by `captions.memory_gib`; at its end they go."""
    from model_code.vision.loading import Memory

    room = Memory(limit_gib)
    try:
        yield room
    finally:
        room.clear()


@contextmanager
def _room(needed: bool) -> Iterator[Memory | None]:
    """The same for a model that needs it; nothing for one that is embedded or elsewhere, without torch."""
    if needed:
        with memory() as room:
            yield room
    else:
        yield None


def stamps(*choices: Any) -> dict[str, str]:
    """What the folders hold that choices of models name on this machine, and the configs of
    mmsegmentation, by what the choice calls them: a part of what a result rests on, as a commit is of
    a model of the hub."""
    from model_code.text.captioner_config import Weights
    from model_code.vision.model_choices import Mmsegmentation, Pinned

    found: dict[str, str] = {}
    for choice in choices:
        if isinstance(choice, Mmsegmentation):
            from model_code.vision.segmenters import config_digest

            found[choice.config] = config_digest(choice)
        elif isinstance(choice, Pinned | Weights):
            if Path(choice.model).expanduser().is_absolute():
                found[choice.model] = stamp(Path(choice.model).expanduser())
        else:
            found |= stamps(*(value for _, value in choice if isinstance(value, BaseModel)))
    return found
