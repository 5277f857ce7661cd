"""The registry of methods: what the rails must know of each before its code is loaded.

The configs stand here and not beside the networks, because a city's YAML is checked when the
Dagster location loads, and that must not import torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from model_code.methods.base import Method

Modality = Literal[
    "imagery",
    "street_views",
    "pois",
    "poi_texts",
    "poi_descriptions",
    "flows",
    "hourly_flows",
    "buildings",
    "location",
    "chip_captions",
    "view_captions",
    "view_locations",
    "shares",
    "image_features",
    "descriptions",
    "adjacency",
    "towers",
]

# Keys of `sources` that give a modality; location and pretrained towers need none.
SOURCES_OF: dict[Modality, tuple[str, ...]] = {
    "imagery": ("imagery",),
    "street_views": ("street_views",),
    "pois": ("pois",),
    "poi_texts": ("pois",),
    "poi_descriptions": ("pois",),
    "flows": ("od", "trips"),
    "hourly_flows": ("trips",),
    "buildings": ("buildings",),
    "location": (),
    "chip_captions": ("imagery",),
    "view_captions": ("street_views",),
    "view_locations": ("street_views",),
    "shares": ("imagery", "street_views"),
    "image_features": ("imagery", "street_views"),
    "descriptions": ("imagery", "street_views", "buildings", "pois"),
    "adjacency": (),
    "towers": (),
}

# What says nothing of a region by itself.
NO_INPUT: frozenset[Modality] = frozenset({"towers", "adjacency"})


# What a modality is made from; where that is absent, so is it.
MADE_FROM: dict[Modality, Modality] = {
    "hourly_flows": "flows",
    "chip_captions": "imagery",
    "view_captions": "street_views",
    "view_locations": "street_views",
}

# Modalities that the section `captions` of a city's YAML makes.
BY_CAPTIONS = frozenset(
    {"chip_captions", "view_captions", "shares", "towers", "poi_descriptions", "descriptions"}
)


class MethodConfig(BaseModel):
    """Base of every method's hyper-parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def switched_off(self) -> frozenset[Modality]:
        """Modalities that these settings leave unread."""
        return frozenset()

    def switches(self) -> dict[Modality, str]:
        """By modality, the key that is false where it is not to be read; for those alone whose absence
        takes others with it, or may leave nothing."""
        return {}

    def without(self, left_out: Collection[str]) -> Self:
        """These settings where a city cannot give `left_out`. Not validated: nothing may be left."""
        gone = {key: False for modality, key in self.switches().items() if modality in left_out}
        return self.model_copy(update=gone)


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


class RelationConfig(Probed):
    """What the baselines share that learn from graphs of alike regions; epochs are of the whole city."""

    neighbours: int = Field(10, ge=1, description="that a region has in each relation")
    mobility_weight: float = Field(1.0, ge=0, description="of the loss of trips")
    poi_weight: float = Field(1.0, ge=0, description="of the loss of likeness in POIs")
    epochs: int = Field(1000, ge=1, description="2000 in the paper")
    batch: int = Field(
        1024, ge=1, description="regions whose pairs with all others a step sees, on whole graphs"
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class HrepConfig(RelationConfig):
    poi_weight: float = Field(0.01, ge=0, description="of the loss of likeness in POIs")
    neighbour_weight: float = Field(0.01, ge=0, description="of the triplets of near regions")
    width: int = Field(144, ge=1, description="of node features, relations and embedding")
    layers: int = Field(3, ge=1, description="of the graph convolution")
    heads: int = Field(4, ge=1, description="of the attention between relations")
    dropout: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(5e-3, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> HrepConfig:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class MvureConfig(RelationConfig):
    feature_width: int = Field(250, ge=1, description="of node features, which are random")
    width: int = Field(96, ge=1, description="of a view's vector, and of the embedding")
    heads: int = Field(12, ge=1, description="of the graph attention")
    dropout: float = Field(0.2, ge=0, lt=1, description="of attention")
    share: float = Field(0.8, ge=0, le=1, description="alpha, of what a view takes from the views")
    join: float = Field(0.5, ge=0, le=1, description="beta, of a view's own part in its losses")
    fusion: Literal["mean", "gate"] = Field(
        "mean", description="of the views; the paper's learned gates are free to shut"
    )

    @model_validator(mode="after")
    def _divides(self) -> MvureConfig:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class RemvcConfig(Probed):
    width: int = Field(16, ge=1, description="of a view's vector; the embedding has one a view")
    poi_weight: float = Field(1e-4, ge=0, description="of the contrast within POIs")
    trip_weight: float = Field(1.0, ge=0, description="of the contrast within trips")
    inter_weight: float = Field(1.0, ge=0, description="of the contrast between both")
    poi_negatives: int = Field(10, ge=1, description="of a region, within POIs")
    trip_negatives: int = Field(150, ge=1, description="of a region, within trips")
    inter_negatives: int = Field(5, ge=1, description="of a region and view, between both")
    candidates: int = Field(512, ge=2, description="regions that a step draws negatives from")
    change_rate: float = Field(0.1, gt=0, lt=1, description="of POIs deleted, doubled, replaced")
    noise: float = Field(0.1, gt=0, description="deviation on shares of trips, over their mean")
    temperature: float = Field(0.08, gt=0, description="of the contrasts within a view")
    scorer: Literal["bilinear", "linear"] = Field(
        "bilinear", description="of pairs; linear, as in the paper, sees each side alone"
    )
    epochs: int = Field(200, ge=1)
    batch: int = Field(64, ge=1, description="1 in the authors' code")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-5, ge=0)


class MgfnConfig(Probed):
    patterns: int = Field(7, ge=1, description="that the hours are clustered into, at most")
    neighbours: int | None = Field(
        64,
        ge=1,
        description="that a region hears in a pattern and direction, by their trips; null: all that it has "
        "trips with, which are too many where trips are dense",
    )
    width: int = Field(96, ge=1, description="of a region in a pattern, and of the embedding")
    layers: int = Field(1, ge=1, description="of messages within a pattern; 3 in the authors' code")
    heads: int = Field(4, ge=1, description="of both attentions")
    dropout: float = Field(0.1, ge=0, lt=1)
    fusion: Literal["mean", "concat"] = Field(
        "mean", description="of the patterns; concat in the authors' code"
    )
    epochs: int = Field(500, ge=1, description="2000 in the authors' code")
    batch: int = Field(
        1024, ge=1, description="regions whose trips a step predicts, on whole graphs"
    )
    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> MgfnConfig:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


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


class TowerSize(MethodConfig):
    """The towers' networks where no pretrained ones are given; see `vision.clip_config`."""

    shrink: int = Field(2, ge=1)
    patch_px: int = Field(16, ge=1)
    image_width: int = Field(64, ge=32, multiple_of=32)
    image_layers: int = Field(2, ge=1)
    text_width: int = Field(64, ge=32, multiple_of=32)
    text_layers: int = Field(1, ge=1)
    embed_dim: int = Field(64, ge=2)
    context: int = Field(77, ge=8)


class Towered(Tuned):
    """What all methods share that see pictures through CLIP towers."""

    chip_px: int = Field(64, ge=8, description="where no pretrained towers say their size")
    view_px: tuple[int, int] = Field((96, 128), description="likewise; height and width")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="modalities hidden in training: absent-tokens must learn"
    )
    tower: TowerSize = TowerSize()


