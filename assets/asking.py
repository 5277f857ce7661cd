"""Asking a captioner: each ask once, whichever run asked; rows kept batch by batch; within a budget.

An ask that failed leaves no row: the next run asks it, and it alone, again.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from assets.stage import Context
from model_code.errors import BudgetError
from model_code.fingerprint import digest
from model_code.lazy import Lazy
from model_code.progress import Meter, clock

if TYPE_CHECKING:
    import numpy as np

    from model_code.backends import Answer, Ask, Captioner, Identity
    from model_code.city import City
    from model_code.text.captioner_config import Budget, Prices

ASKING = ("captions", "poi_descriptions", "region_descriptions")  # the stages that do
_TEXTS, _SPENT = "texts", "spent"  # kinds of kept rows: answers, and what each batch took
_TEMPLATE_BATCH = 128
# Where so many asks are all refused for good, and none was ever answered, the request is wrong.
_ALL_FINAL = 4


def prompting(city: City) -> dict[str, Any]:
    """What prompts rest on, beside the tables; nothing where the captioner reads none."""
    if city.captions is None or city.captions.captioner.kind == "template":
        return {}
    from model_code.text import prompts

    return {"title": city.title, "prompts": {n: prompts.prompt_id(n) for n in prompts.names()}}


def named_model(identity: Identity) -> str:
    """Model and revision, as a column says it."""
    return f"{identity.model} {identity.revision}"


def sha256_of(array: np.ndarray | None) -> str:
    """Of a picture, or of a map of heights."""
    return sha256(
        b"" if array is None else repr(array.shape).encode() + array.tobytes()
    ).hexdigest()


@dataclass(frozen=True)
class Spent:
    """What a stage's asks have taken so far, failed ones included."""

    asks: int = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    most_in: int = 0  # tokens that one ask read, at most
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        values = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Spent(**{**values, "most_in": max(self.most_in, other.most_in)})

    def cost(self, prices: Prices | None) -> float | None:
        """None where the config gives no prices."""
        return prices.cost(self.tokens_in, self.tokens_out) if prices else None


