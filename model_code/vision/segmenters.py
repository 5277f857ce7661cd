"""Segmenters for real pictures: models of transformers and of mmsegmentation.

SegFormer: Xie et al. 2021 (arXiv:2105.15203); Mask2Former: Cheng et al. 2022 (arXiv:2112.01527).
B pictures of H x W pixels, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.backends import Identity, Picture, Segmentation
from model_code.errors import DataError
from model_code.extras import load
from model_code.fingerprint import digest
from model_code.hub import name_of, not_loaded, place_of, revision_of, source_of
from model_code.methods.base import Floats
from model_code.vision import mmcv_ext
from model_code.vision.loading import Loaded, Memory, checked, device, dtype_of, quiet
from model_code.vision.model_choices import Mmsegmentation, Transformers, WeightsAt
from model_code.vision.segment_classes import checked_length, class_list

MIN_SIDE_PX = 16


class _Labelling:
    """Shares from labels of pixels: what both kinds of segmenter share."""

    identity: Identity
    classes: tuple[str, ...]
    batch: int

    def segment(self, pictures: Sequence[Picture]) -> Segmentation:
        """Pixel shares by class; a picture's row does not depend on the others."""
        reasons = [_unfit(picture) for picture in pictures]
        shares = np.full((len(pictures), len(self.classes)), np.nan, np.float32)
        for batch in _batches(pictures, reasons, self.batch):
            for at, label in zip(batch, self.label([pictures[i] for i in batch]), strict=True):
                shares[at] = label_shares(label, len(self.classes))
                if np.isnan(shares[at]).any():
                    reasons[at] = "no pixel is of a class"
        return Segmentation(self.classes, shares, tuple(reasons))

    def label(self, pictures: Sequence[Picture]) -> list[NDArray[np.int64]]:
        """Index of the class of each pixel, of pictures of one size."""
        raise NotImplementedError


def label_shares(label: NDArray[np.int64], classes: int) -> Floats:
    """Shares [K] of a map of labels; what is no class (such as `ignored`) is left out. NaN where
    nothing is left."""
    counts = np.bincount(label[(label >= 0) & (label < classes)].ravel(), minlength=classes)
    if not counts.any():
        return np.full(classes, np.nan, np.float32)
    return np.asarray(counts / counts.sum(), np.float32)


def _unfit(picture: Picture) -> str:
    """Why a picture cannot be judged; empty where it can."""
    if picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < MIN_SIDE_PX:
        return f"smaller than {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels"
    return ""


