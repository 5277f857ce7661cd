from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code import finetuning
from model_code.errors import DataError
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.urbanmmcl import METHOD
from model_code.methods.urbanmmcl_inside import parts
from tests.model_code.methods.fake_city import fake_city
from tests.model_code.methods.test_urbanmmcl import CONFIG, GRAPHLESS, REGIONS, config, pretrained


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city(REGIONS)[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def test_the_whole_is_the_embedding_and_the_sum_of_its_parts(
    data: RegionData, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(checkpoint, data, CONFIG)
    assert list(found) == ["whole", "modalities", "function", "mobility", "distance"]
    np.testing.assert_array_equal(found["whole"], METHOD.embed(checkpoint, data, CONFIG))
    total = found["modalities"].astype(float)
    for name in ("function", "mobility", "distance"):
        assert found[name].shape == (REGIONS, CONFIG.graph_width)
        unit = found[name] / np.linalg.norm(found[name], axis=1, keepdims=True)
        total += unit @ checkpoint.tensors[f"to_sum.{name}.weight"].T
    np.testing.assert_allclose(found["whole"], total, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(finetuning, "_CHUNK", 7)
    for name, values in parts(checkpoint, data, CONFIG).items():
        np.testing.assert_allclose(values, found[name], rtol=1e-4, atol=1e-5)


def test_without_graphs_the_whole_is_what_modalities_show(data: RegionData) -> None:
    changed = config(**GRAPHLESS)
    found = parts(pretrained(data, changed), data, changed)
    assert list(found) == ["whole", "modalities"]
    np.testing.assert_array_equal(found["whole"], found["modalities"])


def test_a_checkpoint_of_other_regions_is_refused(data: RegionData, checkpoint: Checkpoint) -> None:
    other = replace(data, region_ids=np.char.add(data.region_ids, "x"))
    with pytest.raises(DataError, match="graphs are those of one city"):
        parts(checkpoint, other, CONFIG)
