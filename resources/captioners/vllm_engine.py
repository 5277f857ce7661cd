"""Captions by vLLM inside this process: offline batches on one machine's GPUs, or on its CPU where vLLM is
built for that."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_code import extras
from model_code.backends import Answer, Ask
from model_code.errors import DataError
from model_code.text import answers, levels
from model_code.text.captioner_config import VllmChoice
from resources.captioners import hub
from resources.captioners.batches import Apart, Halving, engine_died, out_of_memory
from resources.captioners.identity import identity_of
from resources.captioners.tries import Said, answered, rises

if TYPE_CHECKING:
    from model_code.vision.loading import Loaded, Memory


log = logging.getLogger(__name__)
# Read when vllm is imported, here and in its engines.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
_SMALLER = 2  # starts with half as much in flight, where memory is short: each takes minutes
_LOOK_S = 1.0  # between looks at whether an engine lives
_TOLD = 500  # characters of an error of the start
# Keys of `captions.captioner` that a start may fail for, and what vLLM calls them.
_KEYS = {
    "max_model_len": "max model len",
    "gpu_memory_utilization": "gpu memory utilization",
    "tensor_parallel": "tensor parallel",
    "dtype": "dtype",
}


_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # vLLM's own, in GiB


class VllmCaptioner:
    """A vision-language model that vLLM serves without a server. Its engine is shut down when others need
    its room in `memory`, and started again at the next ask. A dry run needs no vllm."""

    def __init__(self, choice: VllmChoice, memory: Memory | None = None) -> None:
        self.identity = identity_of(choice)
        self._choice, self._memory = choice, memory
        self._batches, self._apart = Halving(choice.batch), Apart(rises)

    @cached_property
    def _engine(self) -> Loaded[Any]:
        from model_code.vision.loading import Memory

        share = self._choice.gpu_memory_utilization
        return engine(f"vllm {self.identity.model}", self._start, self._memory or Memory(), share)

    @property
    def notes(self) -> dict[str, Any]:
        """For the asset's metadata."""
        return self._batches.notes()

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; an ask that cannot be answered is an `Answer` with an error.

        Raises:
            MissingExtraError: vllm is not installed.
            DataError: its engine cannot be started.
            CaptionerStopped: it answers no more what it has answered.
        """
        return self._batches.run(asks, self._batch, self._smaller)

    def ready(self) -> None:
        """Start the engine, unless it runs; raises as `caption` does."""
        self._engine()

    def _batch(self, asks: Sequence[Ask]) -> list[Answer]:
        self._engine()  # an error of its start is about no ask
        return answered(asks, self._say, self._choice.max_tries, self._apart)

    def _smaller(self, size: int) -> None:
        """An engine that ran out of memory is dead as a rule: the next one keeps fewer sequences in
        flight."""
        self._engine.forget()

    def _start(self) -> Any:
        from model_code.vision.loading import release

        vllm, weights = extras.load("vllm"), hub.folder(self._choice)
        release()  # what earlier stages have left: the engine looks at what is free of the whole GPU
        for smaller in range(_SMALLER + 1):
            try:
                with without_network():
                    return vllm.LLM(**engine_arguments(self._choice, weights, self._batches.size))
            except Exception as error:
                full = out_of_memory(error) or engine_died(error)
                if not full or smaller == _SMALLER or self._batches.size == 1:
                    raise _not_started(self._choice, error) from error
            release()  # here, where nothing holds what the failed start took
            self._batches.halve(self._batches.size)

    def _say(self, asks: Sequence[Ask]) -> list[Said]:
        vllm = extras.load("vllm")
        engine = self._engine()
        began = time.monotonic()
        with watched(engine.llm_engine.engine_core):
            outputs = engine.chat(
                [messages(ask) for ask in asks],
                [self._sampling(vllm, ask) for ask in asks],
                use_tqdm=False,
            )
        # Sequences of a batch overlap: each is charged its share of the time.
        seconds = (time.monotonic() - began) / max(len(asks), 1)
        return [_said(output, seconds) for output in outputs]

    def _sampling(self, vllm: Any, ask: Ask) -> Any:
        arguments = sampling_arguments(self._choice, ask)
        if ask.form != "caption":
            from vllm.sampling_params import StructuredOutputsParams

            schema = json.loads(levels.schema())
            arguments["structured_outputs"] = StructuredOutputsParams(json=schema)
        return vllm.SamplingParams(**arguments)


def _said(output: Any, seconds: float) -> Said:
    """Of one request's output. What ended in another way than at its end, or at the most tokens, is no
    answer, whatever text there is."""
    one = output.outputs[0]
    ended, error, unfit = one.finish_reason, "", ""
    if ended == "repetition":
        unfit = "the answer repeats itself"
    elif ended not in ("stop", "length"):
        error = f"vLLM did not finish the answer ({ended})"
    return Said(
        one.text,
        ended == "length",
        len(output.prompt_token_ids or ()),
        len(one.token_ids),
        seconds,
        error,
        bool(error),
        unfit,
    )


def _not_started(choice: VllmChoice, error: Exception) -> DataError:
    """What to change, by the words of vLLM's own error where it names a key."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if _no_device(said):
        return DataError(
            f"captions.captioner.kind: vLLM needs a GPU, and finds none here ({said[:_TOLD]})",
            fix="set captions.captioner.kind to openai (a server that runs on another machine, such as "
            "`vllm serve`) or transformers (runs on a CPU, too), install vLLM's build for CPUs in its place "
            "(docs/captioning.md), or leave the captioner out for the embedded one",
        )
    words = said.lower().replace("_", " ")
    named = [key for key, word in _KEYS.items() if word in words] or list(_KEYS)
    return DataError(
        f"captions.captioner.model: vLLM's engine does not start with {choice.model} ({said[:_TOLD]})",
        fix=f"change captions.captioner.{', '.join(named)}, or name another model; where nothing more is "
        "said, vLLM's own lines above this one tell the cause",
    )


