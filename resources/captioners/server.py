"""Captions by any server of the OpenAI protocol (`vllm serve`, a vendor's): many asks at once, with
patience, and without a way for one bad answer to stop the others."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from model_code.backends import Answer, Ask, CaptionerStopped
from model_code.text import answers, levels
from model_code.text.captioner_config import OpenAiChoice
from model_code.text.prompts import completed
from resources.captioners.identity import identity_of

_TOLD = 300  # characters of an error that a row keeps
# Where so many asks fail and the server has judged none, the server is at fault.
_ALL_FAIL = 4
# 403 is said of a key, and of one picture by a filter in front of the server: see `_refusal`.
_REFUSED, _FORBIDDEN, _UNKNOWN, _AGAIN = (401, 402), 403, (404,), (408, 409, 425, 429)
# How `vllm serve` ends what it did not finish: another time it may, or, where it repeats itself, by another seed.
_UNFINISHED, _REPEATS = ("abort", "error"), "repetition"
_WARMER = 0.2  # by which each further try of a malformed answer is warmer


@dataclass
class _Reply:
    """What one request brought: an answer, or why there is none and whether another may help."""

    text: str = ""
    why: str = ""
    again: bool = False
    wait_s: float | None = None
    malformed: bool = False
    tokens_in: int = 0
    tokens_out: int = 0


class ServerCaptioner:
    """Asks a server, `concurrency` requests at a time.

    A request that fails for now (429, 5xx, time-out, broken connection, an answer that is no JSON) is
    made again after a wait that doubles, with jitter, and is never shorter than what Retry-After
    says; an answer that is not what was asked for is asked for anew, with another seed and warmer.
    What the server will never take (400) is an error at once. Pictures travel inside the request.
    """

    def __init__(self, choice: OpenAiChoice) -> None:
        self.identity = identity_of(choice)
        self._choice = choice
        self._key = ""
        self._not_before = 0.0
        self._heard = False  # in this call: the server answered, or judged an ask by what is in it
        self._served = False  # in any
        self._forbidden = 0
        self._stopped: CaptionerStopped | None = None

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; an ask that cannot be answered is an `Answer` with an error.

        Raises:
            CaptionerStopped: the server refuses the key, does not know the model, or answers nothing
                at all.
        """
        self._key = self._read_key()
        self._heard, self._forbidden = False, 0
        found = self._run(asks)
        if self._stopped:
            stopped, self._stopped = self._stopped, None
            stopped.answers = found
            raise stopped
        complete = [answer for answer in found if answer is not None]
        made = [answer for answer in complete if answer.requests]
        if not self._heard and len(made) >= _ALL_FAIL and all(answer.error for answer in made):
            raise CaptionerStopped(
                f"of {len(made)} captions, {self._choice.base_url} gave none; the first failed with: "
                f"{made[0].error}",
                fix="look at the server and at captions.captioner.base_url and model, then run again",
                answers=found,
            )
        return complete

    def _run(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """In a thread of its own: a notebook has a running loop already. An interrupt ends it at
        once, and not when the batch is done."""
        begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

        async def work() -> list[Answer | None]:
            begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
            return await self._all(asks)

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: asyncio.run(work()))
            try:
                return running.result()
            except BaseException:
                if not running.done():
                    loop, task = begun.result()
                    assert task is not None
                    with suppress(RuntimeError):  # it has just ended
                        loop.call_soon_threadsafe(task.cancel)
                raise

    def _read_key(self) -> str:
        name = self._choice.api_key_env
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise CaptionerStopped(
                f"captions.captioner.api_key_env names ${name}, which is not set",
                fix=f"export {name}=... before the run; the key is kept nowhere else",
            )
        # A header cannot hold another one, and the error that said so would quote the key.
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise CaptionerStopped(
                f"captions.captioner.api_key_env names ${name}, which holds a space, a line break or "
                "a character that is not ASCII",
                fix=f"export {name}=... anew, with the key alone",
            )
        return key

    async def _all(self, asks: Sequence[Ask]) -> list[Answer | None]:
        from openai import AsyncOpenAI

        limit = asyncio.Semaphore(self._choice.concurrency)
        async with AsyncOpenAI(
            base_url=self._choice.base_url,
            api_key=self._key or "none",
            timeout=self._choice.timeout_s,
            max_retries=0,  # retries are counted and told here
        ) as client:
            return await asyncio.gather(*(self._one(client, limit, ask) for ask in asks))

    async def _one(self, client: Any, limit: asyncio.Semaphore, ask: Ask) -> Answer | None:
        """The answer to an ask; None where the captioner stopped before it was tried."""
        if why := answers.lacking(ask):
            return Answer(error=why, final=True, requests=0)
        ask = completed(ask)
        async with limit:
            if self._stopped:
                return None
            try:
                # Once, and beside the loop: no other request waits for it.
                url = await asyncio.to_thread(_picture_url, ask)
            except Exception as error:
                why = self._told(f"its picture cannot be sent ({type(error).__name__}: {error})")
                return Answer(error=why, final=True, requests=0)
            return await self._tried(client, ask, url)

    async def _tried(self, client: Any, ask: Ask, url: str) -> Answer | None:
        reply, seconds, tokens_in, tokens_out, number = _Reply(), 0.0, 0, 0, 0
        while number < self._choice.max_tries:
            await self._turn()
            if self._stopped:
                break
            began = time.monotonic()
            reply = await self._request(client, ask, url)
            seconds += time.monotonic() - began
            number += 1
            tokens_in += reply.tokens_in
            tokens_out += reply.tokens_out
            if not reply.again or number == self._choice.max_tries or self._stopped:
                break
            if reply.malformed:  # the same request would bring the same answer
                ask = replace(
                    ask, seed=(ask.seed + 1) % 2**31, temperature=ask.temperature + _WARMER
                )
            elif not await self._waited(number, reply.wait_s):
                reply = replace(reply, why=f"{reply.why} (asked to wait too long)")
                break
        if not number:
            return None
        return Answer(
            text="" if reply.why else reply.text,
            error=self._told(reply.why) if reply.why else "",
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            seconds=round(seconds, 3),
            requests=number,
            final=bool(reply.why) and not reply.again,
        )

    async def _turn(self) -> None:
        """Wait as long as the server has asked for; not all begin at one moment then."""
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left + random.uniform(0, self._choice.backoff_s))  # noqa: S311

    async def _waited(self, number: int, wished_s: float | None) -> bool:
        """Wait before try `number` + 1; False where the server asks for more than the config allows.
        A wait that the server asks for holds for all requests."""
        most = self._choice.longest_wait_s
        own = min(most, self._choice.backoff_s * 2 ** (number - 1))
        pause = own * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        if wished_s is not None:
            if wished_s > most:
                return False
            pause = wished_s + pause * random.uniform(0, 1)  # noqa: S311
            self._not_before = max(self._not_before, time.monotonic() + wished_s)
        await asyncio.sleep(pause)
        return True

    async def _request(self, client: Any, ask: Ask, url: str) -> _Reply:
        import openai

        try:
            # The client's own time-out is one of each read: a server that drips would never end.
            response = await asyncio.wait_for(
                client.chat.completions.create(**self._body(ask, url)), self._choice.timeout_s
            )
            reply = _read(ask, response)
            self._heard = self._served = True
            return reply
        except openai.APIStatusError as error:
            return self._refusal(error)
        except (openai.APITimeoutError, TimeoutError):
            return _Reply(why=f"no answer within {self._choice.timeout_s:g} s", again=True)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            named = type(cause).__name__
            # What is wrong with our own request would be quoted, the key's header included.
            said = named if named == "LocalProtocolError" else f"{named}: {cause}"
            return _Reply(why=f"connection failed ({said})", again=True)
        except Exception as error:
            # Bytes that are no JSON, JSON that is no answer of the protocol, JSON that is nested too
            # deep or holds a number that is too large: none may cost the other answers.
            return _Reply(why=f"not an answer of the protocol ({type(error).__name__}: {error})",
                          again=True)  # fmt: skip

    def _refusal(self, error: Any) -> _Reply:
        status, body = error.status_code, error.body
        said = body.get("message") if isinstance(body, dict) else None
        said = f"HTTP {status}: {said or error.message}"
        spent = getattr(error, "code", None) == "insufficient_quota"
        again = not spent and (status in _AGAIN or status >= 500)
        if status == _FORBIDDEN:
            self._forbidden += 1
        if status in _REFUSED or spent or (self._forbidden >= _ALL_FAIL and not self._served):
            self._stop(
                said, "check the key that captions.captioner.api_key_env names, and its quota"
            )
        elif status in _UNKNOWN:
            self._stop(said, "check captions.captioner.base_url (it often ends in /v1) and model")
        elif not again and status != _FORBIDDEN:
            self._heard = True  # it read this ask, and will never take it
        return _Reply(why=said, again=again, wait_s=_retry_after(error.response.headers))

    def _stop(self, said: str, fix: str) -> None:
        if self._stopped is None:
            what = f"{self._choice.base_url} does not serve us: {self._told(said)}"
            self._stopped = CaptionerStopped(what, fix=fix)

    def _told(self, text: str) -> str:
        """An error on one short line; servers like to repeat keys."""
        line = " ".join(answers.keepable(text).split())
        if self._key:
            line = line.replace(self._key, "(key)")
        return line[:_TOLD]

    def _body(self, ask: Ask, url: str) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if url:
            content.append({"type": "image_url", "image_url": {"url": url}})
        content.append({"type": "text", "text": ask.prompt})
        body: dict[str, Any] = {
            "model": self._choice.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._choice.max_tokens,
            "temperature": round(ask.temperature, 6),
            "seed": ask.seed,
        }
        if ask.form != "caption":
            body["response_format"] = _response_format()
        if self._choice.request:
            body["extra_body"] = self._choice.request
        return body


