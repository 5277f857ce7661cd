"""The same test for every captioner: an answer an ask, in order, and the same for the same ask."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from model_code import extras
from model_code.backends import Answer, Ask, Captioner, CaptionerStopped
from model_code.calibration import SCORES, CalibrationConfig, calibrate
from model_code.city import Captions
from model_code.errors import DataError, MissingExtraError
from model_code.text import levels
from model_code.text.captioner_config import VllmChoice
from model_code.vision import loading
from model_code.vision.loading import Loaded, Memory
from resources import backends
from resources.captioners import vllm_engine
from resources.captioners.batches import Apart, Halving, engine_died, out_of_memory, passing
from resources.captioners.hugging_face import TransformersCaptioner
from resources.captioners.tries import Said, answered, rises
from tests.resources.captioners_server import serving
from tests.resources.tiny_models import LEVELS, save_blip2, save_llava, save_qwen
from tests.resources.vllm_server import vllm_serving
from tests.tiny import ROOT


def opened(choice: Any) -> Any:
    return backends.captioner(Captions.model_validate({"captioner": choice}))


def transformers(folder: Path, **more: Any) -> Any:
    about = {
        "kind": "transformers",
        "model": str(folder),
        "max_tokens": 24,
        "batch": 3,
        "device": "cpu",
    }
    return opened({**about, **more})


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip2(tmp_path_factory.mktemp("models") / "blip2")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen(tmp_path_factory.mktemp("models") / "qwen")


def real_vllm(folder: Path, memory: Memory) -> Any:
    """In full precision, so that others in a batch change no answer."""
    choice = {"kind": "vllm", "model": str(folder), "max_model_len": 512, "gpu_memory_utilization": 0.3,
              "max_tokens": 96, "batch": 4, "dtype": "float32"}  # fmt: skip
    return backends.captioner(Captions.model_validate({"captioner": choice}), memory)


def vllm_runs() -> bool:
    """Whether vLLM is installed and finds what it was built for, a GPU or the CPU."""
    if not extras.installed("vllm"):
        return False
    from vllm.platforms import current_platform

    return bool(current_platform.device_type)


RUNS_VLLM = pytest.mark.skipif(
    not vllm_runs(), reason="vllm is not installed, or there is no GPU and it is not built for CPUs"
)
KINDS = ["template", "openai", "llava", "blip2", "qwen", "custom",
         pytest.param("vllm", marks=RUNS_VLLM), pytest.param("vllm_server", marks=RUNS_VLLM)]  # fmt: skip


@pytest.fixture(scope="module")
def wide_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen(tmp_path_factory.mktemp("models") / "wide_qwen", 128, LEVELS)


@pytest.fixture(scope="module")
def small_engines() -> Iterator[None]:
    """On a CPU, vLLM takes a share of all memory, and compiles what it runs, unless it is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_CI_ENV", "1")
        yield


@pytest.fixture(scope="module", params=KINDS)
def captioner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Captioner]:
    kind = request.param
    if kind == "openai":
        with serving() as server:
            yield opened({"kind": kind, "base_url": server.url, "model": "m", "revision": "r"})
    elif kind in ("llava", "blip2", "qwen"):
        yield transformers(request.getfixturevalue(kind))
    elif kind == "vllm":
        request.getfixturevalue("small_engines")
        with backends.memory() as memory:
            yield real_vllm(request.getfixturevalue("wide_qwen"), memory)
    elif kind == "vllm_server":
        request.getfixturevalue("small_engines")
        log = tmp_path_factory.mktemp("server") / "log"
        with vllm_serving(request.getfixturevalue("wide_qwen"), log) as url:
            yield opened({"kind": "openai", "base_url": url, "model": "m", "revision": "r",
                          "max_tokens": 96, "concurrency": 4, "timeout_s": 600})  # fmt: skip
    elif kind == "custom":
        yield opened({"kind": kind, "object": "tests.assets.test_asking:TenLines"})
    else:
        yield opened(kind)


def pictures(number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 255, (number, 20, 30, 3)).astype(np.uint8))


def said(answers: list[Answer]) -> list[tuple[str, str]]:
    return [(answer.text, answer.error) for answer in answers]


def test_one_answer_an_ask_in_order_whoever_else_asks(captioner: Captioner) -> None:
    asks = [Ask("satellite", picture, {"road": 0.5, "tree": 0.4}, seed=i)
            for i, picture in enumerate(pictures(5))]  # fmt: skip
    found = captioner.caption(asks)
    assert len(found) == 5
    assert said(captioner.caption(asks)) == said(found)
    assert said(captioner.caption(asks[::-1])) == said(found)[::-1]
    assert said(captioner.caption(asks[2:3])) == said(found)[2:3]
    assert captioner.caption([]) == []
    for answer in found:
        assert bool(answer.text) != bool(answer.error)
        assert answer.tokens_in >= 0 and answer.tokens_out >= 0


def test_who_answers_is_known_and_can_be_written_down(captioner: Captioner) -> None:
    who = captioner.identity
    assert who.model and who.revision
    assert json.loads(json.dumps(asdict(who))) == asdict(who)


