"""Tables turned into pictures: PNG bytes for Dagster's metadata, the report and the documentation.

Every function is pure: the same table gives the same bytes (no dates, fixed fonts and resolution),
and none touches matplotlib's global state for longer than its own call. Regions without a value are
hatched grey, never coloured as zero.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import (
    BoundaryNorm,
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    to_rgba,
)
from matplotlib.colors import Normalize as LinearNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from model_code.evaluation.compare import ALL_TASKS
from model_code.report import palette
from model_code.report.experts import OWN, SHARED
from model_code.report.gains import (
    CONTROL,
    WITHOUT_TEXT,
    ablation_gains,
    opponent,
    text_gains,
)
from model_code.report.labels import method_label
from model_code.report.shapes import outlines

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from numpy.typing import NDArray

MAX_BYTES = 150_000
SHEET_BYTES = 800_000  # of pictures beside texts that have to be read
_DPI = 110
SEQUENTIAL = LinearSegmentedColormap.from_list("sequential", list(palette.SEQUENTIAL))
_PALE = LinearSegmentedColormap.from_list("pale", list(palette.PALE))
DIVERGING = LinearSegmentedColormap.from_list("diverging", list(palette.DIVERGING))
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": palette.LINE,
    "axes.labelcolor": palette.FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "text.color": palette.INK,
    "xtick.color": palette.FAINT,
    "ytick.color": palette.FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.color": palette.MISSING_LINE,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "image.interpolation": "nearest",
}

_P = ParamSpec("_P")


def as_picture(draw: Callable[_P, Figure], limit: int = MAX_BYTES) -> Callable[_P, bytes]:
    """Draw in the house style and encode in at most `limit` bytes, whatever the user's own
    matplotlib settings are."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return _encode(draw(*args, **kwargs), limit)

    return drawn


def _encode(figure: Figure, limit: int) -> bytes:
    """PNG of at most `limit` bytes: true colour if it fits, else a palette, else fewer pixels."""
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    found = _png(image)
    for colours in (256, 128, 64):
        if len(found) <= limit:
            break
        found = _png(image.quantize(colours))
    while len(found) > limit:
        image = image.resize(
            (image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS
        )
        found = _png(image.quantize(64))
    return found


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=6)
    return out.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), layout="compressed")


def headed(figure: Figure, title: str) -> None:
    """A title in a strip of its own above all panels."""
    height = figure.get_figheight()
    strip = 0.32 / height
    figure.text(0.012, 1 - strip / 2, title, va="center", fontsize=10, fontweight="bold")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0, 1, 1 - strip))


# --- maps ----------------------------------------------------------------------------------------


def _edge_width(regions: int) -> float:
    return float(np.clip(12 / np.sqrt(max(regions, 1)), 0.0, 0.6)) if regions < 20_000 else 0.0


def map_axes(axes: Axes, regions: gpd.GeoDataFrame, title: str, *, bar: bool = True) -> None:
    """Axes over all regions, on one scale both ways, with a scale bar unless it is off."""
    west, south, east, north = regions.total_bounds
    pad = 0.02 * max(east - west, north - south)
    axes.set_xlim(west - pad, east + pad)
    axes.set_ylim(south - pad * (3.5 if bar else 1), north + pad)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title)
    if bar:
        length = _round_down((east - west) / 4)
        y = south - 1.8 * pad
        axes.plot([west, west + length], [y, y], color=palette.INK, lw=1.6, solid_capstyle="butt")
        unit = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
        axes.text(west + length + pad / 2, y, unit, va="center", fontsize=7.5, color=palette.FAINT)


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))


def fill_map(
    axes: Axes,
    regions: gpd.GeoDataFrame,
    values: NDArray[Any],
    cmap: Colormap,
    norm: Normalize,
) -> PolyCollection:
    """Colour the regions by `values` [N]; NaN is hatched."""
    rings, owner = outlines(regions.geometry.to_numpy())
    shown = np.asarray(values, float)[owner]
    missing = ~np.isfinite(shown)
    width = _edge_width(len(regions))
    if missing.any():
        axes.add_collection(
            PolyCollection(
                [rings[i] for i in np.flatnonzero(missing)],
                facecolor=palette.MISSING,
                edgecolor=palette.MISSING_LINE,
                linewidth=width / 2,
                hatch="////",
            )
        )
    filled = PolyCollection(
        [rings[i] for i in np.flatnonzero(~missing)],
        array=shown[~missing],
        cmap=cmap,
        norm=norm,
        # Without an edge of the own colour, hairlines of the background show between neighbours.
        edgecolor="white" if width > 0.15 else "face",
        linewidth=max(width, 0.2),
    )
    axes.add_collection(filled)
    return filled


def _colour_bar(
    axes: Axes, shown: Any, label: str, *, missing: bool = False, **kwargs: Any
) -> None:
    assert isinstance(axes.figure, Figure)
    bar = axes.figure.colorbar(
        shown, ax=axes, orientation="horizontal", fraction=0.04, pad=0.02, aspect=32, **kwargs
    )
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)
    if isinstance(shown.norm, LogNorm):
        bar.set_ticks(ticks := log_ticks(shown.norm), labels=[f"{tick:,g}" for tick in ticks])
        bar.ax.minorticks_off()
    if missing:
        _missing_note(axes)


