"""Which models a city's YAML may name behind pictures and texts; apart from the networks, which need
torch.

A model of a hub is pinned to a commit (`revision`); a file on this machine to its digest (`sha256`); a
folder on this machine is known by what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from model_code.backends import View
from model_code.methods import Backbone as BackboneName
from model_code.vision.clip_config import ClipConfig

_BY_VIEW = "a mapping of satellite and street_view"
VIEWS: tuple[View, ...] = ("satellite", "street_view")
COMMIT = r"^[0-9a-f]{40}$"
SHA256 = r"^[0-9a-f]{64}$"
Scheduler = Literal[
    "DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
]  # fmt: skip
Precision = Literal["auto", "float32", "float16", "bfloat16"]


class Choice(BaseModel):
    """Base of every model that can be named: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Word(Choice):
    """A choice without settings, for which YAML may say the bare word of its kind."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Embedded(Word):
    """What runs anywhere, without a download; in YAML the bare word `embedded`."""

    kind: Literal["embedded"] = "embedded"


class Nothing(Word):
    """No model; in YAML the bare word `none`."""

    kind: Literal["none"] = "none"


class Pinned(Choice):
    """A model of the Hugging Face hub with the commit that is meant, or a folder on this machine (an
    absolute path) as `save_pretrained` writes it."""

    model: str = Field(min_length=1, description="a name of the hub, or an absolute folder")
    revision: str | None = Field(
        None, pattern=COMMIT, description="the commit of a model of the hub, in full"
    )

    @model_validator(mode="after")
    def _is_pinned(self) -> Pinned:
        if not Path(self.model).expanduser().is_absolute() and self.revision is None:
            raise ValueError(
                "a model of the hub can change under its name: add `revision:`, a commit of it (or "
                "give an absolute folder)"
            )
        return self


# --- segmenters ----------------------------------------------------------------------------------

ClassNames = Union[Literal["ade20k", "loveda"], tuple[str, ...]]


class Transformers(Pinned):
    """A semantic segmenter of transformers, such as SegFormer or Mask2Former."""

    kind: Literal["transformers"]
    classes: ClassNames = Field(description="a list of `vision/classes`, or the names in order")
    batch: int = Field(8, ge=1)
    precision: Precision = "float32"


class Mmsegmentation(Choice):
    """A model of mmsegmentation. The config is Python code that is run: name only one that you trust."""

    kind: Literal["mmsegmentation"]
    config: str = Field(
        description="an absolute path, or a path below mmsegmentation's own configs"
    )
    checkpoint: str = Field(description="an absolute path")
    sha256: str = Field(pattern=SHA256, description="of the checkpoint")
    classes: ClassNames = Field(description="a list of `vision/classes`, or the names in order")
    batch: int = Field(8, ge=1)


def _kind(default: str | None) -> Callable[[Any], str | None]:
    """How a choice is told: a bare word, its `kind`, or its views."""

    def told(value: Any) -> str | None:
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            by_view = bool(value) and set(value) <= set(VIEWS)
            return _BY_VIEW if by_view else value.get("kind", default)
        return getattr(value, "kind", _BY_VIEW)

    return told


_Segmenter = Annotated[
    Union[
        Annotated[Embedded, Tag("embedded")],
        Annotated[Nothing, Tag("none")],
        Annotated[Transformers, Tag("transformers")],
        Annotated[Mmsegmentation, Tag("mmsegmentation")],
    ],
    Discriminator(_kind(None)),
]


class Segmenters(Choice):
    """A segmenter for each view: street scenes (ADE20K's classes) for street views, land cover
    (LoveDA's) for chips. Without one a view's captions are scored by CLIPScore alone."""

    satellite: _Segmenter = Nothing()
    street_view: _Segmenter = Nothing()

    @model_validator(mode="after")
    def _each_sees_its_view(self) -> Segmenters:
        for view, foreign, own in (
            ("satellite", "ade20k", "loveda"),
            ("street_view", "loveda", "ade20k"),
        ):
            if getattr(getattr(self, view), "classes", None) == foreign:
                raise ValueError(
                    f"{foreign} classes mean nothing in pictures of the view {view}; want a segmenter "
                    f"of such pictures (classes: {own}), or {view}: none"
                )
        return self


SegmenterChoice = Annotated[
    Union[
        Annotated[Embedded, Tag("embedded")],
        Annotated[Nothing, Tag("none")],
        Annotated[Segmenters, Tag(_BY_VIEW)],
    ],
    Discriminator(_kind(None)),
]

# --- painters ------------------------------------------------------------------------------------


class Sdxl(Pinned):
    """Stable Diffusion XL through diffusers. `size_px` (height, width) is what it paints at, by default
    about a megapixel in the shape of the view's pictures; paintings are brought to their size."""

    kind: Literal["sdxl"]
    variant: str | None = Field(None, description="of the weights' files, such as fp16")
    batch: int = Field(4, ge=1)
    steps: int = Field(30, ge=1)
    guidance: float = Field(7.0, ge=0)
    negative_prompt: str = ""
    size_px: tuple[Annotated[int, Field(ge=16, multiple_of=8)], ...] | None = Field(
        None, min_length=2, max_length=2
    )
    scheduler: Scheduler | None = Field(None, description="by default the model's own")
    precision: Precision = Field("auto", description="auto: float16 on a GPU, else float32")
    offload: bool = Field(
        False, description="keep on the GPU only the part that works; slower, a third of the memory"
    )


PainterChoice = Annotated[
    Union[Annotated[Embedded, Tag("embedded")], Annotated[Sdxl, Tag("sdxl")]],
    Discriminator(_kind(None)),
]

# --- CLIP ----------------------------------------------------------------------------------------


class WeightsAt(Choice):
    """A file of weights on this machine: safetensors, or a state as torch saves it."""

    path: str = Field(description="an absolute path")
    sha256: str = Field(pattern=SHA256)


_Colours = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=3, max_length=3)
]


