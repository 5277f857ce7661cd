"""Sentence embeddings that run anywhere: hashed words and pairs of words, and figures as numbers.

A text is a bag of features, each a column of a fixed random matrix. A word and a pair of neighbouring
words are features, weighted by the logarithm of their number. A figure is not a word: it is a feature
of the last word before it and of its place in a run of figures, spread over a scale of values, so that
0.50 is near 0.55 and far from 0.90. Words and figures of a text weigh the same. B texts.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model_code.backends import Identity
from model_code.fingerprint import code_digests, digest
from model_code.methods.base import Floats

_COLUMNS = 1 << 14
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")
_STEPS = 8  # of the scale between two powers of ten (linear below 1)
_FIGURES = 0.5  # what figures count against words


class HashedEmbedding:
    """A `TextEmbedding` without weights to download; the same text always has the same vector.

    Args:
        width: of a vector.
    """

    def __init__(self, width: int = 256) -> None:
        self.width = width
        revision = digest(code_digests([__name__]))[:12]
        self.identity = Identity("HashedEmbedding", revision, {"width": width})

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [B, width]; a text's row does not depend on the others. Zeros for an
        empty text."""
        vectors = np.zeros((len(texts), self.width))
        for kind, weight in ((_words, 1 - _FIGURES), (_figures, _FIGURES)):
            rows = [kind(text) for text in texts]
            column = np.array([c for row in rows for c in row], np.int64)
            value = np.array([v for row in rows for v in row.values()])
            owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
            bag = sparse.csr_array((value, (owner, column)), shape=(len(rows), _COLUMNS))
            length = np.sqrt((bag * bag).sum(axis=1))
            scaled = sparse.diags_array(weight**0.5 / np.maximum(length, 1e-12)) @ bag
            vectors += scaled @ _projection(self.width)
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)


@lru_cache(maxsize=2)
def _projection(width: int) -> NDArray[np.float64]:
    """The fixed random matrix [columns, width], of unit rows in the mean."""
    rng = np.random.default_rng(20_231_117)
    return np.asarray(rng.standard_normal((_COLUMNS, width)) / np.sqrt(width))


@lru_cache(maxsize=1 << 16)
def _column(feature: str) -> int:
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest()) % _COLUMNS


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _words(text: str) -> dict[int, float]:
    """By column, the weight of the words and of the pairs of words that stand side by side."""
    tokens = _tokens(text)
    words = [t for t in tokens if not t[0].isdigit()]
    pairs = [f"{a} {b}" for a, b in pairwise(tokens)
             if not (a[0].isdigit() or b[0].isdigit())]  # fmt: skip
    found: dict[int, float] = {}
    for feature, count in Counter([*words, *pairs]).items():
        weight = (1 + np.log(count)) * (0.5 if " " in feature else 1.0)
        found[_column(feature)] = found.get(_column(feature), 0.0) + weight
    return found


def _figures(text: str) -> dict[int, float]:
    """By column, what figures weigh on the two nearest steps of their scales."""
    found: dict[int, float] = {}
    word, place = "", 0
    for token in _tokens(text):
        if not token[0].isdigit():
            word, place = token, 0
            continue
        step, rest = divmod(_scale(float(token)), 1)
        for number, weight in ((int(step), 1 - rest), (int(step) + 1, rest)):
            column = _column(f"#{word} {place} {number}")
            found[column] = found.get(column, 0.0) + weight
        place += 1
    return found


def _scale(value: float) -> float:
    """Steps from zero: even up to 1, then by the logarithm."""
    return _STEPS * (value if value <= 1 else 1 + float(np.log10(value)))
