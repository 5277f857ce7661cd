from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model_code.losses import (
    Temperature,
    info_nce,
    late_interaction,
    late_interaction_loss,
    mean_info_nce,
    nt_xent,
    one_way_info_nce,
    triplet_loss,
)
from model_code.training import seeded


def unit(*shape: int, seed: int = 0) -> Tensor:
    with seeded(seed, *shape):
        return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1).requires_grad_()


def masks(seed: int, rows: int, length: int) -> Tensor:
    with seeded(seed):
        keep = torch.randint(1, length + 1, (rows, 1))
    return torch.arange(length) < keep


def naive_nce(logits: list[list[Tensor]]) -> Tensor:
    """Equation 5 or 8 as printed: one direction of logits[i][j]."""
    total = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logits):
        total = total - (row[i] - torch.log(sum(value.exp() for value in row)))
    return total / len(logits)


def naive_late(v: Tensor, t: Tensor, v_mask: Tensor, t_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 6 and 7, token by token."""
    to_text, to_picture = [], []
    for i in range(len(v)):
        for j in range(len(t)):
            own = [v[i, k] for k in range(v.shape[1]) if v_mask[i, k]]
            other = [t[j, k] for k in range(t.shape[1]) if t_mask[j, k]]
            to_text.append(sum(torch.stack([a @ b for b in other]).max() for a in own) / len(own))
            to_picture.append(
                sum(torch.stack([a @ b for a in own]).max() for b in other) / len(other)
            )
    shape = len(v), len(t)
    return torch.stack(to_text).view(shape), torch.stack(to_picture).view(shape).T


def same_value_and_gradient(first: Tensor, second: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(first, second)
    for a, b in zip(
        torch.autograd.grad(first, inputs), torch.autograd.grad(second, inputs), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_info_nce_is_equation_5(pairs: int) -> None:
    a, b = unit(pairs, 5), unit(pairs, 5, seed=1)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    rows = [[scale * (a[i] @ b[j]) for j in range(pairs)] for i in range(pairs)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    twin = naive_nce(rows) + naive_nce(columns)
    same_value_and_gradient(info_nce(a, b, scale), twin, a, b, scale)


@pytest.mark.parametrize("pairs", [0, 1])
def test_nothing_to_contrast_is_zero_and_keeps_the_graph(pairs: int) -> None:
    a, b = unit(pairs, 5), unit(pairs, 5, seed=1)
    v, t = unit(pairs, 3, 5), unit(pairs, 4, 5, seed=1)
    losses = info_nce(a, b, 10.0), late_interaction_loss(v, t, masks(0, pairs, 4), 10.0)
    for loss, inputs in zip(losses, ((a, b), (v, t)), strict=True):
        assert loss.item() == 0
        assert not any(g.any() for g in torch.autograd.grad(loss, inputs))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99)
)
def test_late_interaction_is_equations_6_and_7_under_any_budget(
    pictures: int, texts: int, l1: int, l2: int, seed: int
) -> None:
    v, t = unit(pictures, l1, 3, seed=seed), unit(texts, l2, 3, seed=seed + 1)
    v_mask, t_mask = masks(seed, pictures, l1), masks(seed + 1, texts, l2)
    twin = naive_late(v, t, v_mask, t_mask)
    weights = unit(pictures, texts, seed=seed + 2).detach(), unit(texts, pictures).detach()

    def gradients(sides: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        total = sum((side * weight).sum() for side, weight in zip(sides, weights, strict=True))
        return torch.autograd.grad(total, (v, t))

    expected = gradients(twin)
    for pairs in (1, 2, 5, 10_000):  # the last keeps where its maxima lie
        budget = pairs * l1 * l2 * 8
        ours = late_interaction(v, t, t_mask, picture_mask=v_mask, budget_bytes=budget)
        torch.testing.assert_close(ours, twin)
        torch.testing.assert_close(gradients(ours), expected)


@pytest.mark.parametrize("pairs", [1, 3, 6])
def test_late_interaction_loss_is_equation_8(pairs: int) -> None:
    v, t = unit(pairs, 4, 3), unit(pairs, 5, 3, seed=1)
    mask = masks(2, pairs, 5)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    forward, backward = naive_late(v, t, torch.ones(pairs, 4, dtype=torch.bool), mask)
    twin = sum(naive_nce([list(row) for row in scale * part]) for part in (forward, backward))
    same_value_and_gradient(late_interaction_loss(v, t, mask, scale), twin, v, t, scale)


@pytest.mark.parametrize("side", ["picture", "text"])
def test_padding_takes_no_part(side: str) -> None:
    v, t = unit(3, 4, 3), unit(3, 4, 3, seed=1)
    mask = masks(3, 3, 4)
    assert not mask.all()
    full = torch.ones_like(mask)
    loud = {"picture": v, "text": t}
    own = {"picture": full, "text": full} | {side: mask}
    before = late_interaction(v, t, own["text"], picture_mask=own["picture"])
    with torch.no_grad():
        loud[side][~mask] = 1e6
    after = late_interaction(v, t, own["text"], picture_mask=own["picture"])
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(after[0].sum() + after[1].sum(), loud[side])
    assert not gradient[~mask].any() and gradient[mask].any()


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


@pytest.mark.parametrize("budget", [2**14, 2**16, 2**18])
def test_no_tensor_is_larger_than_the_budget(budget: int) -> None:
    v, t = unit(12, 8, 4).float().detach().requires_grad_(), unit(12, 16, 4).float().detach()
    with Largest() as seen:
        a, b = late_interaction(v, t, masks(0, 12, 16), budget_bytes=budget)
        (a.sum() + b.sum()).backward()
    whole = 12 * 12 * 8 * 16 * 4
    assert seen.bytes <= budget
    assert seen.bytes > min(budget, whole) / 4  # the meter counts


def test_a_budget_below_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"127 bytes is less than one pair's 128"):
        late_interaction(
            unit(2, 4, 3), unit(2, 4, 3), torch.ones(2, 4, dtype=torch.bool), budget_bytes=127
        )


def test_temperature_starts_and_stays_where_clips_does() -> None:
    temperature = Temperature()
    assert temperature().item() == pytest.approx(1 / 0.07)
    for start, end in ((9.0, 100.0), (-1.0, 1.0)):
        with torch.no_grad():
            temperature.log_scale.fill_(start)
        scale = temperature()
        assert scale.item() == pytest.approx(end)
        (gradient,) = torch.autograd.grad(scale, temperature.log_scale)
        assert gradient == pytest.approx(end)  # at the edge it can still move back
    assert math.isfinite(temperature.log_scale.item())


@pytest.mark.parametrize("size", [1, 5])
def test_one_way_info_nce_equals_its_twin_in_value_and_gradient(size: int) -> None:
    left, right = unit(size, 6), unit(size, 6, seed=1)
    twin = naive_nce([[7 * (a @ b) for b in right] for a in left])
    ours = one_way_info_nce(left, right, 7.0)
    torch.testing.assert_close(ours, twin)
    for a, b in zip(
        torch.autograd.grad(ours, (left, right)),
        torch.autograd.grad(twin, (left, right)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert one_way_info_nce(left[:0], right[:0], 7.0) == 0


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_triplets_equal_their_twin_in_value_and_gradient(distance: str) -> None:
    with seeded(2):
        vectors = [torch.randn(9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def far(a: Tensor, b: Tensor) -> Tensor:
        if distance == "cosine":
            return 1 - a @ b / (a @ a).sqrt() / (b @ b).sqrt()
        return ((a - b) ** 2).sum().sqrt()

    margin = {"cosine": 0.3, "euclidean": 0.5}[distance]
    hinges = [margin + far(a, p) - far(a, n) for a, p, n in zip(*vectors, strict=True)]
    assert 0 < sum(h > 0 for h in hinges) < 9
    twin = sum(h.clamp(min=0) for h in hinges) / 9
    ours = triplet_loss(*vectors, margin, distance)
    torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, vectors), torch.autograd.grad(twin, vectors), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert triplet_loss(*(v[:0] for v in vectors), margin, distance) == 0


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_mean_contrast_is_equation_4_of_lmemr(batch: int) -> None:
    """Of vectors of any length; the mean of both directions, over all pairs."""
    left, right = 3 * unit(batch, 5).detach(), unit(batch, 5, seed=1).detach()
    left, right = left.requires_grad_(), right.requires_grad_()
    cosines = [[F.cosine_similarity(a, b, dim=0) / 0.1 for b in right] for a in left]
    turned = [list(column) for column in zip(*cosines, strict=True)]
    expected = 0.5 * (naive_nce(cosines) + naive_nce(turned))
    same_value_and_gradient(mean_info_nce(left, right, 10.0, 100), expected, left, right)


def test_mean_contrast_above_a_size_is_that_of_random_batches() -> None:
    left, right = unit(10, 4), unit(10, 4, seed=1)
    with seeded(5):
        found = mean_info_nce(left, right, 10.0, 4)
    with seeded(5):
        order = torch.randperm(10)
    batches = [order[:4], order[4:7], order[7:]]  # of at most four, and even
    expected = sum(len(b) * mean_info_nce(left[b], right[b], 10.0, 99) for b in batches) / 10
    same_value_and_gradient(found, expected, left, right)
    assert mean_info_nce(left[:0], right[:0], 10.0, 4) == 0


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("owned", [False, True])
def test_nt_xent_equals_its_twin_in_value_and_gradient(batch: int, owned: bool) -> None:
    """Equation 1 of SimCLR, of vectors of any length; other pictures of what is in a pair are left
    out of its sums."""
    left, right = 3 * unit(batch, 5).detach(), unit(batch, 5, seed=1).detach()
    left, right = left.requires_grad_(), right.requires_grad_()
    owner = torch.tensor([[0, 4, 2, 1, 4, 5, 6], [1, 3, 0, 0, 5, 5, 9]])[:, :batch]
    both, of = [*left, *right], owner.flatten().tolist()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(2 * batch):
        partner = (i + batch) % (2 * batch)
        terms = [
            (F.cosine_similarity(both[i], both[k], dim=0) / 0.5).exp()
            for k in range(2 * batch)
            if k == partner or (of[k] not in (of[i], of[partner]) if owned else k != i)
        ]
        near = F.cosine_similarity(both[i], both[partner], dim=0) / 0.5
        total = total + torch.log(torch.stack(terms).sum()) - near
    ours = nt_xent(left, right, 2.0, owner if owned else None)
    same_value_and_gradient(ours, total / (2 * batch), left, right)
    assert nt_xent(left[:0], right[:0], 2.0) == 0
