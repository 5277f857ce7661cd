"""What every implementation of a protocol keeps: the same tests for the embedded and the real ones, whose
own code runs on tiny random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_code.backends import (
    Clip,
    ImageEncoder,
    Painter,
    Picture,
    Segmenter,
    TextEmbedding,
)
from model_code.text.embedding import HashedEmbedding
from model_code.text.sentence_model import SentenceModel
from model_code.vision.clip import EmbeddedClip, train_clip
from model_code.vision.clip_config import ClipConfig
from model_code.vision.features import BackboneFeatures
from model_code.vision.model_choices import (
    Backbone,
    Mmsegmentation,
    OpenClip,
    Sdxl,
    SentenceTransformers,
    Transformers,
)
from model_code.vision.open_clip_models import PretrainedClip, pretrained_checkpoint
from model_code.vision.painter import ScenePainter
from model_code.vision.sdxl import SdxlPainter
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter
from model_code.vision.segmenters import MmsegSegmenter, TransformersSegmenter
from tests.model_code.vision import tiny_models

SIZE = (48, 64)
LONG = "Trees stand along a wide road, and houses behind them. " * 12


def pictures(count: int = 5, size: tuple[int, int] = SIZE) -> list[Picture]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    large = coarse.repeat(8, axis=1).repeat(8, axis=2)
    large.setflags(write=False)  # as Arrow and PIL give them
    return list(large)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


# --- segmenters ----------------------------------------------------------------------------------


def _transformers(name: str, classes: str) -> Callable[[Path], Segmenter]:
    def opened(folder: Path) -> Segmenter:
        model = getattr(tiny_models, name)(folder / name)
        choice = Transformers(kind="transformers", model=str(model), classes=classes, batch=2)
        return TransformersSegmenter(choice)

    return opened


def _mmseg(folder: Path) -> Segmenter:
    files = tiny_models.mmseg_segformer(folder / "mmseg")
    return MmsegSegmenter(Mmsegmentation(kind="mmsegmentation", classes="loveda", batch=2, **files))


SEGMENTERS: dict[str, Callable[[Path], Segmenter]] = {
    "streets": lambda _: StreetSegmenter(),
    "land cover": lambda _: LandCoverSegmenter(),
    "SegFormer": _transformers("segformer", "ade20k"),
    "Mask2Former": _transformers("mask2former", "loveda"),
    "mmsegmentation": _mmseg,
}


@pytest.fixture(scope="module", params=SEGMENTERS)
def segmenter(request: pytest.FixtureRequest, folder: Path) -> Segmenter:
    return SEGMENTERS[request.param](folder)


def test_shares_are_of_the_classes_and_sum_to_one(segmenter: Segmenter) -> None:
    found = segmenter.segment(pictures())
    assert found.classes == segmenter.classes and len(set(found.classes)) == len(found.classes)
    assert found.shares.shape == (5, len(found.classes)) and found.shares.dtype == np.float32
    np.testing.assert_allclose(found.shares.sum(axis=1), 1, atol=1e-5)
    assert found.reasons == ("",) * 5 and (found.shares >= 0).all()


def test_a_picture_is_segmented_by_itself(segmenter: Segmenter) -> None:
    many = [*pictures(), *pictures(2, (64, 32))]
    together = segmenter.segment(many).shares
    alone = np.concatenate([segmenter.segment([picture]).shares for picture in many])
    np.testing.assert_allclose(alone, together, atol=1e-3)
    np.testing.assert_array_equal(segmenter.segment(many).shares, together)


def test_what_cannot_be_segmented_says_why(segmenter: Segmenter) -> None:
    good, speck = pictures(1)[0], np.zeros((8, 8, 3), np.uint8)
    found = segmenter.segment([speck, good])
    assert "pixels" in found.reasons[0] and not found.reasons[1]
    assert np.isnan(found.shares[0]).all() and np.isfinite(found.shares[1]).all()
    assert segmenter.segment([]).shares.shape == (0, len(segmenter.classes))


# --- painters ------------------------------------------------------------------------------------


def _sdxl(folder: Path) -> Painter:
    model = tiny_models.sdxl(folder / "sdxl")
    choice = Sdxl(kind="sdxl", model=str(model), steps=2, size_px=(64, 64), batch=2)
    return SdxlPainter(choice, SIZE)


PAINTERS: dict[str, Callable[[Path], Painter]] = {
    "streets": lambda _: ScenePainter("street_view", SIZE),
    "chips": lambda _: ScenePainter("satellite", (48, 48)),
    "SDXL": _sdxl,
}
TEXTS = ["No trees, and much sky.", LONG, "", "Half of it is water."]


@pytest.fixture(scope="module", params=PAINTERS)
def painter(request: pytest.FixtureRequest, folder: Path) -> Painter:
    return PAINTERS[request.param](folder)


def test_a_painting_depends_on_its_text_and_seed_alone(painter: Painter) -> None:
    together = painter.paint(TEXTS, [3, 4, 5, 6])
    assert {p.dtype for p in together} == {np.dtype(np.uint8)}
    assert len({p.shape for p in together}) == 1 and together[0].shape[2] == 3
    for text, seed, picture in zip(TEXTS, (3, 4, 5, 6), together, strict=True):
        alone = painter.paint([text], [seed])[0]
        # A network's last digits may differ with the size of the batch.
        assert np.abs(alone.astype(int) - picture).max() <= 2
        np.testing.assert_array_equal(painter.paint([text], [seed])[0], alone)
        assert (painter.paint([text], [seed + 100])[0] != alone).any()
    assert painter.paint([], []) == []


def test_a_painting_shows_what_its_text_says(painter: Painter) -> None:
    one, other = painter.paint(["No trees, and much sky.", "A dense row of houses."], [1, 1])
    assert (one != other).any()


# --- CLIP ----------------------------------------------------------------------------------------


def _embedded(folder: Path) -> Clip:
    config = ClipConfig(
        pairs=32, held_out=8, epochs=1, batch=16, image_width=32, image_layers=1, text_width=32,
        embed_dim=16, context=32,
    )  # fmt: skip
    texts = [["a wall", "a road", "trees"][i % 3] for i in range(40)]
    return EmbeddedClip(train_clip(np.stack(pictures(40)), [[t] for t in texts], config, seed=0))


def _open_clip(folder: Path) -> Clip:
    weights = tiny_models.open_clip_state(folder / "clip.pt")
    choice = OpenClip(
        kind="open_clip", model=tiny_models.CLIP_MODEL, weights=weights, held_out=5, batch=2
    )
    checkpoint = pretrained_checkpoint(choice, np.stack(pictures()), [*TEXTS, "Roads."])
    return PretrainedClip(checkpoint.record, lambda: checkpoint)


CLIPS: dict[str, Callable[[Path], Clip]] = {"embedded": _embedded, "open_clip": _open_clip}


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest, folder: Path) -> Clip:
    return CLIPS[request.param](folder)


def test_unit_vectors_of_one_space(clip: Clip) -> None:
    images, words = clip.encode_images(pictures()), clip.encode_texts(TEXTS)
    assert images.shape[1:] == words.shape[1:] and images.dtype == words.dtype == np.float32
    for vectors in (images, words):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert clip.encode_images([]).shape == clip.encode_texts([]).shape == (0, images.shape[1])
    assert clip.weight > 0


def test_vectors_do_not_depend_on_the_batch(clip: Clip) -> None:
    many = [*pictures(), *pictures(1, (64, 32))]
    alone = np.concatenate([clip.encode_images([picture]) for picture in many])
    np.testing.assert_allclose(clip.encode_images(many), alone, atol=1e-5)
    alone = np.concatenate([clip.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(clip.encode_texts(TEXTS), alone, atol=1e-5)


def test_what_is_beyond_the_context_is_counted_and_cut(clip: Clip) -> None:
    counts = clip.tokens(["", "a road", LONG])
    assert counts[:2].tolist() == [2, 4] and counts[2] > clip.context
    longer = clip.encode_texts([LONG, f"{LONG} And a castle."])
    np.testing.assert_allclose(longer[0], longer[1], atol=1e-5)


# --- frozen features, and sentences -------------------------------------------------------------


def _backbone(name: str) -> Callable[[Path], ImageEncoder]:
    def opened(folder: Path) -> ImageEncoder:
        weights = tiny_models.backbone(folder / f"{name}.safetensors", name)
        choice = {
            "kind": "backbone",
            "model": name,
            "weights": weights,
            "size_px": (48, 64),
            "batch": 2,
        }
        return BackboneFeatures(Backbone.model_validate(choice))

    return opened


# The towers of a `Clip` are image encoders too.
ENCODERS: dict[str, Callable[[Path], ImageEncoder]] = {
    "timm": _backbone("timm/test_resnet"),
    "ResNet-18": _backbone("resnet18"),
    **CLIPS,
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, folder: Path) -> ImageEncoder:
    return ENCODERS[request.param](folder)


def test_features_of_a_picture_are_its_own(encoder: ImageEncoder) -> None:
    many = [*pictures(), *pictures(1, (64, 32))]
    found = encoder.encode_images(many)
    assert found.dtype == np.float32 and found.ndim == 2 and len(found) == 6
    assert np.isfinite(found).all() and np.abs(found[0] - found[1]).max() > 1e-4
    alone = np.concatenate([encoder.encode_images([picture]) for picture in many])
    np.testing.assert_allclose(found, alone, atol=1e-4)
    np.testing.assert_array_equal(encoder.encode_images(many), found)
    assert encoder.encode_images([]).shape == (0, found.shape[1])


def _sentences(folder: Path) -> TextEmbedding:
    model = str(tiny_models.sentence_model(folder / "sentences"))
    return SentenceModel(SentenceTransformers(kind="sentence_transformers", model=model, batch=2))


EMBEDDINGS: dict[str, Callable[[Path], TextEmbedding]] = {
    "hashed": lambda _: HashedEmbedding(),
    "sentence-transformers": _sentences,
}


@pytest.fixture(scope="module", params=EMBEDDINGS)
def embedding(request: pytest.FixtureRequest, folder: Path) -> TextEmbedding:
    return EMBEDDINGS[request.param](folder)


def test_sentences_are_unit_vectors_of_their_own(embedding: TextEmbedding) -> None:
    texts = ["Trees along a road.", "", "Much water.", "Trees along a road."]
    found = embedding.encode(texts)
    assert found.shape == (4, embedding.width) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1, 1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[3], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3
    alone = np.concatenate([embedding.encode([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert embedding.encode([]).shape == (0, embedding.width)


# --- all -----------------------------------------------------------------------------------------


def test_rows_can_be_known_by_what_made_them(folder: Path) -> None:
    """Names and revisions are words, settings are JSON, and no folder of this machine is in them."""
    opened: list[Any] = [
        make(folder / "again")
        for of in (SEGMENTERS, PAINTERS, ENCODERS, EMBEDDINGS)
        for make in of.values()
    ]
    for model in opened:
        assert model.identity.model and model.identity.revision
        assert str(folder) not in json.dumps([model.identity.model, dict(model.identity.settings)])