class Pictured(Towered):
    """Those of them that encode pictures in each step."""

    width: int = Field(64, ge=2, description="of each modality's feature")
    views_per_step: int = Field(2, ge=1, description="street views of a region in a training step")


class ContrastiveConfig(Pictured):
    """What all methods share that are pretrained against captions."""

    calibrated: bool = Field(
        True,
        description="captions that calibration keeps; false: the first try of each, good or bad",
    )
    epochs: int = Field(4, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(1e-4, gt=0, description="small: the towers come pretrained")
    weight_decay: float = Field(0.01, ge=0)


class UrbanVlpConfig(ContrastiveConfig):
    """`satellite`, `street_views`, `location` and `text` switch the paper's ablations; without text
    there is no contrast, and the towers stay as they come."""

    satellite: bool = True
    street_views: bool = True
    location: bool = True
    text: bool = True
    aggregate: Literal["mean", "attention", "linear"] = "mean"
    slots: int = Field(8, ge=1, description="learned weights of `aggregate: linear`")
    fusion: Literal["sum", "gate", "concat"] = "sum"
    alpha: float = Field(0.5, ge=0, description="weight of the regions' contrast")
    beta: float = Field(0.5, ge=0, description="weight of the street views' contrast")
    local: Literal["tokens", "both"] = Field(
        "both", description="contrast street views by tokens alone (eq 8), or as a whole too"
    )
    budget_mib: int = Field(16, ge=1, description="memory of one block of token similarities")

    @model_validator(mode="after")
    def _can_learn(self) -> UrbanVlpConfig:
        if not (self.satellite or self.street_views or self.location):
            raise ValueError("at least one of satellite, street_views and location must be true")
        if self.text and (self.satellite or self.street_views) and not self._contrasts():
            raise ValueError(
                "text: true leaves nothing to contrast captions with: alpha needs satellite or "
                "street_views, beta street_views; give one a weight, or set text: false"
            )
        return self

    def switched_off(self) -> frozenset[Modality]:
        chips = self.text and self.satellite and self.alpha
        # Street views' captions have a contrast of their own, and the regions' where no chip has one.
        views = (
            self.text and self.street_views and (self.beta or (self.alpha and not self.satellite))
        )
        off: set[Modality] = set() if chips else {"chip_captions"}
        off |= set() if views else {"view_captions"}
        off |= set() if self.satellite else {"imagery"}
        off |= set() if self.street_views else {"street_views"}
        return frozenset(off if self.location else {*off, "view_locations"})

    def switches(self) -> dict[Modality, str]:
        return {
            "imagery": "satellite",
            "street_views": "street_views",
            "view_locations": "location",
        }

    def without(self, left_out: Collection[str]) -> Self:
        found = super().without(left_out)
        return found if found._contrasts() else found.model_copy(update={"text": False})

    def _contrasts(self) -> bool:
        """Whether a caption is read."""
        return not self.switched_off() >= {"chip_captions", "view_captions"}


class UrbanMmclConfig(Towered):
    """The paper's ablations are switches: `satellite`, `street_views`, `location`, `text`; `function`,
    `mobility` and `distance` for each graph; `vgae` (false: the views' own weights), `random_walk`
    (false: the whole graph is one subgraph), `graph_contrast`; `alpha: 0` leaves the contrast of
    modalities out. RSI-CLIP is `street_views: false, location: false, alpha: 0`, SVI-CLIP the same with
    `satellite`.

    The towers rest: what they see is computed once, and all else trains. They rest in each `mode`, with
    the city's pretrained weights: `scratch` is without the two contrasts alone."""

    satellite: bool = True
    street_views: bool = True
    location: bool = True
    text: bool = True
    function: bool = Field(True, description="the graph of regions alike in POIs")
    mobility: bool = Field(True, description="the graph of trips")
    distance: bool = Field(True, description="the graph of regions that are near")
    vgae: bool = Field(True, description="weights of edges as an autoencoder reconstructs them")
    random_walk: bool = Field(True, description="a subgraph around each region")
    graph_contrast: bool = Field(True, description="between the views")
    alpha: float = Field(0.5, ge=0, description="weight of the contrast of modalities")
    beta: float = Field(0.5, ge=0, description="weight of the graphs")
    fusion: Literal["add", "concat", "mlp"] = "add"
    location_axes: int = Field(32, ge=1, description="principal axes of location features")
    neighbours: int = Field(10, ge=1, description="that a region has in a graph")
    latent: int = Field(64, ge=1, description="width of the autoencoder's draws")
    graph_hidden: int = Field(128, ge=1, description="of the subgraph encoder")
    graph_width: int = Field(64, ge=1, description="of a region's vector in one view")
    decoder: Literal["scaled", "as_printed"] = Field(
        "scaled", description="as_printed cannot reconstruct a weak link"
    )
    kl_weight: float = Field(0.01, ge=0, description="of the divergence from a standard normal")
    shared_negatives: int = Field(
        256, ge=1, description="regions that a step draws; they stand for all that are not linked"
    )
    walk_length: int = Field(20, ge=1)
    walks: int = Field(8, ge=1, description="of a region at inference, which are averaged")
    tau: float = Field(0.5, gt=0, description="temperature of the contrast between views")
    calibrated: bool = Field(
        True, description="captions that calibration keeps; false: first tries"
    )
    width: int = Field(256, ge=2, description="of each modality's feature, and of the sum")
    epochs: int = Field(40, ge=1)
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)

    @model_validator(mode="after")
    def _has_something(self) -> UrbanMmclConfig:
        if not (self.satellite or self.street_views or self.location):
            raise ValueError("at least one of satellite, street_views and location must be true")
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = (
            set() if self.text and self.alpha else {"chip_captions", "view_captions"}
        )
        off |= set() if self.satellite else {"imagery", "chip_captions"}
        off |= set() if self.street_views else {"street_views", "view_captions"}
        off |= set() if self.location else {"view_locations"}
        off |= set() if self.location or self.distance else {"location"}
        off |= set() if self.function else {"pois"}
        return frozenset(off if self.mobility else {*off, "flows"})

    def switches(self) -> dict[Modality, str]:
        return {
            "imagery": "satellite",
            "street_views": "street_views",
            "pois": "function",
            "flows": "mobility",
        }


