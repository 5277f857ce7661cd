from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from model_code import tables
from model_code.city import MethodChoice, _needs
from model_code.errors import CityloomError, DataError
from model_code.methods import (
    METHODS,
    SOURCES_OF,
    MethodConfig,
    MethodSpec,
    Modality,
    PoiConfig,
    Tuned,
    VitConfig,
    method_config,
)
from model_code.methods.base import Checkpoint, Parts, Tunable
from model_code.methods.run import (
    Fit,
    fit_checkpoint,
    fit_predictor,
    fits,
    folds,
    inputs_of,
    modalities_read,
    needs_check,
    not_estimable,
    own_targets,
    parts_for,
    predict,
    prediction_rows,
    protocol,
    targets_for,
    variant_configs,
    variant_name,
    visible_for,
)
from model_code.training import seeded, state_arrays
from tests.model_code.methods.fake_city import fake_city

IDS = ["b", "a", "c", "d", "e"]


@pytest.fixture
def splits() -> pd.DataFrame:
    rows = [
        (split, fold, region, part)
        for split, fold in (("spatial", 1), ("random", 0), ("spatial", 0))
        for region, part in zip("abcde", ["train", "train", "train", "val", "test"], strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["split", "fold", "region_id", "part"])
    last = (frame["split"] == "spatial") & (frame["fold"] == 1) & (frame["region_id"] == "a")
    return frame[~last]


# --- which fits ----------------------------------------------------------------------------------


def test_a_transductive_method_is_fitted_once_and_others_by_fold(splits: pd.DataFrame) -> None:
    every = [("random", 0), ("spatial", 0), ("spatial", 1)]
    assert folds(splits) == every
    poi, vit = METHODS["poi"], METHODS["vit"]
    assert fits(poi, PoiConfig(), splits) == [Fit("default", "all", -1)]
    by_fold = [Fit("x", *fold) for fold in every]
    assert fits(poi, PoiConfig(inductive=True), splits, "x") == by_fold
    assert fits(vit, VitConfig(), splits, "x") == by_fold
    assert protocol(poi, PoiConfig()) == "transductive"
    assert protocol(poi, PoiConfig(inductive=True)) == "inductive"
    assert protocol(vit, VitConfig()) == "supervised"


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("lmemr", {}, "supervised, transductive"),
        ("lmemr", {"spatial": "gcn"}, "supervised, transductive"),
        ("lmemr", {"spatial": "none"}, "supervised"),
        ("lmemr_clip", {}, "supervised, transductive"),
        ("hourly_cnn", {}, "supervised, transductive"),
        ("hourly_transformer", {}, "supervised"),
    ],
)
def test_who_reads_borders_sees_the_inputs_of_test_regions(
    splits: pd.DataFrame, name: str, changes: dict[str, Any], expected: str
) -> None:
    config = method_config(name, changes)
    assert protocol(METHODS[name], config) == expected
    (column,) = (c for c in tables.contract("leaderboard").columns if c.name == "protocol")
    assert expected in column.choices
    assert len(fits(METHODS[name], config, splits)) == 3  # one a fold: labels are read


def test_variants_change_the_overrides_of_the_city() -> None:
    configs = variant_configs("vit", {"depth": 2, "epochs": 5}, {"deep": {"depth": 4}})
    assert configs == {
        "default": VitConfig(depth=2, epochs=5), "deep": VitConfig(depth=4, epochs=5),
    }  # fmt: skip


# --- whether it can run --------------------------------------------------------------------------

TWO = MethodSpec("two", "Two", "pretrained", ("imagery", "flows", "location"), Tuned, "none", "")


def check(
    spec: MethodSpec,
    city: str,
    coverage: dict[str, float],
    available: Collection[str],
    floor: float,
    configs: dict[str, MethodConfig] | None = None,
) -> tuple[Modality, ...]:
    """Without `configs` of the method as it is."""
    return needs_check(
        spec, city, coverage, available, floor, configs or {"default": spec.config()}
    )


