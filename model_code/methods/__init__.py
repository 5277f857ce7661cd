"""The registry of methods: what the rails must know of each before its code is loaded.

The configs stand here and not beside the networks, because a city's YAML is checked when the
Dagster location loads, and that must not import torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from model_code.methods.base import Method

Modality = Literal["imagery", "street_views", "pois", "flows", "buildings", "location"]

# Keys of `sources` that give a modality; location needs none.
SOURCES_OF: dict[Modality, tuple[str, ...]] = {
    "imagery": ("imagery",),
    "street_views": ("street_views",),
    "pois": ("pois",),
    "flows": ("od", "trips"),
    "buildings": ("buildings",),
    "location": (),
}


class MethodConfig(BaseModel):
    """Base of every method's hyper-parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Settings of what comes after an embedding: they touch neither checkpoint nor embedding.
HEAD_KEYS = frozenset({"head", "mode", "tuning"})


class Probed(MethodConfig):
    """What every `pretrained` method shares: how its embeddings are turned into predictions.

    `head` predicts from frozen embeddings: `ridge` or `mlp`; the validation regions choose its
    strength or its epoch.
    """

    head: Literal["ridge", "mlp"] = "ridge"
    inductive: bool = Field(False, description="leave the test regions out of pretraining")


class Tuning(MethodConfig):
    """How an encoder and its heads are trained on labels."""

    epochs: int = Field(100, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    encoder_learning_rate: float = Field(1e-5, gt=0, description="of the encoder, in `finetune`")
    weight_decay: float = Field(0.01, ge=0)
    patience: int = Field(10, ge=1, description="epochs without a better validation")
    hidden: int = Field(128, ge=0, description="width of the heads' hidden layer; 0: linear")


class Tuned(Probed):
    """A pretrained method whose encoder can be trained on with labels (`base.Tunable`).

    `probe` leaves the encoder as it is (see `head`); `finetune` trains it at a small rate,
    `end_to_end` at the heads' own; `scratch` likewise, without its pretrained weights.
    """

    mode: Literal["probe", "finetune", "end_to_end", "scratch"] = "probe"
    tuning: Tuning = Tuning()


class PoiConfig(Probed):
    transform: Literal["log1p", "share", "raw"] = "log1p"


class LocationConfig(Probed):
    frequencies: int = Field(4, ge=0, le=16, description="octaves of sines and cosines per axis")


class ChipPcaConfig(Probed):
    components: int = Field(64, ge=1)
    size_px: int = Field(32, ge=4, description="chips are averaged down to this size first")


class OdPcaConfig(Probed):
    components: int = Field(32, ge=1)


class VitConfig(MethodConfig):
    image_px: int = Field(64, ge=8)
    patch_px: int = Field(16, ge=2)
    width: int = Field(64, ge=8)
    depth: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    epochs: int = Field(30, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    patience: int = Field(8, ge=1, description="epochs without a better validation")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="chips hidden in training, so that the absent-token learns"
    )

    @model_validator(mode="after")
    def _divides(self) -> VitConfig:
        if self.image_px % self.patch_px:
            raise ValueError("image_px must be a multiple of patch_px")
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


@dataclass(frozen=True)
class MethodSpec:
    """What the pipeline knows of a method before it runs.

    `pretrained` methods fit an embedding without labels, then heads on it; `supervised` methods are
    fitted jointly on their own tasks, so their embeddings know the labels of the training regions.
    """

    name: str
    title: str
    kind: Literal["pretrained", "supervised"]
    needs: tuple[Modality, ...]
    config: type[MethodConfig]
    module: str
    about: str
    seeded: bool = True  # False: every seed gives the same numbers, so one fit serves them all

    def load(self) -> Method:
        """The method's code; imports torch where the method needs it."""
        method: Method = importlib.import_module(self.module).METHOD
        return method


_BASELINES = "model_code.methods.baselines"

METHODS: dict[str, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec(
            "poi", "POI counts", "pretrained", ("pois",), PoiConfig,
            f"{_BASELINES}.poi", "Counts of POIs by category.", seeded=False,
        ),
        MethodSpec(
            "location", "Location", "pretrained", ("location",), LocationConfig,
            f"{_BASELINES}.location", "Coordinates of the region with a few Fourier features.", seeded=False,
        ),
        MethodSpec(
            "chip_pca", "PCA of chips", "pretrained", ("imagery",), ChipPcaConfig,
            f"{_BASELINES}.chip_pca", "Principal components of the satellite chips' pixels.", seeded=False,
        ),
        MethodSpec(
            "od_pca", "PCA of flows", "pretrained", ("flows",), OdPcaConfig,
            f"{_BASELINES}.od_pca",
            "Principal components of the log origin-destination matrix, plus both volumes.", seeded=False,
        ),
        MethodSpec(
            "vit", "ViT from scratch", "supervised", ("imagery",), VitConfig,
            f"{_BASELINES}.vit", "A small vision transformer on chips, trained on the labels alone.",
        ),
    )
}  # fmt: skip


def method_spec(name: str) -> MethodSpec:
    """The spec of a method; an unknown name lists the choices."""
    if name not in METHODS:
        raise KeyError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    return METHODS[name]


def method_config(name: str, overrides: dict[str, Any]) -> MethodConfig:
    """A method's hyper-parameters with a city's overrides."""
    return method_spec(name).config.model_validate(overrides)
