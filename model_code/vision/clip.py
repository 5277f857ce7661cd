"""CLIP, embedded: a small open_clip model of one view, trained on pairs of pictures and texts.

Radford et al. 2021 (arXiv:2103.00020): a vision transformer and a text transformer into one space,
symmetric InfoNCE with a learned, clamped temperature. A few thousand pairs are few to start from
nothing: patches enter through a convolutional stem, and both towers also predict the topics of all
that was said of a picture. B pictures or texts, T texts of a picture, L tokens, D the width of the shared
space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.backends import Identity, Picture
from model_code.errors import DataError
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Workspace
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays
from model_code.vision.clip_config import ClipConfig
from model_code.vision.open_clip_models import (
    OPENAI_MEAN,
    OPENAI_STD,
    build,
    clip_weight,
    digest_of,
    why_no_towers,
)

_MAX_SCALE = math.log(100)
_HEAD_WIDTH = 32
# Rows of the embedding table that words unseen in training share.
_SPARE = 64
_UNKNOWN_RATE = 0.05
_ENCODE_BATCH = 64


class Towers(nn.Module):
    """Image and text tower with one space, for scoring and for further training.

    `model` are the arguments of `open_clip.CLIP`; `vocabulary` [V] are the ids of open_clip's
    tokenizer that have an embedding of their own. All others share a few rows, so that a word that
    was never seen is an unknown word and not a random one, and further training can still tell
    such words apart. A pretrained model (`open_clip` with its arguments, `mean`, `std`) is taken as it
    is: every token has a row.

    Attributes:
        embed_dim: D, width of both global outputs.
        image_width, text_width: widths of the patch tokens and of the text tokens.
        context: how many tokens the text tower reads.
    """

    vocabulary: Tensor
    rows: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: dict[str, Any], vocabulary: NDArray[np.int64]) -> None:
        super().__init__()
        if "open_clip" in model:
            clip, ids, rows = self._pretrained(model["open_clip"])
            vision, text, embed_dim = (
                model["open_clip"][name] for name in ("vision_cfg", "text_cfg", "embed_dim")
            )
        else:
            clip, ids, rows = self._small(model, vocabulary)
            vision, text, embed_dim = (
                model[name] for name in ("vision_cfg", "text_cfg", "embed_dim")
            )
        clip.visual.output_tokens = True
        self.clip = clip
        self.embed_dim: int = embed_dim
        self.image_width: int = vision["width"]
        self.text_width: int = text["width"]
        self.context: int = clip.context_length
        self.size_px: tuple[int, int] = tuple(clip.visual.image_size)
        self.register_buffer("vocabulary", torch.from_numpy(ids))
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        for name, default in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)):
            values = torch.tensor(tuple(model.get(name, default)))
            self.register_buffer(name, values[:, None, None], persistent=False)

    @staticmethod
    def _small(model: dict[str, Any], vocabulary: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """The networks, the ids with a row of their own, and the row of each id."""
        tokenizer = _tokenizer()
        ids = np.unique(np.append(vocabulary, tokenizer.all_special_ids))
        # Row 0 pads; the end of a text keeps the highest row, by which open_clip finds it.
        rows = 1 + np.arange(tokenizer.vocab_size) % _SPARE
        rows[ids] = 1 + _SPARE + np.arange(len(ids))
        text = {**model["text_cfg"], "vocab_size": 1 + _SPARE + len(ids)}
        clip = open_clip.CLIP(**{**model, "text_cfg": text})
        vision = model["vision_cfg"]
        clip.visual.conv1 = _stem(vision["patch_size"], vision["width"])
        return clip, ids, rows

    @staticmethod
    def _pretrained(arguments: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Likewise of a pretrained model.

        Raises:
            DataError: it is none that methods can train on.
        """
        if why := why_no_towers(arguments):
            raise DataError(
                f"methods cannot start from the model of `captions.clip`: {why}",
                fix="name a CLIP of open_clip with a ViT, such as ViT-B-32; others can score captions "
                "of a city whose methods read no towers",
            )
        return build(arguments), np.empty(0, np.int64), np.arange(_tokenizer().vocab_size)

    @property
    def logit_scale(self) -> Tensor:
        """One over the temperature, a scalar, clamped as CLIP's."""
        scale: Tensor = self.clip.logit_scale.clamp(max=_MAX_SCALE).exp()
        return scale

    def pixels(self, pictures: Tensor) -> Tensor:
        """Pictures uint8 [B, H, W, 3] of any size as normalised floats [B, 3, h, w] of the tower's."""
        x = pictures.permute(0, 3, 1, 2).float() / 255
        if x.shape[2:] != self.size_px:
            x = F.interpolate(x, self.size_px, mode="bilinear", antialias=True, align_corners=False)
        return (x - self.mean) / self.std

    def image(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Global output [B, D], not normalised, and patch tokens [B, L, image_width] of pictures
        uint8 [B, H, W, 3], or of what `pixels` makes of them."""
        pooled, tokens = self.clip.visual(self.pixels(x) if x.dtype == torch.uint8 else x)
        return pooled, tokens

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Global output [B, D], not normalised, token outputs [B, L, text_width] and their mask
        [B, L] (False: padding) of ids [B, context]; L is the longest text of the batch. Start and
        end are tokens too, so an empty text has two."""
        clip = self.clip
        length = int(lengths(ids).max())
        ids, mask = ids[:, :length], token_mask(ids)[:, :length]
        causal = clip.attn_mask if clip.attn_mask is None else clip.attn_mask[:length, :length]
        x = clip.token_embedding(ids) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=causal)
        tokens = clip.ln_final(x)  # [B, L, text_width]
        pooled = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)]
        return pooled @ clip.text_projection, tokens, mask

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Ids int64 [B, context] for `text`, padded with 0; what is beyond the context is cut."""
        start, end = _tokenizer().all_special_ids
        ids = np.zeros((len(texts), self.context), np.int64)
        rows = self.rows.cpu().numpy()
        for line, text in zip(ids, texts, strict=True):
            found = [start, *_encode(text)[: self.context - 2], end]
            line[: len(found)] = rows[found]
        return torch.from_numpy(ids)


def _stem(patch_px: int, width: int) -> nn.Sequential:
    """One feature [width] for each patch of pictures [B, 3, h, w], by small convolutions (Xiao et al.
    2021, arXiv:2106.14881): each halves the picture, until a patch is 2 pixels or odd. One large
    convolution, as ViT's, needs far more pairs to tell texture from light."""
    layers: list[nn.Module] = []
    last, side = 3, patch_px
    while side > 2 and side % 2 == 0:
        side //= 2
        wide = max(8, 2 * width // side)
        layers += [nn.Conv2d(last, wide, 3, stride=2, padding=1), nn.GELU()]
        last = wide
    return nn.Sequential(*layers, nn.Conv2d(last, width, side, stride=side, bias=False))


def open_towers(checkpoint: Checkpoint) -> Towers:
    """The towers of a checkpoint of `train_clip`, on the CPU, in evaluation mode."""
    with seeded(0):  # the weights are about to be replaced
        towers = Towers(checkpoint.record["model"], checkpoint.tensors["vocabulary"])
    load_arrays(towers, checkpoint.tensors)
    return towers.eval()


def encode_image_tokens(towers: Towers, pictures: Sequence[Picture]) -> tuple[Floats, Floats]:
    """Global outputs [B, D] and patch tokens [B, L, image_width] of pictures, without gradients."""
    parts = []
    with evaluating(towers):
        for start in range(0, len(pictures), _ENCODE_BATCH):
            x = [
                towers.pixels(torch.from_numpy(np.array(picture))[None])
                for picture in pictures[start : start + _ENCODE_BATCH]
            ]
            parts.append(towers.image(torch.cat(x)))
    return _joined([p[0] for p in parts]), _joined([p[1] for p in parts])


def encode_text_tokens(towers: Towers, texts: Sequence[str]) -> tuple[Floats, Floats, NDArray[Any]]:
    """Global outputs [B, D], token outputs [B, context, text_width] (0 where padded) and their mask
    [B, context] of texts, without gradients."""
    parts = []
    ids = towers.tokenize(texts)
    with evaluating(towers):
        for batch in torch.split(ids, _ENCODE_BATCH):
            pooled, tokens, mask = towers.text(batch)
            beyond = (0, 0, 0, towers.context - tokens.shape[1])
            parts.append((pooled, F.pad(tokens * mask[..., None], beyond)))
    return _joined([p[0] for p in parts]), _joined([p[1] for p in parts]), token_mask(ids).numpy()


def lengths(ids: Tensor) -> Tensor:
    """Tokens of each text [B] of ids [B, context]: up to its end, which has the highest id."""
    return ids.argmax(dim=1) + 1


def token_mask(ids: Tensor) -> Tensor:
    """Which ids [B, context] are no padding."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths(ids)[:, None]


def _joined(parts: list[Tensor]) -> Floats:
    return cast(Floats, torch.cat(parts).numpy())


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@lru_cache(maxsize=1 << 16)
def _encode_word(word: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(word))


def _encode(text: str) -> list[int]:
    """The tokenizer's ids, word by word: no token of it spans white space."""
    return [token for word in text.split() for token in _encode_word(word)]


def token_counts(texts: Sequence[str]) -> NDArray[np.int64]:
    """Tokens of each text [B], start and end included, uncut."""
    return np.array([2 + len(_encode(text)) for text in texts], np.int64)


# --- training ------------------------------------------------------------------------------------


def train_clip(
    pictures: NDArray[np.uint8],
    texts: Sequence[Sequence[str]],
    config: ClipConfig,
    *,
    seed: int,
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """Towers fitted to pictures uint8 [B, H, W, 3], all of one size, and T texts of each [B][T].

    The last `config.held_out` pictures, at most a quarter of all, are not trained on: they set the
    weight of CLIPScore. The record holds it, the model's arguments, and how often a held-out text
    finds its picture first among them. Square pictures are taken as seen from above: they are turned
    in training, others mirrored only.
    """
    b = len(pictures)
    held = min(config.held_out, max(1, b // 4))
    train, rest = np.arange(b - held), np.arange(b - held, b)
    vocabulary = np.unique(
        np.concatenate([_encode(text) for of in texts[: b - held] for text in of])
    ).astype(np.int64)
    model = model_arguments(config, (pictures.shape[1], pictures.shape[2]))
    with seeded(seed):
        towers = Towers(model, vocabulary)
        pairs = _Pairs(towers, pictures, texts, train, config)
    settings = Settings(
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        schedule="cosine",
        drop_last=len(train) > config.batch,
    )
    history = fit(
        pairs, train, settings, seed=seed, resume=workspace.resume, progress=workspace.progress
    )
    towers.eval()
    cosine = pairs.cosines(rest)
    own = np.diagonal(cosine)
    record = {
        "model": model,
        "weight": clip_weight(own, config.matched_score),
        "matched_cosine": float(own.mean()),
        "unmatched_cosine": float((cosine.sum() - own.sum()) / max(1, held * (held - 1))),
        "text_to_image_top1": float((cosine.argmax(axis=0) == np.arange(held)).mean()),
        "image_to_text_top1": float((cosine.argmax(axis=1) == np.arange(held)).mean()),
        "pairs": len(train),
        "held_out": held,
        "seed": seed,
        "config": config.model_dump(),
        "loss": history.train,
    }
    return Checkpoint(state_arrays(towers), record)


def model_arguments(config: ClipConfig, size_px: tuple[int, int]) -> dict[str, Any]:
    """Arguments of `open_clip.CLIP` for pictures of (height, width) `size_px`."""
    patch = config.patch_px
    height, width = (max(1, round(side / config.shrink / patch)) * patch for side in size_px)
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": [height, width],
            "patch_size": patch,
            "width": config.image_width,
            "layers": config.image_layers,
            "head_width": _HEAD_WIDTH,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": config.context,
            "width": config.text_width,
            "heads": config.text_width // _HEAD_WIDTH,
            "layers": config.text_layers,
        },
    }


class _Pairs(nn.Module):
    """Pairs in memory, with their symmetric InfoNCE and the prediction of topics."""

    pixels: Tensor
    ids: Tensor
    topics: Tensor

    def __init__(
        self,
        towers: Towers,
        pictures: NDArray[np.uint8],
        texts: Sequence[Sequence[str]],
        train: NDArray[np.int64],
        config: ClipConfig,
    ) -> None:
        super().__init__()
        self.towers = towers
        self.topic_weight = config.topic_weight
        pixels = [towers.pixels(x) for x in torch.split(torch.from_numpy(np.array(pictures)), 256)]
        self.register_buffer("pixels", torch.cat(pixels), persistent=False)
        ids = [towers.tokenize(of) for of in texts]
        self.register_buffer("ids", torch.stack(ids), persistent=False)  # [B, T, context]
        topics = _topics(self.ids[train], config.topics)
        self.register_buffer("topics", topics, persistent=False)  # [train, K]
        self.topic_head = nn.Linear(towers.embed_dim, topics.shape[1])

    def loss(self, index: Tensor) -> Tensor:
        chosen = torch.randint(0, self.ids.shape[1], index.shape)
        image = self.towers.image(_varied(self.pixels[index]))[0]  # [B, D]
        text = self.towers.text(_with_unknown(self.ids[index, chosen]))[0]
        cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        logits = self.towers.logit_scale * cosine
        own = torch.arange(len(index), device=logits.device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        topics = self.topics[index]
        misses = [F.mse_loss(self.topic_head(x), topics) for x in (image, text)]
        return contrast + self.topic_weight * (misses[0] + misses[1])

    def cosines(self, index: NDArray[np.int64]) -> Floats:
        """[pictures, texts] of each picture with the first text of each."""
        images, texts = [], []
        with evaluating(self.towers):
            for batch in torch.split(torch.from_numpy(index), _ENCODE_BATCH):
                images.append(F.normalize(self.towers.image(self.pixels[batch])[0], dim=-1))
                texts.append(F.normalize(self.towers.text(self.ids[batch, 0])[0], dim=-1))
        return cast(Floats, (torch.cat(images) @ torch.cat(texts).T).numpy())


def _topics(ids: Tensor, number: int) -> Tensor:
    """Latent semantic analysis (Deerwester et al. 1990) of all that is said of each picture, from
    ids [B, T, L]: scores [B, K] on the main directions, scaled to the spread of the first."""
    b = len(ids)
    words = torch.zeros(b, int(ids.max()) + 1)
    for said in ids.unbind(1):
        words += torch.zeros_like(words).scatter_(1, said, 1.0)
    spread = words.std(dim=0, correction=0)
    words = (words - words.mean(dim=0))[:, spread > 0] / spread[spread > 0].sqrt()
    u, s, _ = torch.linalg.svd(words, full_matrices=False)
    scores: Tensor = u[:, :number] * (s[:number] / s[0]).sqrt() * math.sqrt(b)
    return scores


def _varied(pixels: Tensor) -> Tensor:
    """Mirrored or not, square ones in one of eight symmetries; a little darker or lighter, harder or
    softer."""
    b = len(pixels)
    swaps: tuple[Callable[[Tensor], Tensor], ...]
    swaps = (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT)
    for swap in swaps if pixels.shape[2] == pixels.shape[3] else swaps[:1]:
        swapped = (torch.rand(b) < 0.5).to(pixels.device)[:, None, None, None]
        pixels = torch.where(swapped, swap(pixels), pixels)
    contrast, light = (torch.randn(2, b, 1, 1, 1) * 0.06).to(pixels.device)
    varied: Tensor = pixels * (1 + contrast) + light
    return varied


def _with_unknown(ids: Tensor) -> Tensor:
    """A few words of each text replaced by unknown ones, so that the rows of these are trained."""
    replaced = (torch.rand(ids.shape) < _UNKNOWN_RATE).to(ids.device)
    replaced &= (ids > 0) & (ids < ids.amax() - 1)  # neither padding nor start nor end
    return torch.where(replaced, (1 + torch.randint(0, _SPARE, ids.shape)).to(ids.device), ids)


# --- the protocol --------------------------------------------------------------------------------


class EmbeddedClip:
    """`model_code.backends.Clip` over a checkpoint of `train_clip`."""

    def __init__(self, checkpoint: Checkpoint, name: str = "embedded_clip") -> None:
        self._towers = open_towers(checkpoint)
        self.weight: float = checkpoint.record["weight"]
        self.context = self._towers.context
        self.identity = Identity(
            name, digest_of(checkpoint.record["model"], checkpoint.tensors), {"weight": self.weight}
        )

    def encode_images(self, pictures: Sequence[Picture]) -> Floats:
        return self._unit(encode_image_tokens(self._towers, pictures)[0] if len(pictures) else None)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        return self._unit(encode_text_tokens(self._towers, texts)[0] if len(texts) else None)

    def tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return token_counts(texts)

    def _unit(self, vectors: Floats | None) -> Floats:
        if vectors is None:
            return np.zeros((0, self._towers.embed_dim), np.float32)
        return cast(Floats, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