def _no_device(said: str) -> bool:
    """Whether vLLM has found nothing to run on; its error, `said`, speaks of a device's name then."""
    platform = _platform()
    none = platform is not None and not platform.device_type
    return none or "device string must not be empty" in said.lower()


def _platform() -> Any:
    """What vLLM has found to run on; None before it is imported."""
    return getattr(sys.modules.get("vllm.platforms"), "current_platform", None)


def engine(name: str, start: Callable[[], Any], memory: Memory, share: float) -> Loaded[Any]:
    """An engine in the memory of other models: it holds its `share` of a GPU, or of a memory node
    where vLLM runs on the CPU (the cache alone where `$VLLM_CPU_KVCACHE_SPACE` says how many GiB that is), and
    lives in processes of its own, which end when it is shut down."""
    import torch

    from model_code.vision.loading import Loaded

    class Engine(Loaded[Any]):
        def size(self, value: Any) -> int:
            platform = _platform()
            if platform is not None and platform.device_type == "cpu":
                # vLLM takes it in place of the share.
                cache_gib = float(os.environ.get(_CPU_CACHE) or 0)
                total = platform.get_device_total_memory()
                return int(cache_gib * 2**30) or int(share * total)
            if not torch.cuda.is_available():
                return 0
            return int(share * torch.cuda.get_device_properties(0).total_memory)

        def close(self, value: Any) -> None:
            try:
                value.llm_engine.engine_core.shutdown()
            except Exception as error:  # a dead one may not answer; what comes next goes on
                log.warning("%s did not shut down as it should: %s", self.name, error)

    return Engine(name, start, memory, lambda value: [])


@contextlib.contextmanager
def watched(core: Any) -> Iterator[None]:
    """Ends the wait of a `core` whose engine is killed (by the kernel, for want of memory). vLLM marks it as dead
    then, and its client waits for ever for the next output: an error in that place becomes vLLM's own
    `EngineDeadError`."""
    outputs: Any = getattr(core, "outputs_queue", None)
    resources: Any = getattr(core, "resources", None)
    if outputs is None or not hasattr(resources, "engine_dead"):  # an engine in this process
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            if resources.engine_dead:
                outputs.put(RuntimeError("vLLM's engine was killed"))
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def engine_arguments(choice: VllmChoice, weights: Path, in_flight: int) -> dict[str, Any]:
    """What vllm.LLM is given; `weights` is the model's folder."""
    arguments: dict[str, Any] = {
        "model": str(weights),
        "dtype": choice.dtype,
        "max_model_len": choice.max_model_len,
        "gpu_memory_utilization": choice.gpu_memory_utilization,
        "tensor_parallel_size": choice.tensor_parallel,
        "max_num_seqs": in_flight,
        "limit_mm_per_prompt": {"image": 1},
        "seed": 0,
        "trust_remote_code": False,
    }
    if choice.dummy_weights:
        arguments["load_format"] = "dummy"
    return arguments


def sampling_arguments(choice: VllmChoice, ask: Ask) -> dict[str, Any]:
    """What vllm.SamplingParams is given, less the schema."""
    return {
        "max_tokens": choice.max_tokens,
        "temperature": round(ask.temperature, 6),
        "seed": ask.seed,
    }


def messages(ask: Ask) -> list[dict[str, Any]]:
    """A conversation of one message; the picture is inside it."""
    content: list[dict[str, Any]] = []
    picture = answers.picture_of(ask)
    if picture is not None:
        content.append({"type": "image_url", "image_url": {"url": answers.data_url(picture)}})
    return [{"role": "user", "content": [*content, {"type": "text", "text": ask.prompt}]}]


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """vLLM has no argument for it; its worker processes read the environment when they start."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
