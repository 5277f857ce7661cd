import numpy as np
import pandas as pd
import pytest

from model_code.evaluation.leaderboard import (
    leaderboard_rows,
    mean_ranks,
    summary,
    training_sizes,
    with_not_estimable,
)
from model_code.evaluation.metrics import score
from tests.model_code.evaluation.data import INDICATORS, assert_follows_contract, predictions

TASKS = ("flow", "income", "land_use")
CONTAINED = {"flow": ["flows"], "income": [], "land_use": ["imagery"]}


def n_train(folds=2):
    index = pd.MultiIndex.from_product([TASKS, ["random"], range(folds)])
    sizes = index.to_frame(index=False, name=["task", "split", "fold"])
    return sizes.assign(n_train=100 + sizes["fold"])


def board(method, noise, inputs, rng=0):
    variants = [
        predictions(noise=noise, variant=v, tasks=TASKS, rng=rng) for v in ("default", "small")
    ]
    return leaderboard_rows(
        score(pd.concat(variants), INDICATORS),
        city="demo",
        method=method,
        inputs={"default": inputs, "small": ["imagery"]},
        protocol={"default": "transductive", "small": "inductive"},
        captioner={"default": "template"},
        contained_in=CONTAINED,
        n_train=n_train(),
    )


def test_what_predicted_nothing_has_a_null_for_each_figure_of_the_others():
    known = score(predictions(noise=0.2, variant="default", tasks=TASKS, rng=0), INDICATORS)
    pd.testing.assert_frame_equal(with_not_estimable(known, []), known)
    scores = with_not_estimable(known, ["empty"])
    default, empty = (scores[scores["variant"] == name] for name in ("default", "empty"))
    pd.testing.assert_frame_equal(default, known)
    assert empty["value"].isna().all() and len(empty) == len(known)
    key = ["split", "task", "fold", "seed", "metric", "scale"]
    assert empty[key].to_numpy().tolist() == known[key].to_numpy().tolist()
    rows = leaderboard_rows(
        scores,
        city="demo",
        method="a",
        inputs={"default": ["imagery"], "empty": []},
        protocol={"default": "transductive", "empty": "transductive"},
        captioner={},
        contained_in=CONTAINED,
        n_train=n_train(),
    )
    assert_follows_contract("leaderboard", rows)
    told = summary(rows).set_index(["variant", "task"])
    assert told.loc["empty", ["runs"]].eq(0).all(axis=None)
    assert told.loc["empty", "rank"].isna().all() and told.loc["default", "rank"].eq(1).any()
    assert set(mean_ranks(summary(rows))["variant"]) == {"default"}


@pytest.fixture(scope="module")
def boards():
    return pd.concat([board("a", 0.2, ["flows", "imagery"]), board("b", 0.5, ["pois"], rng=1)])


def test_follows_its_contract(boards):
    rows = board("a", 0.2, ["imagery", "flows"])
    assert_follows_contract("leaderboard", rows)


def test_says_what_each_figure_rests_on(boards):
    by = boards.groupby(["method", "variant", "task"])[
        ["inputs", "protocol", "captioner", "target_in_inputs"]
    ].first()
    assert by.loc["a", "default", "flow"].tolist() == [
        "flows,imagery",
        "transductive",
        "template",
        True,
    ]
    assert by.loc["a", "small", "flow"].tolist() == ["imagery", "inductive", "", False]
    assert by["target_in_inputs"].unstack("task").loc[("a", "default")].to_dict() == {
        "flow": True,
        "income": False,
        "land_use": True,
    }
    assert not by.loc[("b", "default"), "target_in_inputs"].any()
    assert (boards["n_train"] == 100 + boards["fold"]).all()


def test_what_is_made_from_a_source_may_hold_what_the_source_holds():
    by = board("c", 0.2, ["shares"]).groupby(["variant", "task"])["target_in_inputs"].first()
    assert by["default"].to_dict() == {"flow": False, "income": False, "land_use": True}


