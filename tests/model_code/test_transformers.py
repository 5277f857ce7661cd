from __future__ import annotations

import pytest
import torch

from model_code.methods import method_config, method_spec
from model_code.training import evaluating, seeded
from model_code.transformers import hour_vectors, transformer


def test_what_comes_out_is_normalised_whatever_the_size_of_what_goes_in() -> None:
    with seeded(0):
        net, steps = transformer(16, 4, 2, 0.0), torch.randn(3, 24, 16)
    with evaluating(net):
        for size in (0.1, 1.0, 100.0):
            torch.testing.assert_close(net(size * steps).std(dim=2, correction=0), torch.ones(3, 24),
                                       rtol=1e-2, atol=1e-2)  # fmt: skip


def test_hours_are_of_the_size_of_standardised_features() -> None:
    with seeded(0):
        assert hour_vectors(24, 64).std().item() == pytest.approx(1, abs=0.1)


def test_lmemr_and_its_baseline_have_the_same_one() -> None:
    spec = method_spec("hourly_transformer")
    config = method_config("hourly_transformer", {"hidden": 16, "layers": 2, "dropout": 0.1})
    with seeded(0):
        own = spec.load().sequence(config)
        assert str(own) == str(transformer(16, 4, 2, 0.1))
