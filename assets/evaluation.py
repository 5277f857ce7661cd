"""All methods on one table, against each other and against what can be reached."""

from __future__ import annotations

from typing import Any

from assets.methods import named_predictions
from assets.regions import locator
from assets.stage import Context, Product, Written, stage
from model_code.city import City
from model_code.methods import METHODS


def _chosen(suffix: str, *others: str) -> Any:
    """The inputs that this city's methods give."""
    return lambda city: (*(f"{name}_{suffix}" for name in city.methods), *others)


def _all(suffix: str) -> tuple[str, ...]:
    return tuple(f"{name}_{suffix}" for name in METHODS)


def _heatmap(ctx: Context, written: Written) -> bytes:
    from model_code.evaluation.leaderboard import summary
    from model_code.report import figures

    return figures.leaderboard_heatmap(summary(written.frame()))


def _csv(table: Any) -> bytes:
    return bytes(table.to_csv(index=False, lineterminator="\n").encode())


@stage(group="evaluation", kinds=("pandas",), inputs=_all("metrics"), reads=_chosen("metrics"),
       picture=_heatmap, publish="leaderboard.csv")  # fmt: skip
def leaderboard(ctx: Context) -> Product:
    """Every figure of every method, one a row; `leaderboard.csv` is the summary for people."""
    import pandas as pd

    from model_code.evaluation.leaderboard import summary
    from resources.lake import bytes_writer

    parts = [handle.frame() for _, handle in sorted(ctx.inputs.items())]
    rows = pd.concat(parts, ignore_index=True)
    return Product(rows, files={"leaderboard.csv": bytes_writer(_csv(summary(rows)))})


@stage(group="evaluation", kinds=("numpy",), inputs=(*_all("predictions"), "targets", "splits"),
       reads=_chosen("predictions", "targets", "splits"))  # fmt: skip
def comparisons(ctx: Context) -> Product:
    """Paired bootstrap between methods on the same test regions."""
    from model_code.evaluation.compare import compare

    catalogue = ctx.inputs["targets"].frame(file="indicators.parquet")
    predictions = {}
    for name, handle in sorted(ctx.inputs.items()):
        if name.endswith("_predictions"):
            for variant, rows in named_predictions(handle)[0].groupby("variant"):
                predictions[name.removesuffix("_predictions"), str(variant)] = rows
    return Product(compare(predictions, catalogue, splits=ctx.inputs["splits"].frame()))


def _no_hours(city: City) -> str:
    if any(indicator.kind == "hourly" for indicator in city.indicators.values()):
        return ""
    return "the city's YAML has no indicator of kind: hourly"


@stage(group="evaluation", kinds=("numpy",), inputs=(*_all("predictions"), "targets", "splits"),
       reads=_chosen("predictions", "targets", "splits"), absent=_no_hours)  # fmt: skip
def hourly_metrics(ctx: Context) -> Product:
    """Figures of the hourly targets for each hour of the day."""
    from model_code.evaluation.hourly import hourly_metrics as measure

    targets = ctx.inputs["targets"]
    predictions = {
        name.removesuffix("_predictions"): named_predictions(handle)[0]
        for name, handle in sorted(ctx.inputs.items())
        if name.endswith("_predictions")
    }
    return Product(
        measure(
            predictions,
            targets.frame(),
            targets.frame(file="indicators.parquet"),
            ctx.inputs["splits"].frame(),
        )
    )


def _no_truth(city: City) -> str:
    return "" if city.sources.truth else "only a simulated city knows its true functions"


@stage(group="evaluation", kinds=("scipy",), inputs=("regions", "targets", "splits"),
       config=("partition", "sources.truth"), raw=("sources.truth",),
       absent=_no_truth)  # fmt: skip
def reachable(ctx: Context) -> Product:
    """What could be reached on a simulated city: the true function, and kriging of the noise."""
    import pandas as pd

    from model_code.city import resolve
    from model_code.evaluation.reachable import reachable as measure

    regions = ctx.inputs["regions"].geo()
    truth = pd.read_parquet(resolve(ctx.city.sources.truth.path, ctx.root))
    places = truth[["lon", "lat"]].to_numpy()
    index = locator(ctx).locate_lonlat(places[:, 0], places[:, 1])
    truth = truth[index >= 0].assign(region_id=regions["region_id"].to_numpy()[index[index >= 0]])
    targets = ctx.inputs["targets"]
    return Product(
        measure(
            truth,
            targets.frame(),
            targets.frame(file="indicators.parquet"),
            ctx.inputs["splits"].frame(),
            pd.DataFrame(regions[["region_id", "x_m", "y_m"]]),
        )
    )