class UrbanClipConfig(ContrastiveConfig):
    pass


class ClipProbeConfig(Pictured):
    satellite: bool = True
    street_views: bool = True

    @model_validator(mode="after")
    def _can_see(self) -> ClipProbeConfig:
        if not (self.satellite or self.street_views):
            raise ValueError("at least one of satellite and street_views must be true")
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.satellite else {"imagery"}
        return frozenset(off if self.street_views else {*off, "street_views"})

    def switches(self) -> dict[Modality, str]:
        return {"imagery": "satellite", "street_views": "street_views"}


class SharesConfig(Probed):
    pass


class FeaturesConfig(Probed):
    pass


_TEXTS: dict[str, Modality] = {"names": "poi_texts", "descriptions": "poi_descriptions"}


class UrbanMoeConfig(MethodConfig):
    """`image`, `text`, `region` and `poi` switch the paper's ablations, as do the numbers of experts of
    each kind; `single_task` trains a net for each task, with as many experts as the task has among
    all."""

    image: bool = Field(True, description="the branch of satellite chips")
    text: bool = Field(
        True, description="the branch of what POIs are called and what is said of them"
    )
    text_from: Literal["names", "descriptions"] = Field(
        "names",
        description="`descriptions`: what a captioner writes of a region from its POIs instead",
    )
    region: bool = Field(True, description="the embedding of each training region")
    poi: bool = Field(True, description="the embedding of the counts of POIs")
    single_task: bool = False
    n_specific: int = Field(8, ge=0, description="experts of each task")
    n_pair: int = Field(2, ge=0, description="experts of each pair of tasks")
    n_shared: int = Field(4, ge=0, description="experts of all tasks")
    threshold: float = Field(0.01, ge=0, lt=1, description="weights up to it become zero")
    region_width: int = Field(6, ge=1)
    poi_width: int = Field(15, ge=1)
    hidden: int = Field(128, ge=1, description="width of an expert's hidden layer")
    width: int = Field(64, ge=2, description="of an expert's output")
    head_hidden: int = Field(64, ge=1, description="width of a head's hidden layer")
    task_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="by indicator, what it counts in the loss; 1 where it is not named"
    )
    unknown_rate: float = Field(
        0.5, gt=0, lt=1, description="ids dropped in training, so that unseen regions are known"
    )
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="modalities hidden in training: absent-tokens must learn"
    )
    epochs: int = Field(200, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    patience: int = Field(15, ge=1, description="epochs without a better validation")
    chip_px: int = Field(64, ge=8, description="where no pretrained towers say their size")
    tower: TowerSize = TowerSize()

    @model_validator(mode="after")
    def _has_something(self) -> UrbanMoeConfig:
        if not (self.image or self.text):
            raise ValueError("at least one of image and text must be true")
        if not (self.n_specific or self.n_pair or self.n_shared):
            raise ValueError("at least one of n_specific, n_pair and n_shared must be above 0")
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.image else {"imagery"}
        off |= {m for source, m in _TEXTS.items() if not self.text or source != self.text_from}
        return frozenset(off if self.poi else {*off, "pois"})

    def switches(self) -> dict[Modality, str]:
        return {"imagery": "image", _TEXTS[self.text_from]: "text", "pois": "poi"}


def _backbone(name: str) -> str:
    known = ("towers", "small", "resnet18", "resnet152", "inception_v3")
    if name not in known and not name.startswith("timm/"):
        raise ValueError(
            f"no backbone {name!r}; want {', '.join(known)}, or one of timm's such as "
            "timm/resnet50 or timm/vit_small_patch16_224"
        )
    return name


Backbone = Annotated[str, AfterValidator(_backbone)]


def _check_size(key: str, backbone: str, size_px: int) -> None:
    """Whether pictures of this size, which the config key `key` sets, are enough for a backbone."""
    least = 75 if backbone.endswith("inception_v3") else 16
    if size_px < least:
        raise ValueError(f"{backbone} needs pictures of {least} pixels or more; see {key}")


class WeightsFile(MethodConfig):
    """Weights on this machine. Their digest makes them a part of what a result rests on."""

    path: str = Field(description="an absolute path")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class MuseClConfig(Tuned):
    """`satellite`, `street_views` and `pois` switch the paper's ablations: each modality alone, and
    pictures without the words of POIs. `fusion: concat` sets the POI embedding beside the pictures',
    and aligns nothing; alone among the fusions it is a variant with POIs in the embedding."""

    satellite: bool = True
    street_views: bool = True
    pois: bool = Field(True, description="the words of POIs, which teach the pictures")
    fusion: Literal["attention", "add", "concat"] = "attention"
    satellite_backbone: Backbone = Field(
        "towers", description="resnet18 in the paper; towers: the city's pretrained ones"
    )
    street_view_backbone: Backbone = Field("towers", description="inception_v3 in the paper")
    rest: bool = Field(True, description="towers rest in the triplets; heads alone learn")
    satellite_weights: WeightsFile | None = Field(None, description="what the backbone starts from")
    street_view_weights: WeightsFile | None = None
    chip_px: int = Field(64, ge=16, description="towers have a size of their own")
    view_px: tuple[int, int] = Field((72, 96), description="height and width")
    width: int = Field(128, ge=2, description="of an embedding, and of a word's vector")
    views_per_step: int = Field(2, ge=1, description="street views of a region in a tuning step")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="modalities hidden in training: absent-tokens must learn"
    )
    augment: bool = Field(True, description="mirror pictures at random in training")
    counts: Literal["raw", "log1p"] = Field("raw", description="scale of trips and of POI counts")
    positives: int = Field(5, ge=1, description="positives are drawn from so many most similar")
    negatives: Literal["least", "random"] = Field(
        "least", description="the least similar of a few regions, or any other region"
    )
    candidates: int = Field(16, ge=2, description="regions of which `least` takes one")
    distance: Literal["cosine", "euclidean"] = "cosine"
    margin: float | None = Field(
        None, gt=0, description="by default 0.3, or 5 of the Euclidean distance"
    )
    epochs: int = Field(20, ge=1, description="of the triplets")
    align_epochs: int = Field(15, ge=1, description="of the fusion with the words of POIs")
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    temperature: float = Field(0.1, gt=0, description="of the contrast with the words of POIs")
    word_window: int = Field(10, ge=1)
    word_epochs: int = Field(10, ge=1)
    word_min_count: int = Field(5, ge=1, description="a rarer word is left out; a category never")

    @model_validator(mode="after")
    def _can_see(self) -> MuseClConfig:
        if not (self.satellite or self.street_views or self.pois):
            raise ValueError("at least one of satellite, street_views and pois must be true")
        for key, backbone, size in (
            ("chip_px", self.satellite_backbone, self.chip_px),
            ("view_px", self.street_view_backbone, min(self.view_px)),
        ):
            _check_size(key, backbone, size)
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.satellite else {"imagery"}
        off |= set() if self.street_views else {"street_views", "flows"}
        off |= set() if self.pois else {"poi_texts"}
        # Their counts say which satellite chips are alike.
        off |= set() if self.pois or self.satellite else {"pois"}
        seen = [(self.satellite, self.satellite_backbone)]
        seen += [(self.street_views, self.street_view_backbone)]
        return frozenset(off if (True, "towers") in seen else {*off, "towers"})

    def switches(self) -> dict[Modality, str]:
        return {"imagery": "satellite", "street_views": "street_views", "pois": "pois"}


