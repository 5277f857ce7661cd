from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model_code.errors import DataError
from model_code.vision import loading
from model_code.vision.loading import Loaded, Memory, checked, dtype_of, quiet
from model_code.vision.model_choices import WeightsAt
from tests.model_code.vision.tiny_models import file_sha256

MIB = 2**20 / 2**30  # a MiB in GiB


def three(limit_gib: float | None) -> tuple[Memory, list[str], dict[str, Loaded[nn.Module]]]:
    """Three models of 1, 2 and 1 MiB, and when each was loaded."""
    memory, loads = Memory(limit_gib), []

    def model(name: str, mib: int) -> Loaded[nn.Module]:
        def load() -> nn.Module:
            loads.append(name)
            return nn.Linear(1024, 256 * mib, bias=False)

        return Loaded(name, load, memory, lambda module: [module])

    return memory, loads, {n: model(n, mib) for n, mib in (("clip", 1), ("sdxl", 2), ("seg", 1))}


def test_without_a_limit_all_stay() -> None:
    memory, loads, models = three(None)
    for name in ("clip", "sdxl", "seg") * 2:
        models[name]()
    assert loads == ["clip", "sdxl", "seg"] and memory.held == ("clip", "sdxl", "seg")
    assert models["sdxl"].size_bytes == 2 * 2**20


def test_with_little_room_each_goes_before_the_next_is_loaded() -> None:
    memory, loads, models = three(1e-6)
    for name in ("clip", "sdxl", "seg", "clip"):
        before = memory.held
        models[name]()
        assert memory.held == (name,) and before != (name,)
    assert loads == ["clip", "sdxl", "seg", "clip"]
    assert models["sdxl"].value is None
    models["clip"]()
    assert len(loads) == 4  # the one that is there is not loaded again


def test_once_sizes_are_known_what_fits_stays() -> None:
    memory, loads, models = three(3.5 * MIB)
    for name in ("clip", "sdxl", "seg"):
        models[name]()
        assert memory.held == (name,)  # how large it is, only its loading shows
    loads.clear()
    for name in ("clip", "seg", "sdxl", "seg"):
        models[name]()
    assert loads == ["clip", "sdxl"] and memory.held == ("sdxl", "seg")


def test_a_model_of_another_process_is_closed_when_it_goes() -> None:
    """Such a one says itself how large it is."""
    memory, closed = Memory(3 * MIB), list[str]()

    class Elsewhere(Loaded[str]):
        def size(self, value: str) -> int:
            return 2 * 2**20

        def close(self, value: str) -> None:
            assert self.value is None
            closed.append(value)

    engine = Elsewhere("engine", lambda: "an engine", memory, lambda value: [])
    judge = Loaded("judge", lambda: nn.Linear(1024, 512, bias=False), memory, lambda m: [m])
    assert engine() == "an engine" and memory.held == ("engine",) and closed == []
    judge()
    assert memory.held == ("judge",) and closed == ["an engine"]
    engine()
    assert memory.held == ("engine",) and engine.size_bytes == 2 * 2**20
    engine.forget()
    assert memory.held == () and len(closed) == 2
    engine.forget()
    assert len(closed) == 2
    engine()
    memory.clear()
    assert memory.held == () and len(closed) == 3 and engine.value is None
    memory.clear()
    assert len(closed) == 3


def test_a_model_that_cannot_be_loaded_leaves_no_trace() -> None:
    memory = Memory(1e-6)

    def fails() -> nn.Module:
        raise DataError("no such file")

    broken = Loaded("broken", fails, memory, lambda module: [module])
    with pytest.raises(DataError):
        broken()
    assert memory.held == ()


def test_a_file_is_the_one_that_the_config_means(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    meant = WeightsAt(path=str(path), sha256=file_sha256(path))
    assert checked(meant, "captions.clip.weights") == path
    path.write_bytes(b"others!")
    with pytest.raises(DataError, match=r"captions\.clip\.weights\.sha256 to " + file_sha256(path)):
        checked(meant, "captions.clip.weights")
    path.unlink()
    with pytest.raises(DataError, match=r"mend captions\.clip\.weights\.path"):
        checked(meant, "captions.clip.weights")


def test_half_precision_is_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, auto in (("cpu", torch.float32), ("cuda", torch.float16)):
        monkeypatch.setattr(loading, "device", lambda kind=kind: torch.device(kind))
        assert dtype_of("auto") == auto and dtype_of("bfloat16") == torch.bfloat16


def test_bars_come_back_after_the_quiet() -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    with quiet():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()