def test_a_city_reads_what_any_variant_of_its_methods_reads() -> None:
    silent = MethodChoice(config={"text": False})
    read = modalities_read({"urbanmmcl": silent, "poi": MethodChoice()})
    assert {"imagery", "flows", "pois"} <= read
    assert not read & {"chip_captions", "view_captions"}
    told = MethodChoice(config={"text": False}, variants={"told": {"text": True}})
    assert {"chip_captions", "view_captions"} <= modalities_read({"urbanmmcl": told})


def test_a_missing_modality_names_method_city_and_key() -> None:
    with pytest.raises(CityloomError) as caught:
        check(TWO, "nowhere", {"imagery": 1.0}, {"imagery"}, 0.2)
    for word in ("'two'", "'nowhere'", "flows", "`sources.od` or `sources.trips`", "methods.two"):
        assert word in str(caught.value)
    assert "imagery" not in str(caught.value)


def test_a_city_of_a_ready_matrix_has_no_hours() -> None:
    for shares, there in (({}, set()), ({"hourly_flows": 0.0}, {"hourly_flows"})):
        with pytest.raises(CityloomError) as caught:
            check(METHODS["mgfn"], "nowhere", shares, there, 0.2)
        for word in ("'mgfn'", "'nowhere'", "hourly_flows", "`sources.trips`", "methods.mgfn"):
            assert word in str(caught.value)


def test_a_thin_modality_is_left_out_and_the_name_says_so() -> None:
    both = {"imagery", "flows"}
    assert check(TWO, "x", {"imagery": 1.0, "flows": 0.2}, both, 0.2) == ()
    thin = check(TWO, "x", {"imagery": 1.0, "flows": 0.19}, both, 0.2)
    assert thin == ("flows",)
    assert variant_name("default", thin) == "default_without_flows"
    assert variant_name("default", ()) == "default"
    gone = ("street_views", "view_captions", "chip_captions", "view_locations")
    assert variant_name("v", gone) == "v_without_street_views_without_chip_captions"


def test_a_method_without_another_input_refuses_a_thin_one() -> None:
    with pytest.raises(CityloomError, match=r"(?s)'poi'.*sources\.pois.*5%.*20%.*min_modality_sh"):
        check(METHODS["poi"], "x", {"pois": 0.05}, {"pois"}, 0.2)
    assert check(METHODS["location"], "x", {}, set(), 0.2) == ()


def test_what_a_method_can_do_without_is_left_out_where_the_city_lacks_it() -> None:
    spec = METHODS["urbanvlp"]
    streets = ("street_views", "view_captions", "view_locations")
    every = {"imagery": 1.0, "chip_captions": 0.9} | dict.fromkeys(streets, 0.5)
    assert check(spec, "x", every, set(every), 0.2) == ()  # towers come from no source
    satellite = {"imagery": 1.0, "chip_captions": 0.9}
    assert check(spec, "x", satellite, set(satellite), 0.2) == streets
    assert variant_name("default", streets[:1]) == "default_without_street_views"
    with pytest.raises(CityloomError, match=r"(?s)needs imagery.*sources\.imagery"):
        check(spec, "x", dict.fromkeys(streets, 1.0), set(streets), 0.2)
    thin = dict.fromkeys(every, 0.1)
    with pytest.raises(CityloomError, match="below the floor"):
        check(spec, "x", thin, set(thin), 0.2)


def configs_of(method: str, **by_variant: dict[str, object]) -> dict[str, MethodConfig]:
    return {name: method_config(method, changes) for name, changes in by_variant.items()}


