import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from model_code.report import experts, figures, palette
from tests.model_code.report.sample import EVIL, ablation_rows, city, expert_records, transfer_rows

RANDOM = np.random.default_rng(0)


def _triplets(tables: Any, count: int = 3) -> pd.DataFrame:
    """The table `musecl_triplets` from the sample's chips and street views."""
    parts = []
    for view, rows in (("satellite", tables.chips), ("street_view", tables.views)):
        some = np.resize(np.arange(len(rows)), 3 * count)
        own = rows.iloc[some][["region_id", "pixels", "height_px", "width_px"]]
        roles = np.tile(["anchor", "positive", "negative"], count)
        alike = np.tile([np.nan, 0.25, 0.003], count)
        numbers = np.repeat(np.arange(count), 3)
        parts.append(own.assign(view=view, triplet=numbers, role=roles, similarity=alike))
    return pd.concat(parts, ignore_index=True)


DRAWINGS: dict[str, Callable[[Any], bytes]] = {
    "partition": lambda c: figures.partition_map(c.regions),
    "adjacency": lambda c: figures.partition_map(c.regions, c.adjacency),
    "points": lambda c: figures.points_map(c.regions, c.regions["x_m"], c.regions["y_m"]),
    "density": lambda c: figures.points_map(
        c.regions, *np.random.default_rng(0).normal([[590e3], [4515e3]], 2e3, (2, 9000))
    ),
    "chips": lambda c: figures.chip_sheet(c.chips),
    "views": lambda c: figures.view_sheet(c.views),
    "heights": lambda c: figures.height_sheet(c.heights),
    "triplets": lambda c: figures.triplet_sheet(_triplets(c)),
    "flows": lambda c: figures.flow_map(c.flows, c.regions),
    "numbers": lambda c: figures.choropleth(c.regions, _target(c, "population"), "P", log=True),
    "classes": lambda c: figures.choropleth(
        c.regions, _target(c, "land_use"), "L", categorical=True, classes=["a", "$b$", "c", EVIL]
    ),
    "scatter": lambda c: figures.true_vs_predicted(c.predictions["poi"], classes=["land_use"]),
    "errors": lambda c: figures.error_map(c.regions, c.predictions["poi"], classes=["land_use"]),
    "leaderboard": lambda c: figures.leaderboard_heatmap(c.summary),
    "splits": lambda c: figures.split_map(c.regions, c.splits),
    "embeddings": lambda c: figures.embedding_scatter(c.embedding_maps["poi"], c.regions),
    "rejected": lambda c: figures.rejected_bars(c.rejected),
    "hours": lambda c: figures.hour_profile(c.mobility),
}


def _target(tables: Any, name: str) -> pd.Series:
    rows = tables.targets[tables.targets["indicator"] == name]
    return rows.set_index("region_id")["value"]


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_picture_can_be_drawn(name: str) -> None:
    png = DRAWINGS[name](city(3, 4))
    assert png.startswith(b"\x89PNG") and len(png) <= figures.MAX_BYTES
    assert len(np.unique(_pixels(png).reshape(-1, 3), axis=0)) > 5


@pytest.mark.parametrize("name", ["flows", "scatter", "embeddings", "rejected"])
def test_pictures_are_the_same_whatever_the_users_settings(name: str) -> None:
    first = DRAWINGS[name](city(3, 4))
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "figure.dpi": 300}):
        assert DRAWINGS[name](city(3, 4)) == first


@pytest.mark.parametrize("name", ["views", "flows", "errors"])
def test_pictures_of_a_whole_city_are_small(name: str) -> None:
    assert len(DRAWINGS[name](city())) <= figures.MAX_BYTES


