"""What is special of painting through diffusers; what all painters keep is in
`tests/model_code/test_backends.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code import extras
from model_code.errors import DataError, MissingExtraError
from model_code.vision.loading import quiet
from model_code.vision.model_choices import Sdxl
from model_code.vision.sdxl import SdxlPainter, encode, painted_size, pieces_of
from tests.model_code.vision import tiny_models

LONG = "Trees stand along a wide road, and houses behind them. " * 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sdxl(tmp_path_factory.mktemp("sdxl") / "sdxl")


def painter(model: Path, **changes: Any) -> SdxlPainter:
    given = {"kind": "sdxl", "model": str(model), "steps": 2, "size_px": (32, 32), **changes}
    return SdxlPainter(Sdxl.model_validate(given), (32, 32))


@pytest.fixture(scope="module")
def plain(model: Path) -> SdxlPainter:
    return painter(model)


def test_a_short_text_is_painted_as_the_pipeline_itself_paints_it(plain: SdxlPainter) -> None:
    pipeline = plain._pipeline()
    text = "A wide road under much sky."
    with quiet():
        expected = pipeline(
            prompt=text, height=32, width=32, num_inference_steps=2, guidance_scale=7.0,
            generator=torch.Generator("cpu").manual_seed(4),
        ).images[0]  # fmt: skip
    off = np.abs(plain.paint([text], [4])[0].astype(int) - np.asarray(expected))
    assert off.max() <= 2


@pytest.mark.parametrize("against", ["", "blurred"])
def test_what_guidance_leads_away_from_is_the_pipelines_own(tmp_path: Path, against: str) -> None:
    """With a negative prompt, and in a model that is trained on empty texts instead of zeros."""
    folder = tiny_models.sdxl(tmp_path / "sdxl", force_zeros=False)
    own = painter(folder, negative_prompt=against)
    with quiet():
        expected = own._pipeline()(
            prompt="Roofs.", negative_prompt=against, height=32, width=32, num_inference_steps=2,
            guidance_scale=7.0, generator=torch.Generator("cpu").manual_seed(1),
        ).images[0]  # fmt: skip
    off = np.abs(own.paint(["Roofs."], [1])[0].astype(int) - np.asarray(expected))
    assert off.max() <= 2
    assert own.paint([LONG], [1])[0].shape == (32, 32, 3)  # as long as what it leads to


@pytest.mark.parametrize(("precision", "most"), [("float16", 4), ("bfloat16", 20)])
def test_half_precision_paints_nearly_the_same(
    model: Path, plain: SdxlPainter, precision: str, most: int
) -> None:
    half = painter(model, precision=precision)
    off = np.abs(half.paint([LONG], [1])[0].astype(int) - plain.paint([LONG], [1])[0])
    assert 0 < off.max() <= most
    parts = half._pipeline()
    assert {part.dtype for part in (parts.unet, parts.vae, parts.text_encoder)} == {
        getattr(torch, precision)
    }


def test_nothing_of_a_long_text_is_cut(plain: SdxlPainter) -> None:
    tokenizer = plain._pipeline().tokenizer
    pieces = pieces_of(LONG, tokenizer)
    assert len(pieces) > 1 and " ".join(pieces).split() == LONG.split()
    assert all(piece.endswith(".") for piece in pieces)
    lengths = [len(tokenizer(piece, add_special_tokens=False).input_ids) for piece in pieces]
    assert max(lengths) <= 75 and min(lengths[:-1]) > 60
    one, other = plain.paint([f"{LONG}The end.", f"{LONG}A castle."], [0, 0])
    assert (one != other).any()


def test_a_sentence_without_an_end_is_split_at_its_words(plain: SdxlPainter) -> None:
    tokenizer = plain._pipeline().tokenizer
    endless = "road " * 200
    pieces = pieces_of(endless, tokenizer)
    assert " ".join(pieces).split() == endless.split() and len(pieces) == 3
    assert pieces_of("", tokenizer) == [""]


def test_a_word_without_an_end_is_split_at_its_characters(plain: SdxlPainter) -> None:
    tokenizer = plain._pipeline().tokenizer
    for text in ("\u9053\u8def\u4e24\u65c1\u6709\u6811" * 30, f"A road. {'ab1' * 120} and trees."):
        pieces = pieces_of(text, tokenizer)
        lengths = [len(tokenizer(p, add_special_tokens=False).input_ids) for p in pieces]
        assert len(pieces) > 2 and max(lengths) <= 75
        assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_nothing_of_a_long_negative_prompt_is_cut(model: Path) -> None:
    one, other = (
        painter(model, negative_prompt=f"{LONG}{end}").paint(["Roofs."], [1])[0]
        for end in ("The end.", "A castle.")
    )
    assert (one != other).any()


def test_pieces_stand_one_after_the_other_as_both_encoders_read_them(plain: SdxlPainter) -> None:
    pipeline = plain._pipeline()
    pieces = pieces_of(LONG, pipeline.tokenizer)[:2]
    with torch.inference_mode():
        words, pooled = encode(pipeline, [pieces])
        for at, piece in enumerate(pieces):
            with quiet():
                expected, _, own, _ = pipeline.encode_prompt(piece, device="cpu")
            torch.testing.assert_close(words[:, 77 * at : 77 * (at + 1)], expected)
            if at == 0:
                torch.testing.assert_close(pooled, own)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_scheduler_by_name(model: Path, plain: SdxlPainter, scheduler: str) -> None:
    other = painter(model, scheduler=scheduler)
    assert type(other._pipeline().scheduler).__name__ == scheduler
    assert other.identity != plain.identity
    texts, seeds = ["Roofs.", "A lake."], [1, 2]
    together = other.paint(texts, seeds)
    assert (together[0] != plain.paint(["Roofs."], [1])[0]).any()
    # One that draws noise at each step draws it for each picture alone.
    assert np.abs(other.paint(texts[1:], seeds[1:])[0].astype(int) - together[1]).max() <= 2


def test_settings_that_change_a_painting_are_a_part_of_its_name(model: Path) -> None:
    first = painter(model).identity
    for changes in (
        {"steps": 3},
        {"guidance": 1.0},
        {"negative_prompt": "x"},
        {"size_px": (40, 32)},
    ):
        assert painter(model, **changes).identity != first
    assert painter(model, batch=1).identity == first


def test_without_guidance(model: Path, plain: SdxlPainter) -> None:
    own = painter(model, guidance=1.0)
    assert (own.paint(["Roofs."], [1])[0] != plain.paint(["Roofs."], [1])[0]).any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (1024, 1024)), ((64, 96), (832, 1280)), ((9, 16), (768, 1344))],
)
def test_it_paints_a_megapixel_in_the_shape_of_the_view(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert painted_size(size) == expected


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of a model"):
        painter(tmp_path / "nowhere")


def test_weights_as_pickles_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "sdxl"
    shutil.copytree(model, folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(
        DataError, match=r"(?s)captions\.painter\.model: sdxl cannot.*are safetensors"
    ):
        painter(folder).paint(["Roofs."], [1])


def test_without_the_package_the_extra_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.PACKAGE_OF, "sdxl", "a_package_that_nobody_has")
    with pytest.raises(MissingExtraError, match="--extra sdxl"):
        painter(model)
