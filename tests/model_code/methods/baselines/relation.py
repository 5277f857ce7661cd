"""What the tests of methods on several graphs share: a small city with regions that lack trips or POIs, and
the contract that each such method keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code.errors import DataError
from model_code.methods.base import RegionData, Workspace
from model_code.methods.baselines.relation_net import RelationMethod
from tests.model_code.graphs.places import places
from tests.model_code.methods.baselines.embedding import all_learn
from tests.model_code.methods.fake_city import equal

REGIONS = 40
EVERYONE = np.ones(REGIONS, bool)


def relation_city(seed: int = 0) -> RegionData:
    """Regions 5 and 7 have no trips, 3 and 7 no POIs."""
    city = places(REGIONS, seed)
    origin, destination = np.nonzero(city["trips"])
    return RegionData(
        region_ids=np.array([f"r{i:03}" for i in range(REGIONS)]),
        lonlat_deg=city["xy"] / 1e5,
        xy_m=city["xy"],
        area_km2=np.ones(REGIONS),
        poi_counts=city["counts"],
        poi_categories=("bar", "office", "park", "school", "shop"),
        flow_origin=origin,
        flow_destination=destination,
        flow_count=city["trips"][origin, destination].astype(float),
    )


def without_pois(data: RegionData) -> RegionData:
    return replace(data, poi_counts=None, poi_categories=())


def without_flows(data: RegionData) -> RegionData:
    return replace(data, flow_origin=None, flow_destination=None, flow_count=None)


class RelationContract:
    """To be subclassed with a `method` and its small `config`, beside a fixture `data`."""

    method: RelationMethod
    config: Any

    def embedding(self, data: RegionData, visible: np.ndarray = EVERYONE) -> np.ndarray:
        checkpoint = self.method.pretrain(data, self.config, seed=0, visible=visible)
        return self.method.embed(checkpoint, data, self.config)

    def test_everything_learns(self, data: RegionData) -> None:
        training, _ = self.method.training(data, self.config, EVERYONE, 0)
        index = torch.tensor([2, 3, 5, 7, 11, 13, 17])  # an uneven batch
        # At the start all relations look alike, and what weighs them would get only rounding.
        all_learn(training, index, 0.03)

    def test_the_loss_is_the_weighted_sum_of_its_parts(self, data: RegionData) -> None:
        index = torch.arange(REGIONS)
        keys = [key for key in type(self.config).model_fields if key.endswith("_weight")]

        def value(**weights: float) -> float:
            changed = self.config.model_copy(update=dict.fromkeys(keys, 0.0) | weights)
            training, _ = self.method.training(data, changed, EVERYONE, 0)
            training.eval()
            torch.manual_seed(0)
            return training.loss(index).item()

        alone = [value(**{key: 1.0}) for key in keys]
        assert all(loss > 0 for loss in alone)
        both = value(**{key: 0.5 + place for place, key in enumerate(keys)})
        expected = sum((0.5 + place) * loss for place, loss in enumerate(alone))
        assert both == pytest.approx(expected, rel=1e-4)

    def test_training_lowers_the_loss(self, data: RegionData) -> None:
        longer = self.config.model_copy(update={"epochs": 25, "batch": 64})
        loss = self.method.pretrain(data, longer, seed=0, visible=EVERYONE).record["loss"]
        assert len(loss) == 25 and np.mean(loss[-3:]) < np.mean(loss[:3])

    def test_pretraining_is_deterministic_in_its_seed(self, data: RegionData) -> None:
        first, again, other = (
            self.method.pretrain(data, self.config, seed=seed, visible=EVERYONE)
            for seed in (0, 0, 1)
        )
        assert equal(first, again) and not equal(first, other)

    def test_goes_on_after_a_kill(self, data: RegionData, tmp_path: Path) -> None:
        class PowerCut(BaseException):
            pass

        def cut(line: str) -> None:
            if " 2 of " in line:
                raise PowerCut

        arguments: dict[str, Any] = {"seed": 0, "visible": EVERYONE}
        whole = self.method.pretrain(data, self.config, **arguments)
        with pytest.raises(PowerCut):
            self.method.pretrain(data, self.config, workspace=Workspace(cut, tmp_path), **arguments)
        assert list(tmp_path.glob("*.ckpt"))
        resumed = self.method.pretrain(
            data, self.config, workspace=Workspace(None, tmp_path), **arguments
        )
        assert equal(whole, resumed)

    def test_regions_without_trips_or_pois_are_embedded(self, data: RegionData) -> None:
        for city in (data, without_pois(data), without_flows(data)):
            rows = self.embedding(city)
            assert rows.dtype == np.float32 and np.isfinite(rows).all()
            assert (np.abs(rows[[3, 5, 7]]).sum(axis=1) > 0).all()

    def test_what_an_unseen_region_holds_changes_no_other(self, data: RegionData) -> None:
        visible = np.arange(REGIONS) % 4 > 0
        other, unseen = relation_city(seed=1), ~visible
        touched = unseen[data.flow_origin] | unseen[data.flow_destination]
        changed = replace(
            data,
            xy_m=np.where(unseen[:, None], other.xy_m, data.xy_m),
            poi_counts=np.where(unseen[:, None], other.poi_counts, data.poi_counts),
            flow_count=np.where(touched, 99.0 - data.flow_count, data.flow_count),
        )
        checkpoints = [
            self.method.pretrain(city, self.config, seed=0, visible=visible)
            for city in (data, changed)
        ]
        assert equal(*checkpoints)
        first, second = (self.method.embed(checkpoints[0], c, self.config) for c in (data, changed))
        np.testing.assert_array_equal(first[visible], second[visible])
        assert not np.allclose(first[unseen], second[unseen])

    def test_a_city_that_teaches_nothing_is_refused(self, data: RegionData) -> None:
        one, few = np.arange(REGIONS) == 2, np.isin(np.arange(REGIONS), [5, 7])
        with pytest.raises(DataError, match=f"{self.method.name} needs two visible regions"):
            self.method.pretrain(data, self.config, seed=0, visible=one)
        with pytest.raises(DataError, match=r"no trip is between[\s\S]*sources\.od"):
            self.method.pretrain(data, self.config, seed=0, visible=few)

    def test_a_checkpoint_is_of_one_city_and_its_relations(self, data: RegionData) -> None:
        checkpoint = self.method.pretrain(data, self.config, seed=0, visible=EVERYONE)
        fewer = replace(without_flows(data), region_ids=data.region_ids[:9])
        with pytest.raises(DataError, match="fitted on 40 regions and cannot embed 9"):
            self.method.embed(checkpoint, fewer, self.config)
        with pytest.raises(DataError, match="fitted on the relations source, destination, poi"):
            self.method.embed(checkpoint, without_pois(data), self.config)