class Remembering:
    """A captioner that is asked for each caption once.

    Attributes:
        failed: by key, the answers of this run that are errors.
        about: what the asks are for, told with the progress.
        progress: is told how far it is.
    """

    def __init__(self, ctx: Context, captioner: Captioner, about: str) -> None:
        assert ctx.rows is not None
        self._captioner, self.about, self.progress = captioner, about, ctx.progress
        self._choice = ctx.city.captions.captioner
        self._real = self._choice.kind != "template"
        self._rows, self._ledger = ctx.rows(_TEXTS), ctx.rows(_SPENT)
        self.identity = captioner.identity
        self.failed: dict[str, Answer] = {}
        self._now = Spent()
        self._served = False  # whether any ask has an answer, of this run or another

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; of asks that are `Lazy`, a batch or two are held.

        Raises:
            CaptionerStopped: the captioner cannot go on; what it has answered is kept.
            BudgetError: the budget does not reach for the next ask; the same.
        """
        from model_code.backends import CaptionerStopped

        asks = prompted(asks) if self._real else asks
        keys = self.keys(asks)
        new = self._unknown(keys)
        meter, done = None, 0
        while done < len(new):
            batch = new[done : done + (self._choice.batch if self._real else _TEMPLATE_BATCH)]
            some = [asks[i] for i in batch]
            some = some[: self._affordable(some, len(new) - done)]
            batch = batch[: len(some)]
            # What loading takes is told in no rate, and the budget reaches for an ask. Before each batch: a
            # model of this process may have gone since the last one, for the room that a judge needs.
            getattr(self._captioner, "ready", _nothing)()
            meter = meter or Meter(self.progress, self.about, len(new))
            began = time.monotonic()
            try:
                answers: Sequence[Answer | None] = self._captioner.caption(some)
            except CaptionerStopped as stopped:
                self._keep(batch, keys, stopped.answers, time.monotonic() - began)
                raise
            if len(answers) != len(batch):
                raise ValueError(f"{len(batch)} captions were asked for, {len(answers)} came")
            self._keep(batch, keys, answers, time.monotonic() - began)
            self._must_be_of_use()
            done += len(batch)
            meter.at(done)
        return self._answers(keys)

    def _must_be_of_use(self) -> None:
        """Stop where asking on would only bring what asking has brought so far."""
        from model_code.backends import CaptionerStopped

        failed = [answer for answer in self.failed.values() if answer.requests]
        if self._served or len(failed) < _ALL_FINAL or not all(a.final for a in failed):
            return
        raise CaptionerStopped(
            f"all of the first {len(failed)} captions were refused for good; the first with: "
            f"{failed[0].error}",
            fix="look at captions.captioner (model, request), then run again",
        )

    def keys(self, asks: Sequence[Ask]) -> list[str]:
        """What each answer rests on: content, model, revision, settings, prompt, form, seed,
        temperature. Where there is no prompt, or a class of the user's own may look at more than the
        prompt, on all that the ask holds."""
        who = asdict(self.identity)

        def told(ask: Ask) -> Any:
            held = [dict(ask.shares), list(map(list, ask.pois))]
            if self._choice.kind == "custom":
                return [ask.prompt, *held]
            return ask.prompt if self._real else held

        return [
            digest([
                who, ask.kind, ask.form, sha256_of(ask.picture), sha256_of(ask.heights_m),
                told(ask), ask.seed, ask.temperature,
            ])
            for ask in asks
        ]  # fmt: skip

    def _unknown(self, keys: Sequence[str]) -> list[int]:
        """Positions of the asks to make, each key once."""
        kept = self._rows.known(keys).index
        self._served |= len(kept) > 0
        there = {*kept, *self.failed}
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in there}
        return sorted(first.values())

    def _keep(
        self, batch: list[int], keys: list[str], answers: Sequence[Answer | None], seconds: float
    ) -> None:
        import pandas as pd

        from model_code.text.answers import keepable

        found = [(keys[i], a) for i, a in zip(batch, answers, strict=False) if a is not None]
        if self._real:
            found = [
                (key, replace(a, text=keepable(a.text), error=keepable(a.error)))
                for key, a in found
            ]
        bad = {key: a for key, a in found if self._real and (a.error or not a.text.strip())}
        good = [(key, a) for key, a in found if key not in bad]
        if good:
            rows = pd.DataFrame([asdict(a) for _, a in good], index=[key for key, _ in good])
            self._rows.add(rows)
            self._served = True
        self.failed |= bad
        took = Spent(
            len(found),
            sum(a.requests for _, a in found),
            sum(a.tokens_in for _, a in found),
            sum(a.tokens_out for _, a in found),
            max((a.tokens_in // max(a.requests, 1) for _, a in found), default=0),
            seconds,
        )
        self._now += took
        if self._real and found:
            row = {"captioner": named_model(self.identity), **asdict(took)}
            self._ledger.add(pd.DataFrame([row], index=[uuid.uuid4().hex]))

    def _answers(self, keys: Sequence[str]) -> list[Answer]:
        from model_code.backends import Answer

        known = self._rows.known(keys)
        rows = dict(zip(known.index, known.to_dict("records"), strict=True))
        return [
            self.failed[key]
            if key in self.failed
            else Answer(
                text=rows[key]["text"],
                error=rows[key]["error"],
                tokens_in=int(rows[key]["tokens_in"]),
                tokens_out=int(rows[key]["tokens_out"]),
                seconds=float(rows[key]["seconds"]),
                requests=int(rows[key]["requests"]),
            )
            for key in keys
        ]

    # --- budget ----------------------------------------------------------------------------------

    def spent(self) -> Spent:
        """By all runs, in this stage, on this captioner."""
        rows = self._ledger.rows()
        if rows.empty:
            return Spent()
        rows = rows[rows["captioner"] == named_model(self.identity)].drop(columns="captioner")
        sums = rows.sum()
        kinds = {f.name: float if f.name == "seconds" else int for f in fields(Spent)}
        total = Spent(**{name: kind(sums.get(name, 0)) for name, kind in kinds.items()})
        return Spent(**{**asdict(total), "most_in": int(rows["most_in"].max() if len(rows) else 0)})

    def _affordable(self, asks: Sequence[Ask], left: int) -> int:
        """How many of the asks the budget surely reaches for, with answers as long as may be.

        Raises:
            BudgetError: for none.
        """
        from model_code.text.answers import estimated_tokens

        budget: Budget | None = self._choice.budget if self._real else None
        if budget is None:
            return len(asks)
        spent, prices = self.spent(), self._choice.price_per_million_tokens
        tokens_in = max(spent.most_in, *map(estimated_tokens, asks))
        most = tokens_in + self._choice.max_tokens
        reach = [math.inf]
        if budget.tokens is not None:
            reach.append((budget.tokens - spent.tokens_in - spent.tokens_out) / most)
        if budget.money is not None:
            each = prices.cost(tokens_in, self._choice.max_tokens)
            reach.append((budget.money - spent.cost(prices)) / each if each else math.inf)
        if min(reach) >= 1:
            return int(min(len(asks), *reach))
        cost = spent.cost(prices)
        what = f"{spent.tokens_in + spent.tokens_out:,} tokens" + (
            f" for {cost:.2f}" if cost is not None else ""
        )
        raise BudgetError(
            f"captions.captioner.budget, which each stage has for itself, is used up: {what} spent, "
            f"{left:,} asks are left, and the next may take {most:,} tokens",
            fix="raise captions.captioner.budget (`cityloom captions CITY --dry-run` says by how much) "
            "and run again: what has an answer is kept, and not paid for again",
        )

    # --- what to tell ----------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """What this run asked of a real captioner, how fast, and for how much."""
        if not self._real:
            return {}
        now = self._now
        about: dict[str, Any] = {**asdict(now), "failed": len(self.failed)}
        del about["most_in"]
        if now.asks and now.seconds > 0:
            about["images_per_s"] = round(now.asks / now.seconds, 3)
            about["tokens_per_s"] = round((now.tokens_in + now.tokens_out) / now.seconds, 1)
        if (cost := now.cost(self._choice.price_per_million_tokens)) is not None:
            about["cost"] = round(cost, 4)
        return about | dict(getattr(self._captioner, "notes", {}))

    def unanswered(self) -> dict[str, Any]:
        """Which asks the next run makes again; empty if there are none."""
        return (
            {"count": len(self.failed), "asks": digest(sorted(self.failed))} if self.failed else {}
        )


def _nothing() -> None:
    """For captioners that load nothing."""


def prompted(asks: Sequence[Ask]) -> Sequence[Ask]:
    """The asks with their prompts, as lazy as they are."""
    from model_code.text.prompts import completed

    return Lazy(range(len(asks)), lambda i: completed(asks[i]))


# --- before a run --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forecast:
    """What a stage would ask of its captioner: `groups` are (name, asks, of which cached).

    `most_in` and `most_out` are the tokens of one request at most, and `max_tries` the requests of one ask; 0
    where no request is made.
    """

    captioner: str
    groups: tuple[tuple[str, int, int], ...]
    tokens_in: float  # of one ask
    tokens_out: float
    measured: int  # asks that both rest on; 0: an estimate, answers as long as may be
    seconds: float  # of one ask; NaN where none was made
    spent: Spent
    prices: Prices | None = None
    budget: Budget | None = None
    retries: int = 0
    again: str = ""  # why something may be asked again
    max_tries: int = 0
    most_in: int = 0
    most_out: int = 0

    @property
    def most_requests(self) -> int:
        """Where each ask is made again as often as may be, also those whose first try is cached, and no
        answer is of use before the last request."""
        asks = sum(asks for _, asks, _ in self.groups)
        return (self.missing + asks * self.retries) * self.max_tries

    @property
    def missing(self) -> int:
        """Asks that have no answer yet."""
        return sum(asks - cached for _, asks, cached in self.groups)

    def lines(self) -> list[str]:
        """For a person."""
        told = [f"captioner: {self.captioner}"]
        for name, asks, cached in self.groups:
            told.append(
                f"  {name:<22} {asks:>9,} in all, {cached:>9,} cached, {asks - cached:>9,} to ask"
            )
        about = f"measured on {self.measured:,}" if self.measured else "an estimate"
        tokens_in, tokens_out = self.missing * self.tokens_in, self.missing * self.tokens_out
        told.append(f"  tokens: {tokens_in:,.0f} in, {tokens_out:,.0f} out ({about}: "
                    f"{self.tokens_in:,.0f} and {self.tokens_out:,.0f} each)")  # fmt: skip
        left_s = self.missing * self.seconds if self.missing else 0.0
        known = not math.isnan(left_s)
        told.append(f"  time: {clock(left_s) if known else 'not known before a first batch'}")
        if not known and self.max_tries:
            told.append(
                "    (to measure it, run with a small captions.captioner.budget, which stops cleanly and "
                "keeps what it brought, then ask for this again)"
            )
        if self.prices is None:
            told.append("  cost: no captions.captioner.price_per_million_tokens is given")
        else:
            told.append(f"  cost: {self.prices.cost(tokens_in, tokens_out):.2f}")
        if self.retries:
            told.append(f"  these are first tries; {self.again}, at most {self.retries} times each")
        if most := self.most_requests:
            tokens_in, tokens_out = most * self.most_in, most * self.most_out
            cost = self.prices and f", for {self.prices.cost(tokens_in, tokens_out):.2f}"
            told.append(
                f"  at most: {most:,} requests ({self.max_tries} of each try that fails), {tokens_in:,} "
                f"tokens in, {tokens_out:,} out{cost or ''}"
            )
        if self.budget is not None:
            limits = [f"{self.budget.money:g} money"] if self.budget.money else []
            limits += [f"{self.budget.tokens:,} tokens"] if self.budget.tokens else []
            spent = self.spent.tokens_in + self.spent.tokens_out
            told.append(
                f"  budget of this stage: {' and '.join(limits)}; {spent:,} tokens spent so far"
            )
        return told


def forecast(
    ctx: Context,
    captioner: Captioner,
    groups: Mapping[str, Iterable[Ask]],
    retries: int = 0,
    again: str = "calibration asks again for what scores too low",
) -> Forecast:
    """What a run would ask now; nothing is asked and no model is loaded.

    Args:
        groups: asks by a name for a person; pictures of `_TEMPLATE_BATCH` are held at a time.
        retries: how often an ask may be made again, and `again` why.
    """
    from model_code.text.answers import estimated_tokens

    remembering = Remembering(ctx, captioner, "")
    real = remembering._real
    counted: list[tuple[str, int, int]] = []
    estimates: list[int] = []
    for name, asks in groups.items():
        keys, tokens, left = [], [], iter(asks)
        while part := list(islice(left, _TEMPLATE_BATCH)):
            part = list(prompted(part)) if real else part
            keys += remembering.keys(part)
            tokens += map(estimated_tokens, part)
        new = remembering._unknown(keys)
        estimates += [tokens[i] for i in new]
        counted.append((name, len(set(keys)), len(set(keys)) - len(new)))
    spent, choice = remembering.spent(), remembering._choice
    tokens_in: float = sum(estimates) / max(len(estimates), 1) if real else 0
    tokens_out: float = choice.max_tokens if real else 0
    if spent.asks:
        tokens_in, tokens_out = spent.tokens_in / spent.asks, spent.tokens_out / spent.asks
    return Forecast(
        named_model(captioner.identity),
        tuple(counted),
        tokens_in,
        tokens_out,
        spent.asks,
        spent.seconds / spent.asks if spent.asks else math.nan,
        spent,
        choice.price_per_million_tokens if real else None,
        choice.budget if real else None,
        retries,
        again,
        # One of the user's own makes its requests as it likes.
        (choice.max_tries if choice.kind != "custom" else 1) if real else 0,
        max([spent.most_in, *estimates]),
        choice.max_tokens if real else 0,
    )