def test_an_ask_that_cannot_be_answered_is_an_error_beside_the_others(captioner: Captioner) -> None:
    if captioner.identity.model == "ten-lines":
        pytest.skip("ten lines keep to pictures")
    asks = [Ask("satellite", pictures(1)[0]), Ask("satellite"), Ask("street_view", pictures(1)[0])]
    found = captioner.caption(asks)
    assert len(found) == 3 and found[1].error and not found[1].text
    assert said(captioner.caption(asks[::2])) == said([found[0], found[2]])


@pytest.fixture
def by_vllm(request: pytest.FixtureRequest, captioner: Captioner) -> Captioner:
    if "vllm" not in request.node.callspec.params["captioner"]:
        pytest.skip("of vLLM's engine and its server alone")
    return captioner


def test_vllm_is_held_to_the_levels(by_vllm: Captioner) -> None:
    """By random weights, which would not say them by themselves."""
    found = by_vllm.caption([Ask("satellite", p, form="levels", seed=i)
                             for i, p in enumerate(pictures(3))])  # fmt: skip
    for answer in found:
        assert not answer.error and answer.requests == 1
        assert levels.parse(answer.text)[0] is not None


def test_vllm_refuses_what_is_too_long_and_answers_the_others(by_vllm: Captioner) -> None:
    picture = pictures(1)[0]
    short, long = (Ask("satellite", picture, prompt="the street " * n) for n in (2, 400))
    found = by_vllm.caption([short, long, short])
    assert found[1].final and not found[1].text and "512" in found[1].error
    assert said(found[::2]) == said(by_vllm.caption([short])) * 2 and found[0].text


def test_warm_answers_of_vllm_follow_their_own_seed(by_vllm: Captioner) -> None:
    asks = [Ask("satellite", pictures(1)[0], prompt="a street ?", seed=seed, temperature=1.0)
            for seed in range(4)]  # fmt: skip
    found = said(by_vllm.caption(asks))
    assert len(set(found)) > 2 and said(by_vllm.caption(asks[::-1])) == found[::-1]


def engine_cores() -> set[Any]:
    """The processes that vLLM's engines live in, of this process and of those that it started."""
    import psutil  # comes with vllm

    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "EngineCore" in " ".join([child.name(), *child.cmdline()]):
                found.add(child)
    return found


@RUNS_VLLM
def test_an_engine_of_vllm_goes_when_others_need_its_room_and_comes_back_after_a_kill(
    wide_qwen: Path, small_engines: None
) -> None:
    others = engine_cores()  # of a server that another test has started
    asks = [Ask("satellite", picture, prompt="a street ?", seed=i)
            for i, picture in enumerate(pictures(4))]  # fmt: skip
    other = nn.Linear(8, 8)
    with backends.memory(1e-6) as memory:  # no room for two
        captioner = real_vllm(wide_qwen, memory)
        found = said(captioner.caption(asks))
        (first,) = engine_cores() - others
        Loaded("other", lambda: other, memory, lambda value: [value])()
        assert memory.held == ("other",)
        first.wait(timeout=60)
        assert said(captioner.caption(asks)) == found
        assert memory.held == (f"vllm {captioner.identity.model}",)
        assert captioner.notes == {"batch": 4, "out_of_memory": 0}
        (second,) = engine_cores() - others
        second.kill()
        assert said(captioner.caption(asks)) == found
        assert captioner.notes["batch"] == 2  # why it died is not known
        (third,) = engine_cores() - others
    third.wait(timeout=60)


# --- transformers --------------------------------------------------------------------------------