def test_trips_by_hour_hold_what_trips_hold():
    by = board("d", 0.2, ["hourly_flows"]).groupby(["variant", "task"])["target_in_inputs"].first()
    assert by["default"].to_dict() == {"flow": True, "income": False, "land_use": False}


def test_an_indicator_that_is_not_described_is_an_error():
    with pytest.raises(KeyError, match="flow"):
        leaderboard_rows(
            score(predictions(), INDICATORS),
            city="demo",
            method="a",
            inputs={"default": ["pois"]},
            protocol={"default": "inductive"},
            captioner={},
            contained_in={"income": []},
            n_train=n_train(),
        )


def test_summary_is_the_mean_and_deviation_over_folds_and_seeds(boards):
    table = summary(boards)
    assert len(table) == 3 * 2 * 2
    assert not table.duplicated(["split", "task", "method", "variant"]).any()
    row = table[(table["task"] == "income") & (table["method"] == "b")].iloc[0]
    values = boards.query(
        "task == 'income' and method == 'b' and variant == 'default' "
        "and metric == 'mae' and scale == 'original'"
    )["value"]
    assert row["runs"] == len(values) == 4
    assert row["mae_original_mean"] == pytest.approx(values.mean())
    assert row["mae_original_sd"] == pytest.approx(np.std(values, ddof=1))
    assert row["headline"] == "r2_transformed"
    classes = table[table["task"] == "land_use"]
    assert set(classes["headline"]) == {"macro_f1_class"}
    assert classes["r2_transformed_mean"].isna().all()
    assert classes["macro_f1_class_mean"].notna().all()


def test_ranks_leave_out_methods_whose_inputs_hold_the_target(boards):
    table = summary(boards).set_index(["task", "method", "variant"])
    assert np.isnan(table.loc[("flow", "a", "default"), "rank"])
    ranked = table.loc["income"].sort_values("r2_transformed_mean", ascending=False)
    assert ranked["rank"].tolist() == [1, 1, 3, 3]  # both variants of the data are equal
    assert ranked.index.get_level_values("method").tolist() == ["a", "a", "b", "b"]

    ranks = mean_ranks(summary(boards)).set_index(["method", "variant"])
    assert ranks.loc[("a", "default"), "tasks"] == 1
    assert ranks.loc[("b", "default"), "tasks"] == 3
    expected = table.xs("b", level="method").xs("default", level="variant")["rank"].mean()
    assert ranks.loc[("b", "default"), "mean_rank"] == pytest.approx(expected)


def test_summary_skips_what_is_not_estimable_and_says_how_many_runs_are_left(boards):
    rows = boards[(boards["method"] == "a") & (boards["task"] == "income")].copy()
    rows.loc[(rows["fold"] == 0) & (rows["metric"] == "r2"), "value"] = np.nan
    row = summary(rows).iloc[0]
    assert row["runs"] == 2
    kept = rows.query("variant == 'default' and metric == 'r2' and scale == 'transformed'")["value"]
    assert row["r2_transformed_mean"] == pytest.approx(kept.dropna().mean())
    rows.loc[rows["metric"] == "r2", "value"] = np.nan
    row = summary(rows).iloc[0]
    assert row["runs"] == 0
    assert np.isnan(row["rank"])


def test_training_sizes_count_labelled_regions_once():
    splits = pd.DataFrame(
        {
            "split": "random",
            "fold": 0,
            "region_id": list("abcde"),
            "part": ["train", "train", "train", "val", "test"],
        }
    )
    targets = pd.DataFrame(
        {
            "indicator": ["flow"] * 6 + ["income"] * 2,
            "region_id": ["a", "a", "b", "b", "d", "e", "a", "e"],
            "slot": [0, 1, 0, 1, 0, 0, 0, 0],
        }
    )
    sizes = training_sizes(targets, splits)
    assert sizes.set_index("task")["n_train"].to_dict() == {"flow": 2, "income": 1}
