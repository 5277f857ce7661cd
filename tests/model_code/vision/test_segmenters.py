"""What is special of each real segmenter; what all keep is in `tests/model_code/test_backends.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model_code import extras
from model_code.backends import Picture
from model_code.errors import DataError, MissingExtraError
from model_code.vision.model_choices import Mmsegmentation, Transformers
from model_code.vision.segmenters import (
    MmsegSegmenter,
    TransformersSegmenter,
    label_shares,
    safe_checkpoint,
)
from resources import backends
from tests.model_code.vision import tiny_models


@pytest.fixture(scope="module")
def mmseg(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_models.mmseg_segformer(tmp_path_factory.mktemp("mmseg"))


def choice(files: dict[str, str], **changes: Any) -> Mmsegmentation:
    given = {"kind": "mmsegmentation", "classes": "loveda", **files, **changes}
    return Mmsegmentation.model_validate(given)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_shares_count_pixels_of_known_classes() -> None:
    label = np.array([[0, 0, 2], [2, 2, 255]])
    np.testing.assert_allclose(label_shares(label, 3), [0.4, 0, 0.6])
    assert np.isnan(label_shares(np.full((2, 2), 255), 3)).all()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_labels_nearly_the_same_pixels(tmp_path: Path, precision: str) -> None:
    named = {"kind": "transformers", "model": str(tiny_models.segformer(tmp_path / "segformer")),
             "classes": "ade20k"}  # fmt: skip
    full = TransformersSegmenter(Transformers.model_validate(named))
    half = TransformersSegmenter(Transformers.model_validate({**named, "precision": precision}))
    same = full.label([picture()])[0] == half.label([picture()])[0]
    assert same.mean() > 0.9
    assert half._network().model.dtype == getattr(torch, precision)


def test_a_picture_without_a_pixel_of_a_class_is_not_measured(tmp_path: Path) -> None:
    class Ignoring(TransformersSegmenter):
        def label(self, pictures: Sequence[Picture]) -> list[NDArray[np.int64]]:
            return [np.full(p.shape[:2], 255 if p.any() else 1, np.int64) for p in pictures]

    folder = tiny_models.segformer(tmp_path / "segformer")
    named = Transformers(kind="transformers", model=str(folder), classes="ade20k")
    found = Ignoring(named).segment([picture(), np.zeros((64, 64, 3), np.uint8)])
    assert np.isnan(found.shares[0]).all() and found.shares[1].sum() == 1
    assert found.reasons == ("no pixel is of a class", "")


def test_segformer_labels_as_its_own_library_does(tmp_path: Path) -> None:
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

    folder = tiny_models.segformer(tmp_path / "segformer")
    segmenter = TransformersSegmenter(
        Transformers(kind="transformers", model=str(folder), classes="ade20k")
    )
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    inputs = SegformerImageProcessor.from_pretrained(folder)(picture(), return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    large = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    expected = large.argmax(dim=1)[0].numpy()
    np.testing.assert_array_equal(segmenter.label([picture()])[0], expected)


def test_colours_reach_mmsegmentation_in_its_order(mmseg: dict[str, str]) -> None:
    """Its configs turn blue, green, red into red, green, blue: the model must see what we see."""
    segmenter = MmsegSegmenter(choice(mmseg))
    model, seen = segmenter._model(), []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    segmenter.label([red])
    mean, std = (model.cfg.model.data_preprocessor[k] for k in ("mean", "std"))
    expected = (np.array([255, 0, 0]) - mean) / std
    np.testing.assert_allclose(seen[0][0].mean(dim=(1, 2)), expected, rtol=1e-4)


def test_a_config_that_changes_in_place_is_another_segmenter(
    mmseg: dict[str, str], tmp_path: Path
) -> None:
    """Its own text and that of a config that it builds on count; where it lies does not."""
    base, config = tmp_path / "base.py", tmp_path / "own.py"
    base.write_text(Path(mmseg["config"]).read_text())
    config.write_text("_base_ = './base.py'\n")
    files = {**mmseg, "config": str(config)}
    first = MmsegSegmenter(choice(files)).identity
    assert first.settings == MmsegSegmenter(choice(mmseg)).identity.settings
    assert backends.stamps(choice(files)) == {str(config): first.settings["config"]}
    base.write_text(base.read_text() + "\ncomment = 'other'\n")
    second = MmsegSegmenter(choice(files)).identity
    config.write_text(config.read_text() + "comment = 'again another'\n")
    third = MmsegSegmenter(choice(files)).identity
    assert len({first.settings["config"], second.settings["config"], third.settings["config"]}) == 3
    assert backends.stamps(choice(files)) == {str(config): third.settings["config"]}


def test_a_wrong_class_list_names_the_key(mmseg: dict[str, str], tmp_path: Path) -> None:
    own = MmsegSegmenter(choice(mmseg, classes=("a", "b")))
    model = str(tiny_models.segformer(tmp_path / "segformer", classes=4))
    other = TransformersSegmenter(Transformers(kind="transformers", model=model, classes="ade20k"))
    for segmenter in (own, other):
        with pytest.raises(DataError, match="classes apart") as caught:
            segmenter.segment([picture()])
        assert "`classes` of the segmenter" in str(caught.value)


def test_a_checkpoint_of_another_network_or_file_is_refused(
    mmseg: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"backbone.weight": torch.zeros(1)}}, other)
    sha256 = tiny_models.file_sha256(other)
    for files, message in (
        ({"checkpoint": str(other), "sha256": sha256}, "another network"),
        ({"sha256": "0" * 64}, "not those that the city's YAML means"),
        ({"config": "nowhere/nothing.py"}, "no config of mmsegmentation"),
    ):
        with pytest.raises(DataError, match=message):
            MmsegSegmenter(choice(mmseg, **files)).segment([picture()])


class _Runs:
    """What a malicious pickle asks for."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