def test_an_answer_is_what_the_model_itself_generates(llava: Path) -> None:
    """A naive twin: one picture, without padding or batches."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    captioner = transformers(llava)
    ask = Ask("satellite", pictures(1)[0], prompt="the street with trees ?")
    model = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    processor = AutoProcessor.from_pretrained(llava)
    inputs = processor(
        text="USER: <image> the street with trees ? ASSISTANT: ",
        images=Image.fromarray(ask.picture),
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0]
    want = processor.decode(out[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    captioner.caption([])
    longer = replace(ask, prompt="the picture shows a quiet street with trees and houses ?")
    got = captioner._say([ask, longer, ask])
    assert got[0].text.strip() == got[2].text.strip() == want.strip() != ""
    assert got[0].tokens_in == inputs["input_ids"].shape[1] and got[0].tokens_out <= 24


def test_a_model_may_take_pictures_of_any_size(qwen: Path) -> None:
    """As Qwen-VL does: a token for each 28 x 28 pixels, so a batch holds rows of several lengths."""
    captioner = transformers(qwen, batch=4)
    rng = np.random.default_rng(2)
    sizes = ((28, 28), (84, 56), (56, 112), (28, 56))
    asks = [Ask("satellite", rng.integers(0, 255, (*size, 3)).astype(np.uint8), prompt="a street ?")
            for size in sizes]  # fmt: skip
    found = captioner._say(asks)
    assert [one.tokens_in - found[0].tokens_in for one in found] == [0, 5, 7, 1]
    assert [one.text for one in found] == [captioner._say([ask])[0].text for ask in asks]
    assert len({one.text for one in found}) == 4
    (pois,) = captioner._say([Ask("pois", pois=(("Bakery", "food"),), prompt="a street ?")])
    assert pois.text and not pois.error and pois.tokens_in < found[0].tokens_in


def test_warm_answers_follow_their_own_seed(llava: Path) -> None:
    captioner = transformers(llava)
    asks = [Ask("satellite", pictures(1)[0], seed=seed, temperature=1.0) for seed in range(6)]
    captioner.caption([])
    before = torch.get_rng_state()
    found = [one.text for one in captioner._say(asks)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(found)) > 3
    assert [one.text for one in captioner._say(asks[::-1])] == found[::-1]


def test_malformed_levels_are_tried_again_then_an_error(llava: Path) -> None:
    found = transformers(llava, max_tries=3).caption(
        [Ask("satellite", pictures(1)[0], form="levels")]
    )
    assert found[0].requests == 3 and "not the JSON that was asked for" in found[0].error
    assert not found[0].final and levels.parse(found[0].text)[0] is None


def test_a_model_without_a_chat_answers_pictures_only(blip2: Path, llava: Path) -> None:
    ask = Ask("pois", pois=(("Bakery", "food"),))
    answer = transformers(blip2).caption([ask])[0]
    assert answer.error == "this model answers pictures only" and answer.final
    assert transformers(llava).caption([ask])[0].requests > 0


def test_a_batch_too_large_for_memory_is_halved_and_told(llava: Path) -> None:
    captioner = transformers(llava, batch=5)
    asks = [Ask("satellite", picture) for picture in pictures(5)]
    want = said(captioner.caption(asks))
    generate, sizes = captioner._model.generate, []

    def small_memory(**given: Any) -> Any:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return generate(**given)

    captioner._model.generate = small_memory
    assert said(captioner.caption(asks)) == want
    assert sizes[:3] == [5, 2, 1] and max(sizes[3:]) == 1
    assert captioner.notes == {"batch": 1, "out_of_memory": 2}


def test_a_captioner_goes_before_the_judges_and_comes_back_for_the_next_tries(llava: Path) -> None:
    """Calibration's loop, with a real captioner and a network that judges, in room for one of them."""
    choice = {"kind": "transformers", "model": str(llava), "max_tokens": 12, "device": "cpu"}
    config = Captions.model_validate({"captioner": choice})
    asks = [Ask("satellite", picture, prompt="the street ?") for picture in pictures(3)]

    def calibrated(limit_gib: float | None) -> tuple[pd.DataFrame, list[tuple[str, ...]]]:
        memory, held = Memory(limit_gib), list[tuple[str, ...]]()
        captioner = backends.captioner(config, memory)
        assert isinstance(captioner, TransformersCaptioner)
        judge = Loaded("judge", lambda: nn.Linear(1024, 64), memory, lambda module: [module])
        gone: list[weakref.ref[Any]] = []

        def scorer(positions: Any, texts: list[str], seeds: list[int]) -> pd.DataFrame:
            held.append(memory.held)
            gone.append(weakref.ref(captioner._loaded.value[1]))
            judge()
            assert (gone[-1]() is None) == (limit_gib is not None)
            held.append(memory.held)
            rows = pd.DataFrame("", index=range(len(texts)), columns=list(SCORES), dtype=object)
            return rows.assign(perception_score=0.0)

        until = CalibrationConfig(retries=2, threshold=0.5, floor=0.5)
        tries, _ = calibrate(asks, captioner, scorer, until)
        return tries.drop(columns="took_s"), held

    name = f"captioner {llava.name}"
    alone, held = calibrated(1e-6)
    assert held == [(name,), ("judge",)] * 3
    beside, held = calibrated(None)
    assert held == [(name,), *[(name, "judge"), ("judge", name)] * 2, (name, "judge")]
    pd.testing.assert_frame_equal(alone, beside)
    assert len(alone) == 9 and (alone["text"] != "").any()


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions.captioner.model: .*/none holds no config.json"):
        transformers(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "nobody_knows"}')
    with pytest.raises(DataError, match=r"captions.captioner.model: .* cannot be loaded"):
        transformers(tmp_path).caption([])


def test_a_folder_may_be_told_from_home(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(llava.parent))
    at_home = transformers(Path("~") / llava.name)
    assert at_home.identity == transformers(llava).identity
    assert at_home.caption([Ask("satellite", pictures(1)[0])])[0].tokens_in > 0
    for folder, told in (("~/none", "none holds no config.json"), ("home/x", "needs `revision:`")):
        with pytest.raises((DataError, ValueError), match=told):
            transformers(Path(folder))


