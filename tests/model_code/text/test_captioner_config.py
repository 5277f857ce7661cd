"""What a city's YAML may say of its captioner, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from model_code.city import Captions, City, load_city
from model_code.demo.city_yaml import city_yaml
from model_code.errors import ConfigError
from model_code.text.captioner_config import OpenAiChoice

SERVER = {"kind": "openai", "base_url": "http://gpu:8000/v1", "model": "m", "revision": "r"}


def load(folder: Path, captioner: Any) -> City:
    config = yaml.safe_load(city_yaml("tiny", regions=16, seed=3))
    config["captions"] = {"captioner": captioner}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return load_city(path)


@pytest.mark.parametrize("said", ["template", {"kind": "template"}])
def test_the_template_may_be_named_alone(tmp_path: Path, said: Any) -> None:
    captions = load(tmp_path, said).captions
    assert captions is not None and captions.captioner.kind == "template"


def test_how_a_server_is_reached_changes_no_result(tmp_path: Path) -> None:
    def dumped(**more: Any) -> Any:
        return load(tmp_path, {**SERVER, **more}).view(("captions",)).dump()

    assert dumped() == dumped(
        base_url="https://elsewhere/v1", api_key_env="KEY", concurrency=2, timeout_s=3, max_tries=9,
        batch=7, budget={"money": 2.5}, price_per_million_tokens={"tokens_in": 1, "tokens_out": 2},
    )  # fmt: skip
    assert dumped() != dumped(revision="s") and dumped() != dumped(max_tokens=9)


@pytest.mark.parametrize(
    ("captioner", "key", "told"),
    [
        ("vlm", "captions.captioner.kind", "unknown kind 'vlm'"),
        ({**SERVER, "model": None} | {"kind": "openai"}, "captions.captioner.model", "string"),
        ({**SERVER, "modle": "m"}, "captions.captioner.modle", "unknown key"),
        ({**SERVER, "base_url": "gpu:8000"}, "captions.captioner.base_url", "address of a server"),
        ({**SERVER, "base_url": "http://me:secret@gpu/v1"}, "captions.captioner.base_url",
         "no password"),
        ({**SERVER, "budget": {}}, "captions.captioner.budget", "give `money`"),
        ({**SERVER, "budget": {"money": 3}}, "captions.captioner", "price_per_million_tokens"),
        ({**SERVER, "request": {"messages": []}}, "captions.captioner.request", "cannot be set here"),
        ({**SERVER, "concurrency": 0}, "captions.captioner.concurrency", "greater than or equal to 1"),
        ({"kind": "vllm", "model": "Qwen/Qwen2.5-VL-7B-Instruct"}, "captions.captioner",
         "40 hex digits"),
        ({"kind": "vllm", "model": "a/b", "revision": "main"}, "captions.captioner.revision",
         "pattern"),
        ({"kind": "transformers", "model": "/models/x", "revision": "0" * 40}, "captions.captioner",
         "a folder has no revision"),
        ({"kind": "custom", "object": "no_colon"}, "captions.captioner.object", "pattern"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, captioner: Any, key: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, captioner)
    assert [(p.key, told in p.what) for p in caught.value.problems] == [(key, True)]


@pytest.mark.parametrize("key", ["sk-proj-S3NTINEL", "hf_S3NTINEL", "a0b1S3NTINEL"])
def test_a_key_in_place_of_its_name_is_not_repeated(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**SERVER, "api_key_env": key})
    assert "S3NTINEL" not in str(caught.value) and "environment variable" in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["sk_live_S3NTINEL", "my key", "gsk_0a", "0123456789ABCDEF", "A" * 65, "KEY\n", "KÉY", ""],
)
def test_only_names_in_capitals_name_a_key(key: str) -> None:
    with pytest.raises(ValidationError, match="name of an environment variable"):
        OpenAiChoice.model_validate({**SERVER, "api_key_env": key})


def test_a_password_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**SERVER, "base_url": "http://me:S3NTINEL@gpu/v1"})
    assert "S3NTINEL" not in str(caught.value)


CUSTOM = {"kind": "custom", "object": "mine:Mine"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"api_key": "S3NTINEL"}, "api_key"), ({"apiKey": "S3NTINEL"}, "apiKey"),
        ({"metadata": [{"Authorization": "Bearer S3NTINEL"}]}, "metadata.0.Authorization"),
        ({"extra": {"x-api-key": "S3NTINEL"}}, "extra.x-api-key"), ({"hf_token": "S3NTINEL"}, "hf_token"),
        ({"PASSWORD": "S3NTINEL"}, "PASSWORD"), ({"client_secret": "S3NTINEL"}, "client_secret"),
        ({"apikey": "S3NTINEL"}, "apikey"), ({"auth": ["me", "S3NTINEL"]}, "auth"),
        ({"token": "S3NTINEL"}, "token"), ({"use_auth_token": "S3NTINEL"}, "use_auth_token"),
        ({"accessToken": "S3NTINEL"}, "accessToken"), ({"x.session-token": "S3NTINEL"}, "x.session-token"),
        ({"idtoken": "S3NTINEL"}, "idtoken"), ({"my_key": "S3NTINEL"}, "my_key"),
        ({"huggingface_token": "S3NTINEL"}, "huggingface_token"),
        ({"password": 12345678}, "password"), ({"auth": {"user": "S3NTINEL"}}, "auth"),
        ({"properties": {"api_key": "S3NTINEL"}}, "properties.api_key"),
        ({"properties": {"key": {"token": "S3NTINEL"}}}, "properties.key.token"),
    ],
)  # fmt: skip
def test_a_key_among_the_fields_of_a_request_is_refused_and_not_repeated(
    tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    for captioner, key in (({**SERVER, "request": given}, "request"),
                           ({**CUSTOM, "options": given}, "options")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, captioner)
        (problem,) = caught.value.problems
        assert (
            problem.key == f"captions.captioner.{key}"
            and f"{named} is named as a key" in problem.what
        )
        assert "S3NTINEL" not in str(caught.value)


def test_fields_that_only_sound_like_keys_are_taken(tmp_path: Path) -> None:
    given = {
        "max_completion_tokens": 9, "stop_token_ids": [1], "prompt_cache_key": "a", "top_k": 5, "author": "x",
        "skip_special_tokens": True, "keys": 1, "tokenizer": "t", "chat_template_kwargs": {"eos_token": "e"},
    }  # fmt: skip
    captions = load(tmp_path, {**SERVER, "request": given}).captions
    assert captions is not None and captions.captioner.request == given


@pytest.mark.parametrize(
    "given",
    [
        {"image_token": "<image>", "mask_token": "[MASK]", "unk_token": "?", "max_token": 9},
        {"sort_key": "name", "cache-key": "a", "promptCacheKey": "b"},
        {"use_auth": False, "use_auth_token": True, "api_key": None, "token": 151643},
        {"guided_json": {"type": "object", "required": ["key"], "properties": {
            "key": {"type": "string"},
            "auth": {"type": "object", "properties": {"token": {"type": "string"}}}}}},
    ],
)  # fmt: skip
def test_what_holds_no_secret_is_taken(tmp_path: Path, given: dict[str, Any]) -> None:
    captions = load(tmp_path, {**CUSTOM, "options": given}).captions
    assert captions is not None and captions.captioner.options == given


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_captioner_of_this_process_beside_sdxl_needs_a_limit(kind: str) -> None:
    captioner = {"kind": kind, "model": "a/b", "revision": "0" * 40}
    sdxl = {"kind": "sdxl", "model": "c/d", "revision": "0" * 40}
    with pytest.raises(ValidationError, match=rf"captioner: {kind} and painter: sdxl .*memory_gib"):
        Captions.model_validate({"captioner": captioner, "painter": sdxl})
    Captions.model_validate({"captioner": captioner, "painter": sdxl, "memory_gib": 12})
    Captions.model_validate({"captioner": captioner})
