from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from model_code.text.word_vectors import sentences_of, word_vectors

SETTINGS = {"width": 12, "window": 5, "epochs": 8, "min_count": 2, "seed": 3}


def corpus(sentences: int = 2000) -> list[list[str]]:
    rng = np.random.default_rng(0)
    night, work = ("bar", "club", "music", "beer"), ("office", "bank", "desk", "noon")
    return [
        rng.permutation(night if rng.random() < 0.5 else work).tolist() for _ in range(sentences)
    ]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_sentences_are_small_words_of_any_script_after_their_topic() -> None:
    texts = np.array(["Blue Door café, 24h!", "", " -- ", "北京 饭店  x_y"])
    found = sentences_of(texts, np.array(["§1", "§2", "§3", "§4"]))
    assert found == [
        ["§1", "blue", "door", "café", "24h"],
        ["§2"],
        ["§3"],
        ["§4", "北京", "饭店", "x_y"],
    ]
    assert sentences_of(np.array([], str), np.array([], str)) == []


def test_words_of_like_company_are_alike() -> None:
    bar, club, office = word_vectors(corpus(), ["bar", "club", "office"], **SETTINGS)
    assert cosine(bar, club) > cosine(bar, office) + 0.3


def test_a_word_without_a_sentence_has_no_vector_and_a_rare_one_that_is_wanted_has() -> None:
    sentences = [*corpus(), ["zoo", "bar"]]
    found = word_vectors(sentences, ["bar", "zoo", "sea"], **SETTINGS)
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), [True, True, False])
    for few in ([], [["a"]]):
        vectors = word_vectors(few, ["a"], **SETTINGS)
        assert np.isfinite(vectors).all() == bool(few)


def test_the_same_numbers_in_every_process_and_others_of_another_seed() -> None:
    code = (
        "from tests.model_code.text.test_word_vectors import *\n"
        "print(word_vectors(corpus(100), ['bar', 'desk'], **SETTINGS).tobytes().hex())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for salt in ("1", "2")
    }  # fmt: skip
    here = word_vectors(corpus(100), ["bar", "desk"], **SETTINGS)
    assert told == {here.tobytes().hex()}
    other = word_vectors(corpus(100), ["bar", "desk"], **{**SETTINGS, "seed": 4})
    assert not np.allclose(here, other)
