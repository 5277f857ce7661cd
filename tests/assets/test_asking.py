"""What is asked, kept, and asked again, within a budget: a real lake, a real server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.asking import Remembering, forecast
from model_code.backends import Answer, Ask, CaptionerStopped, Identity
from model_code.calibration import SCORES, CalibrationConfig, calibrate
from model_code.city import Captions
from model_code.errors import BudgetError, DataError
from model_code.lazy import Lazy
from resources import backends
from resources.lake import Lake
from resources.rows import RowStore
from tests.assets.held_pictures import HeldPictures
from tests.resources.captioners_server import serving
from tests.tiny import ROOT


def context(folder: Path, **captioner: Any) -> Any:
    """What `Remembering` sees of a stage."""
    given = {"kind": "openai", "model": "tiny-vl", "revision": "r1", "batch": 4, "backoff_s": 0.01,
             "base_url": "http://nowhere.invalid/v1"}  # fmt: skip
    captions = Captions.model_validate({"captioner": {**given, **captioner}})
    lake = Lake(str(folder))
    rows = cache(lambda kind: RowStore(lake, "tiny", "captions", kind, pytest.fail, tidies=True))
    lines: list[str] = []
    return SimpleNamespace(
        city=SimpleNamespace(captions=captions), rows=rows, progress=lines.append, said=lines
    )


def remembering(ctx: Any) -> Remembering:
    return Remembering(ctx, backends.captioner(ctx.city.captions), "captions")


def asks(number: int) -> list[Ask]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (number, 8, 8, 3)).astype(np.uint8)
    return [Ask("satellite", picture, seed=i) for i, picture in enumerate(pictures)]


def test_each_ask_is_made_once_whichever_run_asks(tmp_path: Path) -> None:
    asked = asks(10)
    with serving() as server:
        first = remembering(context(tmp_path, base_url=server.url)).caption([*asked, asked[3]])
        again = remembering(context(tmp_path, base_url=server.url))
        assert again.caption(asked[::-1]) == first[9::-1] and first[10] == first[3]
        assert len(server.requests) == 10
        # Another model, revision, prompt, form, seed or picture is another ask.
        ctx = context(tmp_path, base_url=server.url, revision="r2")
        remembering(ctx).caption(asked[:1])
        others = [
            Ask("satellite", asked[0].picture, {"water": 0.5}), Ask("satellite", asked[0].picture, seed=9),
            Ask("satellite", asked[0].picture, form="levels"), Ask("street_view", asked[0].picture),
            Ask("satellite", asked[0].picture, temperature=0.5),
        ]  # fmt: skip
        again.caption(others)
        assert len(server.requests) == 16
        # How a server is reached, and a share that the prompt does not tell, change nothing.
        ctx = context(tmp_path, base_url=server.url, concurrency=2, timeout_s=9, batch=3)
        remembering(ctx).caption([Ask("satellite", asked[0].picture, {"water": 0.001})])
        assert len(server.requests) == 16


def test_of_many_pictures_a_batch_or_two_are_held(tmp_path: Path) -> None:
    """Asks that are made when they are asked for, by calibration's loop over tries."""
    held = HeldPictures()

    def made(i: int) -> Ask:
        return Ask("satellite", held.picture(i), seed=i)

    def scorer(positions: np.ndarray, texts: list[str], seeds: list[int]) -> pd.DataFrame:
        rows = pd.DataFrame(index=range(len(texts)), columns=list(SCORES), dtype=object)
        return rows.assign(perception_score=np.where(positions % 3 == 0, 0.0, 1.0), note="")

    config = CalibrationConfig(retries=1, threshold=0.5, floor=0.5)
    found = []
    with serving() as server:
        for lazily in (True, False):
            ctx = context(tmp_path / str(lazily), base_url=server.url, batch=4)
            asked = Lazy(range(60), made)
            writer = remembering(ctx)
            found.append(calibrate(asked if lazily else list(asked), writer, scorer, config))
            assert 4 <= held.most <= 2 * 4 + 1 or not lazily
            held.most = 0
    assert len(found[0][0]) == 60 + 20
    for lazy, whole in zip(*found, strict=True):
        columns = [name for name in lazy if name not in ("took_s", "text")]
        pd.testing.assert_frame_equal(lazy[columns], whole[columns])