def test_a_folder_s_revision_is_its_content(llava: Path) -> None:
    before = transformers(llava).identity
    assert transformers(llava).identity == before and len(before.revision) == 16
    note = llava / "README.md"
    note.write_text("other")
    assert transformers(llava).identity.revision != before.revision
    note.unlink()


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "room"), [(0, 5), (1, 1), (7, 1), (7, 2), (9, 5), (16, 5), (16, 99)]
)
def test_halving_loses_and_doubles_nothing(number: int, room: int) -> None:
    told: list[int] = []

    def do(batch: Any) -> list[Answer]:
        if len(batch) > room:
            raise RuntimeError("HIP out of memory")
        return [Answer(str(ask.seed)) for ask in batch]

    batches = Halving(8)
    asks = [Ask("satellite", seed=i) for i in range(number)]
    assert [a.text for a in batches.run(asks, do, told.append)] == [str(i) for i in range(number)]
    assert batches.halved == len(told) and (batches.size == 8 or batches.size <= room)
    assert (batches.halved > 0) == (min(number, 8) > room)
    assert told == sorted(told, reverse=True)


@pytest.mark.parametrize(("lowered", "sizes"), [(4, [16, 2]), (1, [16, 1])])
def test_halving_never_makes_a_batch_larger(lowered: int, sizes: list[int]) -> None:
    """An engine that starts with less in flight lowers the size of a batch that is cut already."""
    tried: list[int] = []
    batches = Halving(16)

    def do(batch: Any) -> list[Answer]:
        tried.append(len(batch))
        if len(tried) == 1:
            batches.halve(2 * lowered)
            raise MemoryError
        return [Answer(str(ask.seed)) for ask in batch]

    told: list[int] = []
    found = batches.run([Ask("satellite", seed=i) for i in range(16)], do, told.append)
    assert [answer.text for answer in found] == [str(i) for i in range(16)]
    assert tried[:2] == sizes and set(tried[1:]) == {sizes[1]} and told == [sizes[1]]


def test_what_never_fits_is_an_error_row_and_other_errors_rise() -> None:
    def full(batch: Any) -> list[Answer]:
        raise MemoryError

    found = Halving(4).run([Ask("satellite")] * 3, full)
    assert [a.final and "out of memory" in a.error for a in found] == [True] * 3

    def broken(batch: Any) -> list[Answer]:
        raise ValueError("no memory of it")

    with pytest.raises(ValueError):
        Halving(4).run([Ask("satellite")], broken)
    caused = RuntimeError("engine died")
    caused.__cause__ = torch.OutOfMemoryError("x")
    assert out_of_memory(caused) and not out_of_memory(RuntimeError("engine died"))


def test_an_ask_that_a_model_refuses_does_not_take_the_others_along() -> None:
    asks = [Ask("satellite", picture, seed=i) for i, picture in enumerate(pictures(7))]
    calls: list[int] = []

    def say(batch: Any) -> list[Said]:
        calls.append(len(batch))
        if any(ask.seed in (3, 4) for ask in batch):
            raise ValueError("the prompt is longer\nthan 8192 tokens")
        return [Said(f"Picture {ask.seed}.") for ask in batch]

    found = answered(asks, say, 3, Apart(rises))
    assert [answer.text for answer in found] == ["Picture 0.", "Picture 1.", "Picture 2.", "", "",
                                                 "Picture 5.", "Picture 6."]  # fmt: skip
    assert found[3].final and found[3].error == (
        "the model refuses it (the prompt is longer than 8192 tokens)"
    )
    assert calls[0] == 7 and len(calls) < 14


@pytest.mark.parametrize(
    "error", [ValueError(), RuntimeError("shapes do not match"), KeyError("x")]
)
def test_whatever_a_model_raises_for_one_ask_is_an_error_of_that_ask(error: Exception) -> None:
    asks = [Ask("satellite", picture, seed=i) for i, picture in enumerate(pictures(8))]

    def say(batch: Any) -> list[Said]:
        if any(ask.seed == 5 for ask in batch):
            raise error
        return [Said(f"Picture {ask.seed}.") for ask in batch]

    found = Halving(8).run(asks, lambda batch: answered(batch, say, 3, Apart(rises)))
    assert [i for i, answer in enumerate(found) if answer.error] == [5]
    assert found[5].final and found[5].requests == 1 and str(error) in found[5].error
    assert [answer.text for answer in found[:5]] == [f"Picture {i}." for i in range(5)]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: device-side assert triggered"), DataError("no room", fix="get some"),
     RuntimeError("Engine core initialization failed.")],
)  # fmt: skip
def test_what_is_about_no_ask_rises_at_once(error: Exception) -> None:
    calls: list[int] = []

    def say(batch: Any) -> list[Said]:
        calls.append(len(batch))
        raise error

    asks = [Ask("satellite", picture) for picture in pictures(8)]
    with pytest.raises(type(error)):
        answered(asks, say, 3, Apart(rises))
    assert calls == [8]


def seeded(number: int) -> list[Ask]:
    return [Ask("pois", pois=(("Bakery", "food"),), seed=i) for i in range(number)]


class Dying:
    """A model that answers so many asks, and then raises for whatever it is asked."""

    def __init__(self, lives: int, error: Exception, odd: Sequence[int] = ()) -> None:
        self.lives, self.error, self.odd = lives, error, odd
        self.calls = 0

    def say(self, batch: Sequence[Ask]) -> list[Said]:
        self.calls += 1
        if len(batch) > self.lives:
            raise self.error
        self.lives -= len(batch)
        # Odd ones are not what was asked for, at the first try.
        return [
            Said("" if ask.seed in self.odd else f"Number {ask.seed}.", tokens_in=7)
            for ask in batch
        ]


