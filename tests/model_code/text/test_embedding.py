from __future__ import annotations

import numpy as np
import pytest

from model_code.backends import TextEmbedding
from model_code.text.embedding import HashedEmbedding
from model_code.text.levels import Levels, as_text


@pytest.fixture(scope="module")
def encoder() -> TextEmbedding:
    return HashedEmbedding()


def cosine(encoder: TextEmbedding, one: str, other: str) -> float:
    a, b = encoder.encode([one, other])
    return float(a @ b)


def told(land: str, activity: float, peak: int) -> str:
    hours = np.exp(-0.5 * ((np.arange(24) - peak) / 2) ** 2).round(2).tolist()
    return as_text(Levels(land=land, activity=activity, departures=hours))


def test_vectors_are_unit_repeatable_and_of_their_text_alone(encoder: TextEmbedding) -> None:
    texts = ["Homes and a park.", "Offices: 40 of 100.", "", "Homes and a park."]
    rows = encoder.encode(texts)
    assert rows.dtype == np.float32 and rows.shape == (4, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[3])
    np.testing.assert_allclose(encoder.encode(texts[1:2])[0], rows[1], rtol=1e-6)
    np.testing.assert_array_equal(HashedEmbedding().encode(texts), rows)
    assert encoder.encode([]).shape == (0, encoder.width)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("leafy streets with small houses", "small houses in leafy streets", "a busy container port"),
        ("Activity: 40 of 100.", "Activity: 43 of 100.", "Activity: 90 of 100."),
        ("Shares: 0.10 0.50 0.90", "Shares: 0.12 0.48 0.92", "Shares: 0.90 0.50 0.10"),
        (told("Homes.", 40, 8), told("Homes.", 42, 9), told("Homes.", 40, 18)),
        (told("Homes and schools.", 40, 8), told("Homes, schools.", 40, 8), told("Bars.", 40, 8)),
    ],
)  # fmt: skip
def test_near_texts_are_nearer_than_far_ones(
    encoder: TextEmbedding, text: str, near: str, far: str
) -> None:
    assert cosine(encoder, text, near) > cosine(encoder, text, far) + 0.05


def test_departures_can_be_read_from_vectors(encoder: TextEmbedding) -> None:
    """A linear map of held-out texts tells the hour of the peak."""
    rng = np.random.default_rng(0)
    peaks = rng.integers(5, 20, 400)
    lands = rng.choice(["Homes.", "Offices.", "Shops and bars.", "Open land."], 400)
    texts = [told(str(land), 50, int(peak)) for land, peak in zip(lands, peaks, strict=True)]
    rows = np.column_stack([encoder.encode(texts), np.ones(400)])
    weight = np.linalg.lstsq(rows[:300], peaks[:300], rcond=None)[0]
    assert np.abs(rows[300:] @ weight - peaks[300:]).mean() < 0.5


def test_settings_are_a_part_of_who_encodes() -> None:
    assert HashedEmbedding(64).identity != HashedEmbedding(256).identity
    assert HashedEmbedding(64).encode(["a b"]).shape == (1, 64)
