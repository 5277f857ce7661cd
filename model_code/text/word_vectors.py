"""Word vectors by skip-gram with hierarchical softmax (Mikolov et al. 2013, arXiv:1301.3781)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def sentences_of(texts: NDArray[np.str_], topics: NDArray[np.str_]) -> list[list[str]]:
    """The small-letter words of each text [S] in their order, after the word `topics` [S] that says
    what the text is about. Words are runs of letters and digits of any script, and underscores."""
    import pyarrow as pa
    import pyarrow.compute as pc

    small = pc.utf8_lower(pa.array(texts, pa.large_string()))
    plain = pc.replace_substring_regex(small, r"[^\pL\pN\pM_]+", " ")
    space = pa.scalar(" ", pa.large_string())
    joined = pc.binary_join_element_wise(pa.array(topics, pa.large_string()), plain, space)
    words: list[list[str]] = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(joined)).to_pylist()
    return words


def word_vectors(
    sentences: Sequence[Sequence[str]],
    wanted: Sequence[str],
    *,
    width: int,
    window: int,
    epochs: int,
    min_count: int,
    seed: int,
) -> NDArray[np.float32]:
    """Vectors [K, width] of the `wanted` words; NaN for one that no sentence has.

    One thread, and a hash of its own: the same sentences and seed give the same numbers in every
    process. The library reads the first 10,000 words of a sentence.

    Args:
        sentences: lists of words.
        wanted: words [K]; they stay in the vocabulary however rare they are.
        width: length of a vector.
        window: words on each side that a word predicts, at most.
        epochs: passes over the sentences.
        min_count: a word that is rarer is left out.
        seed: of the first vectors and of the sampled windows.
    """
    from gensim import utils
    from gensim.models import Word2Vec

    kept = frozenset(wanted)
    model = Word2Vec(
        vector_size=width,
        window=window,
        min_count=min_count,
        sg=1,
        hs=1,
        negative=0,
        workers=1,
        seed=seed,
        hashfxn=_hash,
    )
    vectors = np.full((len(wanted), width), np.nan, np.float32)
    model.build_vocab(
        sentences,
        trim_rule=lambda word, count, least: (
            utils.RULE_KEEP if word in kept else utils.RULE_DEFAULT
        ),
    )
    if len(model.wv) > 1:  # of one word there is no tree, and the library would wait for ever
        model.train(sentences, total_examples=model.corpus_count, epochs=epochs)
    row = np.array([model.wv.key_to_index.get(word, -1) for word in wanted], np.int64)
    vectors[row >= 0] = model.wv.vectors[row[row >= 0]]
    return vectors


def _hash(word: str) -> int:
    return zlib.crc32(word.encode())
