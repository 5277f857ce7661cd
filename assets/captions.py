"""What pictures say: shares of what they show, captions, their scores, frozen features.

Two views: a chip a region (`satellite`), and the street views. Rows are kept by what they rest on,
so that one changed picture costs one segmentation, one caption and one score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from assets.fits import Progress, finished, fit_together, kept
from assets.inputs import picture_arrays
from assets.stage import Context, Product, Written, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.fingerprint import code_digests, digest
from model_code.methods import METHODS
from model_code.progress import Meter
from model_code.tables import contract
from resources import backends
from resources.disk import writing
from resources.lake import plain_table_writer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from model_code.backends import Answer, Ask, Captioner, Identity, View
    from model_code.calibration import Scorer
    from model_code.methods.base import Checkpoint


_SOURCE_OF: dict[View, str] = {"satellite": "imagery", "street_view": "street_views"}
_TABLE_OF: dict[View, str] = {"satellite": "region_chips", "street_view": "region_street_views"}
_BATCH = 128
_PART = 256  # pictures whose captions one process writes and scores at a time
_SCORING = tuple(
    dict.fromkeys(
        ["model_code.calibration:score", *(c for cs in backends.CODE.values() for c in cs)]
    )
)


def _views(city: City) -> list[View]:
    return [view for view, source in _SOURCE_OF.items() if getattr(city.sources, source)]


def _no_captions(city: City) -> str:
    if city.captions is None:
        return "the city's YAML has no captions"
    return "" if _views(city) else "the city's YAML has no sources.imagery and no street_views"


def _not_read(city: City) -> str:
    """Why a city has no captions: those that nothing reads are not paid for."""
    if reason := _no_captions(city):
        return reason
    read = {need for name in city.methods for need in METHODS[name].needs}
    return "" if {"chip_captions", "view_captions"} & read else "no method of the city reads it"


def _pictures_of(*others: str) -> Any:
    """The inputs that give this city's pictures, and others."""
    return lambda city: (*(_TABLE_OF[view] for view in _views(city)), *others)


