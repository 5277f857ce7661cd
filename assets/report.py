"""One page a city: data, maps, leaderboard, embeddings, rejected rows, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assets.captions import examples
from assets.methods import named_predictions
from assets.stage import STAGES, Context, Product, in_order, stage
from assets.transfer import matrix_of
from model_code.city import City
from model_code.methods import METHODS
from resources import backends
from resources.lake import Manifest, text_writer

if TYPE_CHECKING:
    import pandas as pd

    from model_code.report.captions import CaptionData
    from model_code.report.html import Finding

_TABLES = (
    "regions", "coverage", "indicators", "targets", "splits", "leaderboard", "comparisons",
    "reachable", "rejected", "raw_files",
)  # fmt: skip
_PICTURES = {
    "regions": "The regions",
    "region_chips": "Satellite chips",
    "region_street_views": "Street views",
    "heights": "Building heights",
    "flows": "Trips between regions",
    "mobility": "Trips by hour",
    "musecl_triplets": "What MuseCL learns from: regions that are alike in POIs, or in trips, and ones "
    "that are not",
    "urbanmmcl_graphs": "UrbanMMCL's graphs: the strongest links of each",
}
_CAPTIONS = ("calibrated_captions", "caption_scores", "captions", "image_shares")
_EXPERTS = ("urbanmoe_finetuned", "urbanmoe_outputs")
_ROUTED = "urbanmoe"  # the method whose experts are shown
_HOURS = ("hourly_metrics", "region_descriptions", "lmemr_attention")
_HOURLY = "lmemr"  # the method whose days are shown
_VIEWS = ("urbanmmcl_views",)
_VIEWED = "urbanmmcl"  # the method whose parts are shown
_PICTURED = {"region_chips": "satellite", "region_street_views": "street view"}
_BINNED = 3  # methods whose bins are shown
_SHOWN = 10  # best and worst captions of a view


def _per_method(names: Any) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for name in names for part in ("embeddings", "predictions"))


def _reads(city: City) -> tuple[str, ...]:
    experts = _EXPERTS if _ROUTED in city.methods else ()
    hours = _HOURS if _HOURLY in city.methods else ()
    views = _VIEWS if _VIEWED in city.methods else ()
    own = (*_per_method(city.methods), *experts, *hours, *views)
    return tuple(dict.fromkeys([*_TABLES, *_PICTURES, *_CAPTIONS, *own]))


def _own_transfer(city: City) -> tuple[tuple[str, str], ...]:
    """Read as of another city: as it stands, and without asking for it to be made."""
    return ((city.name, "transfer"),) if city.transfer else ()


@stage(group="report", kinds=("html",), table=None,
       inputs=tuple(dict.fromkeys(
           [*_TABLES, *_PICTURES, *_CAPTIONS, *_per_method(METHODS), *_EXPERTS, *_HOURS, *_VIEWS])),
       reads=_reads, elsewhere=_own_transfer, after=("transfer",),
       code=("model_code.report.figures", *backends.CODE["painter"], *backends.CODE["segmenter"]),
       config=("title", "methods", "captions", "chips.min_valid_share"),
       settings=lambda city: {name: STAGES[name].picture_code() for name in _PICTURES}, data_files=("model_code/report/templates/*",),
       publish="report.html")  # fmt: skip
def report(ctx: Context) -> Product:
    """The city's page: one self-contained file that opens offline."""
    from model_code.rejections import summary
    from model_code.report.html import Picture, ReportData, render_report

    tables = ctx.inputs
    pictures = [
        Picture(caption, tables[name].path("picture.png").read_bytes())
        for name, caption in _PICTURES.items()
        if "picture.png" in tables[name].files
    ]
    page = render_report(
        ReportData(
            city=ctx.name,
            title=ctx.city.title,
            description="",
            regions=tables["regions"].geo(),
            predictions={
                name: named_predictions(tables[f"{name}_predictions"])[0]
                for name in sorted(ctx.city.methods)
            },
            embedding_maps={
                name: tables[f"{name}_embeddings"].frame(file="map.parquet")
                for name in sorted(ctx.city.methods)
            },
            reachable=tables["reachable"].frame() if ctx.has("reachable") else None,
            captions=_captions(ctx) if ctx.has("captions") else None,
            ablations=_ablations(ctx),
            transfer=_transfer(ctx),
            experts=_experts(ctx),
            hours=_hours(ctx),
            views=_views(ctx),
            provenance=_provenance(ctx),
            pictures=pictures,
            reproduce=[f"make run CITY={ctx.name}"],
            summary=_summary(tables["leaderboard"].frame()),
            rejected=summary(tables["rejected"].batches()),
            **{
                name: tables[name].frame()
                for name in _TABLES
                if name not in ("regions", "reachable", "rejected")
            },
        )
    )
    return Product(files={"report.html": text_writer(page)}, metadata={"bytes": len(page)})