def test_answers_that_are_always_malformed_are_error_rows_each_once(tmp_path: Path) -> None:
    """Also where no score would be too low: an answer that is none has no score."""

    def scorer(positions: np.ndarray, texts: list[str], seeds: list[int]) -> pd.DataFrame:
        assert set(texts) == {""}
        return pd.DataFrame(np.nan, index=range(len(texts)), columns=list(SCORES))

    config = CalibrationConfig(retries=2, threshold=0, floor=0)
    with serving(lambda number, body: "wrong_schema") as server:
        for run in (1, 2):
            ctx = context(tmp_path, base_url=server.url, max_tries=2)
            writer = remembering(ctx)
            tries, best = calibrate(asks(10), writer, scorer, config)
            assert len(tries) == 30 and not tries.duplicated(["position", "attempt"]).any()
            assert tries["error"].str.startswith("the caption speaks of coordinates").all()
            assert (tries["text"] == "").all() and (tries["requests"] == 2).all()
            assert tries["seed"].nunique() == 30
            assert best["position"].tolist() == list(range(10)) and (best["tries"] == 3).all()
            assert (best["attempt"] == -1).all() and not best["kept"].any()
            assert best["reason"].str.startswith("no caption: the caption speaks").all()
            # No row is kept: another run asks all of them again.
            assert writer.unanswered()["count"] == 30
            assert len(server.requests) == run * tries["requests"].sum()


def test_failed_asks_leave_no_row_and_are_made_again_alone(tmp_path: Path) -> None:
    asked, bad = asks(9), {2, 7}
    with serving(lambda n, body: "poisoned" if body["seed"] in bad else "") as server:
        first = remembering(context(tmp_path, base_url=server.url))
        found = first.caption(asked)
        assert {i for i, answer in enumerate(found) if answer.error} == bad
        assert first.caption(asked) == found and len(server.requests) == 9
        assert first.unanswered()["count"] == 2 == first.metadata()["failed"]
        again = remembering(context(tmp_path, base_url=server.url))
        assert again.caption(asked)[2].error and len(server.requests) == 11
        assert again.unanswered() == first.unanswered()
        bad.clear()
        last = remembering(context(tmp_path, base_url=server.url))
        assert not any(answer.error for answer in last.caption(asked))
        assert len(server.requests) == 13 and last.unanswered() == {}
    about = last.metadata()
    assert about["asks"] == 2 and about["tokens_out"] == 40 and about["images_per_s"] > 0
    assert about["tokens_per_s"] > about["images_per_s"]


def test_asks_that_stay_refused_stop_no_later_run(tmp_path: Path) -> None:
    asked, bad = asks(10), {0, 1, 2, 3, 4, 5}
    with serving(lambda n, body: "poisoned" if body["seed"] in bad else "") as server:
        for requests in (10, 16):
            found = remembering(context(tmp_path, base_url=server.url, batch=16)).caption(asked)
            assert {i for i, answer in enumerate(found) if answer.error} == bad
            assert len(server.requests) == requests


def test_a_request_that_is_always_wrong_stops_the_run(tmp_path: Path) -> None:
    with serving(lambda number, body: "poisoned") as server:
        ctx = context(tmp_path, base_url=server.url, batch=2)
        with pytest.raises(CaptionerStopped, match="the first 4 captions were refused for good"):
            remembering(ctx).caption(asks(40))
        assert len(server.requests) == 4


PRICES = {"tokens_in": 1.0, "tokens_out": 10.0}
EACH = 100 * 1e-6 + 20 * 1e-5  # what the server says an answer took


