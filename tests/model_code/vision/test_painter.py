from __future__ import annotations

import numpy as np
import pytest

from model_code.backends import Ask, Painter
from model_code.demo import chip_scene, street_scene
from model_code.demo.chip_scene import Grounds
from model_code.demo.fields import Streams
from model_code.demo.street_scene import Layout, Scenes
from model_code.text.captioner import TemplateCaptioner
from model_code.text.parsing import parse
from model_code.vision.painter import ScenePainter, wanted_shares
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

SIZES = {"street_view": (64, 96), "satellite": (64, 64)}
SEGMENTERS = {"street_view": StreetSegmenter, "satellite": LandCoverSegmenter}
TEXTS = {
    "street_view": ["No trees, and sky over 40 percent.", "Trees everywhere.", "", "Many shops at night."],
    "satellite": ["A forest.", "Half of it is water.", "", "Dense houses, no trees."],
}  # fmt: skip


def _shares(view: str, painter: Painter, texts: list[str], *names: str, n: int = 6) -> np.ndarray:
    """Mean shares [texts, names] over n paintings each."""
    many = [text for text in texts for _ in range(n)]
    found = SEGMENTERS[view]().segment(painter.paint(many, list(range(n)) * len(texts)))
    columns = [found.classes.index(name) for name in names]
    return found.shares[:, columns].reshape(len(texts), n, -1).mean(axis=1)


@pytest.mark.parametrize("view", SIZES)
def test_a_painting_depends_on_its_text_and_seed_alone(view: str) -> None:
    painter = ScenePainter(view, SIZES[view])
    seeds = [5, 6, 7, 8]
    together = painter.paint(TEXTS[view], seeds)
    assert [p.shape for p in together] == [(*SIZES[view], 3)] * 4
    for text, seed, picture in zip(TEXTS[view], seeds, together, strict=True):
        assert np.array_equal(painter.paint([text], [seed])[0], picture)
    other = painter.paint(TEXTS[view], [s + 1 for s in seeds])
    assert not any(np.array_equal(a, b) for a, b in zip(together, other, strict=True))
    assert painter.paint([], []) == []


@pytest.mark.parametrize("size", [(40, 60), (96, 128), (31, 90)])
@pytest.mark.parametrize("view", SIZES)
def test_size_of_pictures(view: str, size: tuple[int, int]) -> None:
    (picture,) = ScenePainter(view, size, sketches=1).paint(["Some trees."], [0])
    assert picture.shape == (*size, 3) and picture.dtype == np.uint8


def test_streets_show_what_is_said() -> None:
    painter = ScenePainter("street_view", SIZES["street_view"])
    texts = ["No trees, no shops, no water.", "A lush canopy of trees, everywhere.",
             "Shops everywhere, crowds of people, lots of traffic.", "A wide river beside the road.",
             "Sky fills 45 percent.", "Buildings cover 40 percent of the view, sky 20 percent."]  # fmt: skip
    names = ("tree", "signboard", "person", "water", "sky", "building")
    bare, trees, shops, river, sky, walls = _shares("street_view", painter, texts, *names)
    assert bare[0] < 0.03 and trees[0] > 0.15
    assert bare[1] < 0.008 and shops[1] > 0.02
    assert shops[2] > bare[2] + 0.002
    assert bare[3] < 0.005 and river[3] > 0.02
    assert sky[4] > walls[4] + 0.12
    assert walls[5] > 0.3 and walls[5] > sky[5] + 0.12


def test_nights_are_dark_and_care_is_light() -> None:
    painter = ScenePainter("street_view", SIZES["street_view"])
    day, night = (
        np.mean(painter.paint([f"A street {w}."] * 4, range(4))) for w in ("by day", "at night")
    )
    assert night < 0.6 * day


def test_chips_show_what_is_said() -> None:
    painter = ScenePainter("satellite", SIZES["satellite"])
    texts = ["Forest covers 70 percent.", "Water covers a third.", "An industrial area, no trees.",
             "Closely built houses, no water, few trees.", "Mostly bare soil."]  # fmt: skip
    names = ("forest", "water", "industrial", "building", "barren")
    found = _shares("satellite", painter, texts, *names)
    assert found[0, 0] == pytest.approx(0.7, abs=0.1)
    assert found[1, 1] == pytest.approx(1 / 3, abs=0.05)
    assert found[[0, 2, 3, 4], 1].max() < 0.01
    assert found[2, 2] > 0.1 > found[[0, 1, 4], 2].max() + 0.03
    assert found[3, 3] == found[:, 3].max() > 0.12
    assert found[4, 4] == found[:, 4].max() > 0.4


@pytest.mark.parametrize("view", SIZES)
def test_what_texts_ask_for_adds_up(view: str) -> None:
    texts = [*TEXTS[view], "Sky 80 percent, road 90 percent, water 90 percent, trees 90 percent."]
    wanted = wanted_shares([parse(text, view) for text in texts], view)
    assert np.allclose(wanted.sum(axis=1), 1) and wanted.min() >= 0


@pytest.mark.parametrize("view", SIZES)
def test_a_true_caption_paints_its_picture_rather_than_another(view: str) -> None:
    """Cycle score of a picture with its own caption, against the caption of another picture."""
    b, rng = 32, np.random.default_rng(3)
    draw = lambda: rng.beta(0.7, 0.9, b).astype(np.float32)  # noqa: E731
    if view == "street_view":
        hour = rng.uniform(8, 19, b).astype(np.float32)
        scenes = Scenes(draw(), draw(), draw(), draw(), draw(), hour)
        pictures = list(street_scene.render(scenes, rng))
    else:
        water = np.where(rng.random(b) < 0.5, 0, 0.5 * draw()).astype(np.float32)
        pictures = list(chip_scene.render(Grounds(draw(), draw(), water, draw()), rng))
    segmenter = SEGMENTERS[view]()
    seen = segmenter.segment(pictures)
    asks = [
        Ask(view, p, dict(zip(seen.classes, row.tolist(), strict=True)))
        for p, row in zip(pictures, seen.shares, strict=True)
    ]
    texts = [answer.text for answer in TemplateCaptioner().caption(asks)]
    painted = segmenter.segment(ScenePainter(view, SIZES[view]).paint(texts, range(b))).shares
    score = 1 - np.abs(seen.shares[:, None] - painted[None]).sum(axis=2) / 2
    own, others = np.diag(score), score[~np.eye(b, dtype=bool)].reshape(b, b - 1)
    assert own.mean() > 0.88
    assert (own[:, None] > others).mean() > 0.85


def test_composed_streets_take_the_layout() -> None:
    b = 4
    level = np.full(b, 0.3, np.float32)
    scenes = Scenes(level, 0 * level, 0 * level, level, level, np.full(b, 13, np.float32))

    def roofs(storeys: float, half_m: float) -> np.ndarray:
        layout = Layout(*(np.full(b, v, np.float32) for v in (0.5, half_m, storeys)))
        rng = Streams([np.random.default_rng(i) for i in range(b)])
        pictures = street_scene.render(scenes, rng, layout)
        return StreetSegmenter().segment(list(pictures)).shares.mean(axis=0)

    low, high, wide = roofs(0.6, 4), roofs(5, 4), roofs(0.6, 5.4)
    names = StreetSegmenter.classes
    assert high[names.index("building")] > low[names.index("building")] + 0.1
    assert wide[names.index("road")] > low[names.index("road")] + 0.02