@pytest.mark.parametrize(
    ("method", "changes", "there", "lacked"),
    [
        ("musecl", {"street_views": False}, ("imagery", "pois", "poi_texts"), "flows"),
        ("urbanmoe", {"image": False}, ("pois", "poi_texts"), "imagery"),
    ],
)
def test_what_no_variant_reads_is_not_asked_for(
    method: str, changes: dict[str, object], there: tuple[str, ...], lacked: str
) -> None:
    spec, shares = METHODS[method], dict.fromkeys(there, 1.0)
    one = configs_of(method, default=changes)
    assert check(spec, "x", shares, there, 0.2, one) == ()
    assert _needs(method, {"config": changes}) == [m for m in spec.needs if m in {*there, "towers"}]
    for variants in (None, one | configs_of(method, whole={})):  # another variant does read it
        with pytest.raises(CityloomError, match=f"needs {lacked}"):
            check(spec, "x", shares, there, 0.2, variants)


@pytest.mark.parametrize(
    ("method", "alone", "thin"),
    [
        ("musecl", {"satellite": False, "pois": False}, ("street_views",)),
        ("urbanmoe", {"text": False}, ("imagery",)),
        ("urbanmoe", {"image": False, "text_from": "descriptions"}, ("poi_descriptions",)),
        ("urbanvlp", {"satellite": False, "location": False}, ("street_views",)),
        ("urbanmmcl", {"satellite": False, "location": False, "alpha": 0}, ("street_views",)),
        ("clip_probe", {"street_views": False}, ("imagery",)),
        ("vision_lstm", {"satellite": False}, ("street_views",)),
        ("hourly_cnn", {"satellite": False, "buildings": False, "street_views": False}, ("pois",)),
    ],
)
def test_a_variant_of_which_nothing_is_left_is_not_estimable(
    method: str, alone: dict[str, object], thin: tuple[Modality, ...]
) -> None:
    spec = METHODS[method]
    shares = dict.fromkeys(spec.needs, 1.0) | dict.fromkeys(thin, 0.03)
    default = configs_of(method, default={k: v for k, v in alone.items() if k == "text_from"})
    both = default | configs_of(method, alone=alone)
    assert check(spec, "x", shares, spec.needs, 0.2, both) == thin
    assert not_estimable(both, thin) == {"alone"}
    assert not_estimable(both, ()) == set()
    with pytest.raises(CityloomError) as caught:  # as the method itself it is refused
        check(spec, "x", shares, spec.needs, 0.2, configs_of(method, default=alone))
    missing = f"{thin[0]} (`sources.{SOURCES_OF[thin[0]][0]}`) reaches 3%"
    for word in (f"method {method!r}", missing, "floor of 20%", f"`methods.{method}"):
        assert word in str(caught.value)
    assert "`min_modality_share`" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "thin", "read"),
    [
        ({"beta": 0}, {"imagery"}, {"street_views", "view_captions", "view_locations"}),
        ({"alpha": 0}, {"street_views"}, {"imagery", "view_locations"}),
        ({}, {"street_views", "view_locations"}, {"imagery", "chip_captions"}),
        ({}, {"imagery"}, {"street_views", "view_captions", "view_locations"}),
    ],
)
def test_inputs_of_urbanvlp_are_what_its_contrasts_read_where_a_view_is_thin(
    changes: dict[str, object], thin: set[str], read: set[str]
) -> None:
    spec = METHODS["urbanvlp"]
    (config,) = configs_of("urbanvlp", default=changes).values()
    assert set(inputs_of(spec, config, thin)) == read
    shares = {m: 0.03 if m in thin else 1.0 for m in spec.needs}
    assert set(check(spec, "x", shares, spec.needs, 0.2, {"default": config})) == thin


# --- from tables ---------------------------------------------------------------------------------


def test_parts_follow_the_order_of_the_regions(splits: pd.DataFrame) -> None:
    parts = parts_for(splits, IDS, "spatial", 1)
    np.testing.assert_array_equal(parts.train, [True, False, True, False, False])
    np.testing.assert_array_equal(parts.val, [False, False, False, True, False])
    np.testing.assert_array_equal(parts.test, [False, False, False, False, True])
    with pytest.raises(DataError, match="no fold 7"):
        parts_for(splits, IDS, "spatial", 7)


