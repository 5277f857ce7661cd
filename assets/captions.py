"""What pictures say: shares of what they show, captions, their scores, frozen features.

Two views: a chip a region (`satellite`), and the street views. Rows are kept by what they rest on,
so that one changed picture costs one segmentation, one caption and one score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.asking import (
    Forecast,
    Remembering,
    forecast,
    named_model,
    prompted,
    prompting,
    sha256_of,
)
from assets.fits import Progress, finished, fit_together, kept
from assets.inputs import Pictures, measured_shares
from assets.stage import Context, Product, Written, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.fingerprint import code_digests, digest
from model_code.lazy import Lazy
from model_code.methods import Modality
from model_code.progress import Meter
from model_code.tables import contract
from resources import backends
from resources.disk import writing
from resources.lake import Writer, plain_table_writer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from model_code.backends import Ask, Clip, Identity, Painter, Picture, Segmenter, View
    from model_code.calibration import Scorer
    from model_code.methods.base import Checkpoint
    from model_code.vision.loading import Memory


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
    return _unread(city, "chip_captions", "view_captions")


def _unread(city: City, *modalities: Modality) -> str:
    from model_code.methods.run import modalities_read

    read = modalities_read(city.methods)
    return "" if read.intersection(modalities) else "no method of the city reads it"


def _pictures_of(*others: str) -> Any:
    """The inputs that give this city's pictures, and others."""
    return lambda city: (*(_TABLE_OF[view] for view in _views(city)), *others)