def log_ticks(norm: LogNorm) -> list[float]:
    """At most six of 1, 2, 5, 10, 20, ... within the colours' limits."""
    assert norm.vmin is not None and norm.vmax is not None
    powers = range(int(np.floor(np.log10(norm.vmin))), int(np.ceil(np.log10(norm.vmax))) + 1)
    every = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    inside = [tick for tick in every if norm.vmin <= tick <= norm.vmax]
    return inside[:: -(-len(inside) // 6) or 1]


def _missing_note(axes: Axes) -> None:
    patch = Patch(
        facecolor=palette.MISSING, edgecolor=palette.MISSING_LINE, hatch="////", label="no data"
    )
    axes.legend(
        handles=[patch], loc="lower right", fontsize=7.5, handlelength=1.6, borderaxespad=0.2
    )


def _class_legend(axes: Axes, labels: Sequence[str], colours: Sequence[str], missing: bool) -> None:
    handles = [Patch(color=c, label=short(v)) for v, c in zip(labels, colours, strict=True)]
    if missing:
        handles.append(
            Patch(
                facecolor=palette.MISSING,
                edgecolor=palette.MISSING_LINE,
                hatch="////",
                label="no data",
            )
        )
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=7.5,
        handlelength=1.0,
        ncols=1 + len(handles) // 25,
    )


def short(label: object, limit: int = 32) -> str:
    """A label that cannot break a layout or start matplotlib's mathematics."""
    text = _plain(label)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def map_size(regions: gpd.GeoDataFrame, width: float) -> tuple[float, float]:
    """Figure size in inches that fits the city's shape between a strip and a tower."""
    west, south, east, north = regions.total_bounds
    ratio = (north - south) / max(east - west, 1e-9)
    return width, float(np.clip(width * ratio, width * 0.5, width * 1.5)) + 0.8


def of_regions(regions: gpd.GeoDataFrame, values: pd.Series[Any]) -> NDArray[np.float64]:
    """Values [N] in the order of the regions; NaN where a region has none."""
    return values.reindex(regions["region_id"]).to_numpy(float, copy=True)


@as_picture
def partition_map(
    regions: gpd.GeoDataFrame, adjacency: pd.DataFrame | None = None, *, title: str = "Regions"
) -> Figure:
    """The regions; with `adjacency`, coloured by the number of neighbours, its links on top while
    the regions are few enough to see them."""
    figure = new_figure(*map_size(regions, 6))
    axes = figure.add_subplot()
    map_axes(axes, regions, f"{title}: {len(regions):,} over {regions['area_km2'].sum():,.0f} km²")
    if adjacency is None:
        rings, _ = outlines(regions.geometry.to_numpy())
        width = _edge_width(len(regions))
        axes.add_collection(
            PolyCollection(
                rings, facecolor="#e8f1f1", edgecolor=palette.ACCENT, linewidth=max(width, 0.1)
            )
        )
        return figure
    counts = adjacency.groupby("region_id").size().reindex(regions["region_id"], fill_value=0)
    values = counts.to_numpy(float)
    top = max(int(values.max()), 1)
    norm = BoundaryNorm(np.arange(-0.5, top + 1.5), 256)
    filled = fill_map(axes, regions, values, SEQUENTIAL, norm)
    _colour_bar(axes, filled, "neighbours", ticks=range(0, top + 1, max(1, top // 8)))
    if len(regions) <= 1000:
        index = pd.Index(regions["region_id"])
        once = adjacency[adjacency["region_id"] < adjacency["neighbour_id"]]
        centres = regions[["x_m", "y_m"]].to_numpy(float)
        ends = [centres[index.get_indexer(once[c])] for c in ("region_id", "neighbour_id")]
        links = LineCollection(
            list(np.stack(ends, axis=1)), colors="white", linewidths=0.5, alpha=0.55
        )
        axes.add_collection(links)
    return figure


@as_picture
def choropleth(
    regions: gpd.GeoDataFrame,
    values: pd.Series[Any],
    title: str,
    *,
    unit: str = "",
    categorical: bool = False,
    classes: Sequence[str] = (),
    log: bool = False,
    diverging: bool = False,
) -> Figure:
    """A map of one value a region.

    Args:
        values: indexed by region_id; regions that it leaves out, or that are NaN, are hatched.
        unit: stands at the colour bar.
        categorical: values are classes; with `classes`, codes into it.
        log: logarithmic colours for positive values (log10(1 + value), labelled in values).
        diverging: colours spread from zero in both directions.
    """
    figure = new_figure(*map_size(regions, 6))
    axes = figure.add_subplot()
    map_axes(axes, regions, title)
    if categorical:
        aligned = values.reindex(regions["region_id"])
        if not classes:
            codes, found = pd.factorize(aligned, sort=True)
            shown = np.where(codes < 0, np.nan, codes)
            classes = [str(label) for label in found]
        else:
            shown = aligned.to_numpy(float)
        colours = palette.qualitative(len(classes))
        norm: Normalize = BoundaryNorm(np.arange(-0.5, len(colours)), len(colours))
        fill_map(axes, regions, shown, ListedColormap(colours), norm)
        _class_legend(axes, classes, colours[: len(classes)], bool(np.isnan(shown).any()))
        return figure
    shown = of_regions(regions, values)
    norm = _norm(shown, log=log, diverging=diverging)
    filled = fill_map(axes, regions, shown, DIVERGING if diverging else SEQUENTIAL, norm)
    _colour_bar(axes, filled, unit, missing=bool(np.isnan(shown).any()))
    return figure


def _norm(values: NDArray[Any], *, log: bool = False, diverging: bool = False) -> Normalize:
    """Colour limits: the 1st and 99th percentile, so that one region does not wash out the rest."""
    found = values[np.isfinite(values)]
    if not len(found):
        return LinearNorm(0, 1)
    if diverging:
        reach = float(np.percentile(np.abs(found), 98)) or 1.0
        return LinearNorm(-reach, reach)
    low, high = (float(v) for v in np.percentile(found, [1, 99]))
    if log and high > 0:
        positive = float(found[found > 0].min())
        return LogNorm(max(low, positive, high * 1e-6), high * (1.001 if high <= low else 1))
    return LinearNorm(low, high if high > low else low + 1)


@as_picture
def split_map(
    regions: gpd.GeoDataFrame, splits: pd.DataFrame, *, fold: int | None = None
) -> Figure:
    """Which regions train, validate and test: one panel a split, of its first fold or of `fold`."""
    kinds = sorted(splits["split"].unique())
    width, height = map_size(regions, 4)
    figure = new_figure(width * len(kinds) + 1, height)
    parts, colours = ["train", "val", "test"], ["#9db7c9", "#e69f00", "#d55e00"]
    for number, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), number + 1)
        rows = splits[splits["split"] == kind]
        chosen = int(rows["fold"].min()) if fold is None else fold
        rows = rows[rows["fold"] == chosen]
        codes = pd.Series(pd.Index(parts).get_indexer(rows["part"]), rows["region_id"].to_numpy())
        shown = of_regions(regions, codes)
        map_axes(axes, regions, f"{kind}, fold {chosen}", bar=number == 0)
        fill_map(
            axes, regions, shown, ListedColormap(colours), BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
        )
        if number == len(kinds) - 1:
            _class_legend(axes, parts, colours, bool(np.isnan(shown).any()))
    return figure


@as_picture
def points_map(
    regions: gpd.GeoDataFrame,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    title: str = "Points",
    limit: int = 5000,
) -> Figure:
    """Points `x`, `y` [P] in metres over the regions; above `limit` points, their density."""
    figure = new_figure(*map_size(regions, 6))
    axes = figure.add_subplot()
    x, y = np.asarray(x, float), np.asarray(y, float)
    map_axes(axes, regions, f"{title}: {len(x):,}")
    rings, _ = outlines(regions.geometry.to_numpy())
    width = max(_edge_width(len(regions)) / 2, 0.1)
    axes.add_collection(
        PolyCollection(rings, facecolor="#f4f5f6", edgecolor=palette.LINE, linewidth=width)
    )
    if len(x) <= limit:
        size = float(np.clip(9000 / max(len(x), 1), 2.0, 14))
        axes.scatter(x, y, s=size, color=palette.ACCENT, alpha=0.6, linewidths=0)
        return figure
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    cell = max(east - west, north - south) / 160
    edges = [np.arange(west, east + cell, cell), np.arange(south, north + cell, cell)]
    counts, *_ = np.histogram2d(y, x, bins=[edges[1], edges[0]])
    shown = axes.pcolormesh(
        edges[0],
        edges[1],
        np.where(counts > 0, counts, np.nan),
        cmap=SEQUENTIAL,
        norm=LogNorm(1, max(counts.max(), 2)),
    )
    _colour_bar(axes, shown, f"points in a cell of {cell:,.0f} m")
    return figure


@as_picture
def flow_map(flows: pd.DataFrame, regions: gpd.GeoDataFrame, *, strongest: int = 300) -> Figure:
    """Trips that leave or reach each region, and the strongest flows between regions as arcs that
    bend to the left of their direction. Sources are never added up: the one with most rows shows."""
    figure = new_figure(*map_size(regions, 6))
    axes = figure.add_subplot()
    source = flows["source"].mode()
    flows = flows[flows["source"] == source.iloc[0]] if len(source) else flows
    pairs = flows.groupby(["origin_id", "destination_id"], as_index=False)["trip_count"].sum()
    volume = (
        pairs.groupby("origin_id")["trip_count"]
        .sum()
        .add(pairs.groupby("destination_id")["trip_count"].sum(), fill_value=0)
    )
    shown = of_regions(regions, volume)
    shown[shown == 0] = np.nan
    title = f"Trips: {pairs['trip_count'].sum():,.0f}"
    filled = fill_map(axes, regions, shown, _PALE, _norm(shown, log=True))
    between = pairs[pairs["origin_id"] != pairs["destination_id"]]
    # A stable sort of rows that are ordered by key: ties are broken the same way each time.
    top = between.sort_values("trip_count", ascending=False, kind="stable").head(strongest)
    map_axes(axes, regions, f"{title}, {len(top):,} strongest pairs as arcs")
    if len(top):
        index = pd.Index(regions["region_id"])
        centres = regions[["x_m", "y_m"]].to_numpy(float)
        start = centres[index.get_indexer(top["origin_id"])]
        end = centres[index.get_indexer(top["destination_id"])]
        weight = np.sqrt(top["trip_count"].to_numpy(float) / top["trip_count"].max())
        arcs = LineCollection(
            list(_arcs(start, end)),
            linewidths=0.25 + 1.4 * weight,
            colors=[to_rgba(palette.LINES, a) for a in 0.08 + 0.55 * weight],
            capstyle="round",
        )
        axes.add_collection(arcs)
    _colour_bar(axes, filled, "trips that start or end here", missing=bool(np.isnan(shown).any()))
    return figure


def _arcs(start: NDArray[Any], end: NDArray[Any], steps: int = 17) -> NDArray[np.float64]:
    """Quadratic curves [F, steps, 2] from `start` to `end` [F, 2], bent to the left."""
    across = end - start
    bend = (start + end) / 2 + 0.18 * np.stack([-across[:, 1], across[:, 0]], axis=1)
    t = np.linspace(0, 1, steps)[None, :, None]
    curve: NDArray[np.float64] = (
        (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * bend[:, None] + t**2 * end[:, None]
    )
    return curve


# --- contact sheets ------------------------------------------------------------------------------


@as_picture
def chip_sheet(
    chips: pd.DataFrame, *, limit: int = 24, total: int = 0, title: str = "Satellite chips"
) -> Figure:
    """A contact sheet of `region_chips` (or of a sample of `total` rows), evenly picked. Black: no valid pixel."""
    picked = _pick(chips, limit)
    pictures = [rgb(row) for row in picked.itertuples()]
    return _sheet(
        pictures, list(picked["region_id"]), f"{title}: {len(picked)} of {total or len(chips):,}"
    )


@as_picture
def view_sheet(
    views: pd.DataFrame, *, limit: int = 24, total: int = 0, title: str = "Street views"
) -> Figure:
    """A contact sheet of `region_street_views`, evenly picked over its rows."""
    picked = _pick(views, limit)
    pictures = [rgb(row) for row in picked.itertuples()]
    return _sheet(
        pictures, list(picked["region_id"]), f"{title}: {len(picked)} of {total or len(views):,}"
    )


@as_picture
def height_sheet(
    heights: pd.DataFrame, *, limit: int = 24, total: int = 0, title: str = "Building heights"
) -> Figure:
    """A contact sheet of the table `heights`; pixels without a building stay grey."""
    picked = _pick(heights, limit)
    grids = [_metres(row) for row in picked.itertuples()]
    found = np.concatenate([g[np.isfinite(g)] for g in grids] or [np.zeros(1)])
    top = max(float(np.percentile(found, 99)) if len(found) else 1.0, 1.0)
    norm = LinearNorm(0, top)
    cmap = SEQUENTIAL.with_extremes(bad=palette.MISSING)
    pictures = [np.asarray(cmap(np.asarray(norm(g)), bytes=True))[..., :3] for g in grids]
    figure = _sheet(
        pictures,
        list(picked["region_id"]),
        f"{title}: {len(picked)} of {total or len(heights):,}",
        bar=True,
    )
    if pictures:
        _colour_bar(figure.axes[0], mpl.cm.ScalarMappable(norm, cmap), "height in metres")
    return figure


@functools.partial(as_picture, limit=SHEET_BYTES)
def triplet_sheet(triplets: pd.DataFrame, *, title: str = "Triplets") -> Figure:
    """Anchor, positive and negative pictures side by side, a triplet a row, the kinds of pictures one
    below the other; below a picture its region, and how similar that is to the anchor's.

    Args:
        triplets: the table `musecl_triplets`.
    """
    if triplets.empty:
        return _nothing(title)
    roles = ("anchor", "positive", "negative")
    by = {"satellite": "alike in POIs", "street_view": "alike in trips"}
    views = list(triplets.groupby("view", sort=True))
    blocks = 2  # triplets side by side
    side, gap, text, head = 1.35, 0.08, 0.2, 0.28
    wide = 3 * (side + gap) + 0.3
    heights = [side * rows["height_px"].iloc[0] / rows["width_px"].iloc[0] for _, rows in views]
    lines = [-(-rows["triplet"].nunique() // blocks) for _, rows in views]
    total = 0.45 + sum(head + n * (h + text) for n, h in zip(lines, heights, strict=True))
    width = blocks * wide
    figure = new_figure(width, total)
    figure.set_layout_engine("none")
    figure.text(0.01, 1 - 0.22 / total, title, weight="bold", fontsize=11, va="center")
    top = total - 0.45
    for (view, rows), height, count in zip(views, heights, lines, strict=True):
        label = f"{str(view).replace('_', ' ')}: anchor, positive, negative ({by[str(view)]})"
        figure.text(0.01, (top - head / 2) / total, label, va="center", fontsize=8.5)
        top -= head
        for place, (_, triplet) in enumerate(rows.groupby("triplet", sort=True)):
            line, block = divmod(place, blocks)
            base = top - line * (height + text) - height
            for column, role in enumerate(roles):
                entry = next(_rows(triplet[triplet["role"] == role]))
                left = 0.1 + block * wide + column * (side + gap)
                axes = figure.add_axes((left / width, base / total, side / width, height / total))
                axes.imshow(rgb(entry), interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                said = short(entry.region_id, 16)
                if np.isfinite(entry.similarity):
                    said = f"{said} · {entry.similarity:.2g}"
                figure.text(
                    left / width, (base - text * 0.45) / total, said,
                    va="center", fontsize=5.8, color=palette.FAINT,
                )  # fmt: skip
        top -= count * (height + text)
    return figure


def _pick(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    count = min(limit, len(rows))
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows


def rgb(row: Any) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of a row of `region_chips` or `region_street_views`."""
    pixels = np.frombuffer(row.pixels, np.uint8).reshape(row.height_px, row.width_px, -1)
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)


def _metres(row: Any) -> NDArray[np.float32]:
    return np.frombuffer(row.pixels, "<f4").reshape(row.height_px, row.width_px)


def _sheet(
    pictures: list[NDArray[Any]], names: list[str], title: str, *, bar: bool = False
) -> Figure:
    """Pictures of one size [H, W, 3] in rows of at most 8, each with its region's id below."""
    if not pictures:
        return _nothing(title)
    height, width = pictures[0].shape[:2]
    columns = min(8 if width <= height * 1.2 else 6, len(pictures))
    rows = -(-len(pictures) // columns)
    scale = 8.8 / columns / width  # inches a pixel of the source
    gap, below = max(width // 20, 1), max(round(0.17 / scale), 2)
    cell_height, cell_width = height + below, width + gap
    canvas = np.full((rows * cell_height, columns * cell_width - gap, 3), 255, np.uint8)
    figure = new_figure(8.8, canvas.shape[0] * scale + 0.45 + (0.6 if bar else 0))
    headed(figure, title)
    axes = figure.add_subplot()
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        top, left = number // columns * cell_height, number % columns * cell_width
        canvas[top : top + height, left : left + width] = picture
        label = short(name, 18)
        axes.text(
            left, top + height + below * 0.45, label, fontsize=6, va="center", color=palette.FAINT
        )
    axes.imshow(canvas, interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    return figure


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    """Rows by the names of their columns."""
    yield from table.itertuples()


def _nothing(title: str) -> Figure:
    figure = new_figure(5, 1.2)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(title)
    axes.text(0, 0.5, "nothing to show", color=palette.FAINT, va="center")
    return figure


# --- captions ------------------------------------------------------------------------------------


_LINE_CHARACTERS, _LINE_INCHES = 62, 0.135


@functools.partial(as_picture, limit=SHEET_BYTES)
def caption_gallery(entries: pd.DataFrame, *, title: str = "Captions") -> Figure:
    """A contact sheet: pictures, what a painter made of their captions, the captions, and how these
    were judged.

    Args:
        entries: picture and painted (uint8 [H, W, 3]), text, perception_score, clip_score,
            cycle_score (NaN where there is none), kept, reason; in the order in which they are
            shown, two a row.
    """
    if entries.empty:
        return _nothing(title)
    lines = [_caption_lines(entry) for entry in _rows(entries)]
    side = 1.35  # inches that a picture is wide
    heights = [
        max(0.2 + _LINE_INCHES * len(text), side * entry.picture.shape[0] / entry.picture.shape[1])
        for text, entry in zip(lines, _rows(entries), strict=True)
    ]
    rows = [max(heights[i : i + 2]) + 0.12 for i in range(0, len(heights), 2)]
    width, column = 13.2, 6.6
    head = 0.55
    figure = Figure(figsize=(width, head + sum(rows)))
    total = figure.get_figheight()
    figure.text(0.1 / width, 1 - 0.18 / total, title, va="center", fontsize=10, fontweight="bold")
    for x, name in ((0.1, "picture"), (0.2 + side, "painted from the caption")):
        figure.text(x / width, 1 - 0.43 / total, name, fontsize=7, color=palette.FAINT)
    for number, entry in enumerate(_rows(entries)):
        top = total - head - sum(rows[: number // 2])
        left = 0.1 + column * (number % 2)
        for place, picture in enumerate((entry.picture, entry.painted)):
            high = side * picture.shape[0] / picture.shape[1]
            at = (left + place * (side + 0.1), top - high, side, high)
            axes = figure.add_axes((at[0] / width, at[1] / total, at[2] / width, at[3] / total))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        for line, (text, ink) in enumerate(lines[number]):
            y = top - 0.1 - _LINE_INCHES * line
            x = left + 2 * side + 0.25
            figure.text(x / width, y / total, text, va="center", fontsize=6.8, color=ink)
    return figure


def _caption_lines(entry: Any) -> list[tuple[str, str]]:
    """The lines beside a picture, each with its colour."""
    scores = {
        "PerceptionScore": entry.perception_score,
        "CLIPScore": entry.clip_score,
        "cycle": entry.cycle_score,
    }
    judged = ", ".join(f"{n} {score:.2f}" for n, score in scores.items() if np.isfinite(score))
    found = [("kept: " if entry.kept else "not kept: ") + (judged or "no score")]
    if not entry.kept and not np.isfinite(entry.perception_score):
        found.append(_plain(entry.reason))
    text = textwrap.wrap(_plain(entry.text) or "(no caption)", _LINE_CHARACTERS)
    ink = palette.INK if entry.kept else palette.FAINT
    return [(line, palette.ACCENT if entry.kept else palette.LINES) for line in found] + [
        (line, ink) for line in text
    ]


def _plain(text: object) -> str:
    """One line that does not start matplotlib's mathematics."""
    return " ".join(str(text).split()).replace("$", r"\$")


@as_picture
def score_histograms(scores: pd.DataFrame, *, title: str = "Scores of captions") -> Figure:
    """How each score of the table `caption_scores` is spread, by view; every try counts."""
    columns = [
        c for c in ("clip_score", "cycle_score", "perception_score") if scores[c].notna().any()
    ]
    if not columns:
        return _nothing(title)
    figure = new_figure(8.8, 2.6)
    headed(figure, title)
    for axes, column in zip(
        figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True
    ):
        views = sorted(scores["view"].unique())
        values = [scores.loc[scores["view"] == view, column].dropna() for view in views]
        colours = palette.qualitative(len(views))
        axes.hist(values, bins=np.linspace(0, 1, 41), color=colours, label=views, stacked=True)
        axes.set_xlabel(column.replace("_", " "))
        axes.set_ylabel("tries")
    axes.legend(fontsize=7)
    return figure


# --- charts --------------------------------------------------------------------------------------


@as_picture
def true_vs_predicted(
    predictions: pd.DataFrame, *, classes: Sequence[str] = (), title: str = "True and predicted"
) -> Figure:
    """One panel a task: predicted against true values on the transformed scale, of all test
    regions, folds and seeds. Tasks in `classes` show their confusion matrix instead."""
    tasks = sorted(predictions["task"].unique())
    if not tasks:
        return _nothing(title)
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = new_figure(2.5 * columns, 2.6 * rows + 0.3)
    headed(figure, title)
    for number, task in enumerate(tasks):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(short(task, 26), fontsize=8.5)
        found = predictions[predictions["task"] == task]
        true, pred = found["y_true"].to_numpy(float), found["y_pred"].to_numpy(float)
        if task in classes:
            _confusion(axes, true, pred)
        else:
            _scatter(axes, true, pred)
        if number % columns == 0:
            axes.set_ylabel("predicted")
        if number // columns == rows - 1:
            axes.set_xlabel("true")
    return figure


def _scatter(axes: Axes, true: NDArray[Any], pred: NDArray[Any]) -> None:
    both = np.concatenate([true, pred])
    low, high = (float(v) for v in np.percentile(both[np.isfinite(both)], [0.5, 99.5]))
    pad = 0.05 * (high - low or 1.0)
    low, high = low - pad, high + pad
    axes.plot([low, high], [low, high], color=palette.FAINT, lw=0.8, zorder=3)
    if len(true) > 3000:
        axes.hexbin(
            true, pred, gridsize=36, extent=(low, high, low, high), cmap=SEQUENTIAL, mincnt=1,
            bins="log", linewidths=0,
        )  # fmt: skip
    else:
        axes.scatter(true, pred, s=7, color=palette.ACCENT, alpha=0.4, linewidths=0)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.locator_params(nbins=4)


def _confusion(axes: Axes, true: NDArray[Any], pred: NDArray[Any]) -> None:
    count = int(max(true.max(), pred.max())) + 1
    matrix = np.bincount((true * count + pred).astype(int), minlength=count * count)
    matrix = matrix.reshape(count, count).T  # rows: predicted, as on the scatter's vertical axis
    share = matrix / np.maximum(matrix.sum(axis=0), 1)
    axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, origin="lower")
    axes.set_xticks(range(count) if count <= 12 else [])
    axes.set_yticks(range(count) if count <= 12 else [])


@as_picture
def error_map(
    regions: gpd.GeoDataFrame,
    predictions: pd.DataFrame,
    *,
    classes: Sequence[str] = (),
    split: str | None = None,
) -> Figure:
    """One map a task of predicted minus true, averaged over fits, in standard deviations of the
    true values; hatched where a region was in no test part.

    Args:
        classes: tasks that are classifications; their maps show the share of wrong fits, doubled,
            so that red is always wrong.
        split: by default the spatial one, if there is one.
    """
    kinds = sorted(predictions["split"].unique())
    chosen = split or (kinds[-1] if kinds else "")
    found = predictions[predictions["split"] == chosen]
    wrong = found["y_pred"] != found["y_true"]
    error = (found["y_pred"] - found["y_true"]).where(~found["task"].isin(classes), 2.0 * wrong)
    means = (
        found.assign(error=error)
        .groupby(["task", "region_id"], as_index=False)[["y_true", "error"]]
        .mean()
    )
    tasks = sorted(means["task"].unique())
    if not tasks:
        return _nothing("Errors")
    norm = LinearNorm(-2, 2)
    figure, every = _small_maps(regions, tasks, f"Errors, {chosen} split")
    for task, axes in zip(tasks, every, strict=True):
        rows_of = means[means["task"] == task].set_index("region_id")
        spread = 1.0 if task in classes else float(rows_of["y_true"].std(ddof=0)) or 1.0
        fill_map(axes, regions, of_regions(regions, rows_of["error"] / spread), DIVERGING, norm)
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(norm, DIVERGING),
        ax=every,
        orientation="horizontal",
        fraction=0.04,
        aspect=50,
        extend="both",
    )
    bar.outline.set_visible(False)
    note = "; classes: red is wrong" if set(classes) & set(tasks) else ""
    bar.set_label(f"predicted minus true, in standard deviations of the true values{note}")
    return figure


@as_picture
def target_maps(
    regions: gpd.GeoDataFrame, targets: pd.DataFrame, *, title: str = "Indicators"
) -> Figure:
    """One map an indicator of the table `targets`, coloured by the rank of its value (slots
    averaged), so that a heavy tail does not hide the rest; hatched where the label is missing."""
    means = targets.groupby(["indicator", "region_id"])["value"].mean()
    names = sorted(targets["indicator"].unique())
    if not names:
        return _nothing(title)
    figure, every = _small_maps(regions, names, f"{title}: low (dark) to high (bright), by rank")
    for name, axes in zip(names, every, strict=True):
        rank = means[name].rank(pct=True)
        fill_map(axes, regions, of_regions(regions, rank), SEQUENTIAL, LinearNorm(0, 1))
    return figure


def _small_maps(
    regions: gpd.GeoDataFrame, names: Sequence[str], title: str
) -> tuple[Figure, list[Axes]]:
    """A figure with one empty map a name, in as many rows as the city's shape wants."""
    west, south, east, north = regions.total_bounds
    width = float(np.clip(2.2 * (east - west) / max(north - south, 1e-9), 1.4, 3.2))
    columns = min(int(9.6 / width), len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(max(width * columns, 4.5), 2.5 * rows + 0.9)
    headed(figure, title)
    every = []
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        map_axes(axes, regions, "", bar=False)
        axes.set_title(short(name, int(9 * width)), fontsize=7.5)
        every.append(axes)
    return figure, every


@as_picture
def leaderboard_heatmap(summary: pd.DataFrame, *, split: str = "spatial") -> Figure:
    """Methods by tasks: R² on the transformed scale (macro F1 for classes), mean and deviation.

    Args:
        summary: of `model_code.evaluation.leaderboard.summary`.
    """
    title = f"R² (classes: macro F1), {split} split"
    rows = summary[summary["split"] == split]
    if rows.empty:
        return _nothing(title)
    rows = rows.assign(
        name=[method_label(m, v) for m, v in zip(rows["method"], rows["variant"], strict=True)],
        mean=_headline(rows, "mean"),
        deviation=_headline(rows, "sd"),
    )
    mean = rows.pivot(index="name", columns="task", values="mean")
    deviation = rows.pivot(index="name", columns="task", values="deviation")
    mean = mean.loc[mean.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    deviation = deviation.reindex_like(mean)
    figure = new_figure(2.2 + 0.95 * mean.shape[1], 1.3 + 0.42 * mean.shape[0])
    axes = figure.add_subplot()
    values = mean.to_numpy(float)
    cmap = SEQUENTIAL.with_extremes(bad=palette.MISSING)
    shown = axes.imshow(values, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    axes.set_title(title)
    axes.set_xticks(range(mean.shape[1]), [short(t, 18) for t in mean.columns], rotation=30)
    axes.tick_params(axis="x", labelrotation=30)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_yticks(range(mean.shape[0]), [short(m, 26) for m in mean.index])
    for row, column in np.argwhere(np.isfinite(values)):
        spread = deviation.to_numpy(float)[row, column]
        text = f"{values[row, column]:.2f}" + (f"\n± {spread:.2f}" if np.isfinite(spread) else "")
        ink = "white" if values[row, column] < 0.55 else palette.INK
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(shown, ax=axes, fraction=0.025, pad=0.01, extend="min")
    bar.outline.set_visible(False)
    return figure


@as_picture
def ablation_bars(comparisons: pd.DataFrame, method: str, *, split: str = "") -> Figure:
    """What the default of a method gains over each of its variants, by indicator and on average.

    Args:
        comparisons: as in `model_code.tables`.
        split: by default the spatial one, if there is one.
    """
    rows = ablation_gains(comparisons, method)
    kinds = sorted(rows["split"].unique())
    split = split or (kinds[-1] if kinds else "")
    rows = rows[rows["split"] == split]
    panels = [(str(over).replace("_", " "), own) for over, own in rows.groupby("over", sort=True)]
    return _gain_bars(panels, f"{method}: gain over its variants, {split} split")


@as_picture
def text_bars(comparisons: pd.DataFrame, method: str) -> Figure:
    """What text adds by indicator: the gain of a method over itself without text on each split,
    beside the control, its gain over the bare shares.

    Args:
        comparisons: as in `model_code.tables`.
    """
    rows = text_gains(comparisons, method)
    panels = [
        (f"over {opponent(over)},\n{split} split", own)
        for split, of_split in rows.groupby("split", sort=True)
        for over in (WITHOUT_TEXT, CONTROL)
        for own in [of_split[of_split["over"] == over]]
        if len(own)
    ]
    return _gain_bars(panels, f"{method}: what text adds, and the control")


_PANELS = 5  # in a row


def _gain_bars(panels: Sequence[tuple[str, pd.DataFrame]], title: str) -> Figure:
    """A panel an opponent on one common scale: the mean of R² on top, then a bar an indicator with
    its interval and its number; a tie is pale, and is called so."""
    if not panels:
        return _nothing(title)
    found = {task for _, rows in panels for task in rows["task"]}
    tasks = sorted(found - {ALL_TASKS})
    places = dict(zip(tasks, np.arange(len(tasks)) + 1.4, strict=True)) | {ALL_TASKS: 0.0}
    columns = min(_PANELS, len(panels))
    rows_of = -(-len(panels) // columns)
    figure = new_figure(1.2 + 2.15 * columns, 0.5 + rows_of * (1.0 + 0.235 * len(tasks)))
    headed(figure, title)
    every = pd.concat([rows for _, rows in panels])
    ends = every[["gain", "low", "high"]].to_numpy(float)
    # A few wide intervals would press all bars together: they are cut.
    reach = 2 * np.abs(ends[:, 0]).max() + 0.02
    left, right = max(ends.min(), -reach), min(ends.max(), reach)
    pad = 0.06 * (right - left)
    grid = figure.subplots(rows_of, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, rows) in zip(grid.flat, panels, strict=False):
        at = rows["task"].map(places).to_numpy(float)
        gain, tie = rows["gain"].to_numpy(float), rows["tie"].to_numpy(bool)
        colours = np.where(tie, palette.MISSING, np.where(gain > 0, palette.ACCENT, palette.LINES))
        axes.barh(at, gain, color=colours, height=0.7)
        low, high = (rows[end].clip(left, right) for end in ("low", "high"))
        axes.hlines(at, low, high, color=np.where(tie, palette.MISSING_LINE, palette.INK), lw=0.9)
        for y, value, even in zip(at, gain, tie, strict=True):
            text = f"{value:+.3f} tie" if even else f"{value:+.3f}"
            _said(axes, y, text, palette.FAINT if even else palette.INK)
        axes.axvline(0, color=palette.FAINT, lw=0.7)
        axes.set_xlim(left - pad, right + pad)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
    shown = [task for task in places if task in found]
    names = [short(t.replace("_", " "), 20) if t != ALL_TASKS else "mean R²" for t in shown]
    grid[0, 0].set_yticks([places[task] for task in shown], names)
    grid[0, 0].set_ylim(len(tasks) + 1, -0.7 if ALL_TASKS in found else 0.7)
    grid[-1, 0].set_xlabel("difference of R² (classes: macro F1)", fontsize=7)
    return figure


def _said(axes: Axes, y: float, text: str, ink: str) -> None:
    """A number in the column beside a panel."""
    where = axes.get_yaxis_transform()
    text = text.replace("-", "\u2212")
    axes.text(1.02, y, text, transform=where, va="center", fontsize=6.8, color=ink)


@as_picture
def transfer_matrix(table: pd.DataFrame, *, title: str = "Transfer") -> Figure:
    """How encoders do where they were not pretrained: rows are the cities that pretraining saw,
    columns those of heads and tests. The first panel is the mean over indicators, then one an
    indicator; of a single tested city the columns are the mean and the indicators. Framed:
    pretrained where it is tested.

    Args:
        table: pretrained_on, city, task, value; rows of one cell (folds, seeds) are averaged.
            Optionally method (each has rows of its own), and metric: the mean takes `r2` alone. It
            takes the indicators that all rows of a tested city have.
    """
    if table.empty:
        return _nothing(title)
    table = _transfer_cells(table)
    cities = sorted(table["city"].unique())
    tasks = [_MEAN, *sorted(set(table["task"]) - {_MEAN})]
    names = sorted(table["row"].unique())
    if len(cities) == 1:
        figure = new_figure(2.6 + 0.72 * len(tasks), 1.6 + 0.34 * len(names))
        axes = figure.add_subplot()
        shown = _matrix(axes, table.assign(column=table["task"]), names, tasks)
        axes.set_title(f"{title}, tested on {short(cities[0])}")
        every = [axes]
    else:
        columns = min(4, len(tasks))
        rows = -(-len(tasks) // columns)
        wide, high = 0.62 * len(cities) + 0.7, 0.34 * len(names) + 1.0
        figure = new_figure(1.5 + max(wide, 1.7) * columns, 0.6 + high * rows)
        headed(figure, title)
        every = []
        for number, task in enumerate(tasks):
            axes = figure.add_subplot(rows, columns, number + 1)
            own = table[table["task"] == task]
            shown = _matrix(axes, own.assign(column=own["city"]), names, cities)
            axes.set_title(short(task, 24), fontsize=8)
            if number % columns:
                axes.set_yticklabels([])
            if number // columns < rows - 1 and number + columns < len(tasks):
                axes.set_xticklabels([])
            every.append(axes)
    every[0].set_ylabel("pretrained on", fontsize=7.5)
    if len(cities) > 1:
        every[-1].set_xlabel("tested on", fontsize=7.5)
    bar = figure.colorbar(shown, ax=every, fraction=0.025, pad=0.01, extend="min")
    bar.outline.set_visible(False)
    return figure


_MEAN = "mean"


def _transfer_cells(table: pd.DataFrame) -> pd.DataFrame:
    """One value a row of the matrix, tested city and task, among them the mean."""
    row = table["pretrained_on"]
    if "method" in table and table["method"].nunique() > 1:
        row = table["method"].str.cat(row, sep=", ")
    table = table.assign(row=row, task=table["task"].str.replace("_", " "))
    judged = table[table["metric"] == "r2"] if "metric" in table else table
    parts = [table]
    for city, rows in judged.groupby("city"):
        by_task = rows.pivot_table(index=["row", "pretrained_on"], columns="task", values="value")
        mean = by_task.dropna(axis=1).mean(axis=1).rename("value").reset_index()
        parts.append(mean.assign(city=city, task=_MEAN))
    cells = pd.concat(parts).groupby(["row", "pretrained_on", "city", "task"])["value"].mean()
    return cells.reset_index()


def _matrix(axes: Axes, cells: pd.DataFrame, rows: list[str], columns: list[str]) -> Any:
    """Cells (row, column, value, pretrained_on, city) with their numbers; framed where it is one
    city."""
    at = cells.assign(y=cells["row"].map(rows.index), x=cells["column"].map(columns.index))
    values = np.full((len(rows), len(columns)), np.nan)
    values[at["y"], at["x"]] = at["value"]
    cmap = SEQUENTIAL.with_extremes(bad=palette.MISSING)
    shown = axes.imshow(values, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    for cell in _rows(at.dropna(subset="value")):
        ink = "white" if cell.value < 0.55 else palette.INK
        text = f"{cell.value:.2f}".replace("-", "\u2212")
        axes.text(cell.x, cell.y, text, ha="center", va="center", fontsize=7, color=ink)
        if cell.pretrained_on == cell.city:
            frame = Rectangle((cell.x - 0.46, cell.y - 0.44), 0.92, 0.88, fill=False,
                              edgecolor=palette.LINES, lw=1.6)  # fmt: skip
            axes.add_patch(frame)
    axes.set_xticks(range(len(columns)), [short(name, 18) for name in columns])
    axes.tick_params(axis="x", labelrotation=30, labelsize=7)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_yticks(range(len(rows)), [short(name, 28) for name in rows], fontsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return shown


def _headline(summary: pd.DataFrame, part: str) -> NDArray[np.float64]:
    """Of each row the `mean` or `sd` of the figure that its `headline` names."""
    found = np.full(len(summary), np.nan)
    for name in summary["headline"].unique():
        at = (summary["headline"] == name).to_numpy()
        found[at] = summary.loc[at, f"{name}_{part}"].to_numpy(float)
    return found


@as_picture
def loss_curves(records: pd.DataFrame, *, title: str = "Loss by epoch") -> Figure:
    """How trainings went: a panel a variant and split, a line a seed and fold; training is drawn
    through, validation dashed, with a dot at the epoch whose weights stay.

    Args:
        records: variant, split, fold, seed, loss and validation (lists, one value an epoch).
    """
    records = records[records["loss"].map(len) > 0]
    if records.empty:
        return _nothing(f"{title}: nothing was trained step by step")
    panels = list(records.groupby(["variant", "split"], sort=True))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.2 * columns + 0.9, 2.3 * rows + 0.5)
    headed(figure, title)
    seeds = sorted(records["seed"].unique())
    colour = dict(zip(seeds, palette.qualitative(len(seeds)), strict=True))
    several = records["split"].nunique() > 1 or len(panels) > records["variant"].nunique()
    for number, ((variant, split), fits) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        thin: dict[str, Any] = {
            "lw": 1.4 if len(fits) <= 6 else 0.7,
            "alpha": 0.9 if len(fits) <= 6 else 0.6,
        }
        for fit in _rows(fits):
            epochs = np.arange(1, len(fit.loss) + 1)
            alone: dict[str, Any] = {"marker": "o", "ms": 3} if len(epochs) == 1 else {}
            axes.plot(epochs, fit.loss, color=colour[fit.seed], **thin, **alone)
            if len(fit.validation):
                axes.plot(epochs, fit.validation, color=colour[fit.seed], ls="--", **thin)
                best = int(np.argmin(fit.validation))
                axes.plot(best + 1, fit.validation[best], "o", ms=3, color=colour[fit.seed])
        name = f"{variant}, {split} split" if several else str(variant)
        axes.set_title(f"{short(name.replace('_', ' '), 34)}", fontsize=8)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.tick_params(labelsize=7)
        if number % columns == 0:
            axes.set_ylabel("loss", fontsize=7.5)
        if number // columns == rows - 1:
            axes.set_xlabel("epoch", fontsize=7.5)
    handles = [Line2D([], [], color=colour[seed], label=f"seed {seed}") for seed in seeds]
    if records["validation"].map(len).any():
        handles += [
            Line2D([], [], color=palette.FAINT, label="training"),
            Line2D([], [], color=palette.FAINT, ls="--", marker="o", ms=3, label="validation"),
        ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)
    return figure


@as_picture
def expert_map(table: pd.DataFrame, *, title: str = "Experts") -> Figure:
    """What each task (row) gives to its experts (columns, by group), a panel a branch; at the right,
    how many are on. A dot: never on. Grey: no such expert.

    Args:
        table: branch, task, group, number, weight, active, as `report.experts` makes it.
    """
    tasks, groups = (list(dict.fromkeys(table[name])) for name in ("task", "group"))
    partners = [task for task in tasks if task in groups]
    order = [group for group in (OWN, *partners, SHARED) if group in groups]
    size = table.groupby("group")["number"].max().reindex(order) + 1
    start = dict(zip(order, np.cumsum([0, *size[:-1]]), strict=True))
    columns, branches = int(size.sum()), list(dict.fromkeys(table["branch"]))
    figure = new_figure(
        3.4 + max(0.2 * columns, 2.6), 0.6 + len(branches) * (0.9 + 0.2 * len(tasks))
    )
    headed(figure, title)
    every, top = [], float(table["weight"].max()) or 1.0
    at = table.assign(y=table["task"].map(tasks.index), x=table["group"].map(start))
    at["x"] += at["number"]
    for number, branch in enumerate(branches):
        axes = figure.add_subplot(len(branches), 1, number + 1)
        own = at[at["branch"] == branch]
        values = np.full((len(tasks), columns), np.nan)
        values[own["y"], own["x"]] = own["weight"]
        cmap = _PALE.with_extremes(bad=palette.MISSING)
        shown = axes.imshow(values, cmap=cmap, vmin=0, vmax=top, aspect="auto")
        off = own[own["active"] == 0]
        axes.plot(off["x"], off["y"], ".", ms=2, color=palette.MISSING_LINE)
        for task, on in own.groupby("task")["active"].sum().items():
            _said(axes, tasks.index(str(task)), f"{on:.1f}", palette.FAINT)
        axes.vlines([start[g] - 0.5 for g in order[1:]], -0.5, len(tasks) - 0.5, "white", lw=2)
        axes.set_yticks(range(len(tasks)), [short(t.replace("_", " "), 24) for t in tasks])
        middles = [start[g] + (size[g] - 1) / 2 for g in order]
        names = [g.strip("()") if g in (OWN, SHARED) else f"with {g}" for g in order]
        axes.set_xticks(middles, [short(name.replace("_", " "), 24) for name in names])
        axes.tick_params(labelsize=7)
        axes.tick_params(axis="x", labelrotation=90)
        if number < len(branches) - 1:
            axes.set_xticklabels([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(f"{branch} branch", fontsize=8)
        axes.set_title("on", loc="right", fontsize=7, color=palette.FAINT, fontweight="normal")
        every.append(axes)
    bar = figure.colorbar(shown, ax=every, fraction=0.03, pad=0.06)
    bar.outline.set_visible(False)
    bar.set_label("weight", fontsize=7.5)
    return figure


@as_picture
def embedding_scatter(
    embedding_map: pd.DataFrame, regions: gpd.GeoDataFrame, *, title: str = "Embeddings"
) -> Figure:
    """Embeddings by PCA and t-SNE coloured by cluster, and the clusters on the map.

    Args:
        embedding_map: region_id, pca_1, pca_2, tsne_1, tsne_2, cluster of one fit.
    """
    count = int(embedding_map["cluster"].max()) + 1
    colours = palette.qualitative(count)
    shade = np.array(colours)[embedding_map["cluster"].to_numpy(int)]
    width, height = map_size(regions, 3.4)
    figure = new_figure(width + 7.4, max(height, 3.8))
    headed(figure, title)
    size = float(np.clip(4000 / max(len(embedding_map), 1), 1, 14))
    for number, (name, label) in enumerate((("pca", "PCA"), ("tsne", "t-SNE"))):
        axes = figure.add_subplot(1, 3, number + 1)
        x, y = embedding_map[f"{name}_1"], embedding_map[f"{name}_2"]
        axes.scatter(x, y, s=size, c=list(shade), alpha=0.8, linewidths=0)
        axes.set_title(label, fontsize=8.5)
        axes.set_xticks([])
        axes.set_yticks([])
    axes = figure.add_subplot(1, 3, 3)
    map_axes(axes, regions, "clusters on the map")
    codes = embedding_map.set_index("region_id")["cluster"]
    norm = BoundaryNorm(np.arange(-0.5, count), count) if count > 1 else LinearNorm(0, 1)
    fill_map(axes, regions, of_regions(regions, codes), ListedColormap(colours), norm)
    return figure


@as_picture
def rejected_bars(rejected: pd.DataFrame, *, title: str = "Rejected") -> Figure:
    """Items that were rejected, by stage and reason, on a logarithmic axis; `rejected` as
    `model_code.rejections.summary` gives it."""
    if rejected.empty:
        return _nothing(f"{title}: 0")
    counts = rejected.groupby(["stage", "reason"])["items"].sum().sort_values(kind="stable")
    figure = new_figure(7, 0.9 + 0.28 * len(counts))
    axes = figure.add_subplot()
    labels = [short(f"{stage}: {reason}", 60) for stage, reason in counts.index]
    axes.barh(range(len(counts)), counts.to_numpy(), color=palette.ACCENT, height=0.62)
    axes.set_yticks(range(len(counts)), labels)
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(float(counts.max()), 1) * 4)
    axes.set_xlabel("items")
    axes.set_title(f"{title}: {_count(counts.sum())}")
    for row, value in enumerate(counts):
        axes.text(max(value, 0.5) * 1.12, row, _count(value), va="center", fontsize=7.5)
    return figure


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.2g}"


@as_picture
def hour_profile(mobility: pd.DataFrame, *, title: str = "Trips by hour") -> Figure:
    """Out- and inflow of all regions by local hour; the band is the middle half of the regions,
    each divided by its own mean."""
    hourly = mobility[mobility["hour"].notna()]
    if hourly.empty:
        return _nothing(f"{title}: no hours known")
    figure = new_figure(7, 2.8)
    for number, (column, colour) in enumerate((("outflow", palette.ACCENT), ("inflow", "#d55e00"))):
        axes = figure.add_subplot(1, 2, number + 1)
        table = hourly.pivot_table(index="region_id", columns="hour", values=column, aggfunc="sum")
        table = table.reindex(columns=range(24), fill_value=0).fillna(0)
        total = table.sum(axis=0)
        moving = table[table.sum(axis=1) > 0]
        shape = moving.div(moving.mean(axis=1), axis=0)
        if len(shape):
            low, high = np.percentile(shape.to_numpy(float), [25, 75], axis=0)
            axes.fill_between(range(24), low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(range(24), total / (total.mean() or 1), color=colour, lw=1.8)
        axes.set_title(f"{column}: {total.sum():,.0f} trips", fontsize=8.5)
        axes.set(xlim=(0, 23), ylim=(0, None), xlabel="local hour", xticks=range(0, 24, 6))
        if number == 0:
            axes.set_ylabel("relative to the mean hour")
    return figure
