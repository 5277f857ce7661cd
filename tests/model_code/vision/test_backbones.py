from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.methods import MuseClConfig
from model_code.training import evaluating, seeded
from model_code.vision.backbones import ImageEncoder


def pictures(count: int, side: int) -> torch.Tensor:
    with seeded(1):
        return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "width", "side"), [("resnet18", 512, 40), ("inception_v3", 2048, 80)]
)
def test_torchvisions_nets_without_their_classifiers(name: str, width: int, side: int) -> None:
    with seeded(0):
        encoder = ImageEncoder(name)
    whole = getattr(torchvision.models, name)(
        weights=None, **({"init_weights": False} if width > 512 else {})
    )
    kept = {k: v for k, v in whole.state_dict().items() if not k.startswith(("fc", "AuxLogits"))}
    encoder.layers.load_state_dict(kept)
    whole.fc = torch.nn.Identity()
    seen = pictures(2, side)
    about = torchvision.models.get_model_weights(name).DEFAULT
    # What their weights are said to want; Inception-v3's own transform is switched on by its weights.
    prepare = torchvision.transforms.Normalize(about.transforms().mean, about.transforms().std)
    whole.transform_input = name == "inception_v3"
    with evaluating(encoder), evaluating(whole):
        expected = whole(prepare(seen.permute(0, 3, 1, 2).float() / 255))
        torch.testing.assert_close(encoder(seen), expected, rtol=1e-4, atol=1e-4)
    assert encoder.width == expected.shape[1] == width


@pytest.mark.parametrize(
    ("name", "width", "side"),
    [("test_resnet", 96, 64), ("test_vit", 64, 40), ("resnet26", 2048, 64)],
)
def test_timms_nets_without_their_classifiers(
    name: str, width: int, side: int, tmp_path: Path
) -> None:
    with seeded(0):
        encoder = ImageEncoder(f"timm/{name}")
        whole = timm.create_model(name, pretrained=False)
    path = tmp_path / "whole.safetensors"
    save_file(whole.state_dict(), path)
    encoder.load_file(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    whole.reset_classifier(0)
    seen, about = pictures(2, side), whole.pretrained_cfg
    mean, std = (torch.tensor(about[k])[:, None, None] for k in ("mean", "std"))
    x = (seen.permute(0, 3, 1, 2).float() / 255 - mean) / std
    if about["fixed_input_size"]:
        x = F.interpolate(x, about["input_size"][1:], mode="bilinear", antialias=True)
    with evaluating(encoder), evaluating(whole):
        torch.testing.assert_close(encoder(seen), whole(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(encoder(seen[1:]), encoder(seen)[1:], rtol=1e-4, atol=1e-4)
    assert encoder.width == width == encoder(seen[:1]).shape[1]


def test_a_network_that_timm_does_not_know_is_told_from_its_like() -> None:
    with pytest.raises(DataError, match="timm/resnet152"):
        ImageEncoder("timm/resnett152")
    with pytest.raises(ValueError, match="timm/vit_small_patch16_224"):
        MuseClConfig(satellite_backbone="resnet50")


def test_the_small_one_looks_at_each_picture_alone_and_trains_all() -> None:
    with seeded(0):
        encoder = ImageEncoder("small")
    seen = pictures(5, 32)
    torch.testing.assert_close(encoder(seen)[:2], encoder(seen[:2]))
    encoder(seen).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_mirrors_in_training_alone() -> None:
    class Echo(ImageEncoder):
        def __init__(self, turned: bool) -> None:
            super().__init__("small", augment=True, turned=turned)
            self.seen = torch.empty(0)
            self.layers.register_forward_pre_hook(lambda _, x: setattr(self, "seen", x[0]))

    one = pictures(1, 16)
    for turned, kinds in ((False, 2), (True, 8)):
        echo = Echo(turned)
        with seeded(0):
            echo(one.expand(200, -1, -1, -1))
        assert len(torch.unique(echo.seen.flatten(1), dim=0)) == kinds
        with evaluating(echo):
            echo(one)
        torch.testing.assert_close(echo.seen, one.permute(0, 3, 1, 2).float() / 127.5 - 1)


@pytest.mark.parametrize("end", ["safetensors", "pt"])
def test_weights_come_from_a_file_that_is_the_one_that_is_meant(tmp_path: Path, end: str) -> None:
    with seeded(0):
        source, encoder = ImageEncoder("small"), ImageEncoder("small")
    state = {**source.layers.state_dict(), "fc.weight": torch.zeros(3, 3)}
    file = tmp_path / f"weights.{end}"
    (save_file if end == "safetensors" else torch.save)(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    encoder.load_file(str(file), digest)
    torch.testing.assert_close(encoder.layers.state_dict(), source.layers.state_dict())
    with pytest.raises(DataError, match=f"sha256: {digest}"):
        encoder.load_file(str(file), "0" * 64)
    with pytest.raises(DataError, match="no weights at"):
        encoder.load_file(str(tmp_path / "none"), digest)
    with pytest.raises(DataError, match="another network"):
        ImageEncoder("resnet18").load_file(str(file), digest)