def _captions(ctx: Context) -> CaptionData:
    """The section on captions: what was measured, and the best and worst of each view."""
    from model_code.report.captions import CaptionData

    best, shares = (ctx.inputs[name].frame() for name in ("calibrated_captions", "image_shares"))
    shown = examples(ctx, best, _SHOWN).merge(
        shares[["view", "image_id", "classes", "shares"]], on=["view", "image_id"]
    )
    config = ctx.city.captions
    painted: list[Any] = []
    for view, rows in shown.groupby("view", sort=False):
        with backends.segmenting(config.segmenter, view) as segmenter:
            painted.extend(
                segmenter.segment(list(rows["painted"])).shares if segmenter else [()] * len(rows)
            )
    return CaptionData(
        calibrated=best,
        scores=ctx.inputs["caption_scores"].frame(),
        image_shares=shares,
        examples=shown.assign(painted_shares=painted),
        limits=config.calibration,
    )


def _ablations(ctx: Context) -> list[Finding]:
    """What text adds to each method that has a variant without it, and what every part adds."""
    from model_code.report import figures, gains
    from model_code.report.html import Finding, Picture

    comparisons = ctx.inputs["comparisons"].frame()
    found = []
    for name in gains.ablated_methods(comparisons):
        title = METHODS[name].title
        text = gains.text_gains(comparisons, name)
        if len(text):
            caption = (
                f"Gain of {title} over itself without text and, as the control, over the bare "
                "shares that a segmenter measures. Pale: a tie."
            )
            bars = Picture(caption, figures.text_bars(comparisons, name))
            found.append(
                Finding(f"{title}: what text adds, by indicator", gains.sentences(text), bars)
            )
        caption = f"Gain of the default of {title} over each variant. Pale: a tie."
        bars = Picture(caption, figures.ablation_bars(comparisons, name))
        found.append(Finding(f"{title}: what each part adds, by indicator", (), bars))
    return found


def _experts(ctx: Context) -> list[Finding]:
    """What routers give to their experts, and what these put out."""
    if _ROUTED not in ctx.city.methods:
        return []
    from model_code.report import expert_outputs, experts, figures
    from model_code.report.html import Finding, Picture

    title, (fitted, outputs) = METHODS[_ROUTED].title, (ctx.inputs[name] for name in _EXPERTS)
    records = [fitted.record(checkpoint) for checkpoint in fitted.checkpoints]
    weights = experts.expert_weights(r for r in records if r["fit"]["variant"] == "default")
    shown = (
        (
            "groups of experts, by branch",
            (),
            "On the validation regions: weights summed within each group; mean of all folds and seeds of the "
            "default. An even router gives a group as much as it has experts. At the right, how many are on.",
            figures.expert_map(experts.by_group(weights), title=f"{title}: groups of experts"),
        ),
        (
            "single experts, by branch",
            (),
            "The same of one fit, its first fold and seed: experts have no identity across fits. A dot: never "
            "on.",
            figures.expert_map(experts.first_fit(weights), title=f"{title}: single experts"),
        ),
        (
            "outputs of the experts",
            expert_outputs.sentences(outputs.frame()),
            "The same fit. A point is what one expert, or the mixture that the task reads, puts out for a "
            "region, by direction; regions that were not trained on, drawn at random. Pale: shut off.",
            expert_outputs.expert_scatter(outputs.frame()),
        ),
    )
    return [
        Finding(f"{title}: {name}", said, Picture(caption, png))
        for name, said, caption, png in shown
    ]