def _batches(pictures: Sequence[Picture], reasons: Sequence[str], size: int) -> Iterator[list[int]]:
    """Positions of pictures that can be judged, in batches of one shape, so that none is padded."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for at, (picture, reason) in enumerate(zip(pictures, reasons, strict=True)):
        if not reason:
            by_shape.setdefault(picture.shape, []).append(at)
    for of in by_shape.values():
        yield from (of[i : i + size] for i in range(0, len(of), size))


# --- transformers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    model: Any
    processor: Any


class TransformersSegmenter(_Labelling):
    """`model_code.backends.Segmenter` over a semantic segmenter of transformers, by its config either
    of pixels (SegFormer) or of masks (Mask2Former)."""

    def __init__(self, choice: Transformers, memory: Memory | None = None) -> None:
        listed = class_list(choice.classes)
        self.classes, self.batch, self._choice = listed.names, choice.batch, choice
        self._dtype = dtype_of(choice.precision)
        settings = {"kind": choice.kind, "dtype": str(self._dtype), "classes": len(listed.names)}
        self.identity = Identity(name_of(choice), revision_of(choice), settings)
        name = f"segmenter {self.identity.model}"
        self._network = Loaded(name, self._load, memory or Memory(), lambda n: [n.model])

    def _load(self) -> _Network:
        try:
            with quiet():
                return self._opened()
        except (OSError, ValueError) as error:
            raise not_loaded(
                self._choice,
                "captions.segmenter.VIEW.model",
                error,
                "name a model whose weights are safetensors and whose code is in transformers",
            ) from error

    def _opened(self) -> _Network:
        import transformers

        about, name = source_of(self._choice), place_of(self._choice)
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **about)
        checked_length(class_list(self._choice.classes), config.num_labels, name)
        known: Any = transformers.models.auto.modeling_auto
        if config.model_type in known.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES:
            auto: Any = transformers.AutoModelForSemanticSegmentation
        elif config.model_type in known.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES:
            auto = transformers.AutoModelForUniversalSegmentation
        else:
            raise DataError(
                f"{name} is no semantic segmenter but a model of the type {config.model_type!r}",
                fix="name a SegFormer, a Mask2Former or the like in `captions.segmenter`",
            )
        model = auto.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype=self._dtype, **about
        )
        processors: Any = transformers.AutoImageProcessor
        processor = processors.from_pretrained(name, trust_remote_code=False, **about)
        return _Network(model.to(device()).eval(), processor)

    def label(self, pictures: Sequence[Picture]) -> list[NDArray[np.int64]]:
        network = self._network()
        inputs = network.processor(images=[np.array(p) for p in pictures], return_tensors="pt")
        given = {
            name: inputs[name].to(device(), self._dtype if name == "pixel_values" else None)
            for name in ("pixel_values", "pixel_mask")
            if name in inputs
        }
        with torch.inference_mode():
            outputs = network.model(**given)
        sizes = [picture.shape[:2] for picture in pictures]
        labels: list[Tensor] = network.processor.post_process_semantic_segmentation(
            outputs, target_sizes=sizes
        )
        return [label.cpu().numpy().astype(np.int64) for label in labels]


# --- mmsegmentation ------------------------------------------------------------------------------


class MmsegSegmenter(_Labelling):
    """`model_code.backends.Segmenter` over a config and a checkpoint of mmsegmentation.

    Raises:
        MissingExtraError: mmsegmentation is not installed.
    """

    def __init__(self, choice: Mmsegmentation, memory: Memory | None = None) -> None:
        _mmseg()
        listed = class_list(choice.classes)
        self.classes, self.batch, self._choice = listed.names, choice.batch, choice
        settings = {
            "kind": choice.kind,
            "config": config_digest(choice),
            "classes": len(listed.names),
        }
        self.identity = Identity(Path(choice.config).stem, choice.sha256[:16], settings)
        name = f"segmenter {self.identity.model}"
        self._model: Loaded[Any] = Loaded(name, self._load, memory or Memory(), lambda m: [m])

    def _load(self) -> Any:
        choice = self._choice
        weights = WeightsAt(path=choice.checkpoint, sha256=choice.sha256)
        path = checked(weights, "the segmenter's checkpoint")
        with quiet():
            config = _config(choice.config)
            model = _mmseg().apis.init_model(config, None, device=str(device()))
        outputs = _outputs(model)
        model.dataset_meta = {
            "classes": checked_length(class_list(choice.classes), outputs, path.name)
        }
        content = safe_checkpoint(path)
        found = model.load_state_dict(content.get("state_dict", content), strict=False)
        # A head that only training needs may be gone; a weight that is used may not.
        if missing := [name for name in found.missing_keys if not name.startswith("auxiliary")]:
            raise DataError(
                f"the checkpoint {path.name} is of another network than {choice.config}: it has no "
                f"{missing[0]}",
                fix="name the config that it was trained with",
            )
        return model

    def label(self, pictures: Sequence[Picture]) -> list[NDArray[np.int64]]:
        model = self._model()
        # mmcv reads pictures as blue, green, red, and its configs turn them.
        turned = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
        with quiet():
            results = _mmseg().apis.inference_model(model, turned)
        return [r.pred_sem_seg.data[0].cpu().numpy().astype(np.int64) for r in results]


def _mmseg() -> Any:
    load("mmseg")
    mmcv_ext.ensure()
    with quiet():
        import mmseg.apis
    return mmseg


def _config(name: str) -> Any:
    """A config by its path, or one that mmsegmentation brings, by its path there.

    Raises:
        DataError: there is none.
    """
    from mmengine import Config

    own = Path(_mmseg().__file__).parent / ".mim" / "configs" / name
    path = Path(name).expanduser() if Path(name).expanduser().is_absolute() else own
    if not path.is_file():
        raise DataError(
            f"there is no config of mmsegmentation at {path}",
            fix="mend the segmenter's `config`: an absolute path, or one such as "
            "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
        )
    return Config.fromfile(str(path))


def config_digest(choice: Mmsegmentation) -> str:
    """What tells a config from another: its content, with all configs that it builds on.

    Raises:
        DataError: there is none.
        MissingExtraError: mmsegmentation is not installed.
    """
    with quiet():
        return digest(_config(choice.config).pretty_text)[:16]


def _outputs(model: Any) -> int:
    head: Any = model.decode_head
    if isinstance(head, torch.nn.ModuleList):  # a cascade answers with its last
        head = head[-1]
    return int(head.num_classes)


def safe_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, whose pickle may make nothing but tensors, numbers, and the
    histories of losses that mmengine keeps.

    Raises:
        DataError: it asks for anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    # numpy's own names for what its arrays are pickled with differ between its versions.
    scalar, reconstruct = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, scalar, reconstruct]
    allowed += [
        (scalar, "numpy.core.multiarray.scalar"),
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (_statistic, "builtins.getattr"),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise DataError(
            f"the checkpoint {path.name} holds more than weights, and is not loaded"
            + "".join(f": {name}" for name in re.findall(r"GLOBAL (\S+)", str(error))[:1]),
            fix="take a checkpoint that mmsegmentation published, or save its `state_dict` alone",
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"the checkpoint {path.name} holds no weights by name", fix="take another")
    return content


def _statistic(owner: Any, name: str) -> Any:
    """What a history names of its own class: no other attribute of anything is looked up."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise UnpicklingError(f"GLOBAL getattr({owner!r}, {name!r})")
    return getattr(HistoryBuffer, name)
