from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.methods import MgfnConfig
from model_code.methods.base import Checkpoint, Floats, HourlyFlows, RegionData, Workspace
from model_code.methods.baselines.mgfn import METHOD, MgfnNet, PatternGraphs
from model_code.training import seeded
from tests.model_code.methods.baselines.embedding import all_learn
from tests.model_code.methods.baselines.relation import EVERYONE, REGIONS, relation_city
from tests.model_code.methods.fake_city import equal

CONFIG = MgfnConfig(width=8, heads=2, patterns=3, epochs=3, batch=16)
HOURS = (0, 7, 8, 17, 18)
PATTERN = np.full(24, -1)
PATTERN[list(HOURS)] = 0, 1, 1, 2, 2


def hourly_city() -> RegionData:
    """Regions 5 and 7 have no trips; trips of the morning and of the evening go opposite ways."""
    data = relation_city()
    rng = np.random.default_rng(3)
    upward = data.flow_origin < data.flow_destination
    shares = np.stack(
        [np.full(len(upward), 0.2), *(np.where(upward, a, 1.5 - a) for a in (1, 1, 0.5, 0.5))]
    )
    count = rng.poisson(shares * data.flow_count)
    hour, pair = np.nonzero(count)
    flows = HourlyFlows(
        data.flow_origin[pair],
        data.flow_destination[pair],
        np.array(HOURS)[hour],
        count[hour, pair].astype(float),
    )
    return replace(
        data, hourly_flows=flows, flow_origin=None, flow_destination=None, flow_count=None
    )


@pytest.fixture(scope="module")
def data() -> RegionData:
    return hourly_city()


def pretrained(data: RegionData, config: MgfnConfig = CONFIG, **kwargs: Any) -> Checkpoint:
    return METHOD.pretrain(data, config, **{"seed": 0, "visible": EVERYONE, **kwargs})


def of_hours(flows: HourlyFlows, kept: np.ndarray) -> HourlyFlows:
    return HourlyFlows(
        flows.origin[kept], flows.destination[kept], flows.hour[kept], flows.count[kept]
    )


# --- the net -------------------------------------------------------------------------------------


def heard_by(rows: torch.Tensor, weight: torch.Tensor, hears: torch.Tensor) -> torch.Tensor:
    """Attention of two heads side by side, of [N, 8] over those that each one hears [N, N]."""
    parts = (rows @ weight.T).chunk(3, dim=1)
    found = []
    for at in (0, 4):
        query, key, value = (part[:, at : at + 4] for part in parts)
        scores = (query @ key.T / 2).masked_fill(~hears, -torch.inf)
        found.append(scores.softmax(dim=1) @ value)
    return torch.cat(found, dim=1)


