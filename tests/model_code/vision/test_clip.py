from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F

from model_code.methods.base import Workspace
from model_code.vision.clip import (
    EmbeddedClip,
    Towers,
    _encode,
    _Pairs,
    _stem,
    _varied,
    _with_unknown,
    encode_image_tokens,
    encode_text_tokens,
    model_arguments,
    open_towers,
    train_clip,
)
from model_code.vision.clip_config import ClipConfig

CONFIG = ClipConfig(
    held_out=12, embed_dim=16, image_width=32, image_layers=1, text_width=32, context=16, topics=3,
    epochs=16, batch=16, learning_rate=6e-3, shrink=1, patch_px=8,
)  # fmt: skip
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "grey": (128,) * 3}
FRAMES = ("a {} wall", "all is {} here", "one sees {} and nothing else")


def pairs(count: int = 84, seed: int = 0):
    rng = np.random.default_rng(seed)
    names = rng.choice(list(COLOURS), count)
    pictures = np.stack([np.full((16, 24, 3), COLOURS[n]) for n in names])
    noisy = np.clip(pictures + rng.normal(0, 12, pictures.shape), 0, 255).astype(np.uint8)
    return noisy, [[frame.format(n) for frame in FRAMES] for n in names], names


@pytest.fixture(scope="module")
def fitted():
    pictures, texts, _ = pairs()
    return train_clip(pictures, texts, CONFIG, seed=0)


@pytest.fixture(scope="module")
def clip(fitted):
    return EmbeddedClip(fitted)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def test_it_learns_what_colours_are_called(clip):
    pictures, _, names = pairs(60, seed=1)
    images = clip.encode_images(pictures)
    words = clip.encode_texts([FRAMES[0].format(colour) for colour in COLOURS])
    found = np.array(list(COLOURS))[(images @ words.T).argmax(axis=1)]
    assert (found == names).mean() > 0.9


def test_unit_vectors_whatever_the_batch(clip):
    pictures, texts, _ = pairs(70, seed=2)
    lines = [of[0] for of in texts] + ["", "a zebra", "wall " * 40]
    images, words = clip.encode_images(pictures), clip.encode_texts(lines)
    assert images.dtype == words.dtype == np.float32 and images.shape == (70, 16)
    for vectors in (images, words):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(clip.encode_images(pictures[-1:]), images[-1:], atol=1e-5)
    singly = np.concatenate([clip.encode_texts([line]) for line in lines])
    np.testing.assert_allclose(singly, words, atol=1e-5)
    assert clip.encode_images([]).shape == clip.encode_texts([]).shape == (0, 16)


def test_pictures_of_other_sizes(clip):
    pictures, _, _ = pairs(2)
    large = pictures.repeat(3, axis=1).repeat(3, axis=2)
    mixed = clip.encode_images([large[0], pictures[1]])
    assert (mixed * clip.encode_images(pictures)).sum(axis=1).min() > 0.98


def test_the_weight_puts_matched_pairs_where_it_should(fitted, clip):
    pictures, texts, _ = pairs()
    own = np.einsum(
        "bd,bd->b",
        clip.encode_images(pictures[-12:]),
        clip.encode_texts([t[0] for t in texts[-12:]]),
    )
    assert clip.weight == fitted.record["weight"]
    assert np.clip(clip.weight * own, 0, 1).mean() == pytest.approx(0.6, abs=1e-4)


def test_seeds(fitted):
    pictures, texts, _ = pairs()
    assert same(train_clip(pictures, texts, CONFIG, seed=0).tensors, fitted.tensors)
    assert not same(train_clip(pictures, texts, CONFIG, seed=1).tensors, fitted.tensors)


def test_what_is_held_out_changes_no_weight(fitted):
    pictures, texts, _ = pairs()
    pictures[-12:] = 0
    texts[-12:] = [["zebra"] * 3] * 12
    other = train_clip(pictures, texts, CONFIG, seed=0)
    assert same(other.tensors, fitted.tensors) and other.record != fitted.record


class PowerCut(BaseException):
    pass


def test_resumed_equals_uninterrupted(tmp_path: Path, fitted):
    pictures, texts, _ = pairs()

    def cut(line: str) -> None:
        if " 6 of 16" in line:
            raise PowerCut

    with pytest.raises(PowerCut):
        train_clip(pictures, texts, CONFIG, seed=0, workspace=Workspace(cut, tmp_path))
    assert list(tmp_path.iterdir())
    lines: list[str] = []
    again = train_clip(pictures, texts, CONFIG, seed=0, workspace=Workspace(lines.append, tmp_path))
    assert same(again.tensors, fitted.tensors) and again.record == fitted.record
    assert not any(" 1 of 16" in line for line in lines)


