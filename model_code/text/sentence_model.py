"""Sentence embeddings by a model of sentence-transformers, such as Qwen3-Embedding (Zhang et al. 2025,
arXiv:2506.05176). B texts, D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F

from model_code.backends import Identity
from model_code.errors import DataError
from model_code.extras import load
from model_code.hub import name_of, not_loaded, place_of, revision_of, source_of
from model_code.methods.base import Floats
from model_code.vision.loading import Loaded, Memory, device, dtype_of, quiet
from model_code.vision.model_choices import SentenceTransformers


class SentenceModel:
    """`model_code.backends.TextEmbedding`; the model is loaded when the first text, or the width, is
    asked for.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, choice: SentenceTransformers, memory: Memory | None = None) -> None:
        load("text")
        self._choice, self._dtype = choice, dtype_of(choice.precision)
        settings = choice.model_dump(include={"kind", "width", "prompt"})
        self.identity = Identity(
            name_of(choice), revision_of(choice), {**settings, "dtype": str(self._dtype)}
        )
        name = f"sentences {self.identity.model}"
        self._model: Loaded[Any] = Loaded(name, self._load, memory or Memory(), lambda m: [m])

    def _load(self) -> Any:
        package: Any = load("text")
        try:
            with quiet():
                model = package.SentenceTransformer(
                    place_of(self._choice),
                    device=str(device()),
                    trust_remote_code=False,  # since release 6 this holds of folders, too
                    model_kwargs={"dtype": self._dtype},
                    **source_of(self._choice),
                )
        except (OSError, ValueError) as error:
            raise not_loaded(
                self._choice,
                "captions.text_embedding.model",
                error,
                "give a model whose code is in sentence-transformers and transformers: code that comes "
                "with a model is not run",
            ) from error
        own, width = _width(model), self._choice.width
        if width is not None and width > own:
            raise DataError(
                f"{self.identity.model} gives {own} numbers a text, not {width}",
                fix=f"set `text_embedding.width` to {own} or less, or take it out",
            )
        return model.eval()

    @property
    def width(self) -> int:
        return self._choice.width or _width(self._model())

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [B, width]; a text's row does not depend on the others. Zeros for an
        empty text."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        told = [i for i, text in enumerate(texts) if text.strip()]
        if not told:
            return vectors
        with quiet(), torch.inference_mode():
            found: Any = self._model().encode(
                [texts[i] for i in told],
                prompt=self._choice.prompt or None,
                batch_size=self._choice.batch,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        kept = found.float()[:, : self.width]
        vectors[told] = cast(Floats, F.normalize(kept, dim=-1).cpu().numpy())
        return vectors


def _width(model: Any) -> int:
    return int(model.get_embedding_dimension())