def naive(net: MgfnNet, cube: Floats, visible: np.ndarray, fusion: str) -> torch.Tensor:
    """The net on dense matrices of all pairs [K, N, N], pattern by pattern."""
    seen, states = np.flatnonzero(visible), []
    for trips in cube:
        both = []
        for way, own in enumerate((trips, trips.T)):
            hears = torch.from_numpy(((own > 0) & visible) | np.eye(len(own), dtype=bool))
            rows = torch.from_numpy(np.log1p(own[:, seen])).float() @ net.start[way]
            both.append((rows, hears))
        for layer in net.layers:
            ends = [
                rows + heard_by(rows, ask.weight, hears)
                for (rows, hears), ask in zip(both, layer.ask, strict=True)
            ]
            joined = layer.norm(layer.join(torch.cat(ends, dim=1)))
            both = [(joined, hears) for _, hears in both]
        states.append(both[0][0])
    found = []
    for i in range(len(visible)):
        own = torch.stack([state[i] for state in states])
        if net.attention is not None:
            inside = net.attention
            parts = (own @ inside.in_proj_weight.T + inside.in_proj_bias).chunk(3, dim=1)
            heads = [
                (q @ k.T / 2).softmax(dim=1) @ v
                for q, k, v in ([part[:, at : at + 4] for part in parts] for at in (0, 4))
            ]
            own = own + inside.out_proj(torch.cat(heads, dim=1))
        found.append(net.end(own.flatten() if fusion == "concat" else own.mean(dim=0)))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("changes", "patterns", "unseen"),
    [
        ({"fusion": "concat"}, 3, []),
        ({"fusion": "mean", "layers": 2}, 3, [2, 9, 30]),
        ({"fusion": "concat"}, 1, [2]),
    ],
)
def test_the_net_is_that_of_matrices_of_all_pairs(
    data: RegionData, changes: dict[str, Any], patterns: int, unseen: list[int]
) -> None:
    config = CONFIG.model_copy(update=changes)
    pattern, visible = np.minimum(PATTERN, patterns - 1), ~np.isin(np.arange(REGIONS), unseen)
    flows = data.hourly_flows
    cube = np.zeros((patterns, REGIONS, REGIONS))
    np.add.at(cube, (pattern[flows.hour], flows.origin, flows.destination), flows.count)
    with seeded(0):
        net = MgfnNet(int(visible.sum()), patterns, config).eval()
    graphs = PatternGraphs(flows, pattern, visible, None)
    ours, twin = net(graphs), naive(net, cube, visible, config.fusion)
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = [
        p
        for name, p in net.named_parameters()
        if name.split(".")[0] not in ("source", "destination")
    ]
    first, second = (torch.autograd.grad((rows**2).sum(), parameters) for rows in (ours, twin))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())


def test_a_region_may_hear_its_strongest_alone(data: RegionData) -> None:
    everything, few = (PatternGraphs(data.hourly_flows, PATTERN, EVERYONE, k) for k in (None, 2))
    degree = few.links.start.diff()
    assert degree.max() == 3 and everything.links.start.diff().max() > 5  # itself beside two
    torch.testing.assert_close(few.out.to_dense(), everything.out.to_dense())
    flows, i = data.hourly_flows, 11
    own = (flows.origin == i) & (PATTERN[flows.hour] == 1)
    trips = np.bincount(flows.destination[own], flows.count[own], REGIONS)
    node = REGIONS + i  # on the way out, in pattern 1
    heard = few.links.column[few.links.start[node] : few.links.start[node + 1]] - REGIONS
    others = [j for j in heard.tolist() if j != i]
    assert trips[others].min() >= np.delete(trips, [*others, i]).max()


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [HOURS, (8,)])
def test_everything_learns(data: RegionData, hours: tuple[int, ...]) -> None:
    city = replace(
        data, hourly_flows=of_hours(data.hourly_flows, np.isin(data.hourly_flows.hour, hours))
    )
    training, pattern = METHOD.training(city, CONFIG, EVERYONE, 0)
    assert pattern.max() + 1 == min(len(hours), CONFIG.patterns)
    index = torch.tensor([2, 3, 5, 7, 11, 13, 17])  # an uneven batch
    all_learn(training, index, 0.01)


def test_steps_on_some_regions_are_on_the_mean_a_step_on_all(data: RegionData) -> None:
    training, _ = METHOD.training(data, CONFIG, EVERYONE, 0)
    training.eval()
    whole = training.loss(torch.arange(REGIONS)).item()
    torch.manual_seed(0)
    steps = [training.loss(index).item() for index in torch.randperm(REGIONS).split(10)]
    assert sum(steps) / len(steps) == pytest.approx(whole, rel=1e-4)
    assert max(steps) > min(steps)
    alone = [training.loss(torch.tensor([i])).item() for i in range(REGIONS)]
    assert np.mean(alone) == pytest.approx(whole, rel=1e-4)


def test_training_lowers_the_loss_below_that_of_volumes(data: RegionData) -> None:
    """Beyond what is known from how many trips each region has, as a source and as a destination."""
    longer = CONFIG.model_copy(
        update={"width": 16, "epochs": 100, "dropout": 0.0, "learning_rate": 0.01, "batch": 64}
    )
    loss = pretrained(data, longer).record["loss"]
    flows = data.hourly_flows
    share = [np.bincount(end, flows.count, REGIONS) for end in (flows.origin, flows.destination)]
    known = [(s / s.sum())[s > 0] for s in share]
    volumes = sum(-(s * np.log(s)).sum() for s in known) * (REGIONS - 2) / REGIONS
    assert len(loss) == 100 and loss[-1] < volumes < loss[0]