OUTAGES = [ConnectionError("refused"), TimeoutError(), OSError("no such device"), RuntimeError("gone"),
           ValueError("gone")]  # fmt: skip


@pytest.mark.parametrize("error", OUTAGES)
def test_a_model_that_dies_stops_and_keeps_what_it_said(error: Exception) -> None:
    model, apart, halving = Dying(20, error, odd=[3]), Apart(rises), Halving(16)
    with pytest.raises(
        CaptionerStopped, match="and so does one that was answered before"
    ) as caught:
        halving.run(seeded(64), lambda batch: answered(batch, model.say, 3, apart))
    # The second try of the odd one is the 17th life; three more are not enough for any half but the last.
    kept = caught.value.answers
    texts = [answer.text if answer else None for answer in kept[:16]]
    assert texts == [f"Number {i + (i == 3)}." for i in range(16)]
    assert all(answer is None or answer.text or answer.error for answer in kept)
    assert len(kept) == 32 and model.calls < 20
    assert caught.value.fix.startswith("look at what captions.captioner rests on")


def test_a_model_that_dies_before_the_second_try_keeps_what_the_first_brought() -> None:
    model = Dying(8, RuntimeError("gone"), odd=range(2, 8))
    with pytest.raises(CaptionerStopped) as caught:
        answered(seeded(8), model.say, 3, Apart(rises))
    kept = caught.value.answers
    assert [answer.text for answer in kept if answer] == ["Number 0.", "Number 1.", *[""] * 6]
    told = ["the model refuses it (RuntimeError: gone)"] * 3 + ["an empty answer"] * 3
    assert [answer.error for answer in kept[2:] if answer] == told
    assert [answer.tokens_in for answer in kept if answer] == [7] * 8


@pytest.mark.parametrize("error", OUTAGES[:3])
def test_what_was_not_reached_may_be_another_time(error: Exception) -> None:
    for caused in (False, True):
        raised: Exception = error
        if caused:
            raised = RuntimeError("no answer")
            raised.__cause__ = error
        assert passing(raised)
        found = answered(seeded(3), Dying(0, raised).say, 3, Apart(rises))
        assert [bool(answer.error) and not answer.final for answer in found] == [True] * 3
        model = Dying(0, raised)
        with pytest.raises(CaptionerStopped, match="4 asks in a row failed, and none was answered"):
            answered(seeded(64), model.say, 3, Apart(rises))
        assert model.calls < 13
    assert not passing(RuntimeError("gone")) and not passing(MemoryError())
    meanwhile = IndexError("too dark")
    meanwhile.__context__ = FileNotFoundError("nothing kept of it")
    assert not passing(meanwhile)


def test_asks_in_a_row_that_are_at_fault_stop_nothing_and_asking_anew_is_charged() -> None:
    bad, calls = range(10, 20), list[list[int]]()

    def say(batch: Sequence[Ask]) -> list[Said]:
        calls.append([ask.seed for ask in batch])
        if any(ask.seed in bad for ask in batch):
            raise IndexError("too dark")
        return [Said(f"Number {ask.seed}.", tokens_in=7, tokens_out=2) for ask in batch]

    found = answered(seeded(32), say, 3, Apart(rises))
    assert [i for i, answer in enumerate(found) if answer.error] == list(bad)
    assert all(answer.final for answer in found if answer.error)
    anew = [seeds for seeds in calls if seeds == [9]]
    assert len(anew) >= 2
    asked = sum(len(seeds) for seeds in calls if not set(seeds) & set(bad))
    assert sum(answer.tokens_in for answer in found) == 7 * asked
    assert sum(answer.tokens_out for answer in found) == 2 * asked


def test_a_client_s_own_error_of_a_connection_is_one() -> None:
    import openai

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    with client, pytest.raises(openai.APIConnectionError) as caught:
        client.models.list()
    assert not isinstance(caught.value, OSError) and passing(caught.value)


def test_a_model_that_fails_on_one_picture_captions_the_others(llava: Path) -> None:
    captioner = transformers(llava, batch=6)
    asks = [Ask("satellite", picture, seed=i) for i, picture in enumerate(pictures(6))]
    want = said(captioner.caption(asks))
    processor = captioner._processor
    read = processor.image_processor.preprocess

    def reads(images: Any, *args: Any, **more: Any) -> Any:
        if any((np.asarray(image) == asks[2].picture).all() for image in images):
            raise RuntimeError("cannot read it")
        return read(images, *args, **more)

    processor.image_processor.preprocess = reads
    found = captioner.caption(asks)
    assert "RuntimeError: cannot read it" in found[2].error and found[2].final
    assert said(found[:2] + found[3:]) == want[:2] + want[3:]


# --- vLLM ----------------------------------------------------------------------------------------

VLLM = VllmChoice(kind="vllm", model="Qwen/Qwen2.5-VL-7B-Instruct", revision="c" * 40)


