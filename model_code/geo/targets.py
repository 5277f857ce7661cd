"""Indicators by region: the labels that methods learn, on their original scale.

A region without a label has no row, and stands in `rejected` with the reason: labels and
rejected regions of an indicator add up to all regions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from model_code.city import (
    CityValue,
    Indicator,
    PointValue,
    PolygonValue,
    RasterValue,
    RegionValue,
    resolve,
)
from model_code.errors import DataError
from model_code.geo.coverage import one_source
from model_code.geo.places import read_places
from model_code.geo.vector import (
    Sieve,
    as_ids,
    check_columns,
    format_of,
    one_file,
    polygonal,
    read_columns,
    read_geo,
    table_columns,
)
from model_code.geo.zonal import zonal
from model_code.rejections import Rejections


@dataclass(frozen=True)
class Setting:
    """What the readers of all indicators share."""

    regions: gpd.GeoDataFrame
    locator: Any
    root: str
    pois: pd.DataFrame | None
    region_pois: pd.DataFrame | None
    poi_counts: pd.DataFrame | None
    mobility: pd.DataFrame | None
    rejections: Rejections


# By region: value [N] or [N, 24] (NaN: none; text for a class) and share of the region with data.
Found = tuple[NDArray[Any], NDArray[np.float64]]


def make_targets(
    indicators: Mapping[str, Indicator],
    regions: gpd.GeoDataFrame,
    locator: Any,
    root: str,
    *,
    pois: pd.DataFrame | None = None,
    region_pois: pd.DataFrame | None = None,
    poi_counts: pd.DataFrame | None = None,
    mobility: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, Rejections]:
    """The tables `targets` and `indicators`, and what was rejected.

    Args:
        indicators: `indicators` of the city.
        regions: the table `regions` [N], with a CRS.
        locator: `locate(x_m, y_m)` gives the position of a region in `regions`, or -1.
        root: data root.
        pois: the table `pois`, where an indicator counts comments.
        region_pois: the table `region_pois`, likewise.
        poi_counts: the table `poi_counts`, where an indicator counts POIs.
        mobility: the table `mobility`, where an indicator counts trips.

    Raises:
        DataError: naming `indicators.<name>.source.<key>`, what is wrong and what the file has.
    """
    setting = Setting(regions, locator, root, pois, region_pois, poi_counts, mobility, Rejections())
    tables, rows = [], []
    for name in sorted(indicators):
        indicator = indicators[name]
        key = f"indicators.{name}.source"
        _check_kind(indicator, key)
        value, coverage = _READERS[type(indicator.source)](indicator.source, key, setting)
        codes, classes = _codes(value) if indicator.kind == "classification" else (value, [])
        codes = _numeric(codes, key)
        if indicator.per_km2:
            codes = (codes.T / regions["area_km2"].to_numpy()).T
        labelled = _labelled(codes, coverage, indicator, name, setting)
        if indicator.transform == "log1p" and (codes[labelled] <= -1).any():
            raise DataError(
                f"indicators.{name}.transform: log1p of {codes[labelled].min():g} does not exist",
                fix="set transform: none, or mend the values",
            )
        tables.append(_long(name, codes, coverage, labelled, regions))
        rows.append(
            {
                "indicator": name,
                "kind": indicator.kind,
                "transform": indicator.transform,
                "unit": indicator.unit,
                "description": indicator.description,
                "contained_in": list(indicator.inputs_with_target),
                "classes": classes,
                "regions": len(labelled),
                "region_share": len(labelled) / max(len(regions), 1),
            }
        )
    return pd.concat(tables, ignore_index=True), pd.DataFrame(rows), setting.rejections


def _check_kind(indicator: Indicator, key: str) -> None:
    """A classification needs labels, not numbers that were averaged or counted."""
    aggregate = getattr(indicator.source, "aggregate", None)
    counted = isinstance(indicator.source, (PointValue, CityValue))
    if indicator.kind == "classification" and (counted or aggregate in ("mean", "sum")):
        raise DataError(
            f"{key}: a classification cannot come from {aggregate or 'a count'}",
            fix="use aggregate: majority (raster, polygons) or kind: regions; "
            "or set kind: regression",
        )
    labels = aggregate == "majority" and indicator.kind == "regression"
    if labels and isinstance(indicator.source, PolygonValue):
        raise DataError(
            f"{key}.aggregate: majority gives classes, but the indicator is a regression",
            fix="set kind: classification, or aggregate: mean or sum",
        )


def _codes(value: NDArray[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """Labels as codes 0..K-1 in sorted order (numbers as numbers), NaN where missing."""
    missing = pd.isna(value)
    labels = pd.Series(value[~missing])
    as_numbers = pd.to_numeric(labels, errors="coerce")
    ordered = labels.astype(str) if as_numbers.isna().any() else as_numbers
    classes, codes = np.unique(ordered.to_numpy(), return_inverse=True)
    result = np.full(len(value), np.nan)
    result[~missing] = codes
    return result, [f"{c:g}" if isinstance(c, float) else str(c) for c in classes.tolist()]


def _numeric(value: NDArray[Any], key: str) -> NDArray[np.float64]:
    result = pd.to_numeric(pd.Series(value.ravel()), errors="coerce").to_numpy(float)
    bad = np.flatnonzero(np.isnan(result) & ~pd.isna(value.ravel()))
    if len(bad):
        raise DataError(
            f"{key}.value: {value.ravel()[bad[0]]!r} is no number",
            fix="name a numeric column, or set kind: classification",
        )
    return np.where(np.isfinite(result), result, np.nan).reshape(value.shape)


def _labelled(
    value: NDArray[np.float64],
    coverage: NDArray[np.float64],
    indicator: Indicator,
    name: str,
    setting: Setting,
) -> NDArray[np.int64]:
    """Positions of the regions that have a label; the others are noted."""
    ids = setting.regions["region_id"].to_numpy()
    known = np.isfinite(value) if value.ndim == 1 else np.isfinite(value).all(axis=1)
    enough = coverage >= indicator.min_coverage
    none, thin = np.flatnonzero(~known), np.flatnonzero(known & ~enough)
    setting.rejections.add(f"indicators.{name}", none, "region without a value", list(ids[none]))
    details = [f"{ids[i]}: {coverage[i]:.3f} < {indicator.min_coverage:g}" for i in thin]
    setting.rejections.add(f"indicators.{name}", thin, "coverage below min_coverage", details)
    return np.flatnonzero(known & enough)


def _long(
    name: str,
    value: NDArray[np.float64],
    coverage: NDArray[np.float64],
    labelled: NDArray[np.int64],
    regions: gpd.GeoDataFrame,
) -> pd.DataFrame:
    """Rows of `targets`, one a region and slot."""
    value = value.reshape(len(regions), -1)
    slots = value.shape[1]
    rows = np.repeat(labelled, slots)
    return pd.DataFrame(
        {
            "indicator": name,
            "region_id": regions["region_id"].to_numpy()[rows],
            "slot": np.tile(np.arange(slots, dtype=np.int32), len(labelled)),
            "value": value[labelled].ravel(),
            "coverage": coverage[rows],
        }
    )


# --- one reader a kind of source -----------------------------------------------------------------


def _raster(source: RasterValue, key: str, setting: Setting) -> Found:
    found = zonal(
        setting.regions,
        resolve(source.path, setting.root),
        band=source.band,
        aggregate=source.aggregate,
        nodata=source.nodata,
        key=f"{key}.path",
        given=source.format,
        crs=source.crs,
    )
    return found["value"].to_numpy(), found["coverage"].to_numpy()


def _region_table(source: RegionValue, key: str, setting: Setting) -> Found:
    """A column of a table keyed by region id; repeated ids must agree."""
    url = one_file(source.path, setting.root, f"{key}.path")
    wanted: dict[str, str | None] = {f"{key}.id": source.id, f"{key}.value": source.value}
    if format_of(url, source.format) in ("csv", "parquet"):
        check_columns(table_columns(url, f"{key}.path", source.format), wanted, url)
        columns = list(dict.fromkeys([source.id, source.value]))
        table = read_columns(url, columns, f"{key}.path", source.format).to_pandas()
    else:  # its rows are told by ids: where they lie is of no matter
        geo = read_geo(url, f"{key}.path", source.format, "EPSG:4326", own_wins=True)
        table = pd.DataFrame(geo)
        check_columns([str(c) for c in table.columns], wanted, url)
    ids, value = _plain_ids(table[source.id]), table[source.value].to_numpy(object)
    regions = _plain_ids(setting.regions["region_id"])
    sieve = Sieve(setting.rejections, f"{key}.path", np.arange(len(table)))
    sieve.reject(ids.isna().to_numpy(bool), "row without an id")
    known = ids.isin(set(regions)).to_numpy(bool)
    if not known.any():
        raise DataError(
            f"{key}.id: no {source.id!r} of {url} is the id of a region; it has "
            f"{', '.join(map(str, ids.dropna().head(3)))}, the regions "
            f"{', '.join(map(str, regions.head(3)))}",
            fix="name the column that holds the ids of the partition's regions",
        )
    sieve.reject(~known, "no such region", ids=ids)
    rows = pd.DataFrame({"id": ids, "value": value})
    again = rows[sieve.good].duplicated().reindex(rows.index, fill_value=False)
    sieve.reject(again.to_numpy(), "same id and value as an earlier row", ids=ids)
    rows = rows[sieve.good]
    twice = rows["id"][rows["id"].duplicated()]
    if len(twice):
        raise DataError(
            f"{key}.id: region {twice.iloc[0]!r} stands several times in {url}, "
            "with different values",
            fix="aggregate the table to one row a region",
        )
    found = rows.set_index("id")["value"].reindex(regions).to_numpy(object)
    return found, np.ones(len(found))


def _plain_ids(column: pd.Series) -> pd.Series:
    """Ids as text, in which `12`, `12.0` and 12 are one."""
    return (
        as_ids(column).astype("string").str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
    )


def _points(source: PointValue, key: str, setting: Setting) -> Found:
    """Points by region. A region without points has the count and sum 0, and no mean or median."""
    rows = read_places(
        source.path,
        setting.root,
        f"{key}.path",
        lon=(f"{key}.lon", source.lon),
        lat=(f"{key}.lat", source.lat),
        columns={f"{key}.value": source.value},
        crs=source.crs,
        city_crs=setting.regions.crs,
        given=source.format,
    )
    sieve = Sieve(setting.rejections, f"{key}.path", np.arange(len(rows)))
    x, y = rows["x_m"].to_numpy(float), rows["y_m"].to_numpy(float)
    sieve.reject(np.isnan(x), "no coordinates")
    value: NDArray[np.float64] = np.ones(len(rows))
    if source.aggregate != "count":
        value = _numeric(rows[source.value].to_numpy(object), key)
        sieve.reject(np.isnan(value), "no value")
        low = -np.inf if source.min_value is None else source.min_value
        high = np.inf if source.max_value is None else source.max_value
        sieve.reject((value < low) | (value > high), "value out of range", value=value)
    region: NDArray[np.int64] = np.full(len(rows), -1)
    region[sieve.good] = setting.locator.locate(x[sieve.good], y[sieve.good])
    sieve.reject(region < 0, "outside all regions")
    inside = pd.Series(value[sieve.good]).groupby(region[sieve.good])
    n = len(setting.regions)
    if source.aggregate in ("count", "sum"):
        found = inside.sum().reindex(np.arange(n), fill_value=0.0)
    else:
        found = inside.agg(source.aggregate).reindex(np.arange(n))
    return found.to_numpy(float), np.ones(n)


def _polygons(source: PolygonValue, key: str, setting: Setting) -> Found:
    """Other polygons, by the area that they share with each region.

    Polygons that overlap one another count each with its area; coverage is at most 1.
    """
    url = one_file(source.path, setting.root, f"{key}.path")
    frame = read_geo(url, f"{key}.path", source.format, source.crs)
    check_columns([str(c) for c in frame.columns], {f"{key}.value": source.value}, url)
    shapes = polygonal(frame.geometry.to_crs(setting.regions.crs).to_numpy())
    value = frame[source.value].to_numpy(object)
    if source.aggregate != "majority":
        value = _numeric(value, key)
    size = np.nan_to_num(shapely.area(shapes))
    sieve = Sieve(setting.rejections, f"{key}.path", np.arange(len(frame)))
    sieve.reject(~(size > 0), "no polygon")
    sieve.reject(pd.isna(value), "no value")
    outlines = setting.regions.geometry.to_numpy()
    n = len(outlines)
    polygon, region = shapely.STRtree(outlines).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[polygon], outlines[region]))
    whole = shapely.area(outlines)
    shared = area > 1e-9 * whole[region]  # less is the rounding of a common border
    sieve.reject(np.bincount(polygon[shared], minlength=len(shapes)) == 0, "outside all regions")
    use = sieve.good[polygon] & shared
    polygon, region, area = polygon[use], region[use], area[use]
    covered = np.bincount(region, area, n)
    coverage = np.minimum(covered / whole, 1.0)
    if source.aggregate == "majority":
        pairs = pd.DataFrame({"region": region, "value": value[polygon], "area": area})
        areas = pairs.groupby(["region", "value"], as_index=False).agg({"area": "sum"})
        areas = areas.sort_values(["region", "area"], ascending=[True, False], kind="stable")
        areas = areas.drop_duplicates("region")
        found = np.full(n, None, object)
        found[areas["region"]] = areas["value"]
        return found, coverage
    share = area / size[polygon] if source.aggregate == "sum" else area
    if source.aggregate == "sum":
        lost = 1 - np.bincount(polygon, share, len(shapes))
        cut = np.flatnonzero(sieve.good & (lost > 1e-6))  # less is rounding
        detail = [f"{part:.2%} of its area" for part in lost[cut]]
        setting.rejections.add(f"{key}.path", cut, "part outside all regions", detail, lost[cut])
    total = np.bincount(region, share * value[polygon].astype(float), n)
    with np.errstate(invalid="ignore"):
        mean = total / covered
    return np.where(covered > 0, mean if source.aggregate == "mean" else total, np.nan), coverage


def _city(source: CityValue, key: str, setting: Setting) -> Found:
    """A count from the city's own tables; a region without any has 0."""
    n = len(setting.regions)
    ids = setting.regions["region_id"].to_numpy()
    if source.count in ("pois", "comments"):
        found = _comments(key, setting) if source.count == "comments" else _pois(key, setting)
        return found.reindex(ids, fill_value=0.0).to_numpy(float), np.ones(n)
    if setting.mobility is None:
        raise DataError(
            f"{key}.count: {source.count} needs trips", fix="add sources.trips or sources.od"
        )
    if source.count == "hourly_outflow":
        trips = setting.mobility[setting.mobility["source"] == "trips"]
        by_hour = trips.pivot_table(
            index="region_id", columns="hour", values="outflow", aggfunc="sum", fill_value=0.0
        )
        by_hour = by_hour.reindex(index=ids, columns=np.arange(24), fill_value=0.0)
        return by_hour.to_numpy(float), np.ones(n)
    column = {"trips_out": "outflow", "trips_in": "inflow"}[source.count]
    total = one_source(setting.mobility).groupby("region_id")[column].sum()
    return total.reindex(ids, fill_value=0.0).to_numpy(float), np.ones(n)


