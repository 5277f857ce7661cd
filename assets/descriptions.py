"""What a region is, does, and when it empties, told of each of its modalities, and encoded.

One description a region and modality: of its satellite chip, of a sheet of its street views, of its
height map, of its list of POIs. Rows are kept by what they rest on, as captions are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from assets.asking import Forecast, Remembering, forecast, named_model, sha256_of
from assets.captions import kept_rows, must_hold_one, prompts_and_models, stamps_of, told
from assets.inputs import Pictures, measured_shares, region_data
from assets.stage import Context, Product, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.fingerprint import digest
from model_code.lazy import Lazy
from model_code.methods import METHODS
from resources import backends

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from model_code.backends import Ask, Form

# The table of each modality, and the config key of its source.
_TABLE_OF = {
    "satellite": ("region_chips", "imagery"),
    "street_view": ("region_street_views", "street_views"),
    "heights": ("heights", "buildings"),
    "pois": ("poi_counts", "pois"),
}
_WARMER = 0.5  # temperature of a second try


def forms(city: City) -> list[Form]:
    """The forms of description that this city's methods read."""
    from model_code.methods.run import variant_configs

    found: set[Form] = set()
    for name, choice in city.methods.items():
        if "descriptions" in METHODS[name].needs:
            for config in variant_configs(name, choice.config, choice.variants).values():
                if "descriptions" not in config.switched_off():
                    found.add(getattr(config, "form", "levels"))
    return sorted(found)


def _no_descriptions(city: City) -> str:
    if city.captions is None:
        return "the city's YAML has no captions"
    return "" if forms(city) else "no method of the city reads it"


def _reads(city: City) -> tuple[str, ...]:
    tables = [table for table, source in _TABLE_OF.values() if getattr(city.sources, source)]
    pictured = city.sources.imagery or city.sources.street_views
    return ("regions", *tables, *(("image_shares",) if pictured else ()))


@dataclass(frozen=True)
class _Subjects:
    """What is to be described of one modality: regions [R], what each description rests on [R], and
    what is asked of each, without form or seed."""

    modality: str
    region_id: np.ndarray
    content: list[Any]
    ask: Callable[[int], Ask]


def _subjects(ctx: Context) -> Iterator[_Subjects]:
    if "region_chips" in ctx.inputs and ctx.has("region_chips"):
        yield _chips(ctx)
    if "heights" in ctx.inputs and ctx.has("heights"):
        yield _heights(ctx)
    if "poi_counts" in ctx.inputs and ctx.has("poi_counts"):
        yield _pois(ctx)
    if "region_street_views" in ctx.inputs and ctx.has("region_street_views"):
        yield _views(ctx)


def _chips(ctx: Context) -> _Subjects:
    from model_code.backends import Ask
    from model_code.vision.segment_classes import element_shares

    floor = ctx.city.chips.min_valid_share
    pictures = Pictures(ctx.inputs["region_chips"], "satellite", floor)
    classes, shares = measured_shares(ctx.inputs["image_shares"], "satellite", pictures.image_id)
    return _Subjects(
        "satellite",
        pictures.region_id,
        [sha256_of(picture) for picture in pictures],
        lambda i: Ask("satellite", pictures[i], element_shares(classes, shares[i])),
    )


def _views(ctx: Context) -> _Subjects:
    """A region's street views on one sheet: one question a region, as one description a modality is
    what the method reads, at a price that does not grow with the views."""
    import warnings

    import numpy as np

    from model_code.backends import Ask
    from model_code.vision.renders import sheet
    from model_code.vision.segment_classes import element_shares

    config = ctx.city.captions
    pictures = Pictures(ctx.inputs["region_street_views"], "street_view", 0.0)
    regions = pictures.region_id
    classes, shares = measured_shares(ctx.inputs["image_shares"], "street_view", pictures.image_id)
    contents = [sha256_of(picture) for picture in pictures]
    # By lot of each view's own content: one view more changes what its region shows, and no other.
    draw = np.array([digest([content, config.seed]) for content in contents])
    order = np.lexsort((draw, regions))
    named, first, count = np.unique(regions[order], return_index=True, return_counts=True)
    shown = [
        order[start : start + min(n, config.descriptions.views)]
        for start, n in zip(first, count, strict=True)
    ]

    def ask(i: int) -> Ask:
        with warnings.catch_warnings():  # the mean of nothing is NaN, and means that
            warnings.simplefilter("ignore", RuntimeWarning)
            mean = np.nanmean(shares[shown[i]].astype(np.float64), axis=0)
        shown_of = np.stack([pictures[view] for view in shown[i]])
        return Ask("street_view", sheet(shown_of), element_shares(classes, mean))

    return _Subjects("street_view", named, [[contents[v] for v in views] for views in shown], ask)