def test_only_an_inductive_fit_leaves_the_test_regions_out(splits: pd.DataFrame) -> None:
    parts = parts_for(splits, IDS, "random", 0)
    assert visible_for(PoiConfig(), parts, 5).all()
    assert visible_for(PoiConfig(inductive=True), None, 5).all()
    np.testing.assert_array_equal(visible_for(PoiConfig(inductive=True), parts, 5), ~parts.test)


@pytest.fixture
def indicators() -> pd.DataFrame:
    rows = [
        ("use", "classification", "none", ["home", "work"]),
        ("crime", "regression", "log1p", []),
        ("outflow", "hourly", "log1p", []),
    ]
    return pd.DataFrame(rows, columns=["indicator", "kind", "transform", "classes"])


@pytest.fixture
def labels() -> pd.DataFrame:
    rows = [("crime", "a", 0, 9.0), ("crime", "e", 0, 99.0), ("use", "e", 0, 1.0)]
    rows += [("outflow", "e", hour, float(hour)) for hour in range(1, 24)]
    return pd.DataFrame(rows, columns=["indicator", "region_id", "slot", "value"])


def test_targets_are_transformed_and_a_missing_label_is_nan(
    labels: pd.DataFrame, indicators: pd.DataFrame
) -> None:
    targets = targets_for(labels, indicators, IDS)
    assert [(t.name, t.slots, t.classes) for t in targets.tasks] == [
        ("crime", 1, ()), ("outflow", 24, ()), ("use", 1, ("home", "work")),
    ]  # fmt: skip
    np.testing.assert_array_equal(
        targets.values["crime"][:, 0], [np.nan, np.log(10), np.nan, np.nan, np.log(100)]
    )
    np.testing.assert_array_equal(targets.values["outflow"][4, 1:], np.log1p(np.arange(1, 24)))
    assert np.isnan(targets.values["outflow"][4, 0]) and np.isnan(targets.values["use"][:4]).all()
    assert targets.values["use"][4, 0] == 1.0


def test_prediction_rows_follow_the_contract(
    labels: pd.DataFrame, indicators: pd.DataFrame, splits: pd.DataFrame
) -> None:
    targets = targets_for(labels, indicators, IDS)
    parts = parts_for(splits, IDS, "random", 0)
    predicted = {t.name: np.full((5, t.slots), 1.0) for t in targets.tasks}
    frame = prediction_rows(predicted, targets, parts, IDS, Fit("default", "random", 0), 3)
    contract = tables.contract("predictions")
    assert frame.columns.tolist() == contract.names()
    kinds = {c.name: c.kind for c in contract.columns if c.kind != "string"}
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    assert frame.equals(frame.sort_values(list(contract.key), ignore_index=True))
    assert not frame.duplicated(list(contract.key)).any()
    assert len(frame) == 1 + 23 + 1  # labelled slots of the one test region
    crime = frame.set_index("task").loc["crime"]
    assert crime["y_true_original"] == pytest.approx(99)
    assert crime["y_pred_original"] == pytest.approx(np.e - 1)
    assert frame.set_index("task").loc["use", "y_true_original"] == 1.0


# --- a method whose encoder is trained on ---------------------------------------------------------