@pytest.mark.skipif(extras.installed("vllm"), reason="vllm is here")
def test_without_vllm_its_captioner_says_what_to_install_when_it_is_to_start() -> None:
    captioner = opened(VLLM.model_dump())  # all that a dry run needs
    assert captioner.identity.model == VLLM.model
    for start in (captioner.ready, lambda: captioner.caption([Ask("satellite", pictures(1)[0])])):
        with pytest.raises(MissingExtraError, match="uv sync --inexact --extra vllm"):
            start()


class Engines:
    """What is called of the package vllm: engines that start with few enough sequences in flight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
        self.most, self.error, self.tried = most, error, list[int]()
        self.released, self.ended = 0, "stop"
        monkeypatch.setattr(loading, "release", self.release)
        monkeypatch.setattr(extras, "load", lambda extra: self)
        monkeypatch.setattr(vllm_engine.hub, "folder", lambda choice: Path("/cache/snapshot"))

    def release(self) -> None:
        self.released += 1

    def LLM(self, max_num_seqs: int, **given: Any) -> Any:
        assert self.released > len(self.tried)
        self.tried.append(max_num_seqs)
        if max_num_seqs > self.most:
            raise self.error
        core = SimpleNamespace(
            outputs_queue=queue.Queue(), resources=SimpleNamespace(engine_dead=False)
        )
        return SimpleNamespace(chat=self.chat, llm_engine=SimpleNamespace(engine_core=core))

    def SamplingParams(self, **given: Any) -> None:
        """Nothing of it is looked at."""

    def chat(self, asked: list[Any], sampling: list[Any], use_tqdm: bool) -> list[Any]:
        one = SimpleNamespace(text="A street.", finish_reason=self.ended, token_ids=[1, 2])
        return [SimpleNamespace(outputs=[one], prompt_token_ids=[1])] * len(asked)


TOO_LONG = ValueError("The model's max seq len (8192) is larger; try decreasing `max_model_len`.")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "tried", "named"),
    [(TOO_LONG, [64], "captions.captioner.max_model_len, or"), (FULL, [64, 32, 16], "max_model_len"),
     (RuntimeError("Engine core initialization failed."), [64, 32, 16], "vLLM's own lines")],
)  # fmt: skip
def test_an_engine_that_does_not_start_is_no_fault_of_an_ask(
    error: Exception, tried: list[int], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(monkeypatch, 0, error)
    captioner = opened(VLLM.model_copy(update={"batch": 64}).model_dump() | {"batch": 64})
    asked = [Ask("satellite", picture) for picture in pictures(64)]
    with pytest.raises(DataError, match="vLLM's engine does not start with Qwen") as caught:
        captioner.caption(asked)
    assert engines.tried == tried and named in caught.value.fix


def test_an_engine_without_room_starts_with_less_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines(monkeypatch, 20, FULL)
    captioner = opened(VLLM.model_dump() | {"batch": 64})
    captioner.ready()
    found = captioner.caption([Ask("satellite", picture) for picture in pictures(40)])
    assert engines.tried == [64, 32, 16] and [a.text for a in found] == ["A street."] * 40
    assert captioner.notes == {"batch": 16, "out_of_memory": 2}


@pytest.mark.parametrize(
    ("ended", "told", "requests", "final"),
    [("stop", "", 1, False), ("length", "", 1, False),
     ("abort", "vLLM did not finish the answer (abort)", 1, False),
     ("error", "vLLM did not finish the answer (error)", 1, False),
     ("repetition", "the answer repeats itself", 3, False)],
)  # fmt: skip
def test_what_vllm_did_not_finish_is_no_answer(
    ended: str, told: str, requests: int, final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(monkeypatch, 64, FULL)
    engines.ended = ended
    captioner = opened(VLLM.model_dump() | {"batch": 8, "max_tries": 3})
    (answer,) = captioner.caption([Ask("satellite", pictures(1)[0])])
    assert answer.error == told and answer.text == ("" if told else "A street.")
    assert (answer.requests, answer.final, answer.tokens_out) == (requests, final, 2 * requests)


NO_DEVICE = RuntimeError("Device string must not be empty")


@pytest.mark.parametrize(
    ("error", "device"),
    [(NO_DEVICE, None), (ValueError("no backend"), ""), (TOO_LONG, "cuda"), (TOO_LONG, "cpu")],
)
def test_vllm_without_a_gpu_says_so_and_what_else_there_is(
    error: Exception, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(monkeypatch, 0, error)
    if device is None:
        monkeypatch.delitem(sys.modules, "vllm.platforms", raising=False)
    else:
        platforms = SimpleNamespace(current_platform=SimpleNamespace(device_type=device))
        monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    with pytest.raises(DataError) as caught:
        opened(VLLM.model_dump() | {"batch": 64}).ready()
    assert engines.tried == [64]
    none = device not in ("cuda", "cpu")
    assert caught.value.what.startswith("captions.captioner.kind: vLLM needs a GPU") == none
    assert all((kind in caught.value.fix) == none for kind in ("openai", "transformers"))


class EngineDeadError(Exception):
    """As vLLM calls it."""


def test_an_engine_that_an_ask_kills_is_started_anew_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = Engines(monkeypatch, 64, FULL)
    asked = [Ask("satellite", picture, prompt=f"{i}") for i, picture in enumerate(pictures(8))]
    chat = engines.chat

    def dies(conversations: list[Any], sampling: list[Any], use_tqdm: bool) -> list[Any]:
        if any(message["content"][-1]["text"] == "5" for (message,) in conversations):
            raise EngineDeadError("EngineCore encountered an issue. See stack trace (above).")
        return chat(conversations, sampling, use_tqdm)

    monkeypatch.setattr(engines, "chat", dies)
    captioner = opened(VLLM.model_dump() | {"batch": 8})
    found = captioner.caption(asked)
    assert [i for i, answer in enumerate(found) if answer.error] == [5] and found[5].final
    assert [answer.text for answer in found if not answer.error] == ["A street."] * 7
    assert engines.tried == [8, 4, 2, 1, 8] and captioner.notes["engine_died"] == 1
    again = opened(VLLM.model_dump() | {"batch": 8}).caption(asked[5:6])  # the next run
    assert [answer.error for answer in again] == [found[5].error]


@pytest.mark.parametrize("dies", [True, False])
def test_who_waits_for_an_engine_that_was_killed_is_told(
    dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "_LOOK_S", 0.01)
    core = SimpleNamespace(
        outputs_queue=queue.Queue(), resources=SimpleNamespace(engine_dead=False)
    )
    before = threading.active_count()
    with vllm_engine.watched(core):
        assert threading.active_count() == before + 1
        core.resources.engine_dead = dies
        if dies:
            assert "killed" in str(core.outputs_queue.get(timeout=60))
    assert core.outputs_queue.empty() and threading.active_count() == before
    with vllm_engine.watched(SimpleNamespace()):  # an engine in this process
        assert threading.active_count() == before


@pytest.mark.parametrize(("said", "stands"), [(None, "1"), ("0", "0")])
def test_vllm_sends_no_usage_statistics_unless_it_is_told_to(said: str | None, stands: str) -> None:
    env = {key: value for key, value in os.environ.items() if key != "VLLM_NO_USAGE_STATS"}
    env |= {} if said is None else {"VLLM_NO_USAGE_STATS": said}
    code = "import os, resources.captioners.vllm_engine; print(os.environ['VLLM_NO_USAGE_STATS'])"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert done.stdout.strip() == stands


def test_what_vllm_is_given() -> None:
    given = vllm_engine.engine_arguments(VLLM, Path("/cache/snapshot"), 32)
    assert given["trust_remote_code"] is False and given["max_num_seqs"] == 32
    assert given["model"] == "/cache/snapshot" and "revision" not in given
    assert given["limit_mm_per_prompt"] == {"image": 1} and "load_format" not in given
    ask = Ask("satellite", pictures(1)[0], prompt="what?", seed=7, temperature=0.3)
    assert vllm_engine.sampling_arguments(VLLM, ask) == {
        "max_tokens": 512, "temperature": 0.3, "seed": 7,
    }  # fmt: skip
    (message,) = vllm_engine.messages(ask)
    picture, text = message["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "what?"}
    (message,) = vllm_engine.messages(Ask("pois", pois=(("a", "b"),), prompt="what?"))
    assert [part["type"] for part in message["content"]] == ["text"]


def test_the_network_is_shut_while_an_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "0"):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        if before is not None:
            monkeypatch.setenv("HF_HUB_OFFLINE", before)
        with pytest.raises(RuntimeError), vllm_engine.without_network():
            assert os.environ["HF_HUB_OFFLINE"] == "1"
            raise RuntimeError
        assert os.environ.get("HF_HUB_OFFLINE") == before


class Core:
    """What of vLLM's engine is called when it goes."""

    def __init__(self, dead: bool = False) -> None:
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self.end))
        self.dead, self.ended = dead, 0

    def end(self) -> None:
        self.ended += 1
        if self.dead:
            raise RuntimeError("the engine's process is gone")