def _picture_url(ask: Ask) -> str:
    picture = answers.picture_of(ask)
    return "" if picture is None else answers.data_url(picture)


@cache
def _response_format() -> dict[str, Any]:
    schema = {"name": "levels", "strict": True, "schema": levels.strict_schema()}
    return {"type": "json_schema", "json_schema": schema}


def _read(ask: Ask, response: Any) -> _Reply:
    choice = response.choices[0]
    used = response.usage
    said = choice.message.content or ""
    # A server that does not count is charged what it may have taken.
    tokens_in = int(getattr(used, "prompt_tokens", 0) or answers.estimated_tokens(ask))
    tokens_out = int(getattr(used, "completion_tokens", 0) or answers.text_tokens(said))
    cut = choice.finish_reason == "length"
    text = answers.tidy(ask, said, cut=cut)
    why, again = answers.problem(ask, text), True
    if choice.finish_reason == "content_filter":
        why, again = "the server's filter held the answer back", False
    elif choice.finish_reason in _UNFINISHED:
        why = f"the server did not finish the answer ({choice.finish_reason})"
        return _Reply("", why, True, tokens_in=tokens_in, tokens_out=tokens_out)
    elif choice.finish_reason == _REPEATS:
        why = "the answer repeats itself"
    elif why and cut:
        why = f"{why}: cut at captions.captioner.max_tokens"
    return _Reply(text, why, bool(why) and again, None, bool(why), tokens_in, tokens_out)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None where it does not say."""
    readers: tuple[tuple[str, Callable[[str], float]], ...] = (
        ("retry-after-ms", lambda text: float(text) / 1000),
        ("retry-after", float),
        ("retry-after", lambda text: parsedate_to_datetime(text).timestamp() - time.time()),
    )
    for name, read in readers:
        if text := headers.get(name):
            with suppress(ValueError, TypeError):
                return max(0.0, read(text))
    return None
