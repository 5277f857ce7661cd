from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_code.errors import CityloomError
from model_code.training import (
    Settings,
    fit,
    state_arrays,
)
from tests.model_code.regression import (
    SETTINGS,
    TRAIN,
    PowerCut,
    assert_same,
    cut_power,
    make,
    train,
)


def test_equals_a_plain_loop() -> None:
    model, twin = make(dropout=0.0), make(dropout=0.0)
    history = fit(model, TRAIN, SETTINGS, seed=3)
    weights = [p for p in twin.parameters() if p.ndim >= 2]
    biases = [p for p in twin.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}], lr=1e-2
    )
    step, losses = 0, []
    for epoch in range(6):
        order = np.random.default_rng((3, epoch)).permutation(TRAIN)
        for start in range(0, 40, 8):
            for group in optimiser.param_groups:
                group["lr"] = 1e-2 * 0.5 * (1 + np.cos(np.pi * step / 30))
            loss = twin.loss(torch.from_numpy(order[start : start + 8]))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
            optimiser.step()
            losses.append(loss.item())
            step += 1
    for name, value in state_arrays(twin).items():
        np.testing.assert_allclose(state_arrays(model)[name], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history.train, np.reshape(losses, (6, 5)).mean(axis=1), rtol=1e-5)
    assert history.best_epoch == 5


@pytest.mark.parametrize("validated", [2, 4, 6])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, validated: int) -> None:
    whole, history = train()
    with pytest.raises(PowerCut):
        train(resume=tmp_path, validated=validated)
    assert len(list(tmp_path.iterdir())) == 1
    again, resumed = train(resume=tmp_path)
    assert_same(again, whole)
    assert resumed == history
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_training_does_not_start_anew(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(resume=tmp_path, validated=4)
    with pytest.raises(PowerCut):  # three epochs are done, three remain
        train(resume=tmp_path, validated=3)
    train(resume=tmp_path, validated=2)  # one remains


def test_a_state_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(resume=tmp_path, validated=4)
    longer = Settings(epochs=7, batch=8)
    assert_same(train(longer, resume=tmp_path)[0], train(longer)[0])
    assert_same(train(seed=1, resume=tmp_path)[0], train(seed=1)[0])


def test_resumes_after_kill_9(tmp_path: Path) -> None:
    """The process dies inside the fourth epoch's validation, without a chance to tidy up."""
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "import tests.model_code.regression as t\n"
        "t.cut_power = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"t.train(resume=Path({str(tmp_path)!r}), validated=4)\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert_same(train(resume=tmp_path)[0], train()[0])


@pytest.mark.parametrize(
    "settings", [SETTINGS, Settings(epochs=200, batch=8, learning_rate=0.1, patience=2)]
)
def test_a_training_killed_after_its_last_epoch_is_only_finished(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history = train(settings)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Path, "unlink", lambda *_, **__: cut_power())
        train(settings, resume=tmp_path)
    again, resumed = train(settings, resume=tmp_path, validated=1)
    assert_same(again, whole)
    assert resumed == history


def test_the_process_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train()
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_nothing_is_printed_and_progress_is_sparse(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    fit(make(), TRAIN, Settings(epochs=40), seed=0, progress=lines.append)
    assert capfd.readouterr() == ("", "")
    assert lines[0].startswith("epochs [----------] 2 % · 1 of 40 · ")
    assert lines[-1].startswith("epochs [##########] 100 % · 40 of 40 · ")
    assert all(" left · train " in line for line in lines)
    assert 10 <= len(lines) <= 12


@pytest.mark.parametrize("patience, ran", [(1, 4), (2, 5), (3, 8), (None, 8)])
def test_the_best_epoch_stays_and_patience_stops(patience: int | None, ran: int) -> None:
    scores = iter([5.0, 3.0, 2.0, 2.0, 4.0, 1.0, 9.0, 9.0])
    model, states = make(), []

    def validate() -> float:
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        assert not model.training and not torch.is_grad_enabled()
        return next(scores)

    settings = Settings(epochs=8, batch=8, patience=patience)
    history = fit(model, TRAIN, settings, seed=0, validate=validate)
    assert len(history.validation) == len(states) == ran
    assert history.best_epoch == (5 if ran == 8 else 2)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in states[history.best_epoch].items())


def test_threads_do_not_change_a_result_noticeably() -> None:
    results, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(train()[0])
    torch.set_num_threads(before)
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-3, atol=1e-5)


def test_divergence_says_what_to_do() -> None:
    with pytest.raises(CityloomError, match=r"diverged: the validation.*\n.*learning_rate"):
        fit(make(), TRAIN, SETTINGS, seed=0, validate=lambda: float("nan"))
    model = make()
    model.y[0] = float("inf")
    with pytest.raises(CityloomError, match="the loss of epoch 1"):
        fit(model, TRAIN, SETTINGS, seed=0)
    with pytest.raises(CityloomError, match="no region"):
        fit(make(), TRAIN[:0], SETTINGS, seed=0)