def test_pretraining_is_deterministic_in_its_seed(data: RegionData) -> None:
    first, again, other = (pretrained(data, seed=seed) for seed in (0, 0, 1))
    assert equal(first, again) and not equal(first, other)
    hours = first.record["patterns"]
    assert sorted(hour for some in hours for hour in some) == list(HOURS) and len(hours) == 3


def test_goes_on_after_a_kill(data: RegionData, tmp_path: Path) -> None:
    class PowerCut(BaseException):
        pass

    def cut(line: str) -> None:
        if " 2 of " in line:
            raise PowerCut

    whole = pretrained(data)
    with pytest.raises(PowerCut):
        pretrained(data, workspace=Workspace(cut, tmp_path))
    assert list(tmp_path.glob("*.ckpt"))
    assert equal(whole, pretrained(data, workspace=Workspace(None, tmp_path)))


# --- regions that are unseen, or have no trips ---------------------------------------------------


def test_regions_without_trips_have_the_mean_vector(data: RegionData) -> None:
    rows = METHOD.embed(pretrained(data), data, CONFIG)
    assert rows.shape == (REGIONS, 8) and rows.dtype == np.float32 and np.isfinite(rows).all()
    moving = ~np.isin(np.arange(REGIONS), [5, 7])
    np.testing.assert_allclose(rows[[5, 7]], np.tile(rows[moving].mean(axis=0), (2, 1)), rtol=1e-5)
    assert len(np.unique(rows[moving].round(4), axis=0)) == moving.sum()


def test_what_an_unseen_region_holds_changes_no_other(data: RegionData) -> None:
    visible = np.arange(REGIONS) % 4 > 0
    flows, unseen = data.hourly_flows, ~visible
    touched = unseen[flows.origin] | unseen[flows.destination]
    hour = np.where(touched, (flows.hour + 3) % 24, flows.hour)  # 3, 10 and 20 were not seen
    changed = replace(
        data,
        hourly_flows=replace(
            flows, hour=hour, count=np.where(touched, 99 - flows.count, flows.count)
        ),
    )
    later = replace(
        data, hourly_flows=replace(flows, count=np.where(touched, 99 - flows.count, flows.count))
    )
    checkpoints = [pretrained(city, visible=visible) for city in (data, changed, later)]
    assert equal(*checkpoints[:2]) and equal(*checkpoints[1:])
    first, second = (METHOD.embed(checkpoints[0], city, CONFIG) for city in (data, later))
    np.testing.assert_array_equal(first[visible], second[visible])
    assert not np.allclose(first[unseen], second[unseen])
    # Trips of hours that pretraining has not seen are not read.
    third = METHOD.embed(checkpoints[0], changed, CONFIG)
    read = replace(changed, hourly_flows=of_hours(changed.hourly_flows, np.isin(hour, HOURS)))
    np.testing.assert_array_equal(third, METHOD.embed(checkpoints[0], read, CONFIG))
    np.testing.assert_allclose(third[visible], first[visible], rtol=1e-5, atol=1e-6)


def test_a_city_that_teaches_nothing_is_refused(data: RegionData) -> None:
    one, few = np.arange(REGIONS) == 2, np.isin(np.arange(REGIONS), [5, 7])
    with pytest.raises(DataError, match="mgfn needs two visible regions"):
        pretrained(data, visible=one)
    with pytest.raises(DataError, match=r"no trip with a time[\s\S]*sources\.trips"):
        pretrained(data, visible=few)


def test_a_checkpoint_is_of_one_city(data: RegionData) -> None:
    fewer = replace(data, region_ids=data.region_ids[:9])
    with pytest.raises(DataError, match="fitted on 40 regions and cannot embed 9"):
        METHOD.embed(pretrained(data), fewer, CONFIG)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        MgfnConfig(width=10, heads=4)