def _hours(ctx: Context) -> list[Finding]:
    """The hourly outflow as the method of its own predicts it, on the first split of the city."""
    if _HOURLY not in ctx.city.methods:
        return []
    import numpy as np
    import pandas as pd

    from model_code.evaluation.hourly import flow_bins
    from model_code.report import cluster_tree, hours
    from model_code.report.html import Finding, Picture
    from model_code.report.labels import is_default

    title = METHODS[_HOURLY].title
    tables = {name: ctx.inputs[name].frame() for name in ("targets", "indicators", "splits")}
    predictions = {
        name: rows[rows["variant"].map(is_default)]
        for name in sorted(ctx.city.methods, key=lambda name: (name != _HOURLY, name))
        for rows in [named_predictions(ctx.inputs[f"{name}_predictions"])[0]]
    }
    own = predictions[_HOURLY]
    split, task = min(own["split"]), str(own["task"].iloc[0])
    predictions = {
        name: rows[(rows["split"] == split) & (rows["task"] == task)]
        for name, rows in predictions.items()
    }
    observed, predicted = hours.mean_days(predictions[_HOURLY])
    flows = hours.days(tables["targets"], task)
    kinds = hours.kinds_of_day(flows)
    told = ctx.has("region_descriptions")
    written = ctx.inputs["region_descriptions"].frame() if told else pd.DataFrame({"land": []})
    words = hours.marking_words(kinds, written.query("form == 'levels'")) if told else {}
    sentences = [
        hours.peak_sentence(kind, flows[kinds == kind], words.get(kind, ()))
        for kind in range(int(kinds.max()) + 1)
    ]
    logs = flows.apply(np.log1p)
    chosen = cluster_tree.typical_regions(kinds.to_numpy(), logs, observed.index)
    bins = flow_bins(tables["targets"], tables["indicators"], tables["splits"])
    counts = {
        METHODS[name].title: sum(
            hours.bin_counts(part, bins[task, split, int(fold)])
            for fold, part in rows.groupby("fold")
        )
        for name, rows in list(predictions.items())[:_BINNED]
        if len(rows)
    }
    shown = (
        (
            "Figures by hour",
            (),
            f"The range is over folds and seeds of {title}; the others are means of their defaults. "
            "True zeros are left out of the last.",
            hours.hourly_figures(ctx.inputs["hourly_metrics"].frame(), _HOURLY, split=split),
        ),
        (
            f"{title}: days of single regions",
            (),
            "Tested regions, each the most typical of a kind of day; means over folds and seeds.",
            hours.day_curves(observed, predicted, chosen),
        ),
        (
            "Kinds of day, and the words that mark them",
            sentences,
            "All regions that have the target, clustered by their observed day; the words are of "
            "descriptions, which no trip went into.",
            hours.kinds_map(ctx.inputs["regions"].geo(), kinds, flows, words),
        ),
        (
            "Bins of the flow",
            (),
            "Share of each true bin that is predicted as each bin; above, how many lie in the right "
            "one.",
            hours.bin_confusion(counts),
        ),
    )
    found = [Finding(name, said, Picture(caption, png)) for name, said, caption, png in shown]
    if cluster_tree.has_tree(logs.to_numpy()):
        caption = (
            "The tree of all days, cut at seven kinds (below: how many regions), and the maps as kinds "
            "split; a colour stays with the larger part."
        )
        tree = cluster_tree.tree_with_maps(
            ctx.inputs["regions"].geo(), logs, title="How kinds of day split", noun="kinds"
        )
        found.insert(3, Finding("From two kinds of day to seven", (), Picture(caption, tree)))
    return found + _inside(ctx, chosen)


def _inside(ctx: Context, chosen: Sequence[str]) -> list[Finding]:
    """Whom the graph attends to, also around the `chosen` regions, and where modalities lie."""
    from model_code.report import attention
    from model_code.report.html import Finding, Picture

    handle, regions = ctx.inputs["lmemr_attention"], ctx.inputs["regions"].geo()
    given, states = handle.frame(), handle.frame(file="states.parquet")
    fit = "The first fold and seed of the default; means over heads and blocks"
    shown = [
        (
            "Graph attention",
            (),
            f"{fit}. Red: regions that their neighbours look at more than evenly.",
            attention.attention_maps(given, regions),
        ),
        (
            "Graph attention of single regions",
            (),
            f"{fit}, and over modalities. The regions are those of the days above.",
            attention.attention_of(given, regions, chosen),
        ),
    ]
    scatter = (
        "Modalities, with and without the contrast between them",
        attention.match_sentences(states),
        "States after the graph, by direction; one point is a region in one modality.",
        attention.modality_scatter(states),
    )
    shown = [*(shown if len(given) else []), scatter]
    return [Finding(name, said, Picture(caption, png)) for name, said, caption, png in shown]