class Tile2VecConfig(Tuned):
    backbone: Backbone = Field("small", description="resnet18 in the paper; all start from chance")
    weights: WeightsFile | None = Field(None, description="what the backbone starts from instead")
    rest: bool = Field(True, description="`backbone: towers` rest; the head alone learns")
    chip_px: int = Field(64, ge=16, description="towers have a size of their own")
    width: int = Field(128, ge=2, description="of an embedding; 512 in the paper")
    augment: bool = Field(True, description="mirror and turn chips at random in training")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="chips hidden in tuning, so that the absent-token learns"
    )
    neighbours: int = Field(8, ge=1, description="regions that are near: so many nearest ones")
    radius_m: float | None = Field(
        None, gt=0, description="and within so many metres, beyond which a region is distant"
    )
    margin: float = Field(1.0, gt=0)
    norm_weight: float = Field(0.01, ge=0, description="of the penalty on the embeddings' lengths")
    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=2, description="anchors")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _can_see(self) -> Tile2VecConfig:
        _check_size("chip_px", self.backbone, self.chip_px)
        return self

    def switched_off(self) -> frozenset[Modality]:
        return frozenset() if self.backbone == "towers" else frozenset({"towers"})


class PgSimClrConfig(Tuned):
    """`pois` and `near` switch the two views, each an encoder of its own."""

    pois: bool = Field(True, description="the view where regions alike in POIs are positives")
    near: bool = Field(True, description="the view where regions that are near are positives")
    backbone: Backbone = Field("small", description="resnet18 in the paper; all start from chance")
    weights: WeightsFile | None = Field(None, description="what the backbones start from instead")
    chip_px: int = Field(64, ge=16)
    crop: float = Field(0.08, gt=0, le=1, description="least share of a chip that a crop keeps")
    alike: int = Field(1, ge=1, description="regions most alike in POIs, one of them the positive")
    neighbours: int = Field(4, ge=1, description="nearest regions, one of them the positive")
    counts: Literal["raw", "log1p"] = Field("raw", description="scale of the POI counts")
    projection: int = Field(64, ge=2, description="width of the vectors that are contrasted")
    temperature: float = Field(0.5, gt=0)
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="chips hidden in tuning, so that the absent-token learns"
    )
    epochs: int = Field(40, ge=1, description="160 in the published code")
    batch: int = Field(128, ge=2, description="pairs of each view")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _can_see(self) -> PgSimClrConfig:
        if not (self.pois or self.near):
            raise ValueError("at least one of pois and near must be true")
        if self.backbone == "towers":
            raise ValueError("crops train the whole backbone: name one, such as small or resnet18")
        _check_size("chip_px", self.backbone, self.chip_px)
        return self

    def switched_off(self) -> frozenset[Modality]:
        return frozenset() if self.pois else frozenset({"pois"})


