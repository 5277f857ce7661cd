"""Real captioners: a server that misbehaves in every way, and tiny models with random weights."""

from __future__ import annotations

import base64
import io
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_code.backends import Answer, Ask, CaptionerStopped
from model_code.errors import DataError
from model_code.text import levels
from model_code.text.captioner_config import OpenAiChoice
from resources.captioners.batches import Halving
from resources.captioners.server import ServerCaptioner, _retry_after
from tests.resources.captioners_server import FAULTS, LEVELS, now_and_then, serving


def asks(number: int, **more: Any) -> list[Ask]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (number, 8, 12, 3)).astype(np.uint8)
    return [Ask("street_view", p, {"road": 0.4}, seed=i, **more) for i, p in enumerate(pictures)]


def captioner(url: str, **more: Any) -> ServerCaptioner:
    given = {"timeout_s": 2.0, "backoff_s": 0.01, "max_tries": 8, **more}
    return ServerCaptioner(
        OpenAiChoice(kind="openai", base_url=url, model="tiny-vl", revision="r1", **given)
    )


def number_of(answer: Answer) -> int:
    """Which ask an answer of the server answers, give or take tries with another seed."""
    return int(answer.text.split("number ")[1].rstrip("."))


def picture_in(body: dict[str, Any]) -> np.ndarray:
    kind, _, content = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_no_row_is_lost_or_doubled_whatever_the_server_does(
    record_property: Callable[[str, object], None],
) -> None:
    asked = asks(160)
    poisoned = asked[17].picture

    def fault(number: int, body: dict[str, Any]) -> str:
        return "poisoned" if (picture_in(body) == poisoned).all() else random_fault(number, body)

    random_fault = now_and_then(0.35)
    with serving(fault) as server:
        found = captioner(server.url, max_tries=16).caption(asked)  # 0.35 ** 16: never used up
        met, requests = server.met(), len(server.requests)
    assert set(met) == {"", "poisoned", *FAULTS}
    assert len(found) == len(asked)
    bad = [i for i, answer in enumerate(found) if answer.error]
    assert bad == [17] and found[17].error == "HTTP 400: cannot decode the image"
    assert found[17].final and found[17].requests == met["poisoned"] == 1
    for i, answer in enumerate(found):
        if not answer.error:
            assert i <= number_of(answer) < i + answer.requests
    assert sum(answer.requests for answer in found) == requests
    # A time-out is counted here and the request there: no token is paid that nobody has noted.
    heard = sum(met[f] for f in ("", "wrong_schema", "empty", "chatty"))
    assert sum(a.tokens_in for a in found) == 100 * heard
    faults = sum(met.values()) - met[""]
    told = f"{requests} requests, {faults} faults, {len(found)} rows, {len(bad)} of them errors"
    record_property("figure", f"{told}: {dict(met)}")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_survived(fault: str) -> None:
    with serving(lambda number, body: fault if number < 2 else "") as server:
        found = captioner(server.url, concurrency=2).caption(asks(4))
    assert [answer.error for answer in found] == [""] * 4
    assert sum(answer.requests for answer in found) == 6


@pytest.mark.parametrize("fault", ["busy", "wrong_schema", "empty", "truncated"])
def test_a_fault_that_stays_is_one_error_row(fault: str) -> None:
    asked = asks(5)

    def only_one(number: int, body: dict[str, Any]) -> str:
        return fault if (picture_in(body) == asked[2].picture).all() else ""

    with serving(only_one) as server:
        found = captioner(server.url, max_tries=3).caption(asked)
    assert [bool(answer.error) for answer in found] == [False, False, True, False, False]
    assert found[2].requests == 3 and found[2].text == "" and not found[2].final
    why = {
        "busy": "HTTP 429: slow down", "wrong_schema": "the caption speaks of coordinates",
        "empty": "an empty answer", "truncated": "not an answer of the protocol",
    }  # fmt: skip
    assert found[2].error.startswith(why[fault])


def test_a_server_that_asks_for_patience_gets_it() -> None:
    with serving(lambda number, body: "busy" if number == 0 else "") as server:
        captioner(server.url, concurrency=1).caption(asks(1))
        (first, *_), (second, *_) = server.requests
    assert 0.2 <= second - first < 1.0
    with serving(lambda number, body: "busy") as server:
        found = captioner(server.url, longest_wait_s=0.1).caption(asks(1))
    assert len(server.requests) == 1 and "asked to wait too long" in found[0].error


