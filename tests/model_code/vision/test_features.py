from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch

from model_code.backends import ImageEncoder, Picture
from model_code.errors import DataError
from model_code.vision.features import BackboneFeatures, computing, encoded, normalised
from model_code.vision.model_choices import Backbone
from tests.model_code.vision import tiny_models


def pictures(count: int, size: tuple[int, int] = (40, 64)) -> list[Picture]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def choice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    weights = tiny_models.backbone(path, f"timm/{request.param}")
    given = {"kind": "backbone", "model": f"timm/{request.param}", "weights": weights}
    return Backbone.model_validate({**given, "size_px": (64, 64), "batch": 4})


def test_features_do_not_depend_on_the_batch_and_are_the_same_again(choice: Backbone) -> None:
    encoder: ImageEncoder = BackboneFeatures(choice)
    found = encoder.encode_images(pictures(9))
    assert found.dtype == np.float32 and found.shape[0] == 9
    np.testing.assert_array_equal(BackboneFeatures(choice).encode_images(pictures(9)), found)
    for batch in (1, 9):
        other = BackboneFeatures(choice.model_copy(update={"batch": batch}))
        assert other.identity == encoder.identity
        np.testing.assert_allclose(other.encode_images(pictures(9)), found, rtol=1e-3, atol=1e-4)
    assert encoder.encode_images([]).shape == (0, found.shape[1])
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_features_are_the_networks_own(choice: Backbone) -> None:
    from safetensors.torch import load_file

    network = timm.create_model(choice.model.removeprefix("timm/"), pretrained=False)
    network.load_state_dict(load_file(choice.weights.path))
    network.reset_classifier(0)
    network.eval()
    about = network.pretrained_cfg
    x = normalised(pictures(2, (64, 64)), (64, 64), about["mean"], about["std"])
    if about["fixed_input_size"]:
        x = torch.nn.functional.interpolate(
            x, about["input_size"][1:], mode="bilinear", antialias=True
        )
    with torch.no_grad():
        expected = network(x).numpy()
    found = BackboneFeatures(choice).encode_images(pictures(2, (64, 64)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_other_weights_are_refused(choice: Backbone) -> None:
    wrong = choice.weights.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match="not those that the city's YAML means"):
        BackboneFeatures(choice.model_copy(update={"weights": wrong})).encode_images(pictures(1))


def test_no_more_than_a_batch_is_taken_at_a_time() -> None:
    taken = []

    def stream() -> Iterator[Picture]:
        for at, picture in enumerate(pictures(7)):
            taken.append(at)
            yield picture

    def prepare(some: list[Picture]) -> torch.Tensor:
        return normalised(some, (8, 8), (0.5,) * 3, (0.5,) * 3)

    found = encoded(stream(), prepare, lambda x: x.mean(dim=(2, 3)), 3)
    assert not taken
    sizes = []
    for part in found:
        sizes.append(len(part))
        assert len(taken) == sum(sizes)
    assert sizes == [3, 3, 1]


def test_pictures_of_any_size_are_brought_to_one_as_a_whole() -> None:
    half = np.zeros((20, 60, 3), np.uint8)
    half[:, 30:] = 255
    (found,) = normalised([half], (10, 10), (0.0,) * 3, (1.0,) * 3)
    assert (
        found.shape == (3, 10, 10) and found[:, :, :4].max() < 0.05 < 0.95 < found[:, :, 6:].min()
    )
    same = pictures(1, (8, 8))[0]
    (found,) = normalised([same], (8, 8), (0.5,) * 3, (0.25,) * 3)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), (same / 255 - 0.5) / 0.25, atol=1e-5)


def test_without_a_gpu_precision_is_full_and_switches_come_back() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with computing():
        assert cudnn.deterministic and not cudnn.benchmark
        assert not torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
    assert (cudnn.deterministic, cudnn.benchmark) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU computes in half precision")
def test_half_precision_is_for_a_gpu() -> None:
    with computing():
        assert torch.is_autocast_enabled("cuda")
        assert torch.get_autocast_dtype("cuda") == torch.float16
