"""Captions by vision-language models of transformers: BLIP-2, LLaVA, Qwen-VL and the like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from model_code.backends import Answer, Ask
from model_code.errors import DataError
from model_code.text import answers
from model_code.text.captioner_config import TransformersChoice
from resources.captioners import hub
from resources.captioners.batches import Apart, Halving
from resources.captioners.identity import identity_of
from resources.captioners.tries import Said, answered, rises

if TYPE_CHECKING:
    from model_code.vision.loading import Loaded, Memory


class TransformersCaptioner:
    """A model of transformers that reads a picture and a prompt. Batches are padded on the left;
    warm asks are made one by one, so that each has its own seed. It is dropped when others need its room
    in `memory`, and loaded again at the next ask."""

    def __init__(self, choice: TransformersChoice, memory: Memory | None = None) -> None:
        self.identity = identity_of(choice)
        self._choice, self._memory = choice, memory
        self._batches, self._apart = Halving(choice.batch), Apart(rises)

    @cached_property
    def _loaded(self) -> Loaded[tuple[Any, Any]]:
        """Processor and model; made late, since a dry run needs no torch."""
        from model_code.vision.loading import Loaded, Memory

        name = f"captioner {self.identity.model}"
        return Loaded(name, self._load, self._memory or Memory(), lambda both: [both[1]])

    @property
    def _processor(self) -> Any:
        return self._loaded()[0]

    @property
    def _model(self) -> Any:
        return self._loaded()[1]

    @property
    def notes(self) -> dict[str, Any]:
        """For the asset's metadata."""
        return self._batches.notes()

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; an ask that cannot be answered is an `Answer` with an error.

        Raises:
            DataError: the model cannot be loaded.
            CaptionerStopped: it answers no more what it has answered.
        """
        self._loaded()
        return self._batches.run(asks, self._batch)

    def ready(self) -> None:
        """Load the model, unless it is there; raises as `caption` does."""
        self._loaded()

    def _batch(self, asks: Sequence[Ask]) -> list[Answer]:
        return answered(asks, self._say, self._choice.max_tries, self._apart)

    def _load(self) -> tuple[Any, Any]:
        import torch
        import transformers

        open_processor: Any = transformers.AutoProcessor
        open_model: Any = transformers.AutoModelForImageTextToText
        choice = self._choice
        weights = hub.folder(choice)
        try:
            processor = open_processor.from_pretrained(
                weights, trust_remote_code=False, local_files_only=True
            )
            model = open_model.from_pretrained(
                weights,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=choice.dtype,
                local_files_only=True,
            )
        except (OSError, ValueError) as error:
            raise DataError(
                f"captions.captioner.model: {choice.model} cannot be loaded ({error})",
                fix="give a vision-language model whose weights are safetensors and whose code is in "
                "transformers",
            ) from error
        device = choice.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.padding_side = "left"
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
        return processor, model.to(device).eval()

    def _say(self, asks: Sequence[Ask]) -> list[Said]:
        """Cold asks of one kind together; the order stays."""
        said: list[Said] = []
        for (warm, _), group in groupby(
            asks, key=lambda ask: (ask.temperature > 0, answers.picture_of(ask) is None)
        ):
            part = list(group)
            for batch in ([ask] for ask in part) if warm else [part]:
                said += self._generate(batch)
        return said

    def _generate(self, asks: list[Ask]) -> list[Said]:
        """Answers to asks that are all cold, or to one."""
        import torch

        from model_code.training import seeded

        began = time.monotonic()
        pictures = [answers.picture_of(ask) for ask in asks]
        if pictures[0] is None and not self._chats():
            return [Said(error="this model answers pictures only") for _ in asks]
        inputs = self._inputs(asks, pictures).to(self._model.device)
        inputs = {
            name: value.to(self._model.dtype) if torch.is_floating_point(value) else value
            for name, value in inputs.items()
        }
        how: dict[str, Any] = {"do_sample": False}
        if asks[0].temperature > 0:
            how = {"do_sample": True, "temperature": asks[0].temperature}
        with torch.inference_mode(), seeded(asks[0].seed % 2**31):
            out = self._model.generate(**inputs, max_new_tokens=self._choice.max_tokens, **how)
        length = inputs["input_ids"].shape[1]
        # Decoder-only models give the prompt back in front of the answer.
        if out.shape[1] > length and torch.equal(out[:, :length], inputs["input_ids"]):
            out = out[:, length:]
        tokenizer = self._processor.tokenizer
        real = out != tokenizer.pad_token_id
        texts = self._processor.batch_decode(out, skip_special_tokens=True)
        seconds = (time.monotonic() - began) / len(asks)
        read = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            Said(text, len(row) >= self._choice.max_tokens and bool(there[-1]), tokens,
                 int(there.sum()), seconds)
            for text, row, there, tokens in zip(texts, out, real, read, strict=True)
        ]  # fmt: skip

    def _chats(self) -> bool:
        return bool(getattr(self._processor, "chat_template", None))

    def _inputs(self, asks: list[Ask], pictures: list[Any]) -> Any:
        from PIL import Image

        images = [Image.fromarray(picture) for picture in pictures if picture is not None]
        texts = [ask.prompt for ask in asks]
        if self._chats():
            texts = [
                self._processor.apply_chat_template(
                    [{"role": "user", "content": [
                        *([{"type": "image"}] if images else []),
                        {"type": "text", "text": ask.prompt},
                    ]}],
                    add_generation_prompt=True,
                )
                for ask in asks
            ]  # fmt: skip
        given: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt"}
        return self._processor(**given, **({"images": images} if images else {}))
