"""What a city's YAML names is what is opened, and little memory holds one model at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_code.backends import Identity, View
from model_code.calibration import CalibrationConfig, score
from model_code.city import Captions, City, CityView, load_city
from model_code.errors import MissingTableError
from model_code.fingerprint import code_digests
from model_code.vision.loading import Memory
from model_code.vision.open_clip_models import pretrained_checkpoint
from model_code.vision.sdxl import SdxlPainter
from model_code.vision.segmenters import TransformersSegmenter
from resources import backends
from resources.lake import Lake
from tests.model_code.vision import tiny_models
from tests.tiny import ROOT


class Checkpoints:
    """The part of a lake's handle that towers are read through."""

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint

    def record(self, view: str) -> dict[str, Any]:
        return self._checkpoint.record

    def checkpoint(self, view: str) -> Any:
        return self._checkpoint


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Captions:
    folder = tmp_path_factory.mktemp("models")
    street = {"kind": "transformers", "model": str(tiny_models.segformer(folder / "segformer")),
              "classes": "ade20k"}  # fmt: skip
    painter = {"kind": "sdxl", "model": str(tiny_models.sdxl(folder / "sdxl")), "steps": 1,
               "size_px": [32, 32]}  # fmt: skip
    clip = {"kind": "open_clip", "model": tiny_models.CLIP_MODEL, "weight": 2.5,
            "weights": tiny_models.open_clip_state(folder / "clip.pt")}  # fmt: skip
    given = {"segmenter": {"street_view": street}, "painter": painter, "clip": clip}
    return Captions.model_validate_json(json.dumps(given), strict=True)


def pictures(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(count)]


def opened(config: Captions, memory: Memory) -> tuple[Any, Any, Any]:
    shown = np.stack(pictures())
    checkpoint = pretrained_checkpoint(config.clip, shown, ["a", "b", "c"])
    return (
        backends.segmenter(config.segmenter, "street_view", memory),
        backends.painter(config.painter, "street_view", (32, 48), memory),
        backends.clip(Checkpoints(checkpoint), "street_view", memory),
    )


def scored(config: Captions, memory: Memory) -> Any:
    segmenter, painter, clip = opened(config, memory)
    shares = segmenter.segment(pictures()).shares
    texts = ["A road.", "Much sky, and trees.", "Houses."]
    calibration = CalibrationConfig()
    return score(pictures(), shares, texts, painter, segmenter, clip, calibration, [1, 2, 3])


def test_a_model_that_is_opened_alone_goes_at_its_end(config: Captions) -> None:
    with backends.segmenting(config.segmenter, "street_view") as segmenter:
        assert isinstance(segmenter, TransformersSegmenter)
        segmenter.segment(pictures())
        assert segmenter._network.value is not None
    assert segmenter._network.value is None
    with backends.painting(config.painter, "street_view", (32, 48)) as painter:
        assert isinstance(painter, SdxlPainter)
        painter.paint(["A road."], [1])
        assert painter._pipeline.value is not None
    assert painter._pipeline.value is None