def _heights(ctx: Context) -> _Subjects:
    import numpy as np

    from model_code.backends import Ask

    data = region_data(ctx.inputs, ("buildings",), 0.0)
    assert data.heights is not None and data.height_present is not None
    heights = data.heights
    rows = np.flatnonzero(data.height_present & np.isfinite(heights).any(axis=(1, 2)))
    return _Subjects(
        "heights",
        data.region_ids[rows],
        [sha256_of(heights[row]) for row in rows],
        lambda i: Ask("heights", heights_m=heights[rows[i]]),
    )


def _pois(ctx: Context) -> _Subjects:
    """The categories of a region's POIs, which are what a description reads; a region without any is
    not described."""
    import numpy as np

    from model_code.backends import Ask

    data = region_data(ctx.inputs, ("pois",), 0.0)
    assert data.poi_counts is not None
    counts = data.poi_counts.astype(np.int64)
    rows = np.flatnonzero(counts.sum(axis=1))

    def pois(i: int) -> list[tuple[str, str]]:
        return [("", name) for name in np.repeat(data.poi_categories, counts[rows[i]]).tolist()]

    return _Subjects(
        "pois",
        data.region_ids[rows],
        [dict(zip(data.poi_categories, counts[row].tolist(), strict=True)) for row in rows],
        lambda i: Ask("pois", pois=pois(i)),
    )


def _describe(
    ctx: Context, captioner: Remembering, subjects: _Subjects, form: Form
) -> dict[str, list[Any]]:
    """The columns of one modality in one form. An answer that holds no three levels is asked for
    again, with another seed and warmer."""
    import numpy as np

    from model_code.text.levels import as_text, parse
    from model_code.text.prompts import prompt_id

    config = ctx.city.captions
    seeds = _seeds(ctx, subjects)
    count = len(subjects.region_id)
    answers: list[Any] = [None] * count
    levels: list[Any] = [None] * count
    errors, tries = [""] * count, [0] * count
    captioner.about = f"{subjects.modality}: described ({form})"
    waiting = list(range(count))
    for attempt in range(config.descriptions.tries):
        if not waiting:
            break
        how = {"form": form, "temperature": _WARMER if attempt else 0.0}

        def ask(i: int, attempt: int = attempt, how: Any = how) -> Ask:
            return replace(subjects.ask(i), seed=seeds[i] + attempt, **how)

        # Lazy: pictures of all regions would not fit.
        for i, answer in zip(waiting, captioner.caption(Lazy(waiting, ask)), strict=True):
            answers[i], tries[i] = answer, attempt + 1
            levels[i], errors[i] = (None, answer.error) if answer.error else parse(answer.text)
        waiting = [i for i in waiting if levels[i] is None and not answers[i].final]
    return {
        "form": [form] * count,
        "modality": [subjects.modality] * count,
        "region_id": subjects.region_id.tolist(),
        "tries": tries,
        "land": [found.land if found else "" for found in levels],
        "activity": [found.activity if found else None for found in levels],
        "departures": [found.departures if found else [] for found in levels],
        "text": [as_text(found) if found else "" for found in levels],
        "error": errors,
        "prompt": [prompt_id(form) if "prompts" in ctx.settings else ""] * count,
        "seed": [seed + tried - 1 for seed, tried in zip(seeds, tries, strict=True)],
        "temperature": [_WARMER if tried > 1 else 0.0 for tried in tries],
        "tokens_in": [answer.tokens_in for answer in answers],
        "tokens_out": [answer.tokens_out for answer in answers],
        "took_s": [answer.seconds for answer in answers],
        "requests": np.array([answer.requests for answer in answers], np.int32),
    }


