from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.methods import RemvcConfig
from model_code.methods.base import Checkpoint, RegionData, Workspace
from model_code.methods.baselines.remvc import (
    METHOD,
    PoiView,
    Pretraining,
    RemvcRegions,
    Scorer,
    deleted,
    doubled,
    inter_view_loss,
    intra_view_loss,
    replaced,
)
from model_code.training import seeded
from tests.model_code.methods.baselines.relation import (
    EVERYONE,
    REGIONS,
    relation_city,
    without_flows,
    without_pois,
)
from tests.model_code.methods.fake_city import equal

CONFIG = RemvcConfig(width=5, epochs=3, batch=16, trip_negatives=8, poi_weight=0.1)


@pytest.fixture(scope="module")
def data() -> RegionData:
    return relation_city()


def training(data: RegionData, config: RemvcConfig = CONFIG, seed: int = 0) -> Pretraining:
    with seeded(seed):
        return Pretraining(RemvcRegions(data, config, EVERYONE), config, EVERYONE)


def pretrained(data: RegionData, config: RemvcConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, config, **{"seed": 0, "visible": EVERYONE, **kwargs})


def same(ours: torch.Tensor, twin: torch.Tensor, of: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, of), torch.autograd.grad(twin, of), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("regions", [7, 1])
def test_the_contrast_within_a_view(regions: int) -> None:
    torch.manual_seed(0)
    own, copies, apart = of = [
        torch.randn(regions, *more, 4, requires_grad=True) for more in ((), (3,), (6,))
    ]
    twin = torch.zeros(())
    for i in range(regions):
        every = [own[i] @ other / 0.3 for other in (*copies[i], *apart[i])]
        total = torch.stack(every).exp().sum().log()
        twin = twin - sum(score - total for score in every[:3]) / 3 / regions
    same(intra_view_loss(own, copies, apart, 0.3), twin, of)