@pytest.mark.parametrize("budget", [{"tokens": 120 * 20 + 600}, {"money": EACH * 20 + 0.0053}])
def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(tmp_path: Path, budget: dict) -> None:
    asked = asks(60)
    about = {"budget": budget, "price_per_million_tokens": PRICES}
    with serving() as server:
        ctx = context(tmp_path, base_url=server.url, **about)
        with pytest.raises(BudgetError) as caught:
            remembering(ctx).caption(asked)
        told = str(caught.value)
        assert "captions.captioner.budget, which each stage has for itself, is used up" in told
        assert "run again" in told
        done = len(server.requests)
        # An answer as long as may be always fits; so it stops where one might not.
        assert 16 <= done <= 21 and f"{120 * done:,} tokens for" in told
        assert f"{60 - done} asks are left" in told
        with pytest.raises(BudgetError):
            remembering(context(tmp_path, base_url=server.url, **about)).caption(asked)
        assert len(server.requests) == done
        looked = forecast(ctx, backends.captioner(ctx.city.captions), {"chips": asked}, 2)
        assert looked.groups == (("chips", 60, done),) and looked.missing == 60 - done
        lines = "\n".join(looked.lines())
        assert f"cost: {EACH * (60 - done):.2f}" in lines and f"measured on {done}" in lines
        assert "budget of this stage: " in lines
        assert f"{120 * done:,} tokens spent so far" in lines
        # Each of the missing, and two more tries of all, with answers as long as may be, four requests each.
        most = 4 * (60 - done + 2 * 60)
        assert looked.most_requests == most and looked.most_out == 512 and looked.most_in >= 100
        cost = most * (looked.most_in * 1e-6 + 512 * 1e-5)
        assert f"at most: {most:,} requests (4 of each try that fails)" in lines
        assert f"{512 * most:,} out, for {cost:.2f}\n" in lines
        assert re.search(r"time: \d+:\d\d\n", lines)
        more = {"budget": {"money": 1.0}, "price_per_million_tokens": PRICES}
        last = remembering(context(tmp_path, base_url=server.url, **more))
        assert len(last.caption(asked)) == 60 == len(server.requests)
        assert last.metadata()["cost"] == pytest.approx(EACH * (60 - done), abs=1e-4)


def test_a_forecast_asks_nothing_and_says_what_it_rests_on(tmp_path: Path) -> None:
    with serving() as server:
        ctx = context(tmp_path, base_url=server.url, price_per_million_tokens=PRICES, max_tokens=50)
        captioner = backends.captioner(ctx.city.captions)
        looked = forecast(ctx, captioner, {"chips": asks(1000)})
        assert not server.requests
    assert looked.missing == 1000 and looked.tokens_out == 50 and 100 < looked.tokens_in < 250
    nothing = "\n".join(forecast(ctx, captioner, {"chips": []}).lines())
    assert "at most" not in nothing and "0 to ask" in nothing and "time: 0:00" in nothing
    lines = "\n".join(looked.lines())
    assert "an estimate" in lines and "not known before a first batch" in lines
    assert "run with a small captions.captioner.budget" in lines
    assert f"cost: {1000 * looked.tokens_in * 1e-6 + 0.5:.2f}" in lines


def test_what_a_stopped_captioner_gave_is_kept(tmp_path: Path) -> None:
    asked = asks(12)
    with serving(lambda number, body: "unknown" if number == 6 else "") as server:
        ctx = context(tmp_path, base_url=server.url, concurrency=1)
        with pytest.raises(CaptionerStopped, match="does not serve us"):
            remembering(ctx).caption(asked)
        assert len(server.requests) == 7
        remembering(context(tmp_path, base_url=server.url)).caption(asked)
        assert len(server.requests) == 7 + 6


ASKING = """
import sys
from pathlib import Path
from tests.assets.test_asking import asks, context, remembering
remembering(context(Path(sys.argv[1]), base_url=sys.argv[2], concurrency=2)).caption(asks(60))
"""


def test_a_killed_run_loses_one_batch_at_most(tmp_path: Path) -> None:
    def slow(number: int, body: dict[str, Any]) -> str:
        time.sleep(0.05)
        return ""

    with serving(slow) as server:
        command = [sys.executable, "-c", textwrap.dedent(ASKING), str(tmp_path), server.url]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + 300
        while len(server.requests) < 30 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)  # what was under way arrives
        before = len(server.requests)
        assert 30 <= before < 60
        found = remembering(context(tmp_path, base_url=server.url)).caption(asks(60))
        assert not any(answer.error for answer in found)
        assert 60 <= len(server.requests) <= 60 + 4 + 2  # a batch, and what had just been begun


