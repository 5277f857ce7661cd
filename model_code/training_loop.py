"""The part of `model_code.training` that needs Lightning, which takes seconds to import."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from model_code.errors import CityloomError
from model_code.progress import bar
from model_code.trained import note
from model_code.training import (
    Batches,
    History,
    Progress,
    Settings,
    Trainable,
    evaluating,
    mix,
    rate_factor,
    seeded,
)


def run(
    module: nn.Module,
    batches: Batches,
    groups: list[dict[str, Any]],
    settings: Settings,
    *,
    seed: int,
    validate: Callable[[], float] | None,
    state: Path | None,
    progress: Progress,
) -> History:
    """See `model_code.training.fit`; `state` is the file of the unfinished training."""
    keeper = _Keeper(module, settings, seed, validate, state, progress)
    wrapped = _Wrapped(module, groups, settings, len(batches) * settings.epochs)
    with _quiet(), _flags_kept(), seeded(seed):
        trainer = L.Trainer(
            max_epochs=settings.epochs,
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            deterministic=True,
            gradient_clip_val=settings.clip_norm,
            callbacks=[keeper],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        started = state is not None and state.exists()
        trainer.fit(
            wrapped,
            cast(Any, batches),
            ckpt_path=state if started else None,
            weights_only=True,
        )
    note(trainer.optimizers[0].state)  # it has a state of what has had a gradient
    module.cpu()
    if keeper.best:
        module.load_state_dict(keeper.best)
    return keeper.history


class _Wrapped(L.LightningModule):
    def __init__(
        self, module: nn.Module, groups: list[dict[str, Any]], settings: Settings, steps: int
    ) -> None:
        super().__init__()
        self.module = module
        self._groups, self._settings, self._steps = groups, settings, steps

    def training_step(self, index: Tensor) -> Tensor:
        return cast(Trainable, self.module).loss(index)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch  # the module decides what to move

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self._groups, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, self._steps, self._settings.schedule)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class _Keeper(L.Callback):
    """Seeds every step; after every epoch validates, keeps the best weights, stops, and saves."""

    def __init__(
        self,
        module: nn.Module,
        settings: Settings,
        seed: int,
        validate: Callable[[], float] | None,
        state: Path | None,
        progress: Progress,
    ) -> None:
        self.module, self.settings, self.seed = module, settings, seed
        self.validate, self.state, self.progress = validate, state, progress
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self._losses: list[Tensor] = []
        self._started, self._before = time.monotonic(), 0  # epochs that an earlier process trained

    def state_dict(self) -> dict[str, Any]:
        return {"history": vars(self.history), "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = History(**state_dict["history"])
        self.best = state_dict["best"]

    @property
    def _out_of_patience(self) -> bool:
        waited = len(self.history.validation) - 1 - self.history.best_epoch
        patience = self.settings.patience
        return bool(self.best) and patience is not None and waited >= patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._before = time.monotonic(), len(self.history.train)
        if self._out_of_patience:  # a state that was saved after the last epoch
            trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Straight to the generators: torch.manual_seed takes milliseconds.
        seed = mix(self.seed, trainer.global_step)
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch, history = trainer.current_epoch, self.history
        history.train.append(self._finite(float(torch.stack(self._losses).mean()), "loss", epoch))
        self._losses.clear()
        seconds = time.monotonic() - self._started
        how_far = bar(epoch + 1, self.settings.epochs, seconds, before=self._before)
        line = f"epochs {how_far} · train {history.train[-1]:.4f}"
        if self.validate is None:
            history.best_epoch = epoch
        else:
            with evaluating(self.module):
                value = self._finite(self.validate(), "validation", epoch)
            if not self.best or value < history.validation[history.best_epoch]:
                history.best_epoch = epoch
                self.best = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
            history.validation.append(value)
            line += f", validation {value:.4f} (best: epoch {history.best_epoch + 1})"
        trainer.should_stop = self._out_of_patience
        last = trainer.should_stop or epoch + 1 == self.settings.epochs
        if last or epoch % max(1, self.settings.epochs // 10) == 0:
            self.progress(line)
        if self.state is not None:
            part = self.state.with_suffix(".part")
            trainer.save_checkpoint(part)
            part.replace(self.state)

    def _finite(self, value: float, what: str, epoch: int) -> float:
        if not math.isfinite(value):
            raise CityloomError(
                f"training diverged: the {what} of epoch {epoch + 1} is {value}",
                fix="lower the method's `learning_rate`",
            )
        return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's banners, and without the warnings that say what is meant here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 under torch 2.13 uses a class that torch renames.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
            # Submodules in evaluation mode are frozen on purpose.
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _flags_kept() -> Iterator[None]:
    """Lightning switches determinism on for the whole process; switch it back afterwards."""
    flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    try:
        # Every tensor would be filled before it is written; nothing here reads what it never wrote.
        memory.fill_uninitialized_memory = False
        yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(flags[0])
        torch.backends.cudnn.benchmark = flags[1]
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