class OpenClip(Choice):
    """A model of open_clip: its name (`ViT-B-32`) or its arguments (`embed_dim`, `vision_cfg`,
    `text_cfg`), with a pretrained tag of that name or with weights on this machine. `mean` and `std`
    are those of the pictures that it was trained on; by default those of its tag, without one those of
    most tags of that name, and of CLIP's own pictures for a model that is given by its arguments.

    A tokenizer or text tower of transformers that the model names (SigLIP, RoBERTa) is read at the commit
    `text_revision` of the hub; one in a folder needs none.

    `weight` is the w of CLIPScore; by default it is set such that `held_out` rendered pictures with
    their own sentences have the mean score `matched_score`.
    """

    kind: Literal["open_clip"]
    model: Union[str, dict[str, Any]]
    pretrained: str | None = Field(None, description="a tag of `open_clip.list_pretrained()`")
    pretrained_sha256: str | None = Field(
        None, pattern=SHA256, description="of the tag's file, which can change under its name"
    )
    weights: WeightsAt | None = None
    text_revision: str | None = Field(
        None, pattern=COMMIT, description="of the tokenizer or text tower on the hub, in full"
    )
    mean: _Colours | None = Field(None, description="of red, green and blue, from 0 to 1")
    std: _Colours | None = None
    weight: float | None = Field(None, gt=0)
    held_out: int = Field(200, ge=2)
    matched_score: float = Field(0.6, gt=0, lt=1)
    batch: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _has_weights(self) -> OpenClip:
        if (self.pretrained is None) == (self.weights is None):
            raise ValueError("give either `pretrained: TAG` or `weights: {path, sha256}`")
        if self.pretrained is None and self.pretrained_sha256 is not None:
            raise ValueError("`pretrained_sha256` goes with `pretrained`")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both `mean` and `std`, or neither")
        if self.pretrained is not None and not isinstance(self.model, str):
            raise ValueError("a pretrained tag goes with a model's name, not with its arguments")
        return self


_Clip = Annotated[
    Union[Annotated[ClipConfig, Tag("embedded")], Annotated[OpenClip, Tag("open_clip")]],
    Discriminator(_kind("embedded")),
]


class Clips(Choice):
    """Towers for each view, such as RemoteCLIP for chips."""

    satellite: _Clip = ClipConfig()
    street_view: _Clip = ClipConfig()


ClipChoice = Annotated[
    Union[
        Annotated[ClipConfig, Tag("embedded")],
        Annotated[OpenClip, Tag("open_clip")],
        Annotated[Clips, Tag(_BY_VIEW)],
    ],
    Discriminator(_kind("embedded")),
]

# --- frozen features -----------------------------------------------------------------------------


class Backbone(Choice):
    """A pretrained backbone without its classifier: `resnet18`, `resnet152`,
    `inception_v3`, or `timm/NAME`."""

    kind: Literal["backbone"]
    model: BackboneName
    weights: WeightsAt
    size_px: tuple[Annotated[int, Field(ge=16)], ...] = Field(
        (224, 224), min_length=2, max_length=2, description="height and width that it sees"
    )
    batch: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _stands_alone(self) -> Backbone:
        if self.model == "towers":
            raise ValueError(
                "towers are no backbone with weights of its own: write the word `clip`"
            )
        return self


class ByClip(Word):
    """The image towers of `captions.clip`; in YAML the bare word `clip`."""

    kind: Literal["clip"] = "clip"


ImageEncoderChoice = Annotated[
    Union[Annotated[Backbone, Tag("backbone")], Annotated[ByClip, Tag("clip")]],
    Discriminator(_kind(None)),
]

# --- sentences -----------------------------------------------------------------------------------


class SentenceTransformers(Pinned):
    """A model of sentence-transformers, such as Qwen3-Embedding. `width` keeps the first numbers of a
    model that is made for it; `prompt` stands before every text."""

    kind: Literal["sentence_transformers"]
    batch: int = Field(32, ge=1)
    width: int | None = Field(None, ge=1)
    prompt: str = ""
    precision: Precision = "auto"


class Hashed(Word):
    """Hashed words, which run anywhere; in YAML the bare word `hashed`."""

    kind: Literal["hashed"] = "hashed"


TextEmbeddingChoice = Annotated[
    Union[
        Annotated[Hashed, Tag("hashed")],
        Annotated[SentenceTransformers, Tag("sentence_transformers")],
    ],
    Discriminator(_kind(None)),
]


def of_view(choice: Any, view: View) -> Any:
    """The choice of one view, whether it is given for each or for both."""
    return getattr(choice, view) if isinstance(choice, Segmenters | Clips) else choice