def forecast_of(ctx: Context) -> Forecast:
    """What a run would ask of the captioner as the tables stand; no model is loaded. Second tries are
    told, and not counted: they are for answers that hold no three levels."""
    config = ctx.city.captions

    def asks(subjects: _Subjects, form: Form) -> Iterator[Ask]:
        for i, seed in enumerate(_seeds(ctx, subjects)):
            yield replace(subjects.ask(i), seed=seed, form=form)

    groups = {
        f"{subjects.modality} {form}": asks(subjects, form)
        for subjects in _subjects(ctx)
        for form in ctx.settings["forms"]
    }
    again = "an answer that holds no three levels is asked for again"
    tries = config.descriptions.tries
    return forecast(ctx, backends.captioner(config), groups, tries - 1, again)


def _seeds(ctx: Context, subjects: _Subjects) -> list[int]:
    """Of the content, so that equal content is described equally wherever it is."""
    return [int(digest([c, ctx.city.captions.seed])[:8], 16) for c in subjects.content]


def _settings(city: City) -> dict[str, Any]:
    return {"forms": forms(city), **prompts_and_models("captioner")(city)}


@stage(group="captions", kinds=("jinja",), absent=_no_descriptions, reads=_reads,
       inputs=("regions", "image_shares", *(table for table, _ in _TABLE_OF.values())),
       config=("captions.captioner", "captions.wrong_share", "captions.descriptions",
               "captions.seed", "chips.min_valid_share"),
       settings=_settings, code=backends.CODE["captioner"])  # fmt: skip
def region_descriptions(ctx: Context) -> Product:
    """Each modality of each region in three levels: what the land is for, how busy it is, and when
    people leave."""
    import pandas as pd

    from model_code.tables import contract

    table = contract("region_descriptions")
    with backends.captioning(ctx.city.captions) as writer:
        captioner = Remembering(ctx, writer, "described")
        parts = [
            pd.DataFrame(_describe(ctx, captioner, subjects, form))
            for subjects in _subjects(ctx)
            for form in ctx.settings["forms"]
        ]
    if not sum(map(len, parts)):
        raise DataError(
            f"city {ctx.name!r} has nothing to describe: no chip, street view, building or POI lies "
            "in a region",
            fix="look at `rejected`, or take the methods that read descriptions out",
        )
    rows = told(pd.concat(parts, ignore_index=True), captioner.identity)
    must_hold_one(ctx, rows, "region is described")
    rows["activity"] = rows["activity"].astype("float64")
    about = {"described_share": round(float((rows["text"] != "").mean()), 4)}
    return Product(
        rows.sort_values(list(table.key), ignore_index=True)[table.names()],
        metadata=about | captioner.metadata(),
        unanswered=captioner.unanswered(),
    )


@stage(group="captions", kinds=("numpy",), absent=_no_descriptions, inputs=("region_descriptions",),
       config=("captions.text_embedding",), settings=stamps_of("text_embedding"),
       code=backends.CODE["text_embedding"])  # fmt: skip
def description_features(ctx: Context) -> Product:
    """The descriptions as vectors of a sentence encoder that no training changes."""
    import pandas as pd

    encoder = backends.text_embedding(ctx.city.captions)
    who = backends.who(encoder.identity, "text_embedding")
    rows = ctx.inputs["region_descriptions"].frame(["form", "modality", "region_id", "text"])
    texts = rows["text"].to_list()

    def encode(batch: np.ndarray) -> pd.DataFrame:
        vectors = encoder.encode([texts[i] for i in batch])
        there = [v if texts[i] else v[:0] for i, v in zip(batch, vectors, strict=True)]
        return pd.DataFrame({"feature": there})

    found = kept_rows(ctx, "vectors", [digest([who, text]) for text in texts], encode, "encoded")
    table = rows[["form", "modality", "region_id"]].assign(
        encoder=named_model(encoder.identity), feature=found["feature"].to_list()
    )
    return Product(table, metadata={"width": encoder.width})
