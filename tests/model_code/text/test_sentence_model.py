from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from model_code import extras
from model_code.backends import TextEmbedding
from model_code.errors import DataError, MissingExtraError
from model_code.text.sentence_model import SentenceModel
from model_code.vision.model_choices import SentenceTransformers
from tests.model_code.vision import tiny_models

TEXTS = ["a wide road", "", "trees along much water", "  ", "b " * 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sentence_model(tmp_path_factory.mktemp("sentences") / "model")


def opened(folder: Path, **changes: object) -> SentenceModel:
    given = {"kind": "sentence_transformers", "model": str(folder), "batch": 2, **changes}
    return SentenceModel(SentenceTransformers.model_validate(given))


def test_unit_vectors_and_zeros_where_nothing_is_said(folder: Path) -> None:
    model: TextEmbedding = opened(folder)
    found = model.encode(TEXTS)
    assert found.dtype == np.float32 and found.shape == (5, 32) and model.width == 32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1, 0, 1], atol=1e-5)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, found, atol=1e-5)
    assert model.encode([]).shape == (0, 32)
    assert (found[0] @ found[2]) < 0.9999


def test_vectors_are_the_models_own(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    own = SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:1])
    expected = own / np.linalg.norm(own)
    np.testing.assert_allclose(opened(folder).encode(TEXTS[:1]), expected, atol=1e-5)


def test_the_first_numbers_and_a_prompt(folder: Path) -> None:
    whole, short = opened(folder), opened(folder, width=8)
    first = whole.encode(TEXTS[:1])[:, :8]
    np.testing.assert_allclose(short.encode(TEXTS[:1]), first / np.linalg.norm(first), atol=1e-5)
    assert short.width == 8 and short.identity != whole.identity
    asked = opened(folder, prompt="about a city: ")
    np.testing.assert_allclose(
        asked.encode(["roads"]), whole.encode(["about a city: roads"]), atol=1e-5
    )
    with pytest.raises(DataError, match=r"gives 32 numbers a text, not 64"):
        opened(folder, width=64).encode(["roads"])


def test_code_beside_a_model_is_not_run_also_of_a_folder(folder: Path, tmp_path: Path) -> None:
    own, witness = tmp_path / "model", tmp_path / "was here"
    shutil.copytree(folder, own)
    (own / "mine.py").write_text(f"open({str(witness)!r}, 'w')\nclass Mine: ...\n")
    modules = json.loads((own / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "", "type": "mine.Mine"})
    (own / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(DataError, match=r"captions.text_embedding.model: model cannot be loaded"):
        opened(own).encode(["roads"])
    assert not witness.exists()


def test_without_the_package_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.PACKAGE_OF, "text", "a_package_that_nobody_has")
    with pytest.raises(MissingExtraError, match="--extra text"):
        opened(folder)
