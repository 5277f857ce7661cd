from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model_code.training import seeded
from model_code.vision import pictures
from model_code.vision.pictures import RegionViews, cropped, encoded, resized

OWNER = np.array([2, 0, 2, 1, 2, 0, 4, 2])  # region 3 of 5 has no view


@pytest.fixture
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 8, 12, 4), np.uint8)


# --- sizes ---------------------------------------------------------------------------------------


def test_pictures_of_the_asked_size_keep_their_pixels(photos: np.ndarray) -> None:
    np.testing.assert_array_equal(resized(photos, (8, 12)).numpy(), photos[..., :3])
    order = np.array([3, 0, 3])
    np.testing.assert_array_equal(resized(photos, (8, 12), order).numpy(), photos[order, ..., :3])
    grey = resized(photos[..., :1], (8, 12))
    np.testing.assert_array_equal(grey.numpy(), photos[..., :1].repeat(3, axis=3))


def test_smaller_pictures_are_means_whatever_the_parts(
    photos: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = np.full((1, 8, 12, 3), 77, np.uint8)
    assert (resized(plain, (4, 6)) == 77).all() and (resized(plain, (16, 20)) == 77).all()
    small = resized(photos, (4, 6))
    assert small.shape == (7, 4, 6, 3) and small.dtype == torch.uint8
    means = photos[..., :3].mean(axis=(1, 2))
    np.testing.assert_allclose(small.float().mean(dim=(1, 2)).numpy(), means, atol=4)
    monkeypatch.setattr(pictures, "PICTURES", 2)
    assert torch.equal(resized(photos, (4, 6)), small)
    assert resized(photos[:0], (4, 6)).shape == (0, 4, 6, 3)


def test_crops_are_parts_of_a_picture_brought_back_to_its_size() -> None:
    """On a ramp a crop is a ramp again: where it starts and ends says what was cut out."""
    ramp = np.broadcast_to(np.arange(40)[:, None, None] * 5.0, (40, 40, 3))
    pictures = torch.from_numpy(np.stack([ramp, ramp.transpose(1, 0, 2)] * 150).astype(np.uint8))
    with seeded(0):
        crops = cropped(pictures, 0.25)
    assert crops.shape == pictures.shape and crops.dtype == torch.uint8
    down, across = (crops[k::2].float().mean(dim=(2 - k, 3)) / 5 for k in range(2))
    sides = []
    for rows in (down, across):  # [150, 40]
        step = (rows[:, 30] - rows[:, 10]) / 20
        sides.append(step)
        assert rows.min() >= 0 and rows.max() <= 39.1
        assert rows[:, 0].min() < 5 and rows[:, -1].max() > 34  # from all over the picture
    share = torch.cat(sides)  # sides between sqrt(1/4 * 3/4) and the whole
    assert 0.42 < share.min() < 0.55 and 0.95 < share.max() <= 1.01
    with seeded(0):
        assert torch.equal(cropped(pictures, 0.25), crops)


def test_pictures_are_encoded_in_parts_unless_a_gradient_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "PICTURES", 3)
    sizes: list[int] = []

    def encoder(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part * weight

    weight = torch.tensor(2.0, requires_grad=True)
    given, index = torch.arange(10.0)[:, None], torch.tensor([9, 1, 1, 4, 7])
    with torch.no_grad():
        outside = encoded(encoder, given, index)
    inside = encoded(encoder, given, index)
    assert sizes == [3, 2, 5]
    assert torch.equal(inside.detach(), outside)
    assert outside[:, 0].tolist() == [18, 2, 2, 8, 14]
    inside.sum().backward()
    assert weight.grad == index.sum()


# --- views of regions ----------------------------------------------------------------------------


def views_of(
    module: RegionViews, index: list[int], captioned: Tensor | None = None
) -> tuple[np.ndarray, ...]:
    """Views as they are numbered in the data, positions in the batch, and which were drawn."""
    view, owner, drawn = module.views_of(torch.tensor(index), captioned)
    return module.view_order[view.numpy()], owner.numpy(), drawn.numpy()


def test_outside_training_all_views_of_a_region_are_read_in_order() -> None:
    module = RegionViews(OWNER, 5, limit=1).eval()
    view, owner, drawn = views_of(module, [4, 3, 2, 2])
    assert view.tolist() == [6, 0, 2, 4, 7, 0, 2, 4, 7]
    assert owner.tolist() == [0, 2, 2, 2, 2, 3, 3, 3, 3]
    assert not drawn.any()


def test_a_training_step_reads_some_of_them_each_as_often() -> None:
    module = RegionViews(OWNER, 5, limit=2).train()
    seen = np.zeros(len(OWNER))
    with seeded(0):
        for _ in range(600):
            view, owner, _ = views_of(module, [0, 2, 3])
            assert np.array_equal(OWNER[view], np.array([0, 2, 3])[owner])
            assert np.bincount(owner, minlength=3).tolist() == [2, 2, 0]
            assert len(set(view)) == len(view) and (np.diff(owner) >= 0).all()
            seen[view] += 1
    assert seen[OWNER == 0].tolist() == [600, 600]
    np.testing.assert_allclose(seen[OWNER == 2], 300, atol=60)


def test_the_drawn_view_has_a_caption_and_is_among_those_that_are_read() -> None:
    module = RegionViews(OWNER, 5, limit=1).train()
    has_text = np.array([True, False, True, False, True, False, True, False])
    captioned = torch.from_numpy(has_text[module.view_order])
    drawn_of_two = np.zeros(len(OWNER))
    with seeded(0):
        for _ in range(300):
            view, owner, drawn = views_of(module, [0, 1, 2, 4], captioned)
            # One a region that has a captioned view; regions 0 and 1 have none, and are read too.
            assert owner[drawn].tolist() == [2, 3]
            assert has_text[view[drawn]].all() and owner.tolist() == [0, 1, 2, 3]
            drawn_of_two[view[drawn & (owner == 2)]] += 1
    np.testing.assert_allclose(drawn_of_two[[0, 2, 4]], 100, atol=35)


def test_a_city_without_street_views_has_none_to_read() -> None:
    module = RegionViews(None, 3, limit=2)
    for mode in (True, False):
        view, owner, drawn = module.train(mode).views_of(torch.tensor([0, 2]))
        assert len(view) == len(owner) == len(drawn) == 0
