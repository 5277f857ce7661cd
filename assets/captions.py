"""What pictures say: shares of what they show, captions, their scores, frozen features.

Two views: a chip a region (`satellite`), and the street views. Rows are kept by what they rest on,
so that one changed picture costs one segmentation, one caption and one score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from assets.inputs import picture_arrays
from assets.stage import Context, Product, stage
from model_code.city import City
from model_code.fingerprint import code_digests, digest
from model_code.methods import METHODS
from resources import backends
from resources.lake import checkpoint_writers

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


_SOURCE_OF = {"satellite": "imagery", "street_view": "street_views"}
_TABLE_OF = {"satellite": "region_chips", "street_view": "region_street_views"}
_BATCH = 128


def _views(city: City) -> list[str]:
    return [view for view, source in _SOURCE_OF.items() if getattr(city.sources, source)]


def _no_captions(city: City) -> str:
    if city.captions is None:
        return "the city's YAML has no captions"
    return "" if _views(city) else "the city's YAML has no sources.imagery and no street_views"


def _pictures_of(*others: str) -> Any:
    """The inputs that give this city's pictures, and others."""
    return lambda city: (*(_TABLE_OF[view] for view in _views(city)), *others)


@dataclass(frozen=True)
class _Images:
    """Pictures of one view, ordered by id: `pixels` [B, H, W, 3]."""

    view: str
    image_id: np.ndarray
    region_id: np.ndarray
    pixels: np.ndarray
    sha256: list[str]

    def named(self, **columns: Any) -> pd.DataFrame:
        """A table with a row an image."""
        import pandas as pd

        ids = {"view": self.view, "image_id": self.image_id, "region_id": self.region_id}
        return pd.DataFrame({**ids, **columns})


def _images(ctx: Context) -> list[_Images]:
    """The pictures of each view that the city has, in the order of their keys."""
    from hashlib import sha256

    found = []
    for view, table in sorted(_TABLE_OF.items()):
        if table in ctx.inputs and ctx.has(table):
            ids, regions, pixels = picture_arrays(
                ctx.inputs[table], view, ctx.city.chips.min_valid_share
            )
            digests = [sha256(picture.tobytes()).hexdigest() for picture in pixels]
            found.append(_Images(view, ids, regions, pixels, digests))
    return found


def _kept(
    ctx: Context,
    kind: str,
    keys: Sequence[str],
    make: Callable[[np.ndarray], pd.DataFrame],
    about: str,
) -> pd.DataFrame:
    """Rows in the order of `keys`: those that are kept from an earlier run, and the others made by
    `make` (from their positions) and kept, batch by batch."""
    import numpy as np
    import pandas as pd

    assert ctx.rows is not None
    store = ctx.rows(kind)
    new = np.flatnonzero(~pd.Index(keys).isin(store.known(keys).index))
    new = new[~pd.Index(keys).take(new).duplicated()]
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        rows = make(batch).set_axis([keys[i] for i in batch])
        store.add(rows)
        ctx.progress(f"{about}: {start + len(batch):,} of {len(new):,}")
    return store.known(keys).loc[list(keys)]


# --- what pictures show --------------------------------------------------------------------------


@stage(group="captions", kinds=("scipy",), absent=_no_captions, inputs=tuple(_TABLE_OF.values()),
       reads=_pictures_of(), config=("captions.segmenter", "chips.min_valid_share"),
       code=backends.CODE["segmenter"])  # fmt: skip
