"""What a method is given, what it gives back, and the two kinds of it.

Only numpy here: the same objects serve a laptop with the geo packages and a GPU machine with
nothing but torch. N regions, M street views, P parts of a checkpoint, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.methods import MethodConfig

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class HourlyFlows:
    """Trips by the local hour of their start, as quadruples.

    Shapes: origin, destination [F] int; hour [F] int, 0 to 23; count [F] float.
    """

    origin: NDArray[np.int64]
    destination: NDArray[np.int64]
    hour: NDArray[np.int64]
    count: Floats


@dataclass(frozen=True)
class RegionData:
    """The inputs of a city in region order; a modality that was not asked for is None.

    Shapes:
        region_ids [N] str, lonlat_deg [N, 2], xy_m [N, 2], area_km2 [N];
        chips [N, H, W, C] uint8 with chip_present [N] bool (False: no valid image);
        views [M, H, W, 3] uint8 with view_region [M] int (index of its region) and view_lonlat [M, 2];
        poi_counts [N, K] float32 with poi_categories [K];
        poi_names [S1] and poi_comments [S2] str, what POIs are called and what is said of them, with
        poi_name_region [S1] and poi_comment_region [S2] int (index of the region), and
        poi_name_category [S1] and poi_comment_category [S2] str (category of the POI);
        poi_descriptions [N] str, what was written of a region from its POIs (empty: nothing);
        flow_origin, flow_destination [F] int and flow_count [F] float: the origin-destination
        matrix as triples, all hours summed;
        hourly_flows: trips by hour, of a city that gives trips with their times;
        heights [N, H, W] float32 metres (NaN: no height known), height_present [N] bool;
        chip_texts [N] and view_texts [M] captions (empty: none), chip_text_kept [N] and
        view_text_kept [M] bool (False: calibration rejects the caption); chip_first_texts [N] and
        view_first_texts [M] the captions as they were before calibration;
        chip_shares [N, K1] and view_shares [M, K2] float32 pixel shares of segmentation classes (a
        row of NaN: not applicable), with chip_classes [K1] as the satellite segmenter names them;
        chip_features [N, D] and view_features [M, D] float32 of a frozen encoder (a row of NaN: no
        picture);
        view_location_features [M, 512] float32 of the places of the views, by GeoCLIP;
        descriptions: by (form, modality) vectors [N, D] of what was said of each region (a row of NaN:
        nothing), see `text.levels`;
        neighbours [E, 2] int: pairs of regions that share a border, both ways;
        towers: by view (`satellite`, `street_view`) the CLIP weights that encoders start from;
        memo: what was computed from these data alone and is dear, such as frozen features.
    """

    region_ids: NDArray[np.str_]
    lonlat_deg: Floats
    xy_m: Floats
    area_km2: Floats
    chips: NDArray[np.uint8] | None = None
    chip_present: Mask | None = None
    views: NDArray[np.uint8] | None = None
    view_region: NDArray[np.int64] | None = None
    view_lonlat: Floats | None = None
    poi_counts: Floats | None = None
    poi_categories: tuple[str, ...] = ()
    poi_names: NDArray[np.str_] | None = None
    poi_name_region: NDArray[np.int64] | None = None
    poi_name_category: NDArray[np.str_] | None = None
    poi_comments: NDArray[np.str_] | None = None
    poi_comment_region: NDArray[np.int64] | None = None
    poi_comment_category: NDArray[np.str_] | None = None
    poi_descriptions: NDArray[np.str_] | None = None
    flow_origin: NDArray[np.int64] | None = None
    flow_destination: NDArray[np.int64] | None = None
    flow_count: Floats | None = None
    hourly_flows: HourlyFlows | None = None
    heights: Floats | None = None
    height_present: Mask | None = None
    chip_texts: NDArray[np.str_] | None = None
    chip_text_kept: Mask | None = None
    chip_first_texts: NDArray[np.str_] | None = None
    view_texts: NDArray[np.str_] | None = None
    view_text_kept: Mask | None = None
    view_first_texts: NDArray[np.str_] | None = None
    chip_shares: Floats | None = None
    chip_classes: tuple[str, ...] = ()
    view_shares: Floats | None = None
    chip_features: Floats | None = None
    view_features: Floats | None = None
    view_location_features: Floats | None = None
    descriptions: dict[tuple[str, str], Floats] | None = None
    neighbours: NDArray[np.int64] | None = None
    towers: dict[str, Checkpoint] | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.region_ids)


@dataclass(frozen=True)
class Task:
    """One target: `slots` is 1, or 24 for an hourly one; `classes` only for a classification."""

    name: str
    kind: Literal["regression", "classification", "hourly"]
    transform: Literal["none", "log1p"] = "none"
    slots: int = 1
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Targets:
    """Labels on the transformed scale: values[task] is [N, slots], NaN where the label is missing;
    the code of a class for a classification."""

    tasks: tuple[Task, ...]
    values: dict[str, Floats]


@dataclass(frozen=True)
class Parts:
    """Who trains, validates and tests in one fold: three masks [N]."""

    train: Mask
    val: Mask
    test: Mask


@dataclass(frozen=True)
class Checkpoint:
    """Fitted numbers by name, and a JSON-able record of what they are. No pickle, ever."""

    tensors: dict[str, NDArray[Any]]
    record: dict[str, Any] = field(default_factory=dict)


def of_regions(data: RegionData) -> dict[str, Any]:
    """What the record of a checkpoint says of a city whose regions it knows one by one."""
    ids = "\n".join(map(str, data.region_ids)).encode()
    return {"regions": len(data), "region_ids_sha256": sha256(ids).hexdigest()}


def must_be_of_regions(checkpoint: Checkpoint, data: RegionData, method: str, why: str) -> None:
    """Nothing, if the checkpoint is of these regions; `why` tells of its method what makes that matter.

    Raises:
        DataError: it was fitted on other regions, or does not say on which.
    """
    fitted, now = checkpoint.record, of_regions(data)
    if any(fitted.get(key) != value for key, value in now.items()):
        number = fitted.get("regions", "other")
        others = " others" if number == len(data) else ""
        raise DataError(
            f"{method} was fitted on {number} regions and cannot embed {len(data)}{others}: {why}",
            fix="fit it on the city that it embeds",
        )


@dataclass(frozen=True)
class Workspace:
    """Where a fit says how far it is (`progress`, a line at a time), and the folder of its own in
    which it keeps what it needs to go on after a kill (`resume`)."""

    progress: Callable[[str], None] | None = None
    resume: Path | None = None


NOWHERE = Workspace()


@runtime_checkable
class Pretrained(Protocol):
    """Fitted without labels; heads come after."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        """Fit on the `visible` regions [N] (all of them unless the config says `inductive`); what
        the others hold changes nothing."""

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        """Embeddings of all regions, float32 [N, D]; a region's row never depends on who else is
        embedded with it."""


@runtime_checkable
class Tunable(Pretrained, Protocol):
    """A pretrained method whose encoder can be trained on with labels."""

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> nn.Module:
        """A freshly initialised `model_code.finetuning.RegionEncoder`; its state takes the tensors
        of `pretrain`'s checkpoint. What it takes from the data (scales, graphs, words) is of the
        `visible` regions [N], or of all."""


@runtime_checkable
class Adaptable(Pretrained, Protocol):
    """A pretrained method that has parts of one city alone."""

    def adapt(
        self,
        checkpoint: Checkpoint,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        """The checkpoint of another city with those parts made anew for this one, without labels; all
        regions of this one are seen."""


@runtime_checkable
class Supervised(Protocol):
    """Fitted jointly on its own tasks, for one fold."""

    def fit(
        self,
        data: RegionData,
        targets: Targets,
        parts: Parts,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        """Fit on the training regions, choose on the validation regions; test labels are not read."""

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        """Embeddings of all regions, float32 [N, D]."""

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        """By task, predictions of all regions on the transformed scale: [N, slots], or the codes of
        the classes [N, 1]."""


Method = Pretrained | Supervised
