from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model_code.demo.city_facts import chip_facts, view_facts
from model_code.demo.latents import draw_latents
from model_code.demo.pairs import SATELLITE, STREET
from model_code.demo.place import Place
from model_code.demo.street_views import draw_views, write_street_views
from model_code.demo.streets import draw_lots, draw_streets


@pytest.fixture(scope="module")
def streets():
    return draw_streets(draw_latents(Place(14), 3))


def test_chips(streets):
    latents = streets.latents
    facts = chip_facts(draw_lots(streets))
    assert len(facts) == 14 and all(set(fact) == set(SATELLITE) for fact in facts)
    green = [fact["greenery"] for fact in facts]
    assert np.corrcoef(green, latents.region("greenery"))[0, 1] > 0.5
    # Water by counting points on it.
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(14), 4000)
    wet = (latents.shore_at(*latents.place.scatter(rng, cell)) < 0).reshape(14, -1).mean(axis=1)
    assert wet.max() > 0.05
    np.testing.assert_allclose([fact["water"] for fact in facts], wet, atol=0.03)


def test_street_views_are_those_of_the_files(streets, tmp_path):
    facts = view_facts(streets)
    write_street_views(tmp_path, streets, lambda line: None)
    assert sorted(facts) == sorted(p.name for p in (tmp_path / "images").glob("view_*"))
    assert all(set(STREET) <= set(fact) for fact in facts.values())
    green = []
    for file in facts:
        data = io.BytesIO((tmp_path / "images" / file).read_bytes())
        red, greens, blue = np.asarray(Image.open(data), float).transpose(2, 0, 1)
        green.append((greens > 1.05 * np.maximum(red, blue)).mean())
    assert np.corrcoef(green, [fact["greenery"] for fact in facts.values()])[0, 1] > 0.8
    night = np.array([fact["dark"] > 0 for fact in facts.values()])
    late = draw_views(streets).minute > 20 * 60
    assert night[late].all() and not night.all()