@dataclass(frozen=True)
class _Images:
    """Pictures of one view."""

    view: View
    pictures: Pictures

    @cached_property
    def sha256(self) -> list[str]:
        """Of each."""
        return [sha256_of(picture) for picture in self.pictures]

    def part(self, part: slice) -> _Images:
        """Some of them."""
        found = _Images(self.view, self.pictures[part])
        found.__dict__["sha256"] = self.sha256[part]  # where the property keeps it
        return found

    def named(self, **columns: Any) -> pd.DataFrame:
        """A table with a row an image."""
        import pandas as pd

        pictures = self.pictures
        ids = {"image_id": pictures.image_id, "region_id": pictures.region_id}
        return pd.DataFrame({"view": self.view, **ids, "sha256": self.sha256, **columns})

    def at(self, image_id: pd.Series) -> np.ndarray:
        """Where pictures stand."""
        import pandas as pd

        return pd.Index(self.pictures.image_id).get_indexer(image_id)

    def unjudged(self, note: str) -> pd.DataFrame:
        """Rows of `image_shares` where nobody looked."""
        import numpy as np

        count = len(self.pictures)
        shares = [np.empty(0, np.float32)] * count
        return self.named(segmenter="", classes=[[]] * count, shares=shares, note=note)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table whose `position` counts images, with their names."""
        names = self.named().loc[table["position"]].set_axis(table.index)
        return table.join(names)


def stamps_of(*keys: str) -> Callable[[City], dict[str, str]]:
    """What the folders of models hold that these keys of `captions` name."""

    def found(city: City) -> dict[str, str]:
        return backends.stamps(*(getattr(city.captions, key) for key in keys))

    return found


def prompts_and_models(*keys: str) -> Callable[[City], dict[str, Any]]:
    """What prompts rest on, and what the folders of models hold that these keys of `captions` name."""

    def found(city: City) -> dict[str, Any]:
        models = stamps_of(*keys)(city)
        return prompting(city) | ({"models": models} if models else {})

    return found


def _images(ctx: Context) -> list[_Images]:
    """The pictures of each view that the city has."""
    found = []
    for view, table in sorted(_TABLE_OF.items()):
        if table in ctx.inputs and ctx.has(table):
            pictures = Pictures(ctx.inputs[table], view, ctx.city.chips.min_valid_share)
            if len(pictures):
                found.append(_Images(view, pictures))
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
       settings=stamps_of("segmenter"), data_files=("model_code/vision/classes/*.csv",),
       code=backends.CODE["segmenter"])  # fmt: skip
def image_shares(ctx: Context) -> Product:
    """What chips and street views show, measured by the segmenter of their view."""
    import pandas as pd

    parts = []
    for images in _images(ctx):
        with backends.segmenting(ctx.city.captions.segmenter, images.view) as segmenter:
            parts.append(_judged(ctx, images, segmenter))
    table = pd.concat(parts, ignore_index=True)
    return Product(table, metadata={"not_judged": int((table["note"] != "").sum())})


def _judged(ctx: Context, images: _Images, segmenter: Segmenter | None) -> pd.DataFrame:
    """Rows of `image_shares` of a view."""
    import pandas as pd

    if segmenter is None:
        return images.unjudged(f"the city names no segmenter of the view {images.view}")
    who = backends.who(segmenter.identity, "segmenter")

    def segment(batch: np.ndarray) -> pd.DataFrame:
        found = segmenter.segment([images.pictures[i] for i in batch])
        there = [
            row if not why else row[:0]
            for row, why in zip(found.shares, found.reasons, strict=True)
        ]
        return pd.DataFrame({"shares": there, "note": found.reasons})

    keys = [digest([sha, who]) for sha in images.sha256]
    rows = kept_rows(ctx, "shares", keys, segment, f"{images.view}: segmented")
    return images.named(
        segmenter=named_model(segmenter.identity),
        classes=[list(segmenter.classes)] * len(images.sha256),
        shares=rows["shares"].to_list(),
        note=rows["note"].to_list(),
    )


# --- captions and their scores -------------------------------------------------------------------


@stage(group="captions", kinds=("jinja",), absent=_not_read,
       inputs=("clip_checkpoint", "image_shares", *_TABLE_OF.values()),
       reads=_pictures_of("clip_checkpoint", "image_shares"),
       config=("captions", "chips.min_valid_share"),
       settings=prompts_and_models("captioner", "segmenter", "painter"), code=_SCORING)  # fmt: skip
def captions(ctx: Context) -> Product:
    """Every caption of every image: one that scores too low is written again."""
    with backends.memory(ctx.city.captions.memory_gib) as memory:
        return _captions(ctx, memory)


def _captions(ctx: Context, memory: Memory) -> Product:
    import pandas as pd

    from model_code.calibration import SCORES

    assert ctx.crew is not None
    config = ctx.city.captions
    captioner = backends.captioner(config, memory)
    seen = {images.view: (images, *_asks(ctx, images)) for images in _images(ctx)}
    writers = {view: Remembering(ctx, captioner, f"{view}: captions") for view in seen}

    judges = {view: _judges(ctx, images, memory) for view, (images, *_) in seen.items()}

    def tries_of(view: View, part: slice, ctx: Context) -> tuple[pd.DataFrame, pd.DataFrame]:
        from model_code.calibration import calibrate

        images, asks, shares = seen[view]
        writers[view].progress = ctx.progress
        scorer = _scorer(ctx, images.part(part), shares[part], judges[view])
        every, top = calibrate(asks[part], writers[view], scorer, config.calibration.of(view))
        return images.part(part).of(every), images.part(part).of(top)

    if _light(config) and not _shared(ctx, seen, tries_of):
        return Product()  # a member: the run that it helps puts the rows together
    pairs = [tries_of(view, slice(None), ctx) for view in seen]
    tries, best = ([each.assign(captioner=named_model(captioner.identity)) for each in part]
                   for part in zip(*pairs, strict=True))  # fmt: skip
    every, top = (pd.concat(part, ignore_index=True) for part in (tries, best))
    must_hold_one(ctx, every, "picture got a caption")
    scored = contract("caption_scores")
    files: dict[str, Writer] = {
        "caption_scores.parquet": plain_table_writer(scored, every[scored.names()]),
        "calibrated_captions.parquet": plain_table_writer(
            contract("calibrated_captions"), top[contract("calibrated_captions").names()]
        ),
    }
    if config.keep_painted:
        for view, (images, *_) in seen.items():
            files |= _sheets(ctx, images, judges[view].painter, top, every)
    written = told(every.drop(columns=list(SCORES)), captioner.identity)
    about = {"kept_share": round(float(top["kept"].mean()), 4), "tries": len(every)}
    about["errors"] = int((every["error"] != "").sum())
    unanswered = {view: left for view, w in writers.items() if (left := w.unanswered())}
    return Product(
        written[contract("captions").names()],
        files=files,
        metadata=about | {view: m for view, w in writers.items() if (m := w.metadata())},
        unanswered={
            "count": sum(left["count"] for left in unanswered.values()),
            "asks": digest(unanswered),
        }
        if unanswered
        else {},
    )


def _light(config: Any) -> bool:
    """Whether all that writes and judges captions runs anywhere, so that several processes may. A real
    model has a machine or a server of its own to keep busy, and memory for one: one process asks."""
    from model_code.vision.model_choices import VIEWS, of_view

    judges = [
        config.painter,
        *(of_view(c, v) for c in (config.segmenter, config.clip) for v in VIEWS),
    ]
    embedded = all(choice.kind in ("embedded", "none") for choice in judges)
    return config.captioner.kind == "template" and embedded


def _shared(ctx: Context, seen: Mapping[View, tuple[_Images, Any, Any]], tries_of: Any) -> bool:
    """Share parts of the pictures among processes, which leave their rows in the lake; false in a
    member."""
    assert ctx.crew is not None
    parts: dict[str, tuple[View, slice]] = {
        f"{view}-{start:08d}": (view, slice(start, start + _PART))
        for view, (images, *_) in seen.items()
        for start in range(0, len(images.pictures), _PART)
    }
    shared = replace(ctx, progress=Progress(ctx, list(parts)).line)

    def do(name: str) -> None:
        tries_of(*parts[name], shared)
        with writing(ctx.name, ctx.asset, ctx.work):
            (ctx.work / f"{name}.json").write_text("{}")

    return ctx.crew.work(ctx.work, list(parts), do, partial(finished, ctx))


def must_hold_one(ctx: Context, rows: pd.DataFrame, what: str) -> None:
    """Raises:
    DataError: there are rows, and all are errors.
    """
    if len(rows) and not (rows["error"] == "").any():
        raise DataError(
            f"city {ctx.name!r}: no {what}; the first failed with: {rows['error'].iloc[0]}",
            fix="look at captions.captioner, then run again",
        )


def told(tries: pd.DataFrame, identity: Identity) -> pd.DataFrame:
    """Tries with the columns that say who wrote them, and how it went."""
    import numpy as np

    return tries.assign(
        captioner=named_model(identity),
        settings=json.dumps(dict(identity.settings), sort_keys=True),
        status=np.where(tries["error"] == "", "ok", "error").astype(object),
    )


def _asks(ctx: Context, images: _Images) -> tuple[Lazy[Ask], np.ndarray]:
    """What is asked of the captioner: the picture, and the shares of what it shows; of a real one
    with a prompt that also tells the city and the place of a street view. And the shares, float32 [B, K]."""
    from model_code.backends import Ask
    from model_code.text.prompts import completed
    from model_code.vision.segment_classes import element_shares

    pictures = images.pictures
    classes, shares = measured_shares(ctx.inputs["image_shares"], images.view, pictures.image_id)
    # Of the content, so that equal pictures get equal captions wherever they are.
    seeds = [int(digest([content, ctx.city.captions.seed])[:8], 16) for content in images.sha256]
    title, places = ctx.settings.get("title"), [None] * len(pictures)
    if title is not None and images.view == "street_view":
        table = ctx.inputs[_TABLE_OF[images.view]].frame(["view_id", "lon", "lat"])
        table = table.set_index("view_id").loc[pictures.image_id]
        places = list(table.itertuples(index=False, name=None))

    def ask(i: int) -> Ask:
        made = Ask(images.view, pictures[i], element_shares(classes, shares[i]), seed=seeds[i])
        return made if title is None else completed(made, city=title, lonlat_deg=places[i])

    return Lazy(range(len(pictures)), ask), shares


@dataclass(frozen=True)
class _Judges:
    """The models that score captions of one view."""

    segmenter: Segmenter | None
    painter: Painter
    clip: Clip

    def who(self) -> list[str | None]:
        """What tells them from others."""
        return [
            None if self.segmenter is None else backends.who(self.segmenter.identity, "segmenter"),
            backends.who(self.painter.identity, "painter"),
            backends.who(self.clip.identity, "clip"),
        ]


def _judges(ctx: Context, images: _Images, memory: Memory) -> _Judges:
    config = ctx.city.captions
    painter = backends.painter(config.painter, images.view, images.pictures.size_px, memory)
    return _Judges(
        backends.segmenter(config.segmenter, images.view, memory),
        _Keeping(ctx, painter) if config.keep_painted else painter,
        backends.clip(ctx.inputs["clip_checkpoint"], images.view, memory),
    )


class _Keeping:
    """A painter whose paintings are kept, small."""

    def __init__(self, ctx: Context, painter: Painter) -> None:
        assert ctx.rows is not None
        self._painter, self._store = painter, ctx.rows("paintings")
        self.identity = painter.identity
        self._who = backends.who(painter.identity, "painter")

    def paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        import pandas as pd

        from model_code.report.contact_sheet import small

        pictures = self._painter.paint(texts, seeds)
        keys = pd.Index(self.keys(texts, seeds))
        rows = pd.DataFrame({"painted": [small(picture) for picture in pictures]}, index=keys)
        self._store.add(rows[~keys.duplicated() & ~keys.isin(self._store.known(keys).index)])
        return pictures

    def keys(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [digest([self._who, t, int(s)]) for t, s in zip(texts, seeds, strict=True)]

    def kept(self, ctx: Context, texts: Sequence[str], seeds: Sequence[int]) -> list[bytes]:
        """Paintings of texts as small JPEGs; those that no score needed are painted now."""
        import pandas as pd

        from model_code.report.contact_sheet import small

        def paint(batch: np.ndarray) -> pd.DataFrame:
            painted = self._painter.paint([texts[i] for i in batch], [int(seeds[i]) for i in batch])
            return pd.DataFrame({"painted": [small(picture) for picture in painted]})

        keys = self.keys(texts, seeds)
        return kept_rows(ctx, "paintings", keys, paint, "painted")["painted"].to_list()


def _sheets(
    ctx: Context, images: _Images, painter: Painter, best: pd.DataFrame, tries: pd.DataFrame
) -> dict[str, Writer]:
    """By name, contact sheets of the pictures of a view and of what was painted from their captions, in the
    order of the table of pictures, so that each of its row groups is read once."""
    from model_code.report.contact_sheet import PAIRS, sheet

    assert isinstance(painter, _Keeping)
    key = ["view", "image_id", "attempt"]
    told = best[best["text"] != ""].merge(tries[[*key, "seed"]], on=key)
    told = told[told["view"] == images.view]
    told = told.assign(at=images.at(told["image_id"])).sort_values("at")
    painted = painter.kept(ctx, told["text"].to_list(), told["seed"].to_list())
    at, names = told["at"].to_list(), told["image_id"].to_list()

    def page(start: int, path: Path) -> None:
        part = slice(start, start + PAIRS)
        path.write_bytes(sheet([images.pictures[i] for i in at[part]], painted[part], names[part]))

    return {
        f"painted_{images.view}_{start // PAIRS:04d}.jpg": partial(page, start)
        for start in range(0, len(names), PAIRS)
    }


def _scorer(ctx: Context, images: _Images, shares: np.ndarray, judges: _Judges) -> Scorer:
    """Scores captions of pictures, of which `shares` [B, K] were measured, each once."""
    from model_code.calibration import score

    config, segmenter = ctx.city.captions.calibration.of(images.view), judges.segmenter
    code = code_digests(["model_code.calibration:score"])
    who = digest([judges.who(), code, config.clip_share])

    def scorer(positions: np.ndarray, texts: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
        def judge(batch: np.ndarray) -> pd.DataFrame:
            at = positions[batch]
            return score(
                [images.pictures[i] for i in at],
                shares[at],
                [texts[i] for i in batch],
                judges.painter,
                segmenter,
                judges.clip,
                config,
                [seeds[i] for i in batch],
            )

        keys = [
            digest([who, images.sha256[at], text, seed])
            for at, text, seed in zip(positions, texts, seeds, strict=True)
        ]
        return kept_rows(ctx, "scores", keys, judge, f"{images.view}: scored")

    return scorer


def _histograms(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.score_histograms(written.frame())


@stage(group="captions", kinds=("numpy",), absent=_not_read, inputs=("captions",),
       picture=_histograms)  # fmt: skip
def caption_scores(ctx: Context) -> Product:
    """How well each caption fits its image."""
    from model_code.report.captions import score_summary

    table = ctx.inputs["captions"].arrow(file="caption_scores.parquet")
    return Product(table, metadata=score_summary(table.to_pandas()))


_SHOWN = 10  # best and worst captions of a view on the contact sheet


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
        choice, size_px = ctx.city.captions.painter, images.pictures.size_px
        with backends.painting(choice, images.view, size_px) as painter:
            painted = painter.paint(rows["text"].to_list(), rows["seed"].to_list())
        shown_of = [images.pictures[i] for i in images.at(rows["image_id"])]
        parts.append(rows.assign(picture=shown_of, painted=painted))
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
    from model_code.report.captions import calibration_summary

    table = ctx.inputs["captions"].arrow(file="calibrated_captions.parquet")
    frame = table.to_pandas()
    kept_share = {"kept_share": round(float(frame["kept"].mean()), 4)}
    return Product(table, metadata=kept_share | calibration_summary(frame))


# --- what is said of a region's POIs -------------------------------------------------------------


def _no_poi_captions(city: City) -> str:
    if city.captions is None:
        return "the city's YAML has no captions"
    if not city.sources.pois:
        return "the city's YAML has no sources.pois"
    return _unread(city, "poi_descriptions")


@stage(group="captions", kinds=("jinja",), absent=_no_poi_captions, inputs=("poi_texts",),
       config=("captions.captioner", "captions.wrong_share", "captions.seed"),
       settings=prompts_and_models("captioner"))  # fmt: skip
def poi_descriptions(ctx: Context) -> Product:
    """What each region is used for, written from its POIs alone."""
    import numpy as np
    import pandas as pd

    regions, asks = _poi_asks(ctx)
    with backends.captioning(ctx.city.captions) as captioner:
        writer = Remembering(ctx, captioner, "regions: described by their POIs")
        answers = writer.caption(asks)
    table = pd.DataFrame(
        {
            "region_id": regions,
            "text": np.array(["" if a.error else a.text for a in answers], object),
            "error": np.array([a.error for a in answers], object),
            "prompt": np.array([ask.prompt_id for ask in asks], object),
            "seed": np.array([ask.seed for ask in asks], np.int64),
            "temperature": np.array([ask.temperature for ask in asks], np.float64),
            "tokens_in": np.array([a.tokens_in for a in answers], np.int64),
            "tokens_out": np.array([a.tokens_out for a in answers], np.int64),
            "took_s": np.array([a.seconds for a in answers], np.float64),
            "requests": np.array([a.requests for a in answers], np.int32),
        }
    )
    must_hold_one(ctx, table, "region is described by its POIs")
    table = told(table, captioner.identity)[contract("poi_descriptions").names()]
    errors = {"errors": int((table["error"] != "").sum())}
    return Product(table, metadata=errors | writer.metadata(), unanswered=writer.unanswered())


def _poi_asks(ctx: Context) -> tuple[list[str], list[Ask]]:
    """Regions that have POIs with a name, and what is asked of each."""
    from model_code.backends import Ask

    table = ctx.inputs["poi_texts"].frame(["region_id", "names", "name_categories"])
    table = table[table["names"].map(len) > 0].sort_values("region_id")
    asks = []
    for names, categories in zip(table["names"], table["name_categories"], strict=True):
        pois = list(zip(map(str, names), map(str, categories), strict=True))
        own = int(digest([pois, ctx.city.captions.seed])[:8], 16)
        asks.append(Ask("pois", pois=pois, seed=own))
    return table["region_id"].to_list(), prompted(asks) if ctx.settings else asks


def forecasts(contexts: dict[str, Context]) -> dict[str, Forecast]:
    """By stage, what a run would ask of the captioner as the tables stand; no model is loaded.

    Args:
        contexts: of `captions` and `poi_descriptions`, those that the city has.
    """
    found = {}
    if ctx := contexts.get("captions"):
        groups = {images.view: _asks(ctx, images)[0] for images in _images(ctx)}
        captioner = backends.captioner(ctx.city.captions)
        calibration = ctx.city.captions.calibration
        retries = max(calibration.of(view).retries for view in groups)
        found["captions"] = forecast(ctx, captioner, groups, retries)
    if ctx := contexts.get("poi_descriptions"):
        captioner = backends.captioner(ctx.city.captions)
        found["poi_descriptions"] = forecast(ctx, captioner, {"regions": _poi_asks(ctx)[1]})
    return found


# --- towers and places ---------------------------------------------------------------------------


def _losses(ctx: Context, written: Written) -> bytes | None:
    """How the training of each view's towers went; nothing where none was trained."""
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
    if not rows:
        return None
    return figures.loss_curves(pd.DataFrame(rows), title="Embedded CLIP: loss of each view")