def test_the_loss_equals_its_naive_twin():
    pictures, texts, _ = pairs(10)
    torch.manual_seed(0)
    towers = Towers(model_arguments(CONFIG, (16, 24)), np.array(_encode("red wall")))
    module = _Pairs(towers, pictures, texts, np.arange(8), CONFIG)
    index = torch.tensor([5, 1, 2])
    torch.manual_seed(3)
    found = module.loss(index)
    found.backward()
    gradient = towers.clip.text_projection.grad.clone()
    towers.zero_grad()

    torch.manual_seed(3)
    chosen = torch.randint(0, 3, (3,))
    image = towers.image(_varied(module.pixels[index]))[0]
    text = towers.text(_with_unknown(module.ids[index, chosen]))[0]
    scale = towers.logit_scale
    total = 0
    for i in range(3):
        a, b = F.normalize(image[i], dim=0), F.normalize(text[i], dim=0)
        over_texts = [scale * a @ F.normalize(text[j], dim=0) for j in range(3)]
        over_images = [scale * b @ F.normalize(image[j], dim=0) for j in range(3)]
        total += torch.logsumexp(torch.stack(over_texts), 0) - over_texts[i]
        total += torch.logsumexp(torch.stack(over_images), 0) - over_images[i]
    expected = total / 6
    for x in (image, text):
        miss = (module.topic_head(x) - module.topics[index]) ** 2
        expected = expected + CONFIG.topic_weight * miss.mean()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(towers.clip.text_projection.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_temperature_is_clamped(fitted):
    towers = open_towers(fitted)
    with torch.no_grad():
        towers.clip.logit_scale.fill_(50)
    assert towers.logit_scale.item() == pytest.approx(100)


def test_towers_agree_with_open_clip(fitted):
    """The text tower by hand, on short batches, equals open_clip's own on padded ones."""
    towers = open_towers(fitted)
    pictures, _, _ = pairs(3)
    ids = towers.tokenize(["a red wall", "", "one sees a zebra " * 9])
    with torch.no_grad():
        pooled, tokens, mask = towers.text(ids[:2])
        expected = towers.clip.encode_text(ids)
        torch.testing.assert_close(pooled, expected[:2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(towers.text(ids)[0], expected, rtol=1e-4, atol=1e-5)
        image, patches = towers.image(torch.from_numpy(pictures))
        torch.testing.assert_close(patches.mean(dim=1) @ towers.clip.visual.proj, image)
    assert tokens.shape == (2, 5, 32) and mask.sum(dim=1).tolist() == [5, 2]
    assert patches.shape == (3, 6, 32) and towers.image_width == towers.text_width == 32


def test_tokens_are_open_clips():
    text = "Looking down a dusky street, 40% trees & passers-by; isn't it?"
    assert _encode(text) == SimpleTokenizer().encode(text)


def test_long_texts_are_cut_and_counted(clip, fitted):
    towers = open_towers(fitted)
    ids = towers.tokenize(["wall " * 40])
    assert ids.shape == (1, 16) and int(ids[0, -1]) == int(ids.max())
    assert clip.tokens(["wall " * 40, ""]).tolist() == [42, 2]
    np.testing.assert_array_equal(
        clip.encode_texts(["wall " * 40]), clip.encode_texts(["wall " * 99])
    )


def test_unknown_words_are_no_random_words(clip):
    known = clip.encode_texts([FRAMES[1].format(colour) for colour in COLOURS])
    swapped = clip.encode_texts([f"all kangaroos {colour} here" for colour in COLOURS])
    assert np.diagonal(known @ swapped.T).min() > 0.5


def test_tokens_for_other_methods(fitted):
    towers = open_towers(fitted)
    pictures, _, _ = pairs(5)
    pooled, patches = encode_image_tokens(towers, list(pictures))
    assert pooled.shape == (5, 16) and patches.shape == (5, 6, 32)
    pooled, tokens, mask = encode_text_tokens(towers, ["a red wall", ""])
    assert pooled.shape == (2, 16) and tokens.shape == (2, 16, 32) and mask.sum() == 7
    assert not tokens[~mask].any()


def test_few_pairs():
    pictures, texts, _ = pairs(3)
    tiny = CONFIG.model_copy(update={"epochs": 1})
    record = train_clip(pictures, texts, tiny, seed=0).record
    assert record["pairs"] == 2 and record["held_out"] == 1
    square = train_clip(pictures[:, :, :16], texts, tiny, seed=0)
    assert square.record["model"]["vision_cfg"]["image_size"] == [16, 16]


@pytest.mark.parametrize("patch_px", [1, 2, 3, 8, 12, 16])
def test_each_patch_enters_once_whatever_its_size(patch_px):
    stem = _stem(patch_px, 32)
    found = stem(torch.rand(2, 3, 2 * patch_px, 3 * patch_px))
    assert found.shape == (2, 32, 2, 3)
