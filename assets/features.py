"""Frozen features of pictures, by the encoder that the city's YAML names.

Pictures are read from their table a few at a time, and rows are kept as they come: no table of pictures
has to fit into memory, and a killed run goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assets.asking import named_model, sha256_of
from assets.inputs import TABLE_OF, Pictures
from assets.stage import Context, Product, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.fingerprint import digest
from model_code.progress import Meter
from model_code.tables import contract
from resources import backends

if TYPE_CHECKING:
    import pandas as pd

    from model_code.backends import ImageEncoder, View
    from resources.rows import RowStore

_BATCH = 256  # pictures whose rows are kept together
_TABLES: dict[View, str] = {
    "satellite": TABLE_OF["imagery"],
    "street_view": TABLE_OF["street_views"],
}


def _views(city: City) -> list[View]:
    named = {"satellite": city.sources.imagery, "street_view": city.sources.street_views}
    return [view for view in _TABLES if named[view]]


def _no_encoder(city: City) -> str:
    if city.image_encoder is None:
        return "the city's YAML names no image_encoder"
    if city.image_encoder.kind == "clip" and city.captions is None:
        return "image_encoder: clip takes the towers of captions, which the city's YAML has not"
    return "" if _views(city) else "the city's YAML has no sources.imagery and no street_views"


def _reads(city: City) -> tuple[str, ...]:
    assert city.image_encoder is not None
    towers = ("clip_checkpoint",) if city.image_encoder.kind == "clip" else ()
    return (*(_TABLES[view] for view in _views(city)), *towers)


@stage(group="features", kinds=("torch",), absent=_no_encoder,
       inputs=("clip_checkpoint", *_TABLES.values()), reads=_reads,
       config=("image_encoder", "chips.min_valid_share"),
       code=backends.CODE["image_encoder"])  # fmt: skip
def image_features(ctx: Context) -> Product:
    """Frozen features of chips and street views."""
    import pandas as pd

    assert ctx.rows is not None
    parts = []
    for view, table in sorted(_TABLES.items()):
        if table not in ctx.inputs or not ctx.has(table):
            continue
        encoder = backends.image_encoder(
            ctx.city.image_encoder, view, ctx.inputs.get("clip_checkpoint")
        )
        pictures = Pictures(ctx.inputs[table], view, ctx.city.chips.min_valid_share)
        meter = Meter(ctx.progress, f"{view}: encoded", len(pictures))
        rows = kept_features(ctx.rows("features"), pictures, encoder, meter)
        parts.append(rows.assign(view=view))
    if not any(map(len, parts)):
        raise DataError(
            f"city {ctx.name!r} has no picture to encode: no chip has enough valid pixels, and no "
            "street view lies in a region",
            fix="lower `chips.min_valid_share`, look at `rejected`, or take `image_encoder` out",
        )
    found = pd.concat(parts, ignore_index=True)[contract("image_features").names()]
    return Product(found, metadata={"width": len(found["feature"].iloc[0])})


def kept_features(
    store: RowStore,
    pictures: Pictures,
    encoder: ImageEncoder,
    meter: Meter | None = None,
) -> pd.DataFrame:
    """A row a picture, ordered by its id: `image_id`, `region_id`, `sha256`, `encoder`, `feature`. What
    is in the store is not encoded again, and what is encoded is there before the next batch is read."""
    import pandas as pd

    who = backends.who(encoder.identity, "image_encoder")
    about: list[pd.DataFrame] = []
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH]
        contents = [sha256_of(picture) for picture in part]
        keys = pd.Index([digest([content, who]) for content in contents])
        new = (~keys.isin(store.known(keys).index) & ~keys.duplicated()).nonzero()[0]
        if len(new):
            features: Any = encoder.encode_images([part[i] for i in new])
            store.add(pd.DataFrame({"feature": list(features)}, index=keys[new]))
        ids = {"image_id": part.image_id, "region_id": part.region_id}
        about.append(pd.DataFrame({**ids, "sha256": contents, "key": keys}))
        if meter is not None:
            meter.at(start + len(part))
    if not about:
        return pd.DataFrame(columns=["image_id", "region_id", "sha256", "encoder", "feature"])
    table = pd.concat(about).sort_values("image_id", ignore_index=True)
    known = store.known(table["key"])["feature"].reindex(table["key"])
    return table.drop(columns="key").assign(
        encoder=named_model(encoder.identity), feature=known.to_list()
    )
