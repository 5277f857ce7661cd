import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import Splits
from model_code.errors import DataError
from model_code.evaluation.splits import make_splits
from tests.model_code.evaluation.data import assert_follows_contract


def make_regions(count, rng=0, extent_m=10_000.0):
    generator = np.random.default_rng(rng)
    x, y = generator.uniform(-extent_m, extent_m, (2, count))
    return pd.DataFrame({"region_id": [f"r{i}" for i in range(count)], "x_m": x, "y_m": y})


def config(seed=0, random=None, spatial=None):
    return Splits.model_validate({"seed": seed, "random": random or {}, "spatial": spatial})


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(5, 200),
    train=st.floats(0.3, 0.6),
    val=st.floats(0.1, 0.2),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
)
def test_random_parts_have_the_rounded_sizes(count, train, val, repeats, seed):
    shares = {"train": train, "val": val, "repeats": repeats}
    try:
        splits = make_splits(make_regions(count), config(seed, shares))
    except DataError:
        assert count * val < 0.5  # only then can a part be empty
        return
    sizes = splits.groupby(["fold", "part"]).size().unstack()
    assert len(sizes) == repeats
    assert (sizes.sum(axis=1) == count).all()
    assert (abs(sizes["train"] - count * train) <= 0.5 + 1e-9).all()
    assert (abs(sizes["val"] - count * val) <= 0.5 + 1e-9).all()
    assert (sizes >= 1).all(axis=None)
    assert not splits.duplicated(["fold", "region_id"]).any()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(30, 200),
    block_m=st.floats(1000, 6000),
    folds=st.integers(3, 5),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
)
def test_spatial_folds_hold_whole_blocks_and_test_each_region_once(
    count, block_m, folds, repeats, seed
):
    regions = make_regions(count, rng=seed % 1000)
    spatial = {"block_m": block_m, "folds": folds, "repeats": repeats}
    splits = make_splits(regions, config(seed, spatial=spatial))
    splits = splits[splits["split"] == "spatial"]

    assert sorted(splits["fold"].unique()) == list(range(folds * repeats))
    assert (splits.groupby("fold")["region_id"].nunique() == count).all()
    assert len(splits) == folds * repeats * count
    assert (splits.groupby("fold")["part"].nunique() == 3).all()
    assert (splits.groupby(["fold", "block"])["part"].nunique() == 1).all()

    repeat = splits["fold"] // folds
    tested = splits[splits["part"] == "test"].groupby([repeat, "region_id"]).size()
    assert len(tested) == repeats * count
    assert (tested == 1).all()

    # The validation regions of a fold are the test regions of the next.
    part = splits.set_index(["fold", "region_id"])["part"].unstack()
    for fold in range(folds * repeats):
        following = fold // folds * folds + (fold + 1) % folds
        assert ((part.loc[fold] == "val") == (part.loc[following] == "test")).all()

    placed = splits.merge(regions, on="region_id").groupby(["fold", "block"])[["x_m", "y_m"]]
    assert ((placed.max() - placed.min()) < block_m).all(axis=None)


def test_blocks_of_unequal_size_are_dealt_evenly():
    regions = make_regions(2000)
    regions["x_m"] = np.sign(regions["x_m"]) * regions["x_m"].abs() ** 2 / 10_000  # a dense middle
    splits = make_splits(regions, config(spatial={"block_m": 1000, "folds": 5}))
    tested = splits[(splits["split"] == "spatial") & (splits["part"] == "test")]
    assert tested.groupby("block").size().max() > 20
    sizes = tested.groupby("fold").size().reindex(range(5), fill_value=0)
    assert sizes.max() - sizes.min() <= 2


def test_each_repeat_has_other_blocks():
    spatial = {"block_m": 3000, "folds": 3, "repeats": 2}
    splits = make_splits(make_regions(300), config(spatial=spatial))
    blocks = splits[splits["split"] == "spatial"].set_index(["fold", "region_id"])["block"]
    together = [
        blocks[fold].to_numpy()[:, None] == blocks[fold].to_numpy()[None] for fold in (0, 1, 3)
    ]
    assert (together[0] == together[1]).all()
    assert (together[0] != together[2]).any()


def test_independent_of_the_order_of_rows_and_of_the_other_split():
    regions = make_regions(80)
    spatial = {"block_m": 3000, "folds": 4, "repeats": 2}
    splits = make_splits(regions, config(spatial=spatial))
    shuffled = regions.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(splits, make_splits(shuffled, config(spatial=spatial)))
    alone = make_splits(regions, config())
    pd.testing.assert_frame_equal(splits[splits["split"] == "random"], alone)
    assert not splits.equals(make_splits(regions, config(seed=1, spatial=spatial)))


def test_follows_its_contract():
    splits = make_splits(make_regions(60), config(spatial={"block_m": 3000}))
    assert_follows_contract("splits", splits)
    assert set(splits.loc[splits["split"] == "random", "block"]) == {""}


@pytest.mark.parametrize(
    ("regions", "chosen", "named"),
    [
        (make_regions(2), config(), "splits.random"),
        (make_regions(30), config(spatial={"block_m": 1e6, "folds": 5}), "splits.spatial.block_m"),
        (make_regions(9).assign(region_id="same"), config(), "not unique"),
        (make_regions(9).assign(x_m=np.nan), config(), "x_m"),
    ],
)
def test_impossible_splits_say_what_to_change(regions, chosen, named):
    with pytest.raises(DataError, match=named):
        make_splits(regions, chosen)