@dataclass(frozen=True)
class _Images:
    """Pictures of one view, ordered by id: `pixels` [B, H, W, 3]."""

    view: View
    image_id: np.ndarray
    region_id: np.ndarray
    pixels: np.ndarray
    sha256: list[str]

    def part(self, part: slice) -> _Images:
        """Some of them."""
        columns = (self.image_id, self.region_id, self.pixels, self.sha256)
        return _Images(self.view, *(column[part] for column in columns))

    def named(self, **columns: Any) -> pd.DataFrame:
        """A table with a row an image."""
        import pandas as pd

        ids = {"view": self.view, "image_id": self.image_id, "region_id": self.region_id}
        return pd.DataFrame({**ids, "sha256": self.sha256, **columns})

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table whose `position` counts images, with their names."""
        names = self.named().loc[table["position"]].set_axis(table.index)
        return table.join(names)


def _images(ctx: Context) -> list[_Images]:
    """The pictures of each view that the city has, in the order of their keys."""
    found = []
    for view, table in sorted(_TABLE_OF.items()):
        if table in ctx.inputs and ctx.has(table):
            ids, regions, pixels = picture_arrays(
                ctx.inputs[table], view, ctx.city.chips.min_valid_share
            )
            digests = [sha256_of(picture) for picture in pixels]
            if len(ids):
                found.append(_Images(view, ids, regions, pixels, digests))
    if not found:
        raise DataError(
            f"city {ctx.name!r} has no picture to caption: no chip has enough valid pixels, and no "
            "street view lies in a region",
            fix="lower `chips.min_valid_share`, look at `rejected`, or take `captions` out",
        )
    return found


def kept_rows(
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
    meter = Meter(ctx.progress, about, len(new))
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        store.add(make(batch).set_axis([keys[i] for i in batch]))
        meter.at(start + len(batch))
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
        rows = kept_rows(ctx, "shares", keys, segment, f"{images.view}: segmented")
        parts.append(
            images.named(
                segmenter=named_model(segmenter.identity),
                classes=[list(segmenter.classes)] * len(images.sha256),
                shares=rows["shares"].to_list(),
                note=rows["note"].to_list(),
            )
        )
    table = pd.concat(parts, ignore_index=True)
    return Product(table, metadata={"not_judged": int((table["note"] != "").sum())})


# --- captions and their scores -------------------------------------------------------------------


@stage(group="captions", kinds=("jinja",), absent=_not_read,
       inputs=("clip_checkpoint", "image_shares", *_TABLE_OF.values()),
       reads=_pictures_of("clip_checkpoint", "image_shares"),
       config=("captions", "chips.min_valid_share"), code=_SCORING)  # fmt: skip
def captions(ctx: Context) -> Product:
    """Every caption of every image: one that scores too low is written again."""
    import pandas as pd

    from model_code.calibration import SCORES

    assert ctx.crew is not None
    config = ctx.city.captions
    captioner = backends.captioner(config)
    table = ctx.inputs["image_shares"].frame()
    seen = {
        images.view: (
            images,
            table[table["view"] == images.view].set_index("image_id").loc[images.image_id],
        )
        for images in _images(ctx)
    }

    def tries_of(view: View, part: slice, ctx: Context) -> tuple[pd.DataFrame, pd.DataFrame]:
        from model_code.calibration import calibrate

        images, measured = seen[view][0].part(part), seen[view][1].iloc[part]
        asks = _asks(images, measured, config.seed)
        writer = _Remembering(ctx, captioner, f"{view}: captions")
        scorer = _scorer(ctx, images, measured)
        every, top = calibrate(asks, writer, scorer, config.calibration)
        return images.of(every), images.of(top)

    # Parts of the pictures are shared among processes, which leave their rows in the lake.
    parts: dict[str, tuple[View, slice]] = {
        f"{view}-{start:08d}": (view, slice(start, start + _PART))
        for view, (images, _) in seen.items()
        for start in range(0, len(images.image_id), _PART)
    }
    shared = replace(ctx, progress=Progress(ctx, list(parts)).line)

    def do(name: str) -> None:
        tries_of(*parts[name], shared)
        with writing(ctx.name, ctx.asset, ctx.work):
            (ctx.work / f"{name}.json").write_text("{}")

    if not ctx.crew.work(ctx.work, list(parts), do, partial(finished, ctx)):
        return Product()  # a member: the run that it helps puts the rows together
    pairs = [tries_of(view, slice(None), ctx) for view in seen]
    tries, best = ([each.assign(captioner=named_model(captioner.identity)) for each in part]
                   for part in zip(*pairs, strict=True))  # fmt: skip
    every, top = (pd.concat(part, ignore_index=True) for part in (tries, best))
    scored = contract("caption_scores")
    files = {
        "caption_scores.parquet": plain_table_writer(scored, every[scored.names()]),
        "calibrated_captions.parquet": plain_table_writer(
            contract("calibrated_captions"), top[contract("calibrated_captions").names()]
        ),
    }
    settings = json.dumps(dict(captioner.identity.settings), sort_keys=True)
    written = every.drop(columns=list(SCORES)).assign(settings=settings, prompt="")
    about = {"kept_share": round(float(top["kept"].mean()), 4), "tries": len(every)}
    return Product(written[contract("captions").names()], files=files, metadata=about)


def _asks(images: _Images, measured: pd.DataFrame, seed: int) -> list[Ask]:
    """What is asked of the captioner: the picture, and the shares of what it shows."""
    from model_code.backends import Ask

    asks = []
    for picture, content, classes, shares in zip(
        images.pixels, images.sha256, measured["classes"], measured["shares"], strict=True
    ):
        seen = zip(classes, shares, strict=False) if len(shares) else ()
        ranked = sorted(((str(c), float(s)) for c, s in seen if s > 0), key=lambda pair: -pair[1])
        # Of the content, so that equal pictures get equal captions wherever they are.
        own = int(digest([content, seed])[:8], 16)
        asks.append(Ask(images.view, picture, dict(ranked), seed=own))
    return asks


_ANSWER = ["text", "error", "tokens_in", "tokens_out"]


class _Remembering:
    """A captioner that is asked for each caption once, whichever run asked."""

    def __init__(self, ctx: Context, captioner: Captioner, about: str) -> None:
        self._ctx, self._captioner, self._about = ctx, captioner, about
        self.identity = captioner.identity
        self._who = digest([asdict(captioner.identity), code_digests(backends.CODE["captioner"])])

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        import pandas as pd

        from model_code.backends import Answer

        def write(batch: np.ndarray) -> pd.DataFrame:
            return pd.DataFrame(
                [asdict(a) for a in self._captioner.caption([asks[i] for i in batch])]
            )

        keys = [
            digest([self._who, ask.kind, sha256_of(ask.picture), dict(ask.shares), ask.prompt, ask.seed,
                    ask.temperature])
            for ask in asks
        ]  # fmt: skip
        rows = kept_rows(self._ctx, "texts", keys, write, self._about)
        return [Answer(*row) for row in rows[_ANSWER].itertuples(index=False)]


def _scorer(ctx: Context, images: _Images, measured: pd.DataFrame) -> Scorer:
    """Scores captions of pictures, each once."""
    import numpy as np

    from model_code.calibration import score

    config = ctx.city.captions
    segmenter = backends.segmenter(config.segmenter, images.view)
    painter = backends.painter(config.painter, images.view, images.pixels.shape[1:3])
    clip = backends.clip(ctx.inputs["clip_checkpoint"], images.view)
    identities = [asdict(model.identity) for model in (segmenter, painter, clip)]
    who = digest([identities, code_digests(_SCORING), config.calibration.clip_share])
    shares = np.full((len(measured), len(segmenter.classes)), np.nan, np.float32)
    for row, found in zip(shares, measured["shares"], strict=True):
        if len(found):
            row[:] = found

    def scorer(positions: np.ndarray, texts: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
        def judge(batch: np.ndarray) -> pd.DataFrame:
            at = positions[batch]
            return score(
                list(images.pixels[at]),
                shares[at],
                [texts[i] for i in batch],
                painter,
                segmenter,
                clip,
                config.calibration,
                [seeds[i] for i in batch],
            )

        keys = [
            digest([who, images.sha256[at], text, seed])
            for at, text, seed in zip(positions, texts, seeds, strict=True)
        ]
        return kept_rows(ctx, "scores", keys, judge, f"{images.view}: scored")

    return scorer


def named_model(identity: Identity) -> str:
    """How rows name the model that made them."""
    return f"{identity.model} {identity.revision}"


def sha256_of(picture: np.ndarray | None) -> str:
    """Digest of a picture's content and shape."""
    return sha256(
        b"" if picture is None else repr(picture.shape).encode() + picture.tobytes()
    ).hexdigest()