def test_embedded_models_are_opened_alone_without_torch() -> None:
    code = """
import sys
import numpy as np
from model_code.city import Captions
from resources import backends
config = Captions()
for view in ("satellite", "street_view"):
    with (
        backends.segmenting(config.segmenter, view) as segmenter,
        backends.painting(config.painter, view, (32, 48)) as painter,
        backends.captioning(config) as captioner,
    ):
        segmenter.segment([np.zeros((32, 48, 3), np.uint8)])
        painter.paint(["A road."], [1])
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_models_stand_one_after_the_other_where_memory_is_short(
    config: Captions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float | None, list[tuple[str, ...]]] = {}
    use = Memory.use
    for limit in (None, 1e-5):
        held = seen.setdefault(limit, [])

        def noted(self: Memory, model: Any, held: list[tuple[str, ...]] = held) -> Any:
            value = use(self, model)
            if not held or held[-1] != self.held:
                held.append(self.held)
            return value

        monkeypatch.setattr(Memory, "use", noted)
        with backends.memory(limit) as memory:
            table = scored(config, memory)
            assert memory.held
        assert not memory.held
        if limit is None:
            first = table
    segmenter, clip, painter = "segmenter segformer", "clip open_clip clip", "painter sdxl"
    assert seen[1e-5] == [(segmenter,), (clip,), (painter,), (segmenter,)]
    assert len(seen[None][-1]) == 3
    assert first.equals(table)  # and the scores are the same


def test_a_view_without_a_segmenter_is_scored_by_clip_alone(config: Captions) -> None:
    assert backends.segmenter(config.segmenter, "satellite") is None
    _, painter, clip = opened(config, Memory())
    none = np.full((3, 0), np.nan, np.float32)
    table = score(
        pictures(), none, ["a", "b", "c"], painter, None, clip, CalibrationConfig(), [1, 2, 3]
    )
    assert (table["perception_score"] == table["clip_score"]).all()
    assert table["note"].str.contains("no segmenter").all()


def test_folders_of_models_are_a_part_of_what_results_rest_on(config: Captions) -> None:
    found = backends.stamps(config.segmenter, config.painter, config.clip)
    assert sorted(Path(model).name for model in found) == ["sdxl", "segformer"]
    weights = next(Path(config.painter.model).rglob("*.safetensors"))
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        again = backends.stamps(config.segmenter, config.painter)
    finally:
        weights.write_bytes(content)
    assert {Path(m).name for m in found if found[m] != again[m]} == {"sdxl"}
    plain = Captions()
    assert backends.stamps(plain.captioner, plain.text_embedding) == {}
    assert backends.stamps(plain.segmenter, plain.painter, plain.clip) == {}


@pytest.mark.parametrize(
    ("key", "choice", "stage"),
    [
        ("captioner", {"kind": "vllm"}, "captions"),
        ("captioner", {"kind": "transformers"}, "poi_descriptions"),
        ("captioner", {"kind": "transformers"}, "region_descriptions"),
        ("text_embedding", {"kind": "sentence_transformers"}, "description_features"),
    ],
)
def test_a_stage_sees_weights_that_change_in_place(
    key: str, choice: dict[str, str], stage: str, tmp_path: Path
) -> None:
    import pipelines.definitions  # noqa: F401
    from assets.stage import STAGES

    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    given = {"captions": {key: {**choice, "model": str(weights.parent)}}}
    city = load_city_with(given, tmp_path / "demo.yaml")
    found = []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        found.append(STAGES[stage].settings(city))
    assert found[0] == found[2] != found[1]


def load_city_with(changes: dict[str, Any], path: Path) -> City:
    """The embedded city with other keys."""
    import yaml

    config = yaml.safe_load((ROOT / "cities" / "demo.yaml").read_text())
    path.write_text(yaml.safe_dump({**config, **changes}))
    return load_city(path)


VIEWS: tuple[View, ...] = ("satellite", "street_view")


def test_the_captioner_errs_as_often_as_the_config_says() -> None:
    right, wrong = (backends.captioner(Captions(wrong_share=share)) for share in (0.0, 0.5))
    assert right.identity.model == wrong.identity.model
    assert right.identity != wrong.identity  # so that no caption of one is taken for the other's


def test_each_view_has_a_segmenter_and_a_painter_of_its_own() -> None:
    config = Captions()
    satellite, street = (backends.segmenter(config.segmenter, view) for view in VIEWS)
    assert satellite.classes != street.classes and satellite.identity != street.identity
    for view in VIEWS:
        painter = backends.painter(config.painter, view, (64, 96))
        (picture,) = painter.paint(["a green park with trees"], [0])
        assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
        shares = backends.segmenter(config.segmenter, view).segment([picture]).shares
        assert shares.sum() == pytest.approx(1) or np.isnan(shares).all()


def test_the_code_of_kept_rows_can_be_found() -> None:
    for modules in backends.CODE.values():
        for name in modules:
            spec = find_spec(name.partition(":")[0])
            assert spec is not None and spec.origin is not None and Path(spec.origin).exists()


@pytest.mark.parametrize(
    "kind", ["segmenter", "painter", "clip", "image_encoder", "text_embedding"]
)
def test_a_row_rests_on_the_model_and_on_the_code_around_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Identity("model", "1", {"steps": 1})
    first = backends.who(one, kind)
    assert first == backends.who(Identity("model", "1", {"steps": 1}), kind)
    others = [Identity("model", "2", {"steps": 1}), Identity("model", "1", {"steps": 2})]

    def changed(roots: tuple[str, ...]) -> dict[str, str]:
        """As if one symbol of the real wrapper had other code."""
        found = code_digests(roots)
        (name,) = (n for n in found if n.endswith(f":{WRAPPERS[kind]}"))
        return found | {name: "other"}

    keys = {first, *(backends.who(other, kind) for other in others)}
    monkeypatch.setattr(backends, "code_digests", changed)
    assert len(keys | {backends.who(one, kind)}) == 4


WRAPPERS = {
    "segmenter": "TransformersSegmenter", "painter": "SdxlPainter", "clip": "PretrainedClip",
    "image_encoder": "BackboneFeatures", "text_embedding": "SentenceModel",
}  # fmt: skip


def test_towers_that_were_never_trained_are_asked_for(tmp_path: Path) -> None:
    handle = Lake(str(tmp_path)).handle("town", "clip_checkpoint")
    with pytest.raises(MissingTableError, match=r"'clip_checkpoint' of city 'town'"):
        backends.clip(handle, "satellite")


def test_sentences_are_embedded_by_what_the_section_names(tmp_path: Path) -> None:
    keys = ("text_embedding",)  # all that a stage declares that embeds texts
    plain = backends.text_embedding(CityView(Captions(), keys))
    folder = str(tiny_models.sentence_model(tmp_path / "model"))
    named = {"text_embedding": {"kind": "sentence_transformers", "model": folder}}
    config = Captions.model_validate_json(json.dumps(named), strict=True)
    real = backends.text_embedding(CityView(config, keys))
    assert list(backends.stamps(config.text_embedding)) == [folder]
    for embedding in (plain, real):
        found = embedding.encode(["trees along a road", "", "much water"])
        assert found.shape == (3, embedding.width) and found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1], atol=1e-5)
        alone = embedding.encode(["much water"])
        np.testing.assert_allclose(alone[0], found[2], atol=1e-5)
