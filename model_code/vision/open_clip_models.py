"""Pretrained CLIP models of open_clip: by name and tag, or from a file such as RemoteCLIP's.

Radford et al. 2021 (arXiv:2103.00020); RemoteCLIP: Liu et al. 2024 (arXiv:2306.11029), whose state fits
open_clip's ViT-B-32. Pictures are brought to the size of the tower as a whole; nothing is cropped. B
pictures or texts, D the width of the shared space.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import open_clip
import torch
from httpx import HTTPError
from numpy.typing import NDArray
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.backends import Identity, Picture
from model_code.errors import DataError
from model_code.fingerprint import file_digest
from model_code.hub import snapshot, stamp
from model_code.methods.base import Checkpoint, Floats
from model_code.vision import features
from model_code.vision.loading import Loaded, Memory, checked, device, dtype_of
from model_code.vision.model_choices import OpenClip

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_KEY = "captions.clip"
_TOLD = 300  # characters of a library's error
_TEXT_FILES = ("*.json", "*.txt", "*.model")  # of a tokenizer, and configs: no weights
_HF_SETTINGS = ("clean", "strip_sep_token", "language", "tokenizer_mode")
_OWN_SETTINGS = ("clean", "reduction_mask")


def build(arguments: dict[str, Any], text_revision: str | None = None) -> nn.Module:
    """A freshly initialised model of open_clip; no weights are downloaded. The config of a text tower
    of transformers is, at its commit, where the hub's cache does not hold it.

    Raises:
        DataError: open_clip has no such model, or it is no pair of towers; its text tower brings code.
    """
    settings = copy.deepcopy(arguments)
    if "multimodal_cfg" in settings:
        raise DataError("CoCa writes texts, and is no pair of towers", fix=f"mend {_KEY}.model")
    custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    if "timm_model_name" in settings["vision_cfg"]:
        settings["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in settings["text_cfg"]:
        settings["text_cfg"]["hf_model_pretrained"] = False
        folder = text_folder(settings["text_cfg"]["hf_model_name"], text_revision)
        settings["text_cfg"]["hf_model_name"] = str(folder)
        _refuse_code(folder)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    return cast(nn.Module, kind(**settings))


def text_folder(name: str, revision: str | None) -> Path:
    """The folder of a tokenizer or of a text tower's config, which transformers reads: one on this machine, or
    a commit of the hub.

    Raises:
        DataError: one of the hub is given without its commit, or cannot be fetched.
    """
    if (folder := Path(name).expanduser()).is_absolute():
        return folder
    if revision is None:
        raise DataError(
            f"the tokenizer or text tower {name} of the hub can change under its name",
            fix=f"add {_KEY}.text_revision, a commit of {name}",
        )
    return snapshot(name, revision, f"{_KEY}.text_revision", only=_TEXT_FILES)


def text_revision_of(arguments: dict[str, Any], choice: OpenClip) -> str | None:
    """The commit of what the model reads of transformers; the stamp of a folder. None where it is nothing.

    Raises:
        DataError: a commit is needed, or given in vain, or two models would share it.
    """
    keys = ("hf_tokenizer_name", "hf_model_name")
    names = sorted({arguments["text_cfg"][key] for key in keys if arguments["text_cfg"].get(key)})
    folders = [text_folder(name, choice.text_revision) for name in names]
    on_hub = [name for name in names if not Path(name).expanduser().is_absolute()]
    if len(on_hub) > 1:
        raise DataError(
            f"the model reads {' and '.join(on_hub)} of the hub, and one commit cannot be of both",
            fix=f"give absolute folders of them in {_KEY}.model",
        )
    if choice.text_revision is not None and not on_hub:
        raise DataError(
            "the model reads no tokenizer or text tower of the hub",
            fix=f"take {_KEY}.text_revision out",
        )
    return choice.text_revision or ("-".join(map(stamp, folders)) or None)


def _refuse_code(name: Path) -> None:
    """open_clip does not tell transformers that no code may be run, so that it would ask at the
    terminal; said beforehand."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the text tower {name} cannot be opened: {error}",
            fix=f"mend {_KEY}.model: name a model whose code is in transformers; without a network, one "
            "that was fetched before",
        ) from error


def why_no_towers(arguments: dict[str, Any]) -> str:
    """Why methods cannot train such a model on; empty if they can. Any model can score captions."""
    vision, text = arguments["vision_cfg"], arguments["text_cfg"]
    if arguments.get("custom_text") or {"hf_model_name", "hf_tokenizer_name"} & set(text):
        return "its text tower is not CLIP's own"
    if "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        return "its image tower is no vision transformer of open_clip"
    if text.get("pool_type", "argmax") != "argmax":
        return "its text tower is not read at the end of the text"
    return ""


