"""What HREP and MVURE share; the contract that both keep is in `relation.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.methods import HrepConfig
from model_code.methods.baselines.hrep import METHOD
from model_code.methods.baselines.relation_net import relations
from tests.model_code.methods.baselines.relation import (
    EVERYONE,
    REGIONS,
    relation_city,
    without_flows,
    without_pois,
)


def test_relations_are_those_that_the_city_has_data_for() -> None:
    data = relation_city()
    everything = ["source", "destination", "poi", "neighbour"]
    for city, left in ((data, everything), (without_pois(data), everything[:2] + everything[3:]),
                       (without_flows(data), everything[2:])):  # fmt: skip
        assert list(relations(city, 4, EVERYONE, near=True)) == left
        assert list(relations(city, 4, EVERYONE, near=False)) == left[:-1]


def test_regions_without_trips_or_pois_are_linked_by_what_they_have() -> None:
    graphs = relations(relation_city(), 4, EVERYONE, near=True)
    degree = {name: np.diff(graph.start) for name, graph in graphs.items()}
    for name, lacking in (("source", [5, 7]), ("destination", [5, 7]), ("poi", [3, 7])):
        assert [i for i in range(REGIONS) if degree[name][i] == 0] == lacking
    assert (degree["neighbour"] >= 4).all()


def test_steps_on_some_regions_are_on_the_mean_a_step_on_all() -> None:
    config = HrepConfig(
        width=8, heads=2, neighbours=4, mobility_weight=1, poi_weight=1, neighbour_weight=0
    )
    training, _ = METHOD.training(relation_city(), config, EVERYONE, 0)
    training.eval()
    whole = training.loss(torch.arange(REGIONS)).item()
    torch.manual_seed(0)
    steps = [training.loss(index).item() for index in torch.randperm(REGIONS).split(10)]
    assert sum(steps) / len(steps) == pytest.approx(whole, rel=1e-4)
    assert max(steps) > min(steps)