def test_an_engine_is_shut_down_when_a_judge_needs_the_room() -> None:
    memory, started = Memory(1e-6), list[Core]()

    def start() -> Core:
        started.append(Core())
        return started[-1]

    engine = vllm_engine.engine("vllm m", start, memory, 0.9)
    judge = Loaded("judge", lambda: nn.Linear(64, 64), memory, lambda module: [module])
    for _ in range(2):
        engine()
        assert memory.held == ("vllm m",) and started[-1].ended == 0
        judge()
        assert memory.held == ("judge",) and started[-1].ended == 1
    assert len(started) == 2


@pytest.mark.parametrize(("cache_gib", "found_gib"), [(None, 4), ("0", 4), ("2", 2)])
def test_an_engine_on_a_cpu_takes_its_share_of_the_memory_or_the_cache_that_it_is_told(
    cache_gib: str | None, found_gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache_gib is None:
        monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    else:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", cache_gib)
    cpu = SimpleNamespace(device_type="cpu", get_device_total_memory=lambda: 8 * 2**30)
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=cpu))
    for limit_gib, beside in ((1.0, False), (6.0, True)):
        memory = Memory(limit_gib)
        engine = vllm_engine.engine("vllm m", Core, memory, 0.5)
        judge = Loaded("judge", lambda: nn.Linear(64, 64), memory, lambda module: [module])
        judge()
        core, _ = engine(), judge.forget()
        assert engine.size_bytes == found_gib * 2**30
        judge.size_bytes = 64 * 65 * 4  # as it was found to be
        judge()
        assert (core.ended == 0) == beside