def _pois(key: str, setting: Setting) -> pd.Series:
    """POIs by region, of those that have any."""
    if setting.poi_counts is None:
        raise DataError(f"{key}.count: pois needs POIs", fix="add a file to sources.pois")
    return setting.poi_counts.groupby("region_id")["poi_count"].sum()


def _comments(key: str, setting: Setting) -> pd.Series:
    """Comments by region, of those that have POIs; NaN where none of these comes from a source with
    comments."""
    if setting.pois is None or setting.region_pois is None:
        raise DataError(f"{key}.count: comments needs POIs", fix="add a file to sources.pois")
    if setting.pois["comments"].isna().all():
        raise DataError(
            f"{key}.count: no POI source has comments",
            fix="name the column in sources.pois.<n>.columns.comments, or remove the indicator",
        )
    said = setting.pois[["poi_id"]].assign(items=setting.pois["comments"].str.len())
    located = setting.region_pois[["poi_id", "region_id"]].merge(said, on="poi_id")
    return located.groupby("region_id")["items"].sum(min_count=1)


_READERS: dict[type, Callable[[Any, str, Setting], Found]] = {
    RasterValue: _raster,
    RegionValue: _region_table,
    PointValue: _points,
    PolygonValue: _polygons,
    CityValue: _city,
}