def arguments_of(choice: OpenClip) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's arguments, and what is known of the pretrained tag (empty without one).

    Raises:
        DataError: open_clip knows no such name or tag; it lists those that are like it.
    """
    if not isinstance(choice.model, str):
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(choice.model)
        if missing:
            raise DataError(
                f"the arguments of an open_clip model lack {', '.join(sorted(missing))}",
                fix=f"complete {_KEY}.model, or name a model",
            )
        return copy.deepcopy(choice.model), {}
    arguments = open_clip.get_model_config(choice.model)
    if arguments is None:
        near = difflib.get_close_matches(choice.model, open_clip.list_models(), n=3)
        raise DataError(
            f"open_clip knows no model {choice.model!r}",
            fix=f"mend {_KEY}.model: {' or '.join(near) or 'see open_clip.list_models()'}",
        )
    known: dict[str, Any] = {}
    if choice.pretrained is not None:
        known = get_pretrained_cfg(choice.model, choice.pretrained)
        if not known:
            tags = open_clip.list_pretrained_tags_by_model(choice.model)
            raise DataError(
                f"open_clip knows no weights {choice.pretrained!r} of {choice.model}",
                fix=f"set {_KEY}.pretrained to one of {', '.join(tags) or 'none: give weights'}",
            )
    if known.get("quick_gelu"):
        arguments["quick_gelu"] = True
    return arguments, known


def colours(choice: OpenClip, known: dict[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of the pictures that the model was trained on: those of the config, of the
    tag, or of most tags of its name."""
    if choice.mean is not None and choice.std is not None:
        return choice.mean, choice.std
    tags = [known] if known else []
    if not known and isinstance(choice.model, str):
        names = open_clip.list_pretrained_tags_by_model(choice.model)
        tags = [get_pretrained_cfg(choice.model, name) for name in names]
    told = Counter(
        (tuple(t["mean"]), tuple(t["std"])) for t in tags if t.get("mean") and t.get("std")
    )
    return told.most_common(1)[0][0] if told else (OPENAI_MEAN, OPENAI_STD)


def pretrained_checkpoint(
    choice: OpenClip, pictures: NDArray[np.uint8], texts: Sequence[str]
) -> Checkpoint:
    """The model's weights, with the weight of CLIPScore that puts the mean score of pictures uint8
    [B, H, W, 3] with their own texts [B] at `choice.matched_score` (unless the config says it).

    The weights are a part of the checkpoint, so that what is built on it needs no other file.

    Raises:
        DataError: the weights are of another model.
    """
    arguments, known = arguments_of(choice)
    revision = text_revision_of(arguments, choice)
    model = build(arguments, revision)
    if choice.weights is not None:
        path = checked(choice.weights, f"{_KEY}.weights")
    else:
        path = _fetched(choice, known)
    _take(model, path)
    mean, std = colours(choice, known)
    about = {
        "open_clip": arguments,
        "mean": list(mean),
        "std": list(std),
        **({"text_revision": revision} if revision else {}),
    }
    tensors = {
        f"clip.{name}": value.detach().float().numpy()
        if value.is_floating_point()
        else value.numpy()
        for name, value in model.state_dict().items()
    }
    tensors["vocabulary"] = np.empty(0, np.int64)  # every token has a row of its own
    name = choice.model if isinstance(choice.model, str) else "open_clip"
    record: dict[str, Any] = {
        "model": about,
        "name": f"{name} {choice.pretrained or path.stem}",
        "digest": digest_of(about, tensors),
        "batch": choice.batch,
    }
    checkpoint = Checkpoint(tensors, record)
    record["weight"] = choice.weight
    if choice.weight is None:
        memory = Memory()
        clip = PretrainedClip({**record, "weight": 1.0}, lambda: checkpoint, memory)
        try:
            cosine = clip.encode_images(list(pictures)) @ clip.encode_texts(texts).T
        finally:
            memory.clear()  # what follows in this process finds the room
        own, b = np.diagonal(cosine), len(texts)
        record |= {
            "weight": clip_weight(own, choice.matched_score),
            "matched_cosine": float(own.mean()),
            "unmatched_cosine": float((cosine.sum() - own.sum()) / max(1, b * (b - 1))),
            "text_to_image_top1": float((cosine.argmax(axis=0) == np.arange(b)).mean()),
            "held_out": b,
        }
    return checkpoint


def _fetched(choice: OpenClip, known: dict[str, Any]) -> Path:
    """The file of a tag: where it is not in open_clip's cache, it is fetched. `pretrained_sha256` of the
    config, if it is given, must be its digest.

    Raises:
        DataError: it cannot be fetched, or is another.
    """
    tag = f"{_KEY}.pretrained: the weights {choice.pretrained} of {choice.model}"
    try:
        path = Path(download_pretrained(known))
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        said = " ".join(str(error).split())[:_TOLD] or type(error).__name__
        name = os.path.split(known.get("hf_hub") or "")[0]  # as open_clip reads it
        how = f"`hf download {name}`, into HF_HOME" if name else str(known.get("url"))
        raise DataError(
            f"{tag} are not in the cache, and cannot be fetched ({said})",
            fix=f"fetch them beforehand on a machine with a network ({how}) and bring them along, or give "
            f"a file in {_KEY}.weights ({{path, sha256}}) instead of the tag",
        ) from error
    wanted = choice.pretrained_sha256
    if wanted is not None and (found := file_digest(path)) != wanted:
        raise DataError(
            f"{tag} are not those that are meant: their SHA-256 is {found}",
            fix=f"give that as {_KEY}.pretrained_sha256 if these are wanted, or keep the file of before "
            f"in {_KEY}.weights",
        )
    return path