def test_a_wait_is_read_in_every_form() -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert _retry_after({"retry-after": "1.5"}) == 1.5
    assert _retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 28 <= (_retry_after({"retry-after": later}) or 0) <= 30
    assert _retry_after({"retry-after": "soon"}) is None and _retry_after({}) is None


def test_requests_are_bounded_and_run_at_once() -> None:
    with serving() as server:
        captioner(server.url, concurrency=4).caption(asks(40))
    assert 2 <= server.most <= 4


def test_what_a_server_is_sent() -> None:
    asked = [
        asks(1)[0],
        replace(asks(1)[0], form="levels", temperature=0.6),
        Ask("pois", pois=(("Bakery", "food"),), form="levels"),
    ]
    with serving() as server:
        found = captioner(server.url, concurrency=1, max_tokens=77, request={"top_p": 0.9}).caption(
            asked
        )
    first, second, third = (body for _, body, _ in server.requests)
    assert (picture_in(first) == asked[0].picture).all()
    assert first["model"] == "tiny-vl" and first["max_tokens"] == 77 and first["top_p"] == 0.9
    assert first["seed"] == 0 and first["temperature"] == 0 and "response_format" not in first
    told = second["response_format"]["json_schema"]
    assert told["schema"]["required"] == ["land", "activity", "departures"] and told["strict"]
    assert second["temperature"] == 0.6
    assert [part["type"] for part in third["messages"][0]["content"]] == ["text"]
    assert [levels.parse(answer.text)[0] is not None for answer in found] == [False, True, True]
    assert found[1].text == LEVELS and found[1].tokens_out == 20 and found[1].seconds >= 0


def test_malformed_levels_are_asked_for_anew_with_another_seed_and_warmer() -> None:
    with serving(lambda number, body: "wrong_schema" if number < 2 else "") as server:
        found = captioner(server.url).caption(asks(1, form="levels"))
    tried = [(body["seed"], body["temperature"]) for _, body, _ in server.requests]
    assert tried == [(0, 0), (1, 0.2), (2, 0.4)]
    assert found[0].text == LEVELS and found[0].tokens_in == 300 and found[0].requests == 3


def test_nothing_is_asked_that_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        found = captioner(server.url).caption([Ask("satellite"), Ask("pois"), asks(1)[0]])
    assert len(server.requests) == 1
    assert [bool(answer.error) for answer in found] == [True, True, False]


KEY = "sk-S3NTINEL-0123456789"