def image_shares(ctx: Context) -> Product:
    """What chips and street views show, measured by the segmenter of their view."""
    import pandas as pd

    parts = []
    for images in _images(ctx):
        segmenter = backends.segmenter(ctx.city.captions.segmenter, images.view)
        who = digest([asdict(segmenter.identity), code_digests(backends.CODE["segmenter"])])

        def segment(batch: np.ndarray, images: _Images = images, segmenter: Any = segmenter) -> Any:
            found = segmenter.segment(list(images.pixels[batch]))
            there = [
                row if not why else row[:0]
                for row, why in zip(found.shares, found.reasons, strict=True)
            ]
            return pd.DataFrame({"shares": there, "note": found.reasons})

        keys = [digest([sha, who]) for sha in images.sha256]
        rows = _kept(ctx, "shares", keys, segment, f"{images.view}: segmented")
        named = f"{segmenter.identity.model} {segmenter.identity.revision}"
        parts.append(
            images.named(
                sha256=images.sha256,
                segmenter=named,
                classes=[list(segmenter.classes)] * len(images.sha256),
                shares=rows["shares"].to_list(),
                note=rows["note"].to_list(),
            )
        )
    table = pd.concat(parts, ignore_index=True)
    return Product(table, metadata={"not_judged": int((table["note"] != "").sum())})


# --- captions and their scores -------------------------------------------------------------------


@stage(group="captions", kinds=("jinja",), absent=_no_captions,
       inputs=("clip_checkpoint", "image_shares", *_TABLE_OF.values()),
       reads=_pictures_of("clip_checkpoint", "image_shares"),
       config=("captions", "chips.min_valid_share"),
       code=tuple(code for codes in backends.CODE.values() for code in codes))  # fmt: skip
def captions(ctx: Context) -> Product:
    """Every caption of every image: one that scores too low is written again."""
    raise NotImplementedError


@stage(group="captions", kinds=("numpy",), absent=_no_captions, inputs=("captions",))
def caption_scores(ctx: Context) -> Product:
    """How well each caption fits its image."""
    return Product(ctx.inputs["captions"].arrow(file="caption_scores.parquet"))


@stage(group="captions", kinds=("numpy",), absent=_no_captions, inputs=("captions",))
def calibrated_captions(ctx: Context) -> Product:
    """The best try of each image, and whether it is fit for pretraining."""
    return Product(ctx.inputs["captions"].arrow(file="calibrated_captions.parquet"))


# --- towers and places ---------------------------------------------------------------------------


@stage(group="captions", kinds=("safetensors",), table=None, absent=_no_captions,
       config=("captions.clip", "captions.seed"), code=("model_code.demo.pairs",))  # fmt: skip
def clip_checkpoint(ctx: Context) -> Product:
    """A small CLIP a view, trained on generic pictures and sentences of no city; it scores captions,
    and methods start from its towers."""
    from model_code.demo.pairs import satellite_pairs, street_pairs
    from model_code.methods.base import Workspace
    from model_code.vision.clip import train_clip

    config, seed = ctx.city.captions.clip, ctx.city.captions.seed
    files, metadata = {}, {}
    for view, pairs in (("satellite", satellite_pairs), ("street_view", street_pairs)):
        ctx.progress(f"{view}: rendering {config.pairs + config.held_out:,} pairs")
        pictures, texts = pairs(config.pairs + config.held_out, seed)
        workspace = Workspace(partial(_say, ctx, view), ctx.work / f"{view}.resume")
        fitted = train_clip(pictures, texts, config, seed=seed, workspace=workspace)
        files |= checkpoint_writers(view, fitted)
        metadata[view] = {k: v for k, v in fitted.record.items() if isinstance(v, int | float)}
    return Product(files=files, metadata=metadata)


def _say(ctx: Context, view: str, line: str) -> None:
    ctx.progress(f"{view}: {line}")


def _no_locations(city: City) -> str:
    if not city.sources.street_views:
        return "the city's YAML has no sources.street_views"
    needed = any("view_locations" in METHODS[name].needs for name in city.methods)
    return "" if needed else "no method of the city reads it"


@stage(group="captions", kinds=("torch",), absent=_no_locations, inputs=("region_street_views",),
       code=("model_code.vision.location",))  # fmt: skip
def location_features(ctx: Context) -> Product:
    """GeoCLIP's features of the places of street views, which no training changes."""
    from model_code.vision.location import location_features as encode

    views = ctx.inputs["region_street_views"].frame(["region_id", "view_id", "lon", "lat"])
    features = encode(views[["lon", "lat"]].to_numpy())
    return Product(views[["region_id", "view_id"]].assign(feature=list(features)))
