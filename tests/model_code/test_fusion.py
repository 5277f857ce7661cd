from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_code.fusion import Aggregate, Aggregation, Fusing, Fusion, Projection, segment_softmax
from model_code.training import seeded

KINDS: tuple[Aggregation, ...] = ("mean", "attention", "linear")
COUNTS = [3, 0, 1, 5, 4, 2]  # views by region; as many as slots in the fifth
SLOTS = 4


def city(counts: list[int] = COUNTS) -> tuple[Tensor, Tensor]:
    with seeded(3):
        views = torch.randn(sum(counts), 6, dtype=torch.float64)
    return views, torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def module(kind: Aggregation) -> Aggregate:
    with seeded(4):
        aggregate = Aggregate(kind, 6, SLOTS).double()
        for parameter in aggregate.parameters():
            nn.init.normal_(parameter)
    return aggregate


def naive(aggregate: Aggregate, views: Tensor) -> Tensor:
    """One region's vector, view by view."""
    if not len(views):
        return torch.zeros(6, dtype=torch.float64)
    if aggregate.kind == "mean":
        weights = [1 / len(views)] * len(views)
    elif aggregate.kind == "attention":
        unit = [(v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt() for v in views]
        scores = [aggregate.score(torch.tanh(aggregate.hidden(v)))[0] for v in unit]
        weights = [score.exp() / sum(s.exp() for s in scores) for score in scores]
    else:  # in steps so fine that each lies in one slot and one view
        steps = SLOTS * len(views)
        weights = [0.0] * len(views)
        for step in range(steps):
            slot, view = step * SLOTS // steps, step * len(views) // steps
            weights[view] = weights[view] + aggregate.slot_weight[slot] * SLOTS / steps
    return sum(w * view for w, view in zip(weights, views, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_aggregates_equal_their_twins_in_value_and_gradient(kind: Aggregation) -> None:
    views, region = city()
    views.requires_grad_()
    aggregate = module(kind)
    ours = aggregate(views, region, len(COUNTS))
    twin = torch.stack([naive(aggregate, views[region == r]) for r in range(len(COUNTS))])
    torch.testing.assert_close(ours, twin)
    inputs = (views, *aggregate.parameters())
    weight = torch.arange(ours.numel(), dtype=torch.float64).sin().view_as(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((twin * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
        assert a.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_region_does_not_depend_on_the_others(kind: Aggregation) -> None:
    views, region = city()
    aggregate = module(kind)
    whole = aggregate(views, region, len(COUNTS))
    for r, count in enumerate(COUNTS):
        alone = aggregate(views[region == r], torch.zeros(count, dtype=torch.int64), 1)
        torch.testing.assert_close(alone[0], whole[r])
    assert not whole[COUNTS.index(0)].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_city_without_any_view(kind: Aggregation) -> None:
    views, region = city([0, 0])
    assert not module(kind)(views, region, 2).any()


def test_with_as_many_views_as_slots_each_has_its_own_weight() -> None:
    views, region = city([SLOTS])
    aggregate = module("linear")
    torch.testing.assert_close(aggregate(views, region, 1)[0], aggregate.slot_weight @ views)


def test_only_linear_sees_the_order_of_the_views() -> None:
    views, region = city([SLOTS])
    for kind in KINDS:
        aggregate = module(kind)
        same = torch.allclose(aggregate(views, region, 1), aggregate(views.flip(0), region, 1))
        assert same == (kind != "linear")


def test_a_softmax_by_segment_stays_finite() -> None:
    score = torch.tensor([1e4, 1e4, -1e4, 0.0])
    weight = segment_softmax(score, torch.tensor([0, 0, 1, 1]), 3)
    torch.testing.assert_close(weight, torch.tensor([0.5, 0.5, 0.0, 1.0]))


def test_a_projection_starts_as_the_identity_and_puts_a_token_for_what_is_absent() -> None:
    present = torch.tensor([True, False, True])
    values = torch.randn(3, 4)
    values[1] = torch.nan
    projection = Projection(4, 5)
    out = projection(values, present)
    torch.testing.assert_close(out[present][:, :4], values[present])
    assert torch.equal(out[1], projection.absent)
    out.sum().backward()
    gradients = [parameter.grad for parameter in projection.parameters()]
    assert all(g.isfinite().all() and g.any() for g in gradients)
    narrow = Projection(8, 3).linear.weight
    torch.testing.assert_close(narrow @ narrow.T, torch.eye(3))


@pytest.mark.parametrize("kind", ["sum", "gate", "concat"])
def test_fusions_equal_their_twins(kind: Fusing) -> None:
    with seeded(0):
        fusion, parts = Fusion(kind, 3, 4), [torch.randn(5, 4) for _ in range(3)]
    ours = fusion(parts)
    joined = torch.cat(parts, dim=1)
    if kind == "sum":
        twin = parts[0] + parts[1] + parts[2]
    elif kind == "concat":
        twin = fusion.mix(joined)
    else:
        gates = fusion.gate(joined).exp().split(4, dim=1)
        twin = sum(g * p for g, p in zip(gates, parts, strict=True)) / sum(gates)
    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(fusion([p[2:3] for p in parts]), ours[2:3])


def test_attention_over_modalities_equals_its_twin_in_value_and_gradient() -> None:
    """MuseCL, equations 8 to 10, region by region and modality by modality."""
    with seeded(5):
        fusion = Fusion("attention", 3, 4).double()
        parts = [torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    rows = []
    for i in range(5):
        alpha = [(fusion.score.weight @ torch.relu(fusion.hidden(p[i])))[0] for p in parts]
        beta = [a.exp() / sum(b.exp() for b in alpha) for a in alpha]
        rows.append(sum(b * p[i] for b, p in zip(beta, parts, strict=True)))
    ours, twin = fusion(parts), torch.stack(rows)
    torch.testing.assert_close(ours, twin)
    inputs = (*parts, *fusion.parameters())
    for a, b in zip(
        torch.autograd.grad(ours.sin().sum(), inputs),
        torch.autograd.grad(twin.sin().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
        assert a.any()