class CountEncoder(nn.Module):
    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        self.width = 4
        self.layer = nn.Linear(counts.shape[1], 4)
        self.register_buffer("counts", torch.from_numpy(np.log1p(counts)), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.layer(self.counts[index])


class Counts:
    def pretrain(self, data, config, *, seed, visible, workspace=None) -> Checkpoint:
        with seeded(seed):
            return Checkpoint(state_arrays(self.encoder(data, config)))

    def embed(self, checkpoint, data, config) -> np.ndarray:
        return np.log1p(data.poi_counts)

    def encoder(self, data, config, visible=None) -> nn.Module:
        return CountEncoder(data.poi_counts)


METHOD = Counts()


@pytest.fixture
def tunable() -> Iterator[MethodSpec]:
    yield MethodSpec("counts", "Counts", "pretrained", ("pois",), Tuned, __name__, "")


@pytest.mark.parametrize("mode", ["probe", "finetune", "end_to_end", "scratch"])
def test_all_modes_of_a_tunable_method(tunable: MethodSpec, mode: str) -> None:
    assert isinstance(METHOD, Tunable)
    data, targets, parts = fake_city()
    config = Tuned(mode=mode, tuning={"epochs": 2, "hidden": 3, "learning_rate": 0.01})
    checkpoint = fit_checkpoint(tunable, config, data, seed=0)
    rows = METHOD.embed(checkpoint, data, config)
    predictor = fit_predictor(
        tunable, config, checkpoint, rows, seed=1, targets=targets, parts=parts, data=data
    )
    assert predictor.record["head"] == ("ridge" if mode == "probe" else "mlp")
    predicted = predict(tunable, config, predictor, rows, data)
    assert predicted["outflow"].shape == (60, 24)
    if mode == "finetune":
        tuned = predictor.tensors["encoder.layer.weight"]
        step = np.abs(tuned - checkpoint.tensors["layer.weight"]).max()
        assert 0 < step < 1e-3


def test_a_supervised_fit_needs_labels_in_training() -> None:
    data, targets, parts = fake_city()
    none = Parts(np.zeros_like(parts.train), parts.val, parts.test)
    with pytest.raises(DataError, match="no label"):
        fit_checkpoint(METHODS["vit"], VitConfig(), data, seed=0, targets=targets, parts=none)


def test_inputs_are_what_a_variant_reads_and_the_city_has():
    spec = METHODS["urbanvlp"]
    assert "towers" not in inputs_of(spec, method_config("urbanvlp", {}))
    plain = inputs_of(spec, method_config("urbanvlp", {"text": False, "location": False}))
    assert plain == ("imagery", "street_views")
    thin = inputs_of(spec, method_config("urbanvlp", {}), ("street_views", "view_captions"))
    assert thin == ("imagery", "chip_captions", "view_locations")
    assert inputs_of(METHODS["poi"], method_config("poi", {})) == ("pois",)


def test_what_is_read_only_with_another_modality_falls_away_with_it() -> None:
    spec, whole = METHODS["musecl"], method_config("musecl", {})
    assert "flows" in inputs_of(spec, whole)
    # Trips say which street views are alike.
    assert inputs_of(spec, whole, ("street_views",)) == ("imagery", "pois", "poi_texts")
    wordless = method_config("musecl", {"pois": False})
    assert inputs_of(spec, wordless, ("imagery",)) == ("street_views", "flows")
    assert inputs_of(spec, wordless, ("flows",)) == ("imagery", "street_views", "pois")


# --- methods of some kinds of target -------------------------------------------------------------


def test_a_method_is_given_the_targets_of_its_kinds_alone() -> None:
    _, targets, parts = fake_city(20)
    hourly, every = METHODS["lmemr"], METHODS["vit"]
    assert [task.name for task in own_targets(hourly, targets).tasks] == ["outflow"]
    assert own_targets(every, targets).tasks == targets.tasks
    others = replace(targets, tasks=targets.tasks[:3])
    with pytest.raises(DataError, match="predicts hourly indicators"):
        own_targets(hourly, others)
    flows = {"outflow": np.zeros((20, 24))}
    ids = np.array([f"r{i}" for i in range(20)])
    rows = prediction_rows(flows, targets, parts, ids, Fit("default", "random", 0), 0)
    assert set(rows["task"]) == {"outflow"}  # the others are not predicted


def test_borders_and_weights_are_no_input_and_cannot_be_all_that_is_left() -> None:
    spec = METHODS["lmemr"]
    assert set(inputs_of(spec, method_config("lmemr", {}))) == {
        "imagery", "buildings", "street_views", "pois", "descriptions",
    }  # fmt: skip
    with pytest.raises(CityloomError, match="below the floor"):
        check(spec, "town", {}, spec.needs, 0.2)