class TenLines:
    """A captioner of one's own, as docs/captioning.md shows it."""

    def __init__(self, greeting: str = "A picture") -> None:
        self.identity = Identity("ten-lines", "1", {"greeting": greeting})
        self.greeting = greeting

    def caption(self, asked: list[Ask]) -> list[Answer]:
        return [
            Answer(f"{self.greeting} of mean brightness {ask.picture.mean():.0f}.")
            for ask in asked
            if ask.picture is not None
        ]


def test_a_captioner_of_ones_own_is_named_in_the_config(tmp_path: Path) -> None:
    choice = {
        "kind": "custom", "object": "tests.assets.test_asking:TenLines", "options": {"greeting": "Hi"},
    }  # fmt: skip
    ctx = context(tmp_path)
    ctx.city.captions = Captions.model_validate({"captioner": choice})
    found = remembering(ctx).caption(asks(3))
    assert [answer.text.split(" of ")[0] for answer in found] == ["Hi"] * 3
    with pytest.raises(DataError, match="TenLines gave 0 answers to 1 asks"):
        remembering(ctx).caption([Ask("pois", pois=(("a", "b"),))])


class Counting:
    """Looks at more than the prompt, and speaks in halves of characters."""

    identity = Identity("counting", "1")
    asked = 0

    def caption(self, asked: list[Ask]) -> list[Answer]:
        Counting.asked += len(asked)
        return [Answer(f"Trees \ud83d {ask.shares['trees']:.4f}.") for ask in asked]


