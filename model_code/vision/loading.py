"""Models that take seconds and gigabytes: loaded when they are first asked, and dropped when others need
the room."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from model_code.errors import DataError
from model_code.fingerprint import file_digest
from model_code.vision.model_choices import Precision, WeightsAt

T = TypeVar("T")


def device() -> torch.device:
    """Where models run: the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of a model's numbers; `auto` is half precision on a GPU alone."""
    if precision == "auto":
        precision = "float16" if device().type == "cuda" else "float32"
    found: torch.dtype = getattr(torch, precision)
    return found


class Memory:
    """Room for models, in GiB of their weights; None: as much as they want.

    A model that is loaded makes room first: those that were used least recently go, until it fits. How
    large a model is shows when it is loaded, so the first time it is loaded alone. One that is larger
    than the whole room stays alone.
    """

    def __init__(self, limit_gib: float | None = None) -> None:
        self.limit_bytes = None if limit_gib is None else limit_gib * 2**30
        self._held: list[Loaded[Any]] = []  # the least recently used first

    def use(self, model: Loaded[T]) -> T:
        if model.value is None:
            self._make_room(model.size_bytes)
            model.value = model.load()
            model.size_bytes = model.size(model.value)
        else:
            self._held.remove(model)
        self._held.append(model)
        return model.value

    def _make_room(self, needed: int | None) -> None:
        if self.limit_bytes is None:
            return
        dropped = False
        while self._held and (needed is None or self._total() + needed > self.limit_bytes):
            self._drop(self._held.pop(0))
            dropped = True
        if dropped:
            release()

    @staticmethod
    def _drop(model: Loaded[Any]) -> None:
        value, model.value = model.value, None
        model.close(value)

    def forget(self, model: Loaded[Any]) -> None:
        """Drop a model, if it is there; the next time it is loaded anew."""
        if model in self._held:
            self._held.remove(model)
            self._drop(model)
            release()

    def clear(self) -> None:
        """Drop all models: what holds one, such as a captioner, may live on in a cycle."""
        if self._held:
            while self._held:
                self._drop(self._held.pop())
            release()

    def _total(self) -> int:
        return sum(model.size_bytes or 0 for model in self._held)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the models that are loaded, the least recently used first."""
        return tuple(model.name for model in self._held)


class Loaded(Generic[T]):
    """A model that is loaded when it is first asked for.

    Attributes:
        load: makes it; `modules` are the networks in it, whose weights count.
        size_bytes: of its weights; None until it has been loaded once.

    A model that is no network of this process says by `size` and `close` how large it is, and how it goes.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], T],
        memory: Memory,
        modules: Callable[[T], Iterable[nn.Module]],
    ) -> None:
        self.name, self.load, self.modules = name, load, modules
        self.value: T | None = None
        self.size_bytes: int | None = None
        self._memory = memory

    def __call__(self) -> T:
        return self._memory.use(self)

    def size(self, value: T) -> int:
        """Bytes that the loaded model holds."""
        return sum(map(_bytes, self.modules(value)))

    def close(self, value: T) -> None:
        """Done to a model that goes, when nothing holds it any more but the caller."""

    def forget(self) -> None:
        """Drop it; the next time it is loaded anew."""
        self._memory.forget(self)


def release() -> None:
    """Give back the memory of what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _bytes(module: nn.Module) -> int:
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what model libraries deprecate of each other, and without their progress bars: a run says
    by itself how far it is."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


# --- files ---------------------------------------------------------------------------------------


def checked(weights: WeightsAt, key: str) -> Path:
    """The file that the config means.

    Raises:
        DataError: it is not there, or is another one; names the config key.
    """
    path = Path(weights.path).expanduser()
    if not path.is_file():
        raise DataError(f"there are no weights at {path}", fix=f"mend {key}.path")
    found = _digest(str(path), path.stat().st_size, path.stat().st_mtime_ns)
    if found != weights.sha256:
        raise DataError(
            f"the weights at {path} are not those that the city's YAML means",
            fix=f"if they are, set {key}.sha256 to {found}",
        )
    return path


@lru_cache
def _digest(path: str, size: int, modified_ns: int) -> str:
    return file_digest(path)