def test_an_engine_that_died_costs_no_more_than_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    """It does not shut down either; the next one starts all the same, and ends with the stage."""
    started = list[Core]()

    def start() -> Core:
        started.append(Core(dead=not started))
        return started[-1]

    def do(asked: Sequence[Ask]) -> list[Answer]:
        if engine().dead:
            raise RuntimeError("Engine core initialization failed.")
        return [Answer("A street.") for _ in asked]

    asked = [Ask("satellite", picture) for picture in pictures(4)]
    halving = Halving(4)
    with backends.memory() as memory:
        engine = vllm_engine.engine("vllm m", start, memory, 0.9)
        assert len(halving.run(asked, do, lambda size: engine.forget())) == 4
        assert halving.size == 2 and [core.ended for core in started] == [1, 0]
    assert [core.ended for core in started] == [1, 1]
    assert "vllm m did not shut down as it should: the engine's process is gone" in caplog.text


needs_vllm = pytest.mark.skipif(not extras.installed("vllm"), reason="vllm is not installed")


@needs_vllm
def test_vllm_knows_what_it_is_given() -> None:
    vllm = extras.load("vllm")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import is_usage_stats_enabled

    assert not is_usage_stats_enabled()

    known = set(inspect.signature(EngineArgs).parameters)
    dummy = VLLM.model_copy(update={"dummy_weights": True})
    assert set(vllm_engine.engine_arguments(dummy, Path("/cache"), 8)) <= known
    ask = Ask("satellite", pictures(1)[0], prompt="what?", seed=2**31 - 1, temperature=0.3)
    given = opened(VLLM.model_dump())._sampling(vllm, ask)
    assert (given.max_tokens, given.temperature, given.seed) == (512, 0.3, 2**31 - 1)
    assert given.structured_outputs is None
    # Conversations first, then their settings, one for each.
    taken = inspect.signature(vllm.LLM.chat).bind(None, [[]], [given], use_tqdm=False).arguments
    assert list(taken) == ["self", "messages", "sampling_params", "use_tqdm"]


@needs_vllm
def test_vllm_can_be_held_to_the_levels() -> None:
    """Its own compiler of schemas takes ours, without a part that it would leave out."""
    vllm = extras.load("vllm")
    import xgrammar
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    ask = Ask("satellite", pictures(1)[0], form="levels")
    schema = opened(VLLM.model_dump())._sampling(vllm, ask).structured_outputs.json
    assert schema == json.loads(levels.schema())
    assert not has_xgrammar_unsupported_json_features(schema)
    assert xgrammar.Grammar.from_json_schema(json.dumps(schema))


@needs_vllm
def test_what_vllm_answers_is_read() -> None:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.engine import FinishReason

    def answer(ended: str) -> Said:
        given = {"index": 0, "text": "A street.", "token_ids": [5, 6], "cumulative_logprob": None,
                 "logprobs": None, "finish_reason": ended}  # fmt: skip
        output = RequestOutput("0", "what?", [1, 2, 3], None, [CompletionOutput(**given)], True)
        return vllm_engine._said(output, 0.5)

    assert answer("stop") == Said("A street.", False, 3, 2, 0.5)
    assert answer("length") == Said("A street.", True, 3, 2, 0.5)
    ends = {str(reason): answer(str(reason)) for reason in FinishReason}
    assert {end for end, said in ends.items() if said.error and said.passing} == {"abort", "error"}
    assert {end for end, said in ends.items() if said.unfit} == {"repetition"}


@needs_vllm
def test_an_engine_of_vllm_ends_and_dies_as_it_is_known_to() -> None:
    from vllm.v1.engine.core_client import EngineCoreClient, InprocClient, SyncMPClient
    from vllm.v1.engine.exceptions import EngineDeadError as Dead
    from vllm.v1.engine.llm_engine import LLMEngine

    assert engine_died(Dead()) and not engine_died(ValueError("too long"))
    for client in (EngineCoreClient, InprocClient, SyncMPClient):
        inspect.signature(client.shutdown).bind(None)
    assert "self.engine_core = EngineCoreClient" in inspect.getsource(LLMEngine.__init__)


@needs_vllm
@pytest.mark.skipif(vllm_runs(), reason="there is a GPU, or vllm is built for CPUs")
def test_the_real_vllm_without_a_gpu_says_so(qwen: Path) -> None:
    choice = {"kind": "vllm", "model": str(qwen), "dummy_weights": True, "max_model_len": 512}
    with pytest.raises(DataError, match=r"captions\.captioner\.kind: vLLM needs a GPU"):
        opened(choice).ready()
