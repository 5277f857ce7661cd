"""What stands behind captions and their scores: small protocols, so that an embedded default that
runs anywhere and a real model for real work are exchanged by config alone.

Only numpy here. B pictures or texts, K classes, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model_code.errors import CityloomError
from model_code.methods.base import Floats

View = Literal["satellite", "street_view"]
Form = Literal["caption", "levels", "levels_lite"]
Picture = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class Identity:
    """Which model made a row: its name, its revision (a commit, or a digest of its weights or code),
    and the settings that change what it says."""

    model: str
    revision: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """Pixel shares [B, K] of the classes, each row of sum 1; a row of NaN where the segmenter cannot
    judge the picture, and `reasons` [B] says why (empty where it can)."""

    classes: tuple[str, ...]
    shares: Floats
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Ask:
    """One caption that is wanted.

    `picture` for a view; `heights_m` [H, W] (NaN: unknown) for a height map; `pois` (name and
    category of each POI) for a list of POIs. `shares` are the measured shares of what the picture
    shows, largest first; `prompt` is what a real model is told. `form` is what is wanted: a caption,
    or a description in the three levels of `text.levels` (as JSON; `levels_lite` is told less).
    `seed` and `temperature` differ from try to try. `prompt_id` names the prompt's file, its version
    and its digest.
    """

    kind: Literal["satellite", "street_view", "heights", "pois"]
    picture: Picture | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    heights_m: NDArray[np.float32] | None = None
    pois: Sequence[tuple[str, str]] = ()
    prompt: str = ""
    form: Form = "caption"
    seed: int = 0
    temperature: float = 0.0
    prompt_id: str = ""


@dataclass(frozen=True)
class Answer:
    """A caption, or why there is none.

    `seconds` (NaN: not measured) and `requests` are what it took, malformed answers included; `final`
    says of an error that asking again in this run cannot help.
    """

    text: str = ""
    error: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = math.nan
    requests: int = 1
    final: bool = False


class Captioner(Protocol):
    """Writes captions. The same ask gives the same answer.

    It may also have `ready()`, which loads what the first ask would load, unless it is there, so that the
    time of asking is measured without it, and `notes`, a mapping for the metadata of the asset.
    """

    identity: Identity

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; an ask that cannot be answered is an `Answer` with an error.

        Raises:
            CaptionerStopped: no further ask can be answered; it holds the answers that are there.
        """


class CaptionerStopped(CityloomError):
    """A captioner cannot go on: its key is refused, its server is gone, its model is unknown. Holds
    the answers so far, `None` for an ask without one."""

    def __init__(self, what: str, *, fix: str, answers: Sequence[Answer | None] = ()) -> None:
        super().__init__(what, fix=fix)
        self.answers = list(answers)


class Segmenter(Protocol):
    """Measures what pictures of one view show."""

    identity: Identity
    classes: tuple[str, ...]

    def segment(self, pictures: Sequence[Picture]) -> Segmentation:
        """Pixel shares by class; a picture's row does not depend on the others."""


class Painter(Protocol):
    """Paints captions of one view."""

    identity: Identity

    def paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """One picture a text; it depends on that text and seed alone."""


class Clip(Protocol):
    """Image and text towers with one space. `weight` is the w of CLIPScore (w * max(cos, 0)) for
    these towers; `context` how many tokens the text tower reads."""

    identity: Identity
    weight: float
    context: int

    def encode_images(self, pictures: Sequence[Picture]) -> Floats:
        """Unit vectors, float32 [B, D]."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [B, D]; what is beyond `context` is cut."""

    def tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """How many tokens each text has [B], start and end included, uncut."""


class ImageEncoder(Protocol):
    """Frozen features of pictures; the image half of a `Clip` is one."""

    identity: Identity

    def encode_images(self, pictures: Sequence[Picture]) -> Floats:
        """Features, float32 [B, D]; a picture's row does not depend on the others."""


class TextEmbedding(Protocol):
    """Sentence embeddings."""

    identity: Identity

    @property
    def width(self) -> int:
        """How many numbers a text gives."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [B, width]; a text's row does not depend on the others. Zeros for an
        empty text."""