class Urban2VecConfig(Probed):
    pois: bool = Field(True, description="the words of POIs; false: street views alone")
    backbone: Backbone = Field("towers", description="inception_v3 in the paper")
    weights: WeightsFile | None = Field(None, description="what the backbone starts from")
    rest: bool = Field(True, description="towers rest; the head alone learns from the triplets")
    view_px: tuple[int, int] = Field(
        (72, 96), description="height and width; towers have their own"
    )
    width: int = Field(
        128, ge=2, description="of a region, a street view and a word; 200 in the paper"
    )
    augment: bool = Field(True, description="mirror street views at random in training")
    neighbours: int = Field(5, ge=1, description="nearest street views, one of them the positive")
    margin: float = Field(5.0, gt=0, description="of the triplets of street views")
    epochs: int = Field(20, ge=1, description="of street views")
    batch: int = Field(64, ge=2, description="street views, or regions with their words, in a step")
    learning_rate: float = Field(5e-4, gt=0, description="of street views")
    word_margin: float = Field(2.0, gt=0, description="of a region with its words and others")
    word_epochs: int = Field(100, ge=1)
    word_pairs: int = Field(64, ge=1, description="words that are drawn of a region in an epoch")
    word_learning_rate: float = Field(0.01, gt=0)
    word_min_count: int = Field(
        5, ge=1, description="texts that have a word; a rarer one is left out"
    )
    word_max_share: float = Field(
        0.95, gt=0, le=1, description="regions that have a word; a more common one is left out"
    )
    settle_steps: int = Field(100, ge=1, description="of a region towards its words, when embedded")
    settle_rate: float = Field(0.5, gt=0, description="length of the first of these steps")

    @model_validator(mode="after")
    def _can_see(self) -> Urban2VecConfig:
        _check_size("view_px", self.backbone, min(self.view_px))
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.pois else {"pois", "poi_texts"}
        return frozenset(off if self.backbone == "towers" else {*off, "towers"})