@pytest.mark.parametrize("kind", ["bilinear", "linear"])
@pytest.mark.parametrize("regions", [7, 1])
def test_the_contrast_between_views(kind: str, regions: int) -> None:
    torch.manual_seed(0)
    scorer = Scorer(kind, 4)
    poi, trips, other_poi, other_trips = (
        torch.randn(regions, *more, 4, requires_grad=True) for more in ((), (), (5,), (5,))
    )

    def score(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if kind == "linear":
            return torch.cat([p, t]) @ scorer.weight.flatten()
        return p @ scorer.weight @ t

    twin = torch.zeros(())
    for i in range(regions):
        every = [score(poi[i], trips[i])]
        every += [score(p, trips[i]) for p in other_poi[i]] + [
            score(poi[i], t) for t in other_trips[i]
        ]
        twin = twin - (every[0] - torch.stack(every).logsumexp(0)) / regions
    ours = inter_view_loss(
        scorer(poi, trips), scorer(other_poi, trips[:, None]), scorer(poi[:, None], other_trips)
    )
    same(ours, twin, [poi, trips, other_poi, other_trips, scorer.weight])


def test_a_linear_scorer_cannot_tell_who_belongs_together() -> None:
    """What one side adds is the same beside any other: why the default is bilinear."""
    torch.manual_seed(0)
    poi, trips = torch.randn(2, 4), torch.randn(2, 4)

    def gain(kind: str) -> torch.Tensor:
        scorer = Scorer(kind, 4)
        of = [[scorer(p, t) for t in trips] for p in poi]
        return of[0][0] - of[0][1] - (of[1][0] - of[1][1])

    assert gain("linear").abs() < 1e-6 < gain("bilinear").abs()


def test_parts_of_the_loss_are_weighed(data: RegionData) -> None:
    index = torch.arange(REGIONS)

    def value(**changes: float) -> float:
        nothing = {"poi_weight": 0.0, "trip_weight": 0.0, "inter_weight": 0.0}
        module = training(data, CONFIG.model_copy(update={**nothing, **changes}))
        torch.manual_seed(0)
        return module.loss(index).item()

    alone = [value(**{key: 1.0}) for key in ("poi_weight", "trip_weight", "inter_weight")]
    assert all(loss > 0 for loss in alone)
    both = value(poi_weight=0.5, trip_weight=2.0, inter_weight=3.0)
    assert both == pytest.approx(0.5 * alone[0] + 2 * alone[1] + 3 * alone[2], rel=1e-5)


# --- views ---------------------------------------------------------------------------------------


def test_views_are_linear_layers_on_shares(data: RegionData) -> None:
    regions = RemvcRegions(data, CONFIG, EVERYONE)
    trips = np.zeros((REGIONS, REGIONS))
    trips[data.flow_origin, data.flow_destination] = data.flow_count
    index = torch.tensor([9, 3, 5, 0, 9])
    poi, moved = regions.view("poi"), regions.view("trips")
    for place, i in enumerate(index.tolist()):
        counts = torch.from_numpy(data.poi_counts[i])
        share = counts / counts.sum().clamp(min=1)
        torch.testing.assert_close(poi(index)[place], poi.linear(share).relu())
        found = []
        for row, layer in zip((trips[i], trips[:, i]), moved.layers, strict=True):
            share = torch.from_numpy(row / max(row.sum(), 1)).float()
            found.append((share @ layer.weight + layer.bias).relu())
        torch.testing.assert_close(moved(index)[place], (found[0] + found[1]) / 2)
    assert (~poi.present).nonzero()[:, 0].tolist() == [3, 7]
    assert (~moved.present).nonzero()[:, 0].tolist() == [5, 7]


def test_trips_in_one_direction_are_not_mixed_with_a_bias(data: RegionData) -> None:
    """Region 9 has no trip away, 2 none towards it, 4 both."""
    kept = (data.flow_origin != 9) & (data.flow_destination != 2)
    ends = data.flow_origin[kept], data.flow_destination[kept]
    city = replace(
        data, flow_origin=ends[0], flow_destination=ends[1], flow_count=data.flow_count[kept]
    )
    moved = RemvcRegions(city, CONFIG, EVERYONE).view("trips")
    index = torch.tensor([9, 2, 4])
    out, into = (
        layer(*rows.of(index)) for rows, layer in zip(moved.rows, moved.layers, strict=True)
    )
    expected = torch.stack([into[0], out[1], (out[2] + into[2]) / 2])
    torch.testing.assert_close(moved(index), expected)
    torch.testing.assert_close(moved.copies(index, 0.0)[:, 3], expected)
    assert moved.present[index].all() and not torch.equal(out[0], into[0])


def test_distances_are_those_of_shares(data: RegionData) -> None:
    regions = RemvcRegions(data, CONFIG, EVERYONE)
    trips = np.zeros((REGIONS, REGIONS))
    trips[data.flow_origin, data.flow_destination] = data.flow_count
    both = [
        matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) for matrix in (trips, trips.T)
    ]
    wanted = {
        "poi": data.poi_counts / np.maximum(data.poi_counts.sum(axis=1, keepdims=True), 1),
        "trips": np.hstack(both),
    }
    index, others = torch.tensor([1, 5, 9]), torch.tensor([2, 9, 30, 7])
    for name, rows in wanted.items():
        found = regions.view(name).distance(index, others)
        expected = np.linalg.norm(rows[index.numpy()][:, None] - rows[others.numpy()], axis=2)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_changed_pois() -> None:
    torch.manual_seed(0)
    counts = torch.tensor([[400.0, 0, 100, 500], [0, 0, 0, 1], [0, 0, 0, 0]]).repeat(200, 1)
    for change, total in ((deleted, 900), (doubled, 1100), (replaced, 1000)):
        found = change(counts, 0.1)
        assert (found >= 0).all() and torch.equal(found, found.round())
        sums = found.sum(dim=1)
        assert sums[::3].mean().item() == pytest.approx(total, rel=0.01)
        assert (sums[1::3] >= 1).all() and (sums[2::3] == 0).all()
    assert torch.equal(replaced(counts, 0.1).sum(dim=1), counts.sum(dim=1))
    mean = replaced(counts, 0.1)[::3].mean(dim=0)
    np.testing.assert_allclose(mean, [385, 25, 115, 475], rtol=0.05)


def test_noise_is_on_trips_that_there_are(data: RegionData) -> None:
    moved, index = RemvcRegions(data, CONFIG, EVERYONE).view("trips"), torch.arange(REGIONS)
    torch.manual_seed(0)
    copies = moved.copies(index, 0.3)
    assert copies.shape == (REGIONS, 4, CONFIG.width)
    own = moved(index)
    still = (copies == own[:, None]).all(dim=2).all(dim=1).nonzero()[:, 0].tolist()
    assert still == [5, 7]  # they have none
    nearly = (moved.copies(index, 1e-6) - own[:, None]).abs().max()
    assert 0 < nearly < 1e-5