def test_a_checkpoint_can_run_nothing(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    calls = [
        _Runs(os.system, f"touch {trace}"),
        _Runs(eval, f"open({str(trace)!r}, 'w')"),
        _Runs(getattr, dict, "update"),
        _Runs(getattr, HistoryBuffer, "__init__"),
    ]
    for call in calls:
        torch.save({"state_dict": {}, "message_hub": call}, path)
        with pytest.raises(DataError, match="holds more than weights"):
            safe_checkpoint(path)
    assert not trace.exists()
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="no weights by name"):
        safe_checkpoint(path)


def test_histories_of_losses_are_read(mmseg: dict[str, str]) -> None:
    content = safe_checkpoint(Path(mmseg["checkpoint"]))
    history = content["message_hub"]["log_scalars"]["train/loss"]
    assert history.data[0].tolist() == [0.5, 0.25, 1.0] and history.mean() == pytest.approx(
        1.75 / 3
    )


def test_what_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=8, vocab_size=10, num_labels=150)).save_pretrained(
        tmp_path / "bert"
    )  # fmt: skip
    named = Transformers(kind="transformers", model=str(tmp_path / "bert"), classes="ade20k")
    with pytest.raises(DataError, match="no semantic segmenter but a model of the type 'bert'"):
        TransformersSegmenter(named).segment([picture()])


def test_a_model_that_brings_code_or_pickles_is_refused(tmp_path: Path) -> None:
    """And nothing is asked at the terminal."""
    folder = tiny_models.segformer(tmp_path / "segformer")
    named = Transformers(kind="transformers", model=str(folder), classes="ade20k")
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    kept = weights.rename(tmp_path / "kept")
    with pytest.raises(DataError, match="whose weights are safetensors"):
        TransformersSegmenter(named).segment([picture()])
    kept.rename(weights)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="whose code is in transformers"):
        TransformersSegmenter(named).segment([picture()])
    assert not (tmp_path / "trace").exists()


def test_a_folder_may_stand_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_models.segformer(tmp_path / "models" / "segformer")
    monkeypatch.setenv("HOME", str(tmp_path))
    named = Transformers(kind="transformers", model="~/models/segformer", classes="ade20k")
    found = TransformersSegmenter(named)
    assert found.identity.model == "segformer"
    assert found.segment([picture()]).shares.sum() == pytest.approx(1)


def test_without_the_package_the_extra_is_named(
    mmseg: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.PACKAGE_OF, "mmseg", "a_package_that_nobody_has")
    with pytest.raises(MissingExtraError, match="--extra mmseg"):
        MmsegSegmenter(choice(mmseg))
