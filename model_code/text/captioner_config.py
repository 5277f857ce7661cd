"""Who writes captions, as a city's YAML says it; apart from the models, which need more than pydantic.

Keys that decide only how a model is reached, or what may be spent, are left out of a dump: changing
them makes nothing be computed again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Union
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prices(Section):
    """Of a million tokens, in whatever currency the budget is in. `in` and `out` are no names of
    Python, so they are written out."""

    tokens_in: float = Field(ge=0)
    tokens_out: float = Field(ge=0)

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Of so many tokens."""
        return (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / 1e6


class Budget(Section):
    """What a stage of this city may spend on one model, all runs together. There are three that ask (captions,
    descriptions of POIs, and of regions), so a city may spend three times as much."""

    money: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _says_something(self) -> Budget:
        if self.money is None and self.tokens is None:
            raise ValueError("give `money`, `tokens` or both, or take the key out")
        return self


class TemplateChoice(Section):
    """Sentences from measured shares and layout; no download."""

    kind: Literal["template"] = "template"


class Model(Section):
    """What real captioners share.

    `max_tokens` bounds an answer; `batch` asks are made at once, and their rows kept after each
    batch; `max_tries` are made where an answer is malformed, or does not come.
    """

    max_tokens: int = Field(512, ge=1)
    batch: int = Field(64, ge=1, le=4096, exclude=True)
    max_tries: int = Field(4, ge=1, le=20, exclude=True)
    price_per_million_tokens: Prices | None = Field(None, exclude=True)
    budget: Budget | None = Field(None, exclude=True)

    @model_validator(mode="after")
    def _priced(self) -> Model:
        if self.budget and self.budget.money and not self.price_per_million_tokens:
            raise ValueError(
                "budget.money needs `price_per_million_tokens: {tokens_in, tokens_out}`"
            )
        return self


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("want the address of a server, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("no password or query belongs here; see `api_key_env`")
    return text.rstrip("/")


def _variable(name: str) -> str:
    # What was given is not repeated: it may be the key itself. Keys hold small letters (hf_..., gsk_...,
    # digits in base 16), so names of variables may not.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(
            "want the name of an environment variable, in capitals, never the key itself"
        )
    return name


# Names of fields that hold secrets. Models have many tokens that are none (image_token, max_token), and
# programs keys to sort or to cache by.
_SECRET = re.compile(
    r"(?:^|[_.-]|api)key$|(?:^|[_.-])auth(?:$|[_.-])|authori[sz]ation|secret|passw|credential|bearer"
)
_NO_SECRET = re.compile(
    r"(?:^|[_.-])(?:sort|order|group|cache|primary|foreign|partition|image|text)[_.-]key$"
)
_TOKEN = re.compile(
    r"^token$|(?:^|[_.-])(?:api|access|auth|bearer|github|hf|hub|huggingface|id|jwt|openai|refresh|secret|session)"
    r"[_.-]?token$"
)


def _named_as_a_key(name: str, value: Any) -> bool:
    """Whether a field is named as keys are, and its value may be one."""
    # apiKey is api_key.
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if value is None or isinstance(value, bool):
        return False
    if _TOKEN.search(words):
        return not isinstance(value, int | float)  # a number is a place in a vocabulary, or a limit
    return bool(_SECRET.search(words)) and not _NO_SECRET.search(words)


def _no_keys(value: Any, where: str = "", inside: str = "") -> Any:
    """What may stand in tables, manifests and logs: no field that is named as keys are, however deep.
    `inside` is the name of the field that holds the value."""
    parts: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        parts = enumerate(value)
    for name, part in parts:
        place = f"{where}.{name}" if where else str(name)
        # The properties of a JSON schema are described there, and have no value.
        described = inside == "properties" and isinstance(part, dict)
        if not described and _named_as_a_key(str(name), part):
            raise ValueError(
                f"{place} is named as a key is: what stands here is kept in tables; take it out, and let the "
                "key come from an environment variable (`api_key_env` of a server)"
            )
        _no_keys(part, place, str(name))
    return value


class OpenAiChoice(Model):
    """Any server of the OpenAI protocol, such as `vllm serve` on one or many machines.

    The server cannot be asked which weights it has: `revision` is what the user says of them, and
    part of what a kept row rests on. `request` are more fields of every request. After a failure the
    wait doubles from `backoff_s` up to `longest_wait_s`, which also bounds what Retry-After may ask.
    """

    kind: Literal["openai"]
    base_url: Annotated[str, AfterValidator(_url)] = Field(exclude=True)
    model: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = Field(None, exclude=True)
    concurrency: int = Field(16, ge=1, le=1024, exclude=True)
    timeout_s: float = Field(120.0, gt=0, exclude=True)
    backoff_s: float = Field(1.0, ge=0, exclude=True)
    longest_wait_s: float = Field(120.0, gt=0, exclude=True)
    request: Annotated[dict[str, Any], AfterValidator(_no_keys)] = Field(default_factory=dict)

    @field_validator("request")
    @classmethod
    def _ours(cls, fields: dict[str, Any]) -> dict[str, Any]:
        own = {"model", "messages", "max_tokens", "seed", "temperature", "response_format", "n",
               "stream"}  # fmt: skip
        if taken := sorted(own & set(fields)):
            raise ValueError(f"{', '.join(taken)} cannot be set here")
        return fields


class Weights(Model):
    """A model of the Hugging Face hub at a commit, or a folder of this machine.

    Nothing is downloaded where `offline` is set (or HF_HUB_OFFLINE); code that comes with a model is
    never run.
    """

    model: str = Field(min_length=1, description="name on the hub, or an absolute path")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    offline: bool = Field(False, exclude=True)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _pinned(self) -> Weights:
        local = Path(self.model).expanduser().is_absolute()
        if local and self.revision:
            raise ValueError("a folder has no revision (its content counts); take the key out")
        if not local and not self.revision:
            raise ValueError("a model of the hub needs `revision:`, a commit of 40 hex digits")
        return self


class VllmChoice(Weights):
    """vLLM inside this process: batches on one machine's GPUs, or on its CPU where vLLM is built for that;
    `gpu_memory_utilization` is a share of a memory node then. `batch` is what is in flight at once,
    halved when memory runs out."""

    kind: Literal["vllm"]
    batch: int = Field(256, ge=1, le=4096, exclude=True)
    max_model_len: int = Field(8192, ge=256)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, exclude=True)
    tensor_parallel: int = Field(1, ge=1, exclude=True)
    dummy_weights: bool = Field(False, description="random weights of the config, to try a machine")


class TransformersChoice(Weights):
    """Vision-language models of transformers, such as BLIP-2 or LLaVA. `batch` pictures at once,
    halved when memory runs out."""

    kind: Literal["transformers"]
    batch: int = Field(8, ge=1, le=4096, exclude=True)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?|mps)$", exclude=True)


class CustomChoice(Model):
    """A class of the user's own that keeps the protocol `model_code.backends.Captioner`, made with
    `options`."""

    kind: Literal["custom"]
    object: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:Class"
    )
    options: Annotated[dict[str, Any], AfterValidator(_no_keys)] = Field(default_factory=dict)


def _by_name(choice: Any) -> Any:
    """`captioner: template` for `captioner: {kind: template}`."""
    return {"kind": choice} if isinstance(choice, str) else choice


RealChoice = Union[OpenAiChoice, VllmChoice, TransformersChoice, CustomChoice]
CaptionerChoice = Annotated[
    Union[TemplateChoice, OpenAiChoice, VllmChoice, TransformersChoice, CustomChoice],
    Field(discriminator="kind"),
    BeforeValidator(_by_name),
]