def test_negatives_are_others_that_have_the_view_and_differ(
    data: RegionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = data.poi_counts.copy()
    counts[:20] = [9, 0, 0, 0, 0]
    counts[20:38], counts[38] = [0, 9, 0, 0, 0], [9, 0, 0, 0, 0]
    module = training(replace(data, poi_counts=counts))
    # Vectors that say whose they are.
    monkeypatch.setattr(PoiView, "forward", lambda self, index: F.one_hot(index, REGIONS).float())
    torch.manual_seed(0)
    drawn = module.negatives("poi", torch.tensor([0, 25, 39]), 12).argmax(dim=2)
    assert drawn.shape == (3, 12)
    assert ((drawn[0] >= 20) & (drawn[0] != 38)).all()
    assert ((drawn[1] < 20) | (drawn[1] >= 38)).all()
    assert all(len(set(row.tolist())) == 12 for row in drawn)


# --- the method ----------------------------------------------------------------------------------


def test_everything_learns(data: RegionData) -> None:
    module = training(data, CONFIG.model_copy(update={"poi_weight": 1.0}))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    module.loss(torch.tensor([2, 3, 5, 7, 11, 13, 17])).backward()
    optimizer.step()
    assert [n for n, p in module.named_parameters() if torch.equal(p, before[n])] == []


def test_training_lowers_the_loss(data: RegionData) -> None:
    loss = pretrained(data, CONFIG.model_copy(update={"epochs": 30, "learning_rate": 0.01}))
    values = loss.record["loss"]
    assert len(values) == 30 and np.mean(values[-3:]) < np.mean(values[:3])


def test_pretraining_is_deterministic_and_goes_on_after_a_kill(
    data: RegionData, tmp_path: Path
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(line: str) -> None:
        if " 2 of " in line:
            raise PowerCut

    whole = pretrained(data)
    assert equal(whole, pretrained(data)) and not equal(whole, pretrained(data, seed=1))
    with pytest.raises(PowerCut):
        pretrained(data, workspace=Workspace(cut, tmp_path))
    assert list(tmp_path.glob("*.ckpt"))
    assert equal(whole, pretrained(data, workspace=Workspace(None, tmp_path)))


def test_who_lacks_a_view_has_the_mean_of_the_others(data: RegionData) -> None:
    rows = METHOD.embed(pretrained(data), data, CONFIG)
    assert rows.shape == (REGIONS, 2 * CONFIG.width) and rows.dtype == np.float32
    poi, trips = rows[:, : CONFIG.width], rows[:, CONFIG.width :]
    for part, lacking in ((poi, [3, 7]), (trips, [5, 7])):
        mean = np.delete(part, lacking, axis=0).mean(axis=0)
        np.testing.assert_allclose(part[lacking], np.stack([mean, mean]), rtol=1e-5)
        assert mean.any()


def test_one_view_is_enough(data: RegionData) -> None:
    for city, name in ((without_pois(data), "trips"), (without_flows(data), "poi")):
        checkpoint = pretrained(city)
        assert checkpoint.record["views"] == [name]
        rows = METHOD.embed(checkpoint, city, CONFIG)
        assert rows.shape == (REGIONS, CONFIG.width) and np.isfinite(rows).all()


def test_what_an_unseen_region_holds_changes_no_other(data: RegionData) -> None:
    visible = np.arange(REGIONS) % 4 > 0
    unseen, other = ~visible, relation_city(seed=1)
    touched = unseen[data.flow_origin] | unseen[data.flow_destination]
    changed = replace(
        data,
        poi_counts=np.where(unseen[:, None], other.poi_counts, data.poi_counts),
        flow_count=np.where(touched, 99.0 - data.flow_count, data.flow_count),
    )
    checkpoints = [pretrained(city, visible=visible) for city in (data, changed)]
    assert equal(*checkpoints)
    first, second = (METHOD.embed(checkpoints[0], city, CONFIG) for city in (data, changed))
    np.testing.assert_allclose(first[visible], second[visible], rtol=1e-6, atol=1e-7)
    assert not np.allclose(first[unseen], second[unseen])


def test_a_checkpoint_is_of_one_city_and_its_views(data: RegionData) -> None:
    checkpoint = pretrained(data)
    fewer = replace(without_flows(data), region_ids=data.region_ids[:9])
    with pytest.raises(DataError, match="fitted on 40 regions and cannot embed 9"):
        METHOD.embed(checkpoint, fewer, CONFIG)
    with pytest.raises(DataError, match="the city has others now"):
        METHOD.embed(checkpoint, without_pois(data), CONFIG)