def test_a_captioner_of_ones_own_is_asked_again_for_what_no_prompt_tells(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    choice = {"kind": "custom", "object": "tests.assets.test_asking:Counting"}
    ctx.city.captions = Captions.model_validate({"captioner": choice})
    picture = asks(1)[0].picture
    few = [Ask("satellite", picture, {"trees": share}) for share in (0.001, 0.002, 0.001)]
    found = [answer.text for answer in remembering(ctx).caption(few)]
    assert found == ["Trees ? 0.0010.", "Trees ? 0.0020.", "Trees ? 0.0010."]
    assert Counting.asked == 2
    assert [answer.text for answer in remembering(ctx).caption(few)] == found
    assert Counting.asked == 2


class Fragile:
    """Raises for dark pictures, and stops for good at a black one. By its own clock, loading takes 100 s
    and a call one."""

    identity = Identity("fragile", "1")
    loaded, sizes, now_s = 0, list[int](), 0.0

    def ready(self) -> None:
        Fragile.now_s += 100
        Fragile.loaded += 1

    def caption(self, asked: list[Ask]) -> list[Answer]:
        Fragile.now_s += 1
        self.sizes.append(len(asked))
        means = [ask.picture.mean() for ask in asked]
        if any(0 < mean < 9 for mean in means):
            raise IndexError("too dark")
        if 0 in means:
            raise CaptionerStopped("it is night", fix="wait", answers=[])
        return [Answer(f"A picture of mean {mean:.1f}.") for mean in means]


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> type[Fragile]:
    """The class as it was made, whose clock is that of asking."""
    for name, value in (("loaded", 0), ("sizes", list[int]()), ("now_s", 0.0)):
        monkeypatch.setattr(Fragile, name, value)
    monkeypatch.setattr("assets.asking.time", SimpleNamespace(monotonic=lambda: Fragile.now_s))
    return Fragile


def test_one_ask_that_a_captioner_of_ones_own_raises_for_stops_no_other(
    tmp_path: Path, fragile: type[Fragile]
) -> None:
    ctx = context(tmp_path)
    choice = {"kind": "custom", "object": "tests.assets.test_asking:Fragile", "batch": 8}
    ctx.city.captions = Captions.model_validate({"captioner": choice})
    asked = asks(16)
    asked[3] = Ask("satellite", np.full((8, 8, 3), 5, np.uint8))
    writer = remembering(ctx)
    found = writer.caption(asked)
    assert [i for i, answer in enumerate(found) if answer.error] == [3]
    assert found[3].error == "the captioner fails on it (IndexError: too dark)"
    assert fragile.sizes == [8, 4, 2, 2, 1, 1, 4, 8]
    # Loading, once for both batches, is in no rate.
    assert fragile.loaded == 1 and writer.metadata()["seconds"] == len(fragile.sizes)
    # What came before it stopped is kept, also of a half.
    night = [*asks(20)[16:], asked[3], Ask("satellite", np.zeros((8, 8, 3), np.uint8))]
    with pytest.raises(CaptionerStopped, match="night"):
        remembering(ctx).caption(night)
    fragile.sizes.clear()
    with pytest.raises(CaptionerStopped, match="night"):
        remembering(ctx).caption(night)
    assert sum(fragile.sizes) < 6


class Outage(TenLines):
    """Answers so many calls; then its server is gone."""

    left, calls = 0, 0
    error: Exception = ConnectionError("refused")

    def caption(self, asked: list[Ask]) -> list[Answer]:
        Outage.calls += 1
        if not self.left:
            raise self.error
        Outage.left -= 1
        return super().caption(asked)


GONE, NEVER = "and so does one that was answered before", "failed, and none was answered"


@pytest.mark.parametrize(
    ("left", "error", "told", "calls"),
    [
        (1, ConnectionError("refused"), GONE, 13), (1, TimeoutError(), GONE, 13),
        (1, RuntimeError("gone"), GONE, 13), (0, ConnectionError("refused"), NEVER, 11),
        # What may be about the asks is asked about all of the first batch.
        (0, RuntimeError("gone"), "the first 32 captions were refused for good", 63),
    ],
)  # fmt: skip
def test_an_outage_stops_the_run_and_the_next_one_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    error: Exception,
    told: str,
    calls: int,
) -> None:
    for name, value in (("left", left), ("calls", 0), ("error", error)):
        monkeypatch.setattr(Outage, name, value)
    ctx = context(tmp_path)
    choice = {"kind": "custom", "object": "tests.assets.test_asking:Outage", "batch": 32}
    ctx.city.captions = Captions.model_validate({"captioner": choice})
    writer = remembering(ctx)
    with pytest.raises(CaptionerStopped, match=told):
        writer.caption(asks(96))
    assert Outage.calls <= calls
    assert {answer.final for answer in writer.failed.values()} == {not isinstance(error, OSError)}
    Outage.left, Outage.calls = 99, 0
    found = remembering(ctx).caption(asks(96))
    assert not any(answer.error for answer in found) and Outage.calls == 3 - left


class Late(TenLines):
    """Its model is not there at first."""

    calls = 0

    def ready(self) -> None:
        Late.calls += 1
        if Late.calls == 1:
            raise DataError("no model yet", fix="wait")


class Flag(TenLines):
    """Has a field of that name, which is no method."""

    ready = True


def test_what_loads_is_called_until_it_has_loaded_and_only_if_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Late, "calls", 0)
    ctx = context(tmp_path)
    for name, kind in (("Late", "satellite"), ("Flag", "street_view")):
        choice = {"kind": "custom", "object": f"tests.assets.test_asking:{name}", "batch": 2}
        ctx.city.captions = Captions.model_validate({"captioner": choice})
        writer = remembering(ctx)
        if name == "Late":
            with pytest.raises(DataError, match="no model yet"):
                writer.caption(asks(1))
        assert len(writer.caption([replace(ask, kind=kind) for ask in asks(5)])) == 5
    assert Late.calls == 2


@pytest.mark.parametrize(
    ("object_", "told"),
    [("no_such_package:Mine", "cannot be made"), ("tests.assets.test_asking:Nobody", "cannot be made"),
     ("pathlib:Path", "is no captioner")],
)  # fmt: skip
def test_what_is_no_captioner_is_named(object_: str, told: str) -> None:
    choice = {"captioner": {"kind": "custom", "object": object_}}
    with pytest.raises(DataError, match=rf"captions.captioner.object: {object_} {told}"):
        backends.captioner(Captions.model_validate(choice))
