"""Paints captions with Stable Diffusion XL through diffusers (Podell et al. 2023, arXiv:2307.01952).

CLIP's text encoders read 77 tokens, and captions are often longer. Nothing is cut: a text is split at
its sentences (or words, or characters) into pieces that fit, each piece is read by both encoders, and
what they say stands one after the other; a negative prompt likewise. The pooled vector, of which there
can be one, is that of the first piece. B texts, P pieces, L = 77 tokens a piece, C channels of both
encoders.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from httpx import HTTPError
from PIL import Image
from torch import Tensor

from model_code.backends import Identity, Picture
from model_code.calibration import sentences
from model_code.errors import DataError
from model_code.extras import load
from model_code.hub import name_of, not_loaded, place_of, revision_of, source_of
from model_code.vision.loading import Loaded, Memory, device, dtype_of, quiet
from model_code.vision.model_choices import Sdxl

_AREA_PX = 1024 * 1024
_STEP_PX = 64


class SdxlPainter:
    """`model_code.backends.Painter` over a pipeline of diffusers; its pictures have the size (height,
    width) `size_px`, whatever it paints at.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    def __init__(
        self, choice: Sdxl, size_px: tuple[int, int], memory: Memory | None = None
    ) -> None:
        load("sdxl")
        self._choice, self.size_px = choice, (int(size_px[0]), int(size_px[1]))
        self.paints_px = painted_size(self.size_px) if choice.size_px is None else choice.size_px
        self._dtype = dtype_of(choice.precision)
        settings = choice.model_dump(
            include={"kind", "variant", "steps", "guidance", "negative_prompt", "scheduler"}
        )
        settings |= {
            "paints_px": list(self.paints_px),
            "size_px": list(self.size_px),
            "dtype": str(self._dtype),
        }
        self.identity = Identity(name_of(choice), revision_of(choice), settings)
        name = f"painter {self.identity.model}"
        self._pipeline: Loaded[Any] = Loaded(name, self._load, memory or Memory(), _networks)

    def _load(self) -> Any:
        try:
            with quiet():
                return self._opened()
        except (OSError, ValueError, HTTPError) as error:
            raise not_loaded(
                self._choice,
                "captions.painter.model",
                error,
                "name an SDXL whose weights are safetensors, with the `variant` that it has",
            ) from error

    def _opened(self) -> Any:
        choice: Sdxl = self._choice
        diffusers: Any = load("sdxl")
        diffusers.utils.logging.disable_progress_bar()
        pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
            place_of(choice),
            torch_dtype=self._dtype,
            use_safetensors=True,
            variant=choice.variant,
            add_watermarker=False,
            **source_of(choice),
        )
        if choice.scheduler is not None:
            known = {kind.__name__: kind for kind in pipeline.scheduler.compatibles}
            if choice.scheduler not in known:
                raise DataError(
                    f"{self.identity.model} does not work with the scheduler {choice.scheduler}",
                    fix=f"set the painter's `scheduler` to one of {', '.join(sorted(known))}",
                )
            pipeline.scheduler = known[choice.scheduler].from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.vae.enable_slicing()  # decoded one by one: less memory, and no batch-mates
        if choice.offload and device().type == "cuda":
            pipeline.enable_model_cpu_offload()
        else:
            pipeline.to(device())
        return pipeline

    def paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """One picture a text; it depends on that text and seed alone."""
        if not len(texts):
            return []
        pipeline = self._pipeline()
        against = self._choice.negative_prompt if self._choice.guidance > 1 else ""
        least = len(pieces_of(against, pipeline.tokenizer))
        pieces = [_filled(pieces_of(text, pipeline.tokenizer), least) for text in texts]
        pictures: dict[int, Picture] = {}
        for batch in _batches([len(p) for p in pieces], self._choice.batch):
            with quiet(), torch.inference_mode():
                painted = self._paint(
                    pipeline, [pieces[i] for i in batch], [int(seeds[i]) for i in batch]
                )
            pictures |= dict(zip(batch, painted, strict=True))
        return [pictures[i] for i in range(len(texts))]

    def _paint(
        self, pipeline: Any, pieces: Sequence[list[str]], seeds: Sequence[int]
    ) -> list[Picture]:
        choice = self._choice
        words, pooled = encode(pipeline, pieces)
        height, width = self.paints_px
        given = {"prompt_embeds": words, "pooled_prompt_embeds": pooled}
        if choice.guidance > 1:
            against = self._against(pipeline, words, pooled)
            given |= dict(
                zip(
                    ("negative_prompt_embeds", "negative_pooled_prompt_embeds"),
                    against,
                    strict=True,
                )
            )
        found = pipeline(
            **given,
            height=height,
            width=width,
            num_inference_steps=choice.steps,
            guidance_scale=choice.guidance,
            # On the CPU, so that a seed draws the same noise on every machine.
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pil",
        )
        return [self._sized(image) for image in found.images]

    def _against(self, pipeline: Any, words: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What guidance leads away from, in the shapes of what it leads to: nothing, as the model was
        trained (zeros, or an empty text), or the negative prompt."""
        text = self._choice.negative_prompt
        if not text and pipeline.config.force_zeros_for_empty_prompt:
            return torch.zeros_like(words), torch.zeros_like(pooled)
        length = words.shape[1] // pipeline.tokenizer.model_max_length
        pieces = _filled(pieces_of(text, pipeline.tokenizer), length)
        own, own_pooled = encode(pipeline, [pieces])
        return own.expand_as(words), own_pooled.expand_as(pooled)

    def _sized(self, image: Image.Image) -> Picture:
        if image.size != self.size_px[::-1]:
            image = image.resize(self.size_px[::-1], Image.Resampling.LANCZOS)
        return np.asarray(image.convert("RGB"))


def painted_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """About a megapixel, for which SDXL was trained, in the shape of `size_px`."""
    aspect = math.sqrt(size_px[1] / size_px[0])
    side = math.sqrt(_AREA_PX)
    height, width = (max(1, round(s / _STEP_PX)) * _STEP_PX for s in (side / aspect, side * aspect))
    return height, width


def pieces_of(text: str, tokenizer: Any) -> list[str]:
    """A text in pieces that CLIP's text encoders read whole: as many sentences as fit in each, a
    sentence that does not fit alone in parts of as many words, and what has no words (such as Chinese)
    in parts of as many characters. At least one piece."""
    room = tokenizer.model_max_length - 2  # start and end

    def fits(words: str) -> bool:
        ids = tokenizer(words, add_special_tokens=False, verbose=False).input_ids
        return bool(len(ids) <= room)

    if fits(text):
        return [text]
    pieces: list[str] = []
    for sentence in sentences(text):
        for part in [sentence] if fits(sentence) else _parts(sentence, fits):
            joined = f"{pieces[-1]} {part}" if pieces else part
            if pieces and fits(joined):
                pieces[-1] = joined
            else:
                pieces.append(part)
    return pieces


def _parts(sentence: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Its words; of one that does not fit, beginnings that just do."""
    for word in sentence.split():
        while not fits(word):
            # The first length at which it is too long, by bisection; one character always fits.
            end = (
                bisect.bisect_left(range(2, len(word)), True, key=lambda n: not fits(word[:n])) + 1
            )
            yield word[:end]
            word = word[end:]
        yield word


def _filled(pieces: list[str], length: int) -> list[str]:
    """With empty pieces, so that a text is as long as what guidance leads away from, and neither is
    cut."""
    return pieces + [""] * (length - len(pieces))


def encode(pipeline: Any, pieces: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Words [B, P * L, C] and pooled vectors [B, C2] of texts in P pieces each."""
    b, p = len(pieces), len(pieces[0])
    flat = [piece for own in pieces for piece in own]
    parts, pooled = [], None
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        ids = tokenizer(
            flat,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        said = encoder(ids.to(pipeline._execution_device), output_hidden_states=True)
        parts.append(said.hidden_states[-2])  # as SDXL was trained
        pooled = said[0]  # of the second encoder, in the end
    assert pooled is not None
    words = torch.cat(parts, dim=-1)
    return words.reshape(b, p * words.shape[1], -1), pooled.reshape(b, p, -1)[:, 0]


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions of texts of one length, so that none is filled up with more than its own words."""
    by_length: dict[int, list[int]] = {}
    for at, length in enumerate(lengths):
        by_length.setdefault(length, []).append(at)
    for of in by_length.values():
        yield from (of[i : i + size] for i in range(0, len(of), size))


def _networks(pipeline: Any) -> list[torch.nn.Module]:
    parts = pipeline.components.values()
    return [part for part in parts if isinstance(part, torch.nn.Module)]