class AutoencoderConfig(Tuned):
    chip_px: int = Field(64, ge=16, multiple_of=16, description="chips are brought to this size")
    channels: int = Field(16, ge=1, description="of the first of four layers; each has twice more")
    width: int = Field(64, ge=1, description="of the bottleneck, which is the embedding")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="chips hidden in tuning, so that the absent-token learns"
    )
    epochs: int = Field(40, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class ReadConfig(Probed):
    graded: float = Field(0.3, gt=0, le=1, description="share of the regions that has a grade")
    built: tuple[str, ...] = Field(
        ("building", "industrial", "road"), description="segmenter's classes that are built on"
    )
    grade_quantiles: tuple[float, float] = Field(
        (1 / 3, 2 / 3), description="of the built-up share, between the three grades"
    )
    backbone: Backbone = Field("small", description="resnet18 in the paper")
    weights: WeightsFile | None = Field(None, description="what the backbone starts from")
    chip_px: int = Field(64, ge=16, description="chips are brought to this size, then cut")
    tiles: int = Field(4, ge=1, description="of a chip's side: so many tiles in square")
    augment: bool = Field(True, description="mirror and turn tiles at random in training")
    dropout: float = Field(0.2, ge=0, lt=1, description="of the features, in training")
    consistency: float = Field(1.0, ge=0, description="weight of the teacher's word")
    ramp_share: float = Field(0.3, gt=0, le=1, description="of the steps until it is whole")
    decay: float = Field(0.99, ge=0, lt=1, description="of the teacher's weights, a step")
    components: int = Field(10, ge=1, description="principal components of a tile's features")
    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _can_see(self) -> ReadConfig:
        if self.backbone == "towers":
            raise ValueError("the grades train the whole backbone: name one, such as small")
        if self.chip_px % self.tiles:
            raise ValueError("chip_px must be a multiple of tiles")
        _check_size("chip_px and tiles", self.backbone, self.chip_px // self.tiles)
        low, high = self.grade_quantiles
        if not 0 < low < high < 1:
            raise ValueError("grade_quantiles must ascend between 0 and 1")
        return self


class StreetNetConfig(MethodConfig):
    """What the baselines share that learn from labels on chips and street views; `satellite` and
    `street_views` leave either out."""

    satellite: bool = True
    street_views: bool = True
    backbone: Backbone = Field("small", description="of each kind of picture; towers rest")
    satellite_weights: WeightsFile | None = Field(None, description="what the backbone starts from")
    street_view_weights: WeightsFile | None = None
    chip_px: int = Field(64, ge=16, description="towers have a size of their own")
    view_px: tuple[int, int] = Field((72, 96), description="likewise; height and width")
    width: int = Field(64, ge=2, description="of a picture's vector")
    views_per_step: int | None = Field(
        4, ge=1, description="street views of a region in a training step; null: all"
    )
    augment: bool = Field(True, description="mirror pictures at random in training; chips turn too")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="modalities hidden in training: absent-tokens must learn"
    )
    hidden: int = Field(128, ge=0, description="width of the heads' hidden layer; 0: linear")
    epochs: int = Field(40, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    patience: int = Field(8, ge=1, description="epochs without a better validation")

    @model_validator(mode="after")
    def _can_see(self) -> StreetNetConfig:
        if not (self.satellite or self.street_views):
            raise ValueError("at least one of satellite and street_views must be true")
        _check_size("chip_px", self.backbone, self.chip_px)
        _check_size("view_px", self.backbone, min(self.view_px))
        if self.backbone == "towers" and (self.satellite_weights or self.street_view_weights):
            raise ValueError(
                "the towers bring their own weights; name a backbone, or take them out"
            )
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.satellite else {"imagery"}
        off |= set() if self.street_views else {"street_views"}
        return frozenset(off if self.backbone == "towers" else {*off, "towers"})

    def switches(self) -> dict[Modality, str]:
        return {"imagery": "satellite", "street_views": "street_views"}


class VisionLstmConfig(StreetNetConfig):
    aggregate: Literal["lstm", "mean"] = Field("lstm", description="of a region's street views")
    shuffle: bool = Field(True, description="street views come in random order in training")


class StructuralUrbanConfig(StreetNetConfig):
    neighbours: int = Field(4, ge=1, description="nearest street views that one is linked to")
    layers: int = Field(2, ge=1, description="of the graph network")
    readout: Literal["attention", "mean"] = Field("attention", description="over a region's nodes")
    near: int = Field(5, ge=1, description="nearest pictures, one of them the positive")
    projection: int = Field(64, ge=2, description="width of the vectors that are contrasted")
    temperature: float = Field(0.5, gt=0, description="of the contrast")
    contrast_epochs: int = Field(10, ge=0, description="of near pictures, before the labels")


class HourlyBins(MethodConfig):
    """How the values of an hourly target are put into bins; see `model_code.bins`."""

    n_bins: int = Field(10, ge=2)
    bins: Literal["equal_width", "quantile"] = "equal_width"


class Encoded(MethodConfig):
    """What the methods of the hourly outflow read, and by which frozen encoder of pictures: the CLIP
    `towers` of `captions`, or a convolutional backbone by name. `satellite`, `buildings`,
    `street_views` and `pois` leave modalities out."""

    satellite: bool = True
    buildings: bool = Field(True, description="maps of building heights")
    street_views: bool = True
    pois: bool = True
    encoder: Backbone = Field("towers", description="resnet152 in the paper")
    weights: WeightsFile | None = Field(None, description="of the backbone; without, it is random")
    views: int = Field(20, ge=1, description="street views of a region that are read")
    image_px: int = Field(64, ge=16, description="size of pictures for a backbone")
    tower: TowerSize = TowerSize()

    @model_validator(mode="after")
    def _reads_something(self) -> Encoded:
        if not (self.satellite or self.buildings or self.street_views or self.pois):
            raise ValueError(
                "at least one of satellite, buildings, street_views and pois must be true"
            )
        if self.encoder == "towers" and self.weights is not None:
            raise ValueError(
                "the towers bring their own weights; name a backbone, or take them out"
            )
        if self.encoder == "inception_v3" and self.image_px < 75:
            raise ValueError("inception_v3 needs pictures of 75 pixels or more; see image_px")
        return self

    def switched_off(self) -> frozenset[Modality]:
        off: set[Modality] = set() if self.satellite else {"imagery"}
        off |= set() if self.buildings else {"buildings"}
        off |= set() if self.street_views else {"street_views"}
        return frozenset(off if self.pois else {*off, "pois"})

    def switches(self) -> dict[Modality, str]:
        return {
            "imagery": "satellite",
            "buildings": "buildings",
            "street_views": "street_views",
            "pois": "pois",
        }


class LmemrConfig(HourlyBins, Encoded):
    """`semantics`, `prompt` and `intra` switch the paper's ablations of descriptions, `spatial` those
    of the graph, `inter` and `fusion` those of the fusion, `objective` those of the head."""

    semantics: bool = Field(True, description="descriptions of each modality")
    prompt: Literal["full", "lite", "shuffle"] = Field(
        "full", description="lite: told less of behaviour; shuffle: of other regions"
    )
    intra: bool = Field(True, description="contrast within a modality")
    inter: bool = Field(True, description="contrast between modalities")
    spatial: Literal["gat", "gcn", "none"] = "gat"
    fusion: Literal["transformer", "concat", "gate"] = "transformer"
    objective: Literal["both", "regression", "classification"] = "both"
    width: int = Field(256, ge=8, description="d_f, of every feature")
    heads: int = Field(4, ge=1, description="of the GAT and of both Transformers")
    blocks: int = Field(3, ge=1, description="graph blocks of a modality")
    fusion_layers: int = Field(1, ge=1)
    temporal_layers: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(0.1, gt=0, description="of all contrasts")
    alpha: float = Field(0.5, ge=0, description="weight of the classification")
    beta: float = Field(0.5, ge=0, description="weight of the regression")
    contrast_weight: float = Field(0.1, ge=0, description="lambda")
    contrast_at_once: int = Field(2048, ge=2, description="regions of one contrast")
    absent_rate: float = Field(
        0.05, gt=0, lt=1, description="modalities hidden in training: absent-tokens must learn"
    )
    batch: int | None = Field(
        None, ge=1, description="training regions in a step, on the whole graph; null: all of them"
    )
    epochs: int = Field(300, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    patience: int = Field(50, ge=1, description="epochs without a better validation")

    @model_validator(mode="after")
    def _divides(self) -> LmemrConfig:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self

    @property
    def form(self) -> str:
        """The form of description that is read."""
        return "levels_lite" if self.prompt == "lite" else "levels"

    def switched_off(self) -> frozenset[Modality]:
        off = set(super().switched_off())
        off |= set() if self.semantics else {"descriptions"}
        return frozenset(off if self.spatial != "none" else {*off, "adjacency"})


class LmemrClipConfig(LmemrConfig):
    """CLIP features alone, with LMEMR's graph and hours: no descriptions, no contrast."""

    semantics: Literal[False] = False
    intra: Literal[False] = False
    inter: Literal[False] = False
    fusion: Literal["transformer", "concat", "gate"] = "concat"
    encoder: Literal["towers"] = "towers"


class HourlyConfig(Encoded):
    components: int = Field(
        256, ge=1, description="principal components of each modality that are read"
    )


class HourlyForestConfig(HourlyConfig):
    trees: int = Field(500, ge=1)
    min_leaf: int = Field(1, ge=1, description="training regions in a leaf, at least")


class HourlySequenceConfig(HourlyConfig):
    hidden: int = Field(64, ge=8, multiple_of=4, description="width of the layers")
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(200, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    patience: int = Field(20, ge=1, description="epochs without a better validation")


TaskKind = Literal["regression", "classification", "hourly"]


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
    optional: tuple[Modality, ...] = ()
    predicts: tuple[TaskKind, ...] = ("regression", "classification", "hourly")

    def load(self) -> Method:
        """The method's code; imports torch where the method needs it."""
        method: Method = importlib.import_module(self.module).METHOD
        return method


_BASELINES = "model_code.methods.baselines"
_STATIC: tuple[Modality, ...] = ("imagery", "buildings", "street_views", "pois")

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
            "hrep", "HREP", "pretrained", ("flows", "pois", "location"), HrepConfig, f"{_BASELINES}.hrep",
            "Graphs of trips, POIs and places, a vector a relation, and losses of each.",
            optional=("pois",),
        ),
        MethodSpec(
            "mvure", "MVURE", "pretrained", ("flows", "pois"), MvureConfig, f"{_BASELINES}.mvure",
            "A graph attention a view of trips and POIs, and views that share.", optional=("pois",),
        ),
        MethodSpec(
            "remvc", "ReMVC", "pretrained", ("flows", "pois"), RemvcConfig, f"{_BASELINES}.remvc",
            "POIs and trips of a region, each against changed copies and against the other.",
        ),
        MethodSpec(
            "mgfn", "MGFN", "pretrained", ("hourly_flows",), MgfnConfig, f"{_BASELINES}.mgfn",
            "Hours of trips clustered into patterns; attention within a pattern, then between them.",
        ),
        MethodSpec(
            "vit", "ViT from scratch", "supervised", ("imagery",), VitConfig,
            f"{_BASELINES}.vit", "A small vision transformer on chips, trained on the labels alone.",
        ),
        MethodSpec(
            "urbanvlp", "UrbanVLP", "pretrained",
            ("imagery", "street_views", "chip_captions", "view_captions", "view_locations", "towers"),
            UrbanVlpConfig, "model_code.methods.urbanvlp",
            "Satellite chips, street views and their places against calibrated captions.",
            optional=("street_views", "chip_captions", "view_captions", "view_locations"),
        ),
        MethodSpec(
            "urbanmmcl", "UrbanMMCL", "pretrained",
            (
                "imagery", "street_views", "chip_captions", "view_captions", "view_locations",
                "location", "pois", "flows", "towers",
            ),
            UrbanMmclConfig, "model_code.methods.urbanmmcl",
            "Pictures, captions and places against one another; graphs of function, mobility, distance.",
            optional=(
                "imagery", "street_views", "chip_captions", "view_captions", "view_locations", "pois",
                "flows",
            ),
        ),
        MethodSpec(
            "urbanmoe", "UrbanMoE", "supervised", ("imagery", "pois", "poi_texts", "poi_descriptions", "towers"),
            UrbanMoeConfig, "model_code.methods.urbanmoe",
            "Experts of each task, of each pair of tasks and of all, on chips and on texts of POIs.",
            optional=("pois", "poi_texts", "poi_descriptions"),
        ),
        MethodSpec(
            "lmemr", "LMEMR", "supervised",
            (*_STATIC, "descriptions", "adjacency", "towers"), LmemrConfig, "model_code.methods.lmemr",
            "Four modalities with descriptions of each, on the graph of neighbours, to 24 hours.",
            optional=(*_STATIC, "descriptions"), predicts=("hourly",),
        ),
        MethodSpec(
            "lmemr_clip", "CLIP by the hour", "supervised", (*_STATIC, "adjacency", "towers"),
            LmemrClipConfig, f"{_BASELINES}.lmemr_clip",
            "CLIP features of pictures and of lists of POIs, with LMEMR's graph and hours.",
            optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "hourly_linear", "Linear regression by the hour", "supervised", (*_STATIC, "towers"),
            HourlyConfig, f"{_BASELINES}.hourly_linear",
            "Ordinary least squares from frozen features to 24 hours.",
            seeded=False, optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "hourly_forest", "Random forest by the hour", "supervised", (*_STATIC, "towers"),
            HourlyForestConfig, f"{_BASELINES}.hourly_forest",
            "A random forest from frozen features to 24 hours.",
            optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "hourly_cnn", "CNN by the hour", "supervised", (*_STATIC, "adjacency", "towers"),
            HourlySequenceConfig, f"{_BASELINES}.hourly_cnn",
            "Convolutions over the map of frozen features, to 24 hours.",
            optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "hourly_lstm", "LSTM by the hour", "supervised", (*_STATIC, "towers"),
            HourlySequenceConfig, f"{_BASELINES}.hourly_lstm",
            "A recurrent net over 24 hours of frozen features.",
            optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "hourly_transformer", "Transformer by the hour", "supervised", (*_STATIC, "towers"),
            HourlySequenceConfig, f"{_BASELINES}.hourly_transformer",
            "A Transformer over 24 hours of frozen features.",
            optional=_STATIC, predicts=("hourly",),
        ),
        MethodSpec(
            "musecl", "MuseCL", "pretrained",
            ("imagery", "street_views", "pois", "poi_texts", "flows", "towers"),
            MuseClConfig, "model_code.methods.musecl",
            "Satellite chips alike in POIs and street views alike in mobility, taught by words of POIs.",
            optional=("imagery", "street_views", "poi_texts"),
        ),
        MethodSpec(
            "urbanclip", "UrbanCLIP", "pretrained", ("imagery", "chip_captions", "towers"),
            UrbanClipConfig, f"{_BASELINES}.urbanclip", "Satellite chips against their captions.",
        ),
        MethodSpec(
            "urbanclip_sv", "UrbanCLIP-SV", "pretrained",
            ("street_views", "view_captions", "towers"),
            UrbanClipConfig, f"{_BASELINES}.urbanclip_sv", "Street views against their captions.",
        ),
        MethodSpec(
            "tile2vec", "Tile2Vec", "pretrained", ("imagery", "towers"), Tile2VecConfig,
            f"{_BASELINES}.tile2vec",
            "Satellite chips of regions that are near, nearer to each other than to distant ones.",
        ),
        MethodSpec(
            "pg_simclr", "PG-SimCLR", "pretrained", ("imagery", "pois"), PgSimClrConfig,
            f"{_BASELINES}.pg_simclr",
            "Satellite chips against those of regions alike in POIs, and against those of near ones.",
            optional=("pois",),
        ),
        MethodSpec(
            "urban2vec", "Urban2Vec", "pretrained", ("street_views", "pois", "poi_texts", "towers"),
            Urban2VecConfig, f"{_BASELINES}.urban2vec",
            "Street views nearer to near ones than to distant ones, then regions to the words of their POIs.",
            optional=("pois", "poi_texts"),
        ),
        MethodSpec(
            "autoencoder", "Autoencoder", "pretrained", ("imagery",), AutoencoderConfig,
            f"{_BASELINES}.autoencoder", "What is left of a satellite chip that is to be drawn again.",
        ),
        MethodSpec(
            "read", "READ", "pretrained", ("imagery", "shares"), ReadConfig, f"{_BASELINES}.read",
            "Tiles of satellite chips, graded by how built up they are, and their statistics.",
        ),
        MethodSpec(
            "vision_lstm", "Vision-LSTM", "supervised", ("imagery", "street_views", "towers"),
            VisionLstmConfig, f"{_BASELINES}.vision_lstm",
            "A sequence of street views beside the satellite chip, trained on the labels alone.",
            optional=("imagery",),
        ),
        MethodSpec(
            "structural_urban", "StructuralUrban", "supervised", ("imagery", "street_views", "towers"),
            StructuralUrbanConfig, f"{_BASELINES}.structural_urban",
            "A graph of the street views of a region, each fused with its satellite chip.",
            optional=("imagery",),
        ),
        MethodSpec(
            "clip_probe", "CLIP", "pretrained", ("imagery", "street_views", "towers"),
            ClipProbeConfig, f"{_BASELINES}.clip_probe",
            "Features of the CLIP towers as they come.", seeded=False, optional=("street_views",),
        ),
        MethodSpec(
            "shares", "Segmentation shares", "pretrained", ("shares",), SharesConfig,
            f"{_BASELINES}.shares",
            "Shares of what satellite chips and street views show: the control for captions.",
            seeded=False,
        ),
        MethodSpec(
            "features", "Frozen image features", "pretrained", ("image_features",), FeaturesConfig,
            f"{_BASELINES}.features",
            "Features of satellite chips and street views by the city's `image_encoder`, as they come.",
            seeded=False,
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
