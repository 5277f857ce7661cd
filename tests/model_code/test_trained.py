"""Parameters are counted where they are trained, each once."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from model_code.trained import counted, note
from model_code.training import fit
from tests.model_code.regression import SETTINGS, TRAIN, make

WEIGHTS = 5 * 16 + 16 + 16 + 1
ONCE = replace(SETTINGS, epochs=1)


def test_what_trains_is_counted_once_and_what_is_frozen_not_at_all() -> None:
    model, other = make(), make()
    other.layers[0].requires_grad_(False)
    with counted() as trained:
        assert trained.numbers == 0
        fit(model, TRAIN, ONCE, seed=0)
        assert trained.numbers == WEIGHTS
        fit(model, TRAIN, ONCE, seed=1)  # goes on
        assert trained.numbers == WEIGHTS
        fit(other, TRAIN, ONCE, seed=0)
    assert trained.numbers == WEIGHTS + 16 + 1


def test_what_the_loss_does_not_reach_is_not_counted() -> None:
    model = make()
    model.unused = nn.Linear(7, 7)
    with counted() as trained:
        fit(model, TRAIN, ONCE, seed=0)
    assert trained.numbers == WEIGHTS


def test_counts_do_not_mix() -> None:
    with counted() as outer:
        with counted() as inner:
            fit(make(), TRAIN, ONCE, seed=0)
        assert (outer.numbers, inner.numbers) == (0, WEIGHTS)
    note(make().parameters())  # where nobody counts
    assert (outer.numbers, inner.numbers) == (0, WEIGHTS)