@stage(group="captions", kinds=("safetensors",), table=None, absent=_no_captions,
       config=("captions.clip", "captions.seed"), code=("model_code.demo.pairs",),
       picture=_losses)  # fmt: skip
def clip_checkpoint(ctx: Context) -> Product:
    """A CLIP a view, that scores captions, and from whose towers methods start: a small one, trained on
    generic pictures and sentences of no city, or a pretrained one, weighed by such pairs."""
    from model_code.demo.pairs import satellite_pairs, street_pairs
    from model_code.methods.base import Workspace
    from model_code.vision.model_choices import of_view

    seed = ctx.city.captions.seed
    pairs: dict[View, Any] = {"satellite": satellite_pairs, "street_view": street_pairs}

    def make(view: View) -> Iterator[tuple[str, Checkpoint]]:
        say = partial(_say, ctx, view)
        config = of_view(ctx.city.captions.clip, view)
        if config.kind == "open_clip":
            from model_code.vision.open_clip_models import pretrained_checkpoint

            pictures, texts = pairs[view](config.held_out, seed, say)
            yield view, pretrained_checkpoint(config, pictures, [of[0] for of in texts])
        else:
            from model_code.vision.clip import train_clip

            pictures, texts = pairs[view](config.pairs + config.held_out, seed, say)
            workspace = Workspace(say, ctx.work / f"{view}.resume")
            yield view, train_clip(pictures, texts, config, seed=seed, workspace=workspace)

    fit_together(ctx, list(pairs), make)
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
    return _unread(city, "view_locations")


@stage(group="captions", kinds=("torch",), absent=_no_locations, inputs=("region_street_views",),
       settings=lambda city: {"geoclip": version("geoclip")},
       code=("model_code.vision.location",))  # fmt: skip
def location_features(ctx: Context) -> Product:
    """GeoCLIP's features of the places of street views, which no training changes."""
    from model_code.vision.location import location_features as encode

    views = ctx.inputs["region_street_views"].frame(["region_id", "view_id", "lon", "lat"])
    features = encode(views[["lon", "lat"]].to_numpy())
    return Product(views[["region_id", "view_id"]].assign(feature=list(features)))