def test_missing_values_are_hatched_and_never_zero() -> None:
    tables = city()
    whole = _target(tables, "population")
    half = whole.iloc[: len(whole) // 2]
    zeros = whole.where(whole.index.isin(half.index), 0.0)
    drawn = {
        name: _count(figures.choropleth(tables.regions, values, "P"), palette.MISSING)
        for name, values in {"whole": whole, "half": half, "zeros": zeros}.items()
    }
    assert max(drawn["whole"], drawn["zeros"]) < 100  # blended edges
    assert drawn["half"] > 20_000
    nan = whole.where(whole.index.isin(half.index))
    assert figures.choropleth(tables.regions, nan, "P") == figures.choropleth(
        tables.regions, half, "P"
    )


def test_a_map_shows_each_value_where_its_region_lies() -> None:
    tables = city(2, 2)
    regions = tables.regions
    values = pd.Series([0.0, 1, 2, 3], regions["region_id"])
    shuffled = values.sample(frac=1, random_state=0)
    png = figures.choropleth(regions, shuffled, "P", categorical=True, classes=list("abcd"))
    pixels, colours = _pixels(png), palette.qualitative(4)
    # The legend's patches have the same colours but few pixels: medians lie on the map.
    y0, x0 = _middle(pixels, colours[0])
    y1, x1 = _middle(pixels, colours[1])
    y2, x2 = _middle(pixels, colours[2])
    assert x0 < x1 and abs(y0 - y1) < 5, "the second region lies to the east"
    assert y0 > y2 and abs(x0 - x2) < 5, "the third lies to the north"


def test_a_hole_is_not_painted_over() -> None:
    tables = city(1, 2)
    ring = shapely.box(0, 0, 1000, 1000).difference(shapely.box(300, 300, 700, 700))
    regions = tables.regions.set_geometry([ring, shapely.box(2000, 0, 3000, 1000)])
    values = pd.Series([0.0, 1.0], regions["region_id"])
    png = figures.choropleth(regions, values, "P", categorical=True, classes=["a", "b"])
    share = _count(png, palette.qualitative(1)[0]) / _count(png, palette.qualitative(2)[1])
    assert 0.75 < share < 0.9


def test_pictures_of_nothing_say_so() -> None:
    tables = city()
    for png in (
        figures.chip_sheet(tables.chips.iloc[:0]),
        figures.triplet_sheet(_triplets(tables).iloc[:0]),
        figures.rejected_bars(tables.rejected.iloc[:0]),
        figures.hour_profile(tables.mobility.assign(hour=None)),
        figures.true_vs_predicted(tables.predictions["poi"].iloc[:0]),
        figures.error_map(tables.regions, tables.predictions["poi"].iloc[:0]),
        figures.leaderboard_heatmap(tables.summary, split="none"),
        figures.flow_map(tables.flows.iloc[:0], tables.regions),
    ):
        assert png.startswith(b"\x89PNG")


def test_noisy_sheets_are_brought_under_the_limit() -> None:
    noise = RANDOM.integers(0, 256, (24, 128, 192, 3), dtype=np.uint8)
    views = pd.DataFrame(
        {
            "region_id": [f"r{i}" for i in range(24)],
            "pixels": [view.tobytes() for view in noise],
            "height_px": 128,
            "width_px": 192,
        }
    )
    assert len(figures.view_sheet(views)) <= figures.MAX_BYTES


def test_triplets_show_every_picture_once_in_the_order_of_its_role() -> None:
    colours = ("#ff0000", "#00ff00", "#0000ff")
    rows = _triplets(city(), 2)
    flat = rows["role"].map(dict(zip(("anchor", "positive", "negative"), colours, strict=True)))
    pixels = [
        np.full((h, w, 3), [int(c[i : i + 2], 16) for i in (1, 3, 5)], np.uint8).tobytes()
        for c, h, w in zip(flat, rows["height_px"], rows["width_px"], strict=True)
    ]
    png = figures.triplet_sheet(rows.assign(pixels=pixels))
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    masks = [_mask(image, colour) for colour in colours]
    assert masks[0].sum() == pytest.approx(masks[1].sum(), rel=0.05)
    assert masks[0].sum() == pytest.approx(masks[2].sum(), rel=0.05)
    for view in (image.shape[0] // 4, 3 * image.shape[0] // 4):  # each line: twice the three
        firsts = [np.flatnonzero(mask[view]).min() for mask in masks]
        assert firsts == sorted(firsts)


def test_tsne_may_be_missing() -> None:
    tables = city()
    missing = tables.embedding_maps["poi"].assign(tsne_1=np.nan, tsne_2=np.nan)
    assert figures.embedding_scatter(missing, tables.regions).startswith(b"\x89PNG")


def _mask(pixels: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels.astype(int) - wanted) <= 1).all(axis=2)


def _count(png: bytes, colour: str) -> int:
    return int(_mask(_pixels(png), colour).sum())


def _middle(pixels: np.ndarray, colour: str) -> tuple[float, float]:
    y, x = np.nonzero(_mask(pixels, colour))
    return float(np.median(y)), float(np.median(x))


def gallery(count: int, size: tuple[int, int] = (36, 48)) -> pd.DataFrame:
    pictures = list(np.random.default_rng(0).integers(0, 255, (count, *size, 3), np.uint8))
    texts = ["A wide road under a grey sky, for $5. " * 9, ""][:count] + ["Trees."] * (count - 2)
    return pd.DataFrame(
        {
            "picture": pictures,
            "painted": pictures,
            "text": texts,
            "perception_score": [0.5, np.nan][:count] + [0.5] * (count - 2),
            "clip_score": [0.25, np.nan][:count] + [0.25] * (count - 2),
            "cycle_score": [np.nan] + [0.75] * (count - 1) if count else [],
            "kept": [True, False][:count] + [True] * (count - 2),
            "reason": ["", "no caption: timed out"][:count] + [""] * (count - 2),
        }
    )


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_gallery_of_captions_of_any_length(count: int) -> None:
    drawn = figures.caption_gallery(gallery(count))
    assert drawn.startswith(b"\x89PNG") and drawn == figures.caption_gallery(gallery(count))


def test_a_gallery_grows_with_its_captions_and_keeps_the_shape_of_pictures() -> None:
    red = np.zeros((36, 48, 3), np.uint8)
    red[..., 0] = 255
    short = gallery(1).assign(picture=[red], painted=[red], text="Trees.")
    drawn = _pixels(figures.caption_gallery(short))
    y, x = np.nonzero((drawn == (255, 0, 0)).all(axis=2))
    (high,), wide = [np.ptp(y) + 1], len(np.unique(x)) / 2
    assert wide / high == pytest.approx(48 / 36, rel=0.02)
    long = _pixels(figures.caption_gallery(short.assign(text="A wide road, and trees. " * 40)))
    assert len(long) > len(drawn) + 100
    y, x = np.nonzero((long == (255, 0, 0)).all(axis=2))
    assert np.ptp(y) + 1 == high, "a long caption stretches no picture"


def test_a_gallery_of_noise_stays_large_enough_to_read() -> None:
    drawn = figures.caption_gallery(gallery(40, (72, 96)))
    assert figures.MAX_BYTES < len(drawn) <= figures.SHEET_BYTES
    assert _pixels(drawn).shape[1] >= 1000


def test_score_histograms_leave_out_a_score_that_nothing_has():
    scores = pd.DataFrame(
        {
            "view": ["satellite", "street_view"],
            "clip_score": [0.2, 0.8],
            "cycle_score": [np.nan, np.nan],
            "perception_score": [0.2, np.nan],
        }
    )
    both, none = figures.score_histograms(scores), figures.score_histograms(scores[:0])
    assert both.startswith(b"\x89PNG") and none.startswith(b"\x89PNG") and len(none) < len(both)


def test_bars_colour_what_is_clear_and_leave_ties_pale() -> None:
    rows = ablation_rows()
    drawn = figures.text_bars(rows, "urbanvlp")
    assert min(_count(drawn, c) for c in (palette.ACCENT, palette.LINES, palette.MISSING)) > 100
    ties = figures.text_bars(rows.assign(low=-0.5, high=0.5), "urbanvlp")
    assert _count(ties, palette.ACCENT) == _count(ties, palette.LINES) == 0
    assert _count(ties, palette.MISSING) > 500
    assert len(figures.text_bars(rows, "poi")) < len(drawn)


@pytest.mark.parametrize("split", ["random", "spatial", ""])
def test_ablation_bars_know_which_side_the_default_is_on(split: str) -> None:
    rows = ablation_rows()
    drawn = figures.ablation_bars(rows, "urbanvlp", split=split)
    swapped = rows.rename(columns={"variant_a": "variant_b", "variant_b": "variant_a"})
    other = figures.ablation_bars(swapped, "urbanvlp", split=split)
    assert _count(drawn, palette.ACCENT) > 2 * _count(other, palette.ACCENT) > 0
    assert len(figures.ablation_bars(rows, "poi")) < len(drawn)


def losses(folds: int, validation: bool) -> pd.DataFrame:
    rows = [
        {
            "variant": variant, "split": "spatial", "fold": fold, "seed": seed,
            "loss": [3.0, 2.0, 1.0 + seed], "validation": [3.0, 1.0, 2.0] if validation else [],
        }
        for variant in ("default", "without_text")
        for fold in range(folds)
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("folds", [1, 5])
def test_loss_curves_draw_every_seed_and_the_validation(folds: int) -> None:
    drawn = figures.loss_curves(losses(folds, True))
    alone = figures.loss_curves(losses(folds, False))
    assert drawn != alone and len(drawn) <= figures.MAX_BYTES
    for colour in palette.qualitative(2):
        assert _count(alone, colour) > 0
    untrained = losses(1, False)
    untrained["loss"] = [[] for _ in range(len(untrained))]
    assert len(figures.loss_curves(untrained)) < len(alone)


def test_the_mean_of_a_transfer_matrix_takes_r2_of_what_all_rows_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[pd.DataFrame] = []
    own = figures._matrix

    def noted(axes: Any, cells: pd.DataFrame, *others: Any) -> Any:
        drawn.append(cells)
        return own(axes, cells, *others)

    monkeypatch.setattr(figures, "_matrix", noted)
    rows = transfer_rows()
    assert figures.transfer_matrix(rows).startswith(b"\x89PNG")
    (cells,) = drawn
    means = cells[cells["task"] == "mean"].set_index("pretrained_on")["value"]
    assert means.to_dict() == pytest.approx({"sample": 0.5, "elsewhere": 0.4})
    drawn.clear()
    lacking = rows[(rows["pretrained_on"] == "sample") | (rows["task"] != "night_light")]
    figures.transfer_matrix(lacking)
    means = drawn[0][drawn[0]["task"] == "mean"].set_index("pretrained_on")["value"]
    assert means.to_dict() == pytest.approx({"sample": 0.6, "elsewhere": 0.5})


def test_a_transfer_matrix_frames_what_was_pretrained_where_it_is_tested() -> None:
    rows = transfer_rows()
    both = pd.concat([rows, rows.assign(city="elsewhere")])
    one, two = (figures.transfer_matrix(table) for table in (rows, both))
    assert _count(one, palette.LINES) > 100 and _count(two, palette.LINES) > 100
    apart = rows[rows["pretrained_on"] != "sample"]
    assert _count(figures.transfer_matrix(apart), palette.LINES) == 0
    methods = pd.concat([rows.assign(method="a"), rows.assign(method="b", value=0.0)])
    assert figures.transfer_matrix(methods) != one
    assert len(figures.transfer_matrix(rows[:0])) < len(one)


def test_an_expert_map_shows_who_is_on_and_what_is_not_there() -> None:
    rows = experts.expert_weights(expert_records())
    drawn = figures.expert_map(experts.first_fit(rows))
    assert drawn.startswith(b"\x89PNG") and len(drawn) <= figures.MAX_BYTES
    grey = _count(drawn, palette.MISSING)  # no task has experts with itself
    assert figures.expert_map(experts.by_group(rows)) != drawn
    alone = experts.expert_weights(expert_records(1, ("carbon",)))
    assert _count(figures.expert_map(alone), palette.MISSING) < grey / 10  # edges of letters
    many = expert_records(1, [f"a rather long name {i}" for i in range(13)])
    assert len(figures.expert_map(experts.expert_weights(many))) <= figures.MAX_BYTES