@pytest.mark.parametrize(("fault", "key"), [("refused", "api_key_env"), ("unknown", "base_url")])
def test_a_server_that_refuses_us_stops_the_run_and_keeps_what_it_gave(
    fault: str, key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(lambda number, body: fault if number == 5 else "") as server:
        with pytest.raises(CaptionerStopped) as caught:
            captioner(server.url, concurrency=1, api_key_env="A_KEY").caption(asks(9))
        assert len(server.requests) == 6
        assert server.keys == {f"Bearer {KEY}"}
    kept = [answer is not None and answer.text != "" for answer in caught.value.answers]
    assert kept == [True] * 5 + [False] * 4
    assert f"captions.captioner.{key}" in caught.value.fix
    assert KEY not in str(caught.value) and "S3NTINEL" not in caplog.text


@pytest.mark.parametrize(
    ("ending", "told"), [("\n", ""), ("\nX", "a line break"), ("\u2026", "ASCII")]
)
def test_a_key_that_no_header_can_hold_is_not_quoted(
    ending: str, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY", KEY + ending)
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        one = captioner(server.url, api_key_env="A_KEY")
        if not told:
            assert not one.caption(asks(1))[0].error
            assert server.keys == {f"Bearer {KEY}"}
            return
        with pytest.raises(CaptionerStopped, match=told) as caught:
            one.caption(asks(1))
        assert not server.requests
    assert "A_KEY" in str(caught.value)
    assert "S3NTINEL" not in str(caught.value) and "S3NTINEL" not in caplog.text


def test_a_header_that_cannot_be_sent_is_not_quoted() -> None:
    """Whatever else finds its way into one."""
    with serving() as server:
        one = captioner(server.url, max_tries=1)
        one._read_key = lambda: f"{KEY}\n"  # type: ignore[method-assign]
        found = one.caption(asks(1))
        assert not server.requests
    assert found[0].error == "connection failed (LocalProtocolError)"


def test_a_filter_in_front_of_the_server_is_not_about_the_key() -> None:
    with serving(lambda number, body: "forbidden" if 0 < number < 7 else "") as server:
        found = captioner(server.url, concurrency=1).caption(asks(8))
    assert [bool(answer.error) for answer in found] == [False, *[True] * 6, False]
    with serving(lambda number, body: "forbidden") as server:
        with pytest.raises(CaptionerStopped, match="not for you"):
            captioner(server.url, concurrency=1).caption(asks(9))
        assert len(server.requests) == 4
    with serving(lambda number, body: "unpaid") as server:
        with pytest.raises(CaptionerStopped, match="no credit"):
            captioner(server.url, concurrency=1).caption(asks(9))
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["poisoned", "wrong_schema"])
def test_a_server_that_judges_what_it_is_asked_is_not_at_fault(fault: str) -> None:
    with serving(lambda number, body: fault) as server:
        found = captioner(server.url, max_tries=2).caption(asks(6))
    assert all(answer.error for answer in found) and len(found) == 6


def test_an_answer_that_no_reader_survives_costs_no_other() -> None:
    with serving(lambda number, body: "nested" if number in (1, 2) else "") as server:
        found = captioner(server.url, concurrency=1, max_tries=2).caption(asks(3))
    assert [bool(answer.error) for answer in found] == [False, True, False]
    assert "RecursionError" in found[1].error


def test_a_server_that_does_not_count_is_charged_an_estimate() -> None:
    with serving(lambda number, body: "uncounted") as server:
        found = captioner(server.url).caption(asks(1))
    assert 100 < found[0].tokens_in < 300 and found[0].tokens_out == 8


def test_what_was_under_way_when_the_run_stopped_is_charged() -> None:
    faults = ["wrong_schema", "refused"]
    with (
        serving(lambda number, body: faults[number]) as server,
        pytest.raises(CaptionerStopped) as caught,
    ):
        captioner(server.url, concurrency=1).caption(asks(3))
    (first, *others) = caught.value.answers
    assert first is not None and first.error and first.tokens_in == 100 and first.requests == 2
    assert others == [None, None]


def test_an_interrupt_does_not_wait_for_the_batch() -> None:
    # What starts in the background of a shell inherits that interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with serving(lambda number, body: "slow") as server:
        one = captioner(server.url, concurrency=1, timeout_s=20)
        main = threading.main_thread().ident
        threading.Timer(1.5, signal.pthread_kill, (main, signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            one.caption(asks(20))
        assert time.monotonic() - began < 15  # a batch takes a minute
        assert len(server.requests) == 1
    signal.signal(signal.SIGINT, before)


def test_a_key_that_is_not_there_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with serving() as server:
        with pytest.raises(CaptionerStopped, match=r"api_key_env names \$A_KEY"):
            captioner(server.url, api_key_env="A_KEY").caption(asks(1))
        assert not server.requests


def test_a_server_that_is_not_there_stops_the_run() -> None:
    with serving() as server:
        url = server.url
    gone = captioner(url, max_tries=2)
    with pytest.raises(CaptionerStopped, match="of 4 captions"):
        gone.caption([*asks(4), Ask("satellite")])
    with pytest.raises(
        CaptionerStopped, match="gave none; the first failed with: connection failed"
    ):
        gone.caption(asks(4))
    assert [bool(answer.error) for answer in gone.caption(asks(3))] == [True] * 3


@pytest.mark.parametrize(
    ("ended", "told", "anew"),
    [("abort", "the server did not finish the answer (abort)", False),
     ("error", "the server did not finish the answer (error)", False),
     ("repetition", "the answer repeats itself", True)],
)  # fmt: skip
def test_what_a_server_did_not_finish_is_no_answer(ended: str, told: str, anew: bool) -> None:
    """Words of it may look like one. It is asked for again: as it was, or where it repeats itself by
    another seed."""
    for bad in (1, 3):
        with serving(lambda number, body, bad=bad: ended if number < bad else "") as server:
            (answer,) = captioner(server.url, max_tries=3).caption(asks(1))
        seeds = [body["seed"] for _, body, _ in server.requests]
        assert seeds == [i * anew for i in range(min(bad + 1, 3))]
        assert answer.requests == len(seeds) and answer.tokens_in == 100 * len(seeds)
        if bad == 1:
            assert number_of(answer) == anew and not answer.error
        else:
            assert (answer.text, answer.error, answer.final) == ("", told, False)


class EngineDeadError(Exception):
    """As vLLM calls it."""


class Engine:
    """Answers asks of the engine of vLLM, and dies at some."""

    def __init__(self, deadly: Sequence[int], most: int = 1000) -> None:
        self.deadly, self.most = deadly, most
        self.sizes, self.starts = list[int](), 0

    def do(self, asked: Sequence[Ask]) -> list[Answer]:
        self.sizes.append(len(asked))
        if len(asked) > self.most or any(ask.seed in self.deadly for ask in asked):
            raise EngineDeadError("EngineCore encountered an issue.")
        return [Answer(f"Street {ask.seed}.") for ask in asked]

    def start(self, size: int) -> None:
        self.starts += 1


def test_a_batch_at_which_an_engine_dies_is_done_in_halves() -> None:
    engine, halving = Engine((), most=2), Halving(8)
    assert len(halving.run(asks(8), engine.do, engine.start)) == 8
    assert engine.sizes == [8, 4, 2, 2, 2, 2] and engine.starts == 2
    assert halving.notes() == {"batch": 2, "out_of_memory": 2}


def test_an_ask_that_kills_an_engine_is_an_error_and_the_others_are_answered() -> None:
    engine, halving = Engine((5,)), Halving(8)
    found = halving.run(asks(24), engine.do, engine.start)
    assert [i for i, answer in enumerate(found) if answer.error] == [5]
    assert found[5].final and found[5].error == "vLLM's engine dies with this ask alone"
    texts = [answer.text for answer in found]
    assert texts == [f"Street {i}." * (i != 5) for i in range(24)]
    # After it the batches are as large as before: it was not for want of memory.
    assert engine.sizes == [8, 4, 4, 2, 1, 1, 8, 8, 2] and engine.starts == 4
    assert halving.notes() == {"batch": 8, "out_of_memory": 0, "engine_died": 1}


@pytest.mark.parametrize("deadly", [[0], [0, 1, 2]])
def test_asks_that_kill_an_engine_do_not_stop_a_run_that_asks_them_alone(deadly: list[int]) -> None:
    """As the next run does: what was answered is not asked again, so nothing else is in the call."""
    engine = Engine(deadly)
    found = Halving(8).run(asks(len(deadly)), engine.do, engine.start)
    assert [answer.final and "dies with this ask" in answer.error for answer in found] == [
        True
    ] * len(deadly)


def test_an_engine_that_dies_with_whatever_it_is_asked_stops_and_keeps_what_it_said() -> None:
    engine, halving = Engine(range(4, 100)), Halving(4)
    with pytest.raises(CaptionerStopped, match="died with 4 asks in a row, each alone") as caught:
        halving.run(asks(16), engine.do, engine.start)
    kept = caught.value.answers
    assert [a.text for a in kept if a] == [f"Street {i}." for i in range(4)] + [""] * 4
    assert isinstance(caught.value.__cause__, EngineDeadError)
    assert "EngineCore encountered an issue" in str(caught.value)
    # An answer between them says that the engine lives.
    engine = Engine([i for i in range(8) if i % 3])
    found = Halving(4).run(asks(8), engine.do, engine.start)
    assert [i for i, answer in enumerate(found) if answer.text] == list(range(0, 8, 3))


@pytest.mark.parametrize(
    ("error", "told"),
    [(DataError("captions.captioner.model: no start", fix="mend it"), "no start\n  fix: mend it"),
     (RuntimeError("CUDA error: device-side assert triggered"), "is gone .RuntimeError: CUDA error")],
)  # fmt: skip
def test_what_stops_a_captioner_keeps_what_the_same_call_had_answered(
    error: Exception, told: str
) -> None:
    """Such as an engine that does not start again after it died."""

    def do(asked: Sequence[Ask]) -> list[Answer]:
        if len(asked) > 2:
            raise EngineDeadError
        if asked[0].seed >= 2:
            raise error
        return [Answer("A street.") for _ in asked]

    with pytest.raises(CaptionerStopped, match=told) as caught:
        Halving(4).run(asks(4), do)
    assert [answer.text for answer in caught.value.answers if answer] == ["A street."] * 2
    with pytest.raises(type(error)):
        Halving(2).run(asks(4)[2:], do)