def _views(ctx: Context) -> list[Finding]:
    """What UrbanMMCL takes for alike, as a whole and in part, and what it predicts for single regions."""
    if _VIEWED not in ctx.city.methods:
        return []
    import pandas as pd

    from model_code.report import cases, cluster_tree, look_alikes
    from model_code.report.html import Finding, Picture

    title, regions = METHODS[_VIEWED].title, ctx.inputs["regions"].geo()
    views = look_alikes.by_view(ctx.inputs["urbanmmcl_views"].frame())
    whole = views["whole"]
    codes, anchors = look_alikes.anchors(views)
    fit = "The first fold and seed of the default"
    found = []
    if cluster_tree.has_tree(whole.to_numpy()):
        caption = (
            f"{fit}: the tree of all embeddings, cut at seven clusters (below: how many regions), and the "
            "maps as clusters split; a colour stays with the larger part."
        )
        tree = cluster_tree.tree_with_maps(
            regions, whole, title=f"How clusters of {title}'s embeddings split"
        )
        found.append(Finding("From two clusters to seven", (), Picture(caption, tree)))
    targets, indicators = (ctx.inputs[name].frame() for name in ("targets", "indicators"))
    numbers = indicators.loc[indicators["kind"] != "classification", "indicator"]
    values = targets[targets["indicator"].isin(numbers)].pivot_table(
        index="region_id", columns="indicator", values="value"
    )
    caption = (
        f"{fit}. Dot: a region typical of each of the largest clusters; outlined: the "
        f"{look_alikes.ALIKE} most alike to it. A graph's vector is of the pictures and places of the regions "
        "that a region is linked to there."
    )
    maps = look_alikes.alike_maps(regions, views, anchors)
    said = look_alikes.sentences(look_alikes.measures(views, values))
    found.append(Finding("Look-alikes, by all and by each part", said, Picture(caption, maps)))

    predictions = cases.most_tested(named_predictions(ctx.inputs[f"{_VIEWED}_predictions"])[0])
    tasks = cases.shown_tasks(predictions, indicators)
    if len(tasks):
        tested = pd.Index(predictions["region_id"].unique())
        chosen = cluster_tree.typical_regions(codes, whole, tested)[: cases.CASES]
        figure = cases.case_figure(predictions, tasks, chosen, _pictures_of(ctx, chosen))
        caption = (
            f"{predictions['split'].iloc[0].capitalize()} split, means over folds and seeds. Each region is "
            "typical of a large cluster; the line is the truth, the dots are predictions of the default "
            "and of the variants that lack a part."
        )
        found.append(Finding("Predictions for single regions", (), Picture(caption, figure)))
    return found


def _pictures_of(ctx: Context, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By kind, the first picture of each of the `chosen` regions that has one."""
    from model_code.report.figures import rgb

    found: dict[str, dict[str, Any]] = {}
    for table, kind in _PICTURED.items():
        if ctx.has(table):
            rows = ctx.inputs[table].of_regions(chosen).to_pandas().drop_duplicates("region_id")
            if len(rows):
                found[kind] = {row.region_id: rgb(row) for row in rows.itertuples()}
    return found


def _transfer(ctx: Context) -> list[Finding]:
    """Transfers of this city, if they have been made: a run of its own makes them."""
    from model_code.report.html import Finding, Picture

    found = []
    for handle in ctx.elsewhere.values():
        if handle.exists:
            rows = handle.frame()
            for split in sorted(rows["split"].unique()):
                picture = matrix_of(rows, split)
                caption = (
                    f"R² (classes: macro F1) on the {split} split; rows: where the encoder was "
                    "pretrained."
                )
                found.append(Finding(f"{split.capitalize()} split", (), Picture(caption, picture)))
    return found


def _summary(leaderboard: pd.DataFrame) -> pd.DataFrame:
    from model_code.evaluation.leaderboard import summary

    return summary(leaderboard)


def _provenance(ctx: Context) -> pd.DataFrame:
    """All that this page rests on. What is not an input itself is upstream of one, so that its
    fingerprint is a part of an input's."""
    import pandas as pd

    from model_code.fingerprint import digest

    rows = [
        {
            "stage": manifest.asset,
            "fingerprint": manifest.fingerprint,
            "code": digest(manifest.inputs.get("code", {})),
            "inputs": sorted(manifest.inputs.get("upstream", {}))
            or sorted(manifest.inputs.get("raw", {})),
        }
        for manifest in _upstream(ctx)
        if not manifest.absent
    ]
    return pd.DataFrame(rows)


def _upstream(ctx: Context) -> list[Manifest]:
    """Manifests of the inputs and of all that they rest on, in the order of the pipeline."""
    lake = next(iter(ctx.inputs.values())).lake
    wanted = set(ctx.inputs)
    found: list[Manifest] = []
    for declared in reversed(in_order()):
        manifest = lake.manifest(ctx.name, declared.name) if declared.name in wanted else None
        if manifest:
            wanted |= set(manifest.inputs.get("upstream", {}))
            found.append(manifest)
    return found[::-1]