def _take(model: nn.Module, path: Path) -> None:
    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except UnpicklingError as error:
        raise DataError(
            f"the file {path.name} holds more than weights, and is not loaded",
            fix="save its `state_dict` alone, best as safetensors",
        ) from error
    except (RuntimeError, KeyError) as error:
        raise DataError(
            f"the weights {path.name} are of another model: {str(error).strip().splitlines()[-1]}",
            fix=f"mend {_KEY}.model: name the model that they belong to",
        ) from error


def clip_weight(cosine: Floats, target: float) -> float:
    """The w at which min(w * max(cos, 0), 1) of matched pairs has the mean `target`, by bisection;
    1 where no pair has a cosine above 0."""
    positive = np.clip(np.asarray(cosine, np.float64), 0, None)
    if not (positive > 0).mean() > target:
        return 1.0
    low, high = 0.0, 1 / positive[positive > 0].min()
    for _ in range(60):
        middle = (low + high) / 2
        above = np.minimum(middle * positive, 1).mean() > target
        low, high = (low, middle) if above else (middle, high)
    return float(high)


def digest_of(model: Any, tensors: dict[str, NDArray[Any]]) -> str:
    """What tells towers from others: their arguments and weights."""
    content = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return content.hexdigest()[:16]


# --- the protocol --------------------------------------------------------------------------------


class PretrainedClip:
    """`model_code.backends.Clip` over a checkpoint of `pretrained_checkpoint`, of which `record` is
    known and the rest is loaded when it is needed."""

    def __init__(
        self,
        record: dict[str, Any],
        checkpoint: Callable[[], Checkpoint],
        memory: Memory | None = None,
    ) -> None:
        self._about, self._checkpoint = record["model"], checkpoint
        self._text = self._about["open_clip"]["text_cfg"]
        self._revision: str | None = self._about.get("text_revision")
        self._batch: int = record["batch"]
        self.weight: float = record["weight"]
        self.context: int = self._text.get("context_length", 77)
        settings = {"weight": self.weight, "dtype": str(dtype_of("auto"))}
        self.identity = Identity(record["name"], record["digest"], settings)
        name = f"clip {record['name']}"
        self._model: Loaded[Any] = Loaded(name, self._load, memory or Memory(), lambda m: [m])

    def _load(self) -> nn.Module:
        model = build(self._about["open_clip"], self._revision)
        tensors = self._checkpoint().tensors
        model.load_state_dict(
            {
                name.removeprefix("clip."): torch.from_numpy(np.array(value))
                for name, value in tensors.items()
                if name.startswith("clip.")
            }
        )
        return model.to(device()).eval()

    def encode_images(self, pictures: Sequence[Picture]) -> Floats:
        """Unit vectors, float32 [B, D]."""
        model = self._model()
        size = _pair(model.visual.image_size)

        def prepare(some: Sequence[Picture]) -> Tensor:
            return features.normalised(some, size, self._about["mean"], self._about["std"])

        parts = list(features.encoded(pictures, prepare, model.encode_image, self._batch))
        return _unit(parts, self._width)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [B, D]; what is beyond `context` is cut."""
        model, tokenizer = self._model(), self._tokenizer
        parts = []
        for start in range(0, len(texts), self._batch):
            ids = tokenizer(list(texts[start : start + self._batch]), self.context)
            with features.computing():
                parts.append(model.encode_text(ids.to(device())).float().cpu().numpy())
        return _unit(parts, self._width)

    def tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """How many tokens each text has [B], start and end included, uncut."""
        tokenizer = self._tokenizer
        if isinstance(tokenizer, SimpleTokenizer):
            counts = [2 + len(tokenizer.encode(text)) for text in texts]
        else:
            counts = [len(tokenizer.tokenizer(text).input_ids) for text in texts]
        return np.array(counts, np.int64)

    @property
    def _tokenizer(self) -> Any:
        return _tokenizer(json.dumps(self._text, sort_keys=True), self._revision)

    @property
    def _width(self) -> int:
        return int(self._about["open_clip"]["embed_dim"])


@cache
def _tokenizer(text_cfg: str, revision: str | None = None) -> Any:
    """How texts are cut into tokens. Of the settings, which a city's YAML can give, only those are
    passed on that say how: no code of a tokenizer is ever run."""
    text = json.loads(text_cfg)
    context, given = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    name = text.get("hf_tokenizer_name")
    kept = {key: given[key] for key in (_HF_SETTINGS if name else _OWN_SETTINGS) if key in given}
    if name:
        folder = str(text_folder(name, revision))
        return HFTokenizer(folder, context, trust_remote_code=False, **kept)
    return SimpleTokenizer(context_length=context, **kept)


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _unit(parts: list[Floats], width: int) -> Floats:
    if not parts:
        return np.zeros((0, width), np.float32)
    vectors = torch.from_numpy(np.concatenate(parts))
    return cast(Floats, F.normalize(vectors, dim=-1).numpy())