def _histograms(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.score_histograms(written.frame())


@stage(group="captions", kinds=("numpy",), absent=_not_read, inputs=("captions",),
       picture=_histograms)  # fmt: skip
def caption_scores(ctx: Context) -> Product:
    """How well each caption fits its image."""
    return Product(ctx.inputs["captions"].arrow(file="caption_scores.parquet"))


_SHOWN = 4  # best and worst captions of a view on the contact sheet


def examples(ctx: Context, best: pd.DataFrame, shown: int) -> pd.DataFrame:
    """The `shown` best and worst captions of each view with all scores of the try that was taken,
    `rank` (`best` or `worst`), `picture`, and what the painter makes of it, `painted`."""
    import pandas as pd

    key = ["view", "image_id", "attempt"]
    tries = ctx.inputs["captions"]
    table = best.dropna(subset="perception_score").merge(tries.frame([*key, "seed"]), on=key)
    scores = tries.frame(file="caption_scores.parquet").drop(columns="perception_score")
    table = table.merge(scores, on=key).sort_values(
        ["perception_score", "image_id"], ascending=[False, True], kind="stable"
    )
    parts = []
    for images in _images(ctx):
        own = table[table["view"] == images.view]
        top, rest = own.iloc[:shown], own.iloc[shown:]
        rows = pd.concat([top.assign(rank="best"), rest.tail(shown).assign(rank="worst")])
        at = pd.Index(images.image_id).get_indexer(rows["image_id"])
        painter = backends.painter(ctx.city.captions.painter, images.view, images.pixels.shape[1:3])
        painted = painter.paint(rows["text"].to_list(), rows["seed"].to_list())
        parts.append(rows.assign(picture=list(images.pixels[at]), painted=painted))
    return pd.concat(parts, ignore_index=True)


def _gallery(ctx: Context, written: Written) -> bytes:
    """The best and the worst captions of each view, with what the painter makes of them."""
    from model_code.report import figures

    entries = examples(ctx, written.frame(), _SHOWN)
    return figures.caption_gallery(entries, title="Best and worst captions of each view")


@stage(group="captions", kinds=("numpy",), absent=_not_read,
       inputs=("captions", *_TABLE_OF.values()), reads=_pictures_of("captions"),
       config=("captions.painter", "chips.min_valid_share"), picture=_gallery)  # fmt: skip
def calibrated_captions(ctx: Context) -> Product:
    """The best try of each image, and whether it is fit for pretraining."""
    table = ctx.inputs["captions"].arrow(file="calibrated_captions.parquet")
    kept = table.column("kept").to_numpy(zero_copy_only=False)
    return Product(table, metadata={"kept_share": round(float(kept.mean()), 4)})


# --- towers and places ---------------------------------------------------------------------------


def _losses(ctx: Context, written: Written) -> bytes:
    """How the training of each view's towers went."""
    import pandas as pd

    from model_code.report import figures

    records = {
        p.stem: json.loads(p.read_text()) for p in sorted(written.path.parent.glob("*.json"))
    }
    rows = [
        {"variant": view, "split": "", "fold": 0, "validation": []}
        | {name: record[name] for name in ("seed", "loss")}
        for view, record in records.items()
        if "loss" in record
    ]
    return figures.loss_curves(pd.DataFrame(rows), title="Embedded CLIP: loss of each view")


@stage(group="captions", kinds=("safetensors",), table=None, absent=_no_captions,
       config=("captions.clip", "captions.seed"), code=("model_code.demo.pairs",),
       picture=_losses)  # fmt: skip
def clip_checkpoint(ctx: Context) -> Product:
    """A small CLIP a view, trained on generic pictures and sentences of no city; it scores captions,
    and methods start from its towers."""
    from model_code.demo.pairs import satellite_pairs, street_pairs
    from model_code.methods.base import Workspace
    from model_code.vision.clip import train_clip

    config, seed = ctx.city.captions.clip, ctx.city.captions.seed
    pairs = {"satellite": satellite_pairs, "street_view": street_pairs}

    def train(view: str) -> Iterator[tuple[str, Checkpoint]]:
        say = partial(_say, ctx, view)
        pictures, texts = pairs[view](config.pairs + config.held_out, seed, say)
        workspace = Workspace(say, ctx.work / f"{view}.resume")
        yield view, train_clip(pictures, texts, config, seed=seed, workspace=workspace)

    fit_together(ctx, list(pairs), train)
    metadata = {}
    for view in pairs:
        record = json.loads((ctx.work / f"{view}.json").read_text())
        metadata[view] = {k: v for k, v in record.items() if isinstance(v, int | float)}
    return Product(files=kept(ctx, list(pairs)), metadata=metadata)


def _say(ctx: Context, view: str, line: str) -> None:
    assert ctx.crew is not None
    ctx.crew.beat()
    ctx.progress(f"{view}: {line}")


def _no_locations(city: City) -> str:
    if not city.sources.street_views:
        return "the city's YAML has no sources.street_views"
    needed = any("view_locations" in METHODS[name].needs for name in city.methods)
    return "" if needed else "no method of the city reads it"


@stage(group="captions", kinds=("torch",), absent=_no_locations, inputs=("region_street_views",),
       settings=lambda city: {"geoclip": version("geoclip")},
       code=("model_code.vision.location",))  # fmt: skip
def location_features(ctx: Context) -> Product:
    """GeoCLIP's features of the places of street views, which no training changes."""
    from model_code.vision.location import location_features as encode

    views = ctx.inputs["region_street_views"].frame(["region_id", "view_id", "lon", "lat"])
    features = encode(views[["lon", "lat"]].to_numpy())
    return Product(views[["region_id", "view_id"]].assign(feature=list(features)))
