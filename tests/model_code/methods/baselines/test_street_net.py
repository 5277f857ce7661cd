"""What Vision-LSTM and StructuralUrban share, tested on the first."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.methods import METHODS, VisionLstmConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.vision_lstm import METHOD, VisionLstm
from model_code.methods.run import inputs_of
from model_code.training import seeded
from model_code.vision.backbones import ImageEncoder
from tests.model_code.methods.baselines.street import SMALL, regions_of
from tests.model_code.methods.fake_city import fake_city, with_towers

CONFIG = VisionLstmConfig.model_validate(SMALL)
TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32,
    "text_layers": 1, "embed_dim": 8, "context": 16,
}  # fmt: skip


def config(**changes: object) -> VisionLstmConfig:
    return VisionLstmConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


def test_pictures_are_those_of_their_rows_however_few(data: RegionData) -> None:
    regions = regions_of(METHOD, data, CONFIG)
    own = data.view_region[regions.view_order]
    assert (np.diff(own) >= 0).all()
    for kind, pictures in (
        ("satellite", data.chips),
        ("street_view", data.views[regions.view_order]),
    ):
        rows = torch.tensor([3, 0])
        twin = regions.heads[kind](regions.encoders[kind](torch.from_numpy(pictures[rows])))
        torch.testing.assert_close(regions.pictured(kind, rows), twin)
        assert regions.pictured(kind, rows[:0]).shape == (0, 8)


def test_a_backbone_starts_from_its_own_file(city: tuple, tmp_path) -> None:
    with seeded(9):
        given = ImageEncoder("small")
    torch.save(given.layers.state_dict(), tmp_path / "w.pt")
    digest = hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()
    started = {}

    class Watched(VisionLstm):
        def prepare(self, encoder, *args, **kwargs):
            for kind, backbone in encoder.encoders.items():
                first = backbone.layers.state_dict()
                started[kind] = all(
                    torch.equal(v, first[n]) for n, v in given.layers.state_dict().items()
                )
            return {"started": True}

    file = {"path": str(tmp_path / "w.pt"), "sha256": digest}
    changed = config(street_view_weights=file, epochs=1)
    found = Watched().fit(*city, changed, seed=0)
    assert started == {"satellite": False, "street_view": True} and found.record["started"]


def test_street_views_alone_tell(data: RegionData) -> None:
    spec = METHODS["vision_lstm"]
    alone = config(satellite=False)
    assert inputs_of(spec, alone) == ("street_views",)
    cut = replace(data, chips=None, chip_present=None)  # a city without imagery
    assert regions_of(METHOD, cut, CONFIG).kinds == ["street_view"]
    none = replace(data, views=None, view_region=None)
    assert regions_of(METHOD, none, CONFIG).kinds == ["satellite"]
    with pytest.raises(DataError, match=r"neither satellite chips nor street views[\s\S]*`satel"):
        regions_of(METHOD, none, alone)


def test_towers_rest_and_are_in_no_checkpoint(city: tuple) -> None:
    data, targets, parts = with_towers(city[0], TOWER), *city[1:]
    changed = config(backbone="towers")
    assert "towers" in METHODS["vision_lstm"].needs and "towers" not in changed.switched_off()
    found = METHOD.fit(data, targets, parts, changed, seed=0)
    assert not [n for n in found.tensors if "visual" in n or n.endswith("values")]
    kept = dict(data.memo)
    rows = METHOD.embed(found, data, changed)
    assert len(kept) == 2 and all(data.memo[key] is value for key, value in kept.items())
    again = replace(data)  # computed anew, in another process
    np.testing.assert_allclose(METHOD.embed(found, again, changed), rows, atol=1e-5)
    scales = [
        found.tensors[f"encoder.encoders.{view}.mean"] for view in ("satellite", "street_view")
    ]
    own = parts.train & data.chip_present
    np.testing.assert_allclose(
        scales[0], data.memo["street net", "satellite"][own].mean(axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        scales[1],
        data.memo["street net", "street_view"][parts.train[data.view_region]].mean(axis=0),
        atol=1e-5,
    )
    with pytest.raises(DataError, match="no pretrained towers of the view"):
        METHOD.fit(city[0], targets, parts, changed, seed=0)


def test_what_cannot_work_is_refused() -> None:
    file = {"path": "/a", "sha256": "0" * 64}
    for changes, words in (
        ({"satellite": False, "street_views": False}, "at least one of"),
        ({"backbone": "inception_v3"}, "75 pixels or more; see chip_px"),
        ({"backbone": "inception_v3", "chip_px": 80}, "75 pixels or more; see view_px"),
        ({"backbone": "towers", "satellite_weights": file}, "their own weights"),
    ):
        with pytest.raises(ValidationError, match=words):
            config(**changes)
