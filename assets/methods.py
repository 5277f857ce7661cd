"""The assets of every method, made by one factory from the registry.

    pretrained:  <m>_checkpoint -> <m>_embeddings -> <m>_finetuned -> <m>_predictions -> <m>_metrics
    supervised:                     <m>_finetuned -> <m>_embeddings, <m>_predictions -> <m>_metrics

A city runs the methods that its YAML names; the assets of the others are left out there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from assets.fits import Progress, fit_together, kept
from assets.inputs import TABLE_OF, check_regions, labels, region_data, region_ids
from assets.stage import Context, Product, Stage, Written, define, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.fingerprint import digest
from model_code.methods import (
    HEAD_KEYS,
    MADE_FROM,
    METHODS,
    MethodConfig,
    MethodSpec,
    Modality,
)
from model_code.tables import contract
from resources.lake import Handle, plain_table_writer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from model_code.methods.base import Checkpoint, RegionData, Workspace
    from model_code.methods.run import Fit


def _not_chosen(spec: MethodSpec, city: City) -> str:
    chosen = spec.name in city.methods
    return "" if chosen else f"the city's YAML does not name methods.{spec.name}"


def _configs(spec: MethodSpec, city: City, without: frozenset[str]) -> dict[str, Any]:
    """Each variant's full settings, less the keys that this stage does not read."""
    from model_code.methods.run import variant_configs

    choice = city.methods[spec.name]
    return {
        variant: config.model_dump(mode="json", exclude=set(without))
        for variant, config in variant_configs(spec.name, choice.config, choice.variants).items()
    }


def _protocols(spec: MethodSpec, city: City) -> set[str]:
    from model_code.methods.run import protocol, variant_configs

    choice = city.methods[spec.name]
    configs = variant_configs(spec.name, choice.config, choice.variants)
    return {protocol(spec, config) for config in configs.values()}


def _fit_settings(spec: MethodSpec, city: City) -> dict[str, Any]:
    return {"seeds": list(city.seeds), "variants": _configs(spec, city, HEAD_KEYS)}


def _all_settings(spec: MethodSpec, city: City) -> dict[str, Any]:
    return {"seeds": list(city.seeds), "variants": _configs(spec, city, frozenset())}


def _config(spec: MethodSpec, settings: dict[str, Any], variant: str) -> Any:
    return spec.config.model_validate(settings["variants"][variant])


def method_data(spec: MethodSpec, ctx: Context) -> RegionData:
    """The method's inputs; a modality below the floor is refused or left out, as the rules say."""
    return data_and_left_out(spec, ctx)[0]


def data_and_left_out(spec: MethodSpec, ctx: Context) -> tuple[RegionData, tuple[str, ...]]:
    """The method's inputs, and which of its modalities are left out of them."""
    from dataclasses import replace

    from model_code.methods.run import needs_check, read_by

    here = [m for m in spec.needs if _there(ctx, m) and _there(ctx, MADE_FROM.get(m, m))]
    configs = _own_configs(spec, ctx)
    if "towers" in read_by(spec, configs.values()) and "towers" not in here:
        raise DataError(
            f"method {spec.name!r} starts from the towers of `captions`, which city {ctx.name!r} has "
            "not",
            fix=f"add `captions: {{}}` to its YAML, or take `methods.{spec.name}` out",
        )
    data = region_data(ctx.inputs, here, ctx.city.chips.min_valid_share)
    thin = needs_check(spec, ctx.name, _shares(data), here, ctx.city.min_modality_share, configs)
    gone = {name: None for modality in thin for name in _FIELDS[modality]}
    return (replace(data, **gone) if gone else data), thin


def _own_configs(spec: MethodSpec, ctx: Context) -> dict[str, MethodConfig]:
    """By variant, the settings of the stage; those of the city, where the stage has none."""
    from model_code.methods.run import variant_configs

    if not ctx.settings:
        choice = ctx.city.methods[spec.name]
        return variant_configs(spec.name, choice.config, choice.variants)
    variants = ctx.settings.get("variants", {"default": ctx.settings})
    return {name: spec.config.model_validate(own) for name, own in variants.items()}


def _there(ctx: Context, modality: Modality) -> bool:
    return modality not in TABLE_OF or ctx.has(TABLE_OF[modality])


_FIELDS = {
    "imagery": ("chips", "chip_present"),
    "street_views": ("views", "view_region", "view_lonlat"),
    "pois": ("poi_counts",),
    "poi_texts": (
        *("poi_names", "poi_name_region", "poi_name_category"),
        *("poi_comments", "poi_comment_region", "poi_comment_category"),
    ),
    "poi_descriptions": ("poi_descriptions",),
    "flows": ("flow_origin", "flow_destination", "flow_count"),
    "hourly_flows": ("hourly_flows",),
    "buildings": ("heights", "height_present"),
    "chip_captions": ("chip_texts", "chip_text_kept", "chip_first_texts"),
    "view_captions": ("view_texts", "view_text_kept", "view_first_texts"),
    "view_locations": ("view_location_features",),
    "shares": ("chip_shares", "view_shares"),
    "image_features": ("chip_features", "view_features"),
    "descriptions": ("descriptions",),
}


def _shares(data: RegionData) -> dict[str, float]:
    """Share of the regions that each loaded modality reaches."""
    import numpy as np

    total = max(len(data), 1)
    shares: dict[str, float] = {}
    if data.chip_present is not None:
        shares["imagery"] = float(data.chip_present.mean())
    if data.view_region is not None:
        shares["street_views"] = len(np.unique(data.view_region)) / total
    if data.poi_counts is not None:
        shares["pois"] = float((data.poi_counts.sum(axis=1) > 0).mean())
    if data.poi_name_region is not None and data.poi_comment_region is not None:
        told = np.union1d(data.poi_name_region, data.poi_comment_region)
        shares["poi_texts"] = len(told) / total
    if data.poi_descriptions is not None:
        shares["poi_descriptions"] = float((data.poi_descriptions != "").mean())
    if data.flow_origin is not None and data.flow_destination is not None:
        moving = np.union1d(data.flow_origin, data.flow_destination)
        shares["flows"] = len(moving) / total
    if data.hourly_flows is not None:
        moving = np.union1d(data.hourly_flows.origin, data.hourly_flows.destination)
        shares["hourly_flows"] = len(moving) / total
    if data.height_present is not None:
        shares["buildings"] = float(data.height_present.mean())
    if data.chip_texts is not None:
        shares["chip_captions"] = float((data.chip_texts != "").mean())
    if data.view_texts is not None and data.view_region is not None:
        shares["view_captions"] = len(np.unique(data.view_region[data.view_texts != ""])) / total
    if data.view_location_features is not None:
        shares["view_locations"] = shares["street_views"]
    if data.chip_shares is not None or data.view_shares is not None:
        shares["shares"] = float(_with(data, data.chip_shares, data.view_shares).mean())
    if data.chip_features is not None or data.view_features is not None:
        shares["image_features"] = float(_with(data, data.chip_features, data.view_features).mean())
    if data.descriptions is not None:
        told = np.zeros(len(data), bool)
        for vectors in data.descriptions.values():
            told |= np.isfinite(vectors).all(axis=1)
        shares["descriptions"] = float(told.mean())
    return shares


def _with(data: RegionData, of_chips: Any, of_views: Any) -> Any:
    """Regions [N] whose chip, or one of whose street views, has a row of numbers."""
    import numpy as np

    there = np.zeros(len(data), bool)
    if of_chips is not None:
        there |= np.isfinite(of_chips).all(axis=1)
    if of_views is not None and data.view_region is not None:
        there[data.view_region[np.isfinite(of_views).all(axis=1)]] = True
    return there


# --- fits and their names ------------------------------------------------------------------------


def _name(fit: Fit, seed: int) -> str:
    fold = "" if fit.fold < 0 else f"-{fit.fold}"
    return f"{fit.variant}-{fit.split}{fold}-seed{seed}"


def _noted(checkpoint: Checkpoint, fit: Fit, seed: int, parameters: int) -> Checkpoint:
    from model_code.methods.base import Checkpoint

    about = {"variant": fit.variant, "split": fit.split, "fold": fit.fold, "seed": seed}
    record = {**checkpoint.record, "fit": about, "trained_parameters": parameters}
    return Checkpoint(checkpoint.tensors, record)


def stored(handle: Handle) -> Iterator[tuple[Fit, int, Checkpoint]]:
    """All checkpoints of an asset, in the order of the embeddings' key."""
    from model_code.methods.run import Fit

    found = []
    for name in handle.checkpoints:
        checkpoint = handle.checkpoint(name)
        about = checkpoint.record["fit"]
        found.append(
            (Fit(about["variant"], about["split"], about["fold"]), about["seed"], checkpoint)
        )
    yield from sorted(found, key=lambda item: (item[0], item[1]))


# --- stages --------------------------------------------------------------------------------------


def _fit(spec: MethodSpec, ctx: Context) -> Product:
    """Checkpoints of a method: one a variant, fold (where it reads one) and seed."""
    from model_code.methods.run import fit_checkpoint, fits, not_estimable, parts_for

    data, left_out = data_and_left_out(spec, ctx)
    configs = {v: _config(spec, ctx.settings, v) for v in sorted(ctx.settings["variants"])}
    empty = not_estimable(configs, left_out)
    for variant in sorted(empty):
        ctx.progress(
            f"{spec.name} · {variant}: nothing is left to read without {', '.join(left_out)}, which "
            "reach too few regions; not estimable"
        )
    splits = ctx.inputs["splits"].frame() if "splits" in ctx.inputs else None
    targets = labels(ctx.inputs["targets"], data.region_ids) if "targets" in ctx.inputs else None
    same: dict[str, list[tuple[Fit, int]]] = {}  # variants that differ in their heads share a fit
    for variant, config in configs.items():
        if variant in empty:
            continue
        for fit in fits(spec, config, splits, variant):
            for seed in ctx.settings["seeds"]:
                own_seed = seed if spec.seeded else None
                key = digest([ctx.settings["variants"][variant], fit.split, fit.fold, own_seed])
                same.setdefault(key, []).append((fit, seed))

    def fit_one(fit: Fit, seed: int, workspace: Workspace) -> Checkpoint:
        parts = None
        if fit.fold >= 0:
            parts = parts_for(splits, data.region_ids, fit.split, fit.fold)
        return fit_checkpoint(
            spec,
            configs[fit.variant],
            data,
            seed=seed,
            targets=targets,
            parts=parts,
            workspace=workspace,
        )

    return _fit_all(ctx, list(same.values()), fit_one)


def _fit_all(
    ctx: Context,
    jobs: list[list[tuple[Fit, int]]],
    fit_one: Callable[[Fit, int, Workspace], Checkpoint],
) -> Product:
    """Every fit as a checkpoint file of its own; those of one job are the same fit. What a killed run
    has finished is kept, and the fits of long work are shared among processes."""
    from model_code.methods.base import Workspace
    from model_code.trained import counted

    named = {_name(*job[0]): job for job in jobs}
    progress = Progress(ctx, list(named))

    def do(job: str) -> Iterator[tuple[str, Checkpoint]]:
        workspace = Workspace(progress.line, ctx.work / f"{job}.resume")
        with counted() as trained:
            checkpoint = fit_one(*named[job][0], workspace)
        for fit, seed in named[job][::-1]:
            yield _name(fit, seed), _noted(checkpoint, fit, seed, trained.numbers)

    fit_together(ctx, list(named), do)
    names = [_name(fit, seed) for job in jobs for fit, seed in job]
    first = {fit.variant: _name(fit, seed) for job in jobs[::-1] for fit, seed in job[::-1]}
    records = {v: json.loads((ctx.work / f"{n}.json").read_text()) for v, n in first.items()}
    numbers = {v: records[v]["trained_parameters"] for v in sorted(records)}
    about = {"trained_parameters": numbers} if any(numbers.values()) else {}
    return Product(files=kept(ctx, names), metadata={"fits": len(names), **about})


def _embed(spec: MethodSpec, source: str, ctx: Context) -> Product:
    """Embeddings of all regions from every checkpoint."""
    import numpy as np

    from model_code.evaluation.embedding_map import embedding_map

    data = method_data(spec, ctx)
    method = spec.load()
    tables, first, shown = [], None, _shown(ctx.settings["variants"])
    for fit, seed, checkpoint in stored(ctx.inputs[source]):
        config = _config(spec, ctx.settings, fit.variant)
        embedding = np.asarray(method.embed(checkpoint, data, config), np.float32)
        if first is None and fit.variant == shown:
            first = embedding
        tables.append(_embedding_batch(data.region_ids, embedding, fit, seed))
    assert first is not None
    drawn = embedding_map(first).drop(columns="row").assign(region_id=data.region_ids)
    writer = plain_table_writer(contract("embedding_map"), drawn)
    about = {"width": int(first.shape[1]), "fits": len(tables)}
    return Product(iter(tables), files={"map.parquet": writer}, metadata=about)


def _shown(variants: Iterable[str]) -> str:
    """The variant that pictures show: the method as it is."""
    from model_code.report.labels import is_default

    return min(variants, key=lambda variant: (not is_default(variant), variant))


def _embedding_batch(ids: Any, embedding: Any, fit: Fit, seed: int) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    count = len(embedding)
    return pa.record_batch(
        {
            "variant": [fit.variant] * count,
            "split": [fit.split] * count,
            "fold": np.full(count, fit.fold, np.int32),
            "seed": np.full(count, seed, np.int32),
            "region_id": pa.array(ids),
            "embedding": _vectors(embedding),
        }
    )


def _vectors(rows: Any) -> pa.ListArray:
    """A column of the rows [N, D], without a small array for each."""
    import numpy as np
    import pyarrow as pa

    count, width = rows.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()))


def embeddings_by_fit(handle: Handle, ids: Any) -> dict[tuple[str, str, int, int], Any]:
    """By (variant, split, fold, seed), the embedding [N, D] of an embeddings table."""
    import numpy as np

    table, rows = handle.arrow(), len(ids)
    found = {}
    for start in range(0, len(table), rows):
        part = table.slice(start, rows)
        check_regions(ids, part.column("region_id").to_numpy())
        key = tuple(part.column(c)[0].as_py() for c in ("variant", "split", "fold", "seed"))
        flat = part.column("embedding").combine_chunks().flatten().to_numpy()
        found[key] = np.ascontiguousarray(flat.reshape(rows, -1))
    return found


def _of_fit(found: dict[Any, Any], fit: Fit, seed: int) -> Any:
    """The embedding or checkpoint that a fold stands on: of the fold itself, or of no fold."""
    own = (fit.variant, fit.split, fit.fold, seed)
    return found[own if own in found else (fit.variant, "all", -1, seed)]


def _heads(spec: MethodSpec, ctx: Context) -> Product:
    """What predicts: a head on the embeddings, or the encoder trained on with its heads, one a
    variant, fold and seed."""
    from model_code.methods.base import Checkpoint
    from model_code.methods.run import Fit, fit_predictor, folds, parts_for

    ids = region_ids(ctx.inputs["regions"])
    embeddings = embeddings_by_fit(ctx.inputs[f"{spec.name}_embeddings"], ids)
    splits = ctx.inputs["splits"].frame()
    targets = labels(ctx.inputs["targets"], ids)
    fitted = ctx.inputs.get(f"{spec.name}_checkpoint")  # only where an encoder is trained on
    data = method_data(spec, ctx) if fitted else None
    checkpoints = _by_fit(fitted) if fitted else {}
    jobs = [
        [(Fit(variant, split, fold), seed)]
        for variant in sorted({variant for variant, *_ in embeddings})  # those that are estimable
        for split, fold in folds(splits)
        for seed in ctx.settings["seeds"]
    ]

    def fit_one(fit: Fit, seed: int, workspace: Workspace) -> Checkpoint:
        return fit_predictor(
            spec,
            _config(spec, ctx.settings, fit.variant),
            _of_fit(checkpoints, fit, seed) if fitted else Checkpoint({}),
            _of_fit(embeddings, fit, seed),
            seed=seed,
            targets=targets,
            parts=parts_for(splits, ids, fit.split, fit.fold),
            data=data,
            workspace=workspace,
        )

    return _fit_all(ctx, jobs, fit_one)


def _by_fit(handle: Handle) -> dict[tuple[str, str, int, int], Checkpoint]:
    found = ((fit, seed, checkpoint) for fit, seed, checkpoint in stored(handle))
    return {(fit.variant, fit.split, fit.fold, seed): checkpoint for fit, seed, checkpoint in found}


def _predict(spec: MethodSpec, ctx: Context) -> Product:
    """Predictions for the test regions of every fold."""
    import pandas as pd

    from model_code.methods.run import parts_for, predict, prediction_rows

    data, left_out = data_and_left_out(spec, ctx)
    ids = data.region_ids
    embeddings = None
    if spec.kind == "pretrained":
        embeddings = embeddings_by_fit(ctx.inputs[f"{spec.name}_embeddings"], ids)
    splits = ctx.inputs["splits"].frame()
    targets = labels(ctx.inputs["targets"], ids)
    frames = []
    for fit, seed, predictor in stored(ctx.inputs[f"{spec.name}_finetuned"]):
        config = _config(spec, ctx.settings, fit.variant)
        embedding = _of_fit(embeddings, fit, seed) if embeddings else None
        predicted = predict(spec, config, predictor, embedding, data)
        parts = parts_for(splits, ids, fit.split, fit.fold)
        frames.append(prediction_rows(predicted, targets, parts, ids, fit, seed))
    rows = pd.concat(frames, ignore_index=True)
    return Product(rows, metadata={"left_out": list(left_out)})


def named_predictions(handle: Handle) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A method's predictions, the variants named with what the city could not give them, and what
    that is."""
    from model_code.methods.run import variant_name

    left_out = tuple(handle.metadata("left_out") or ())
    rows = handle.frame()
    return rows.assign(variant=rows["variant"].map(lambda v: variant_name(v, left_out))), left_out


def _score(spec: MethodSpec, ctx: Context) -> Product:
    """The method's rows of the leaderboard."""
    from model_code.evaluation.hourly import flow_bins
    from model_code.evaluation.leaderboard import (
        leaderboard_rows,
        training_sizes,
        with_not_estimable,
    )
    from model_code.evaluation.metrics import score
    from model_code.methods.run import inputs_of, not_estimable, protocol, variant_name

    catalogue = ctx.inputs["targets"].frame(file="indicators.parquet")
    predictions, left_out = named_predictions(ctx.inputs[f"{spec.name}_predictions"])
    configs = {
        variant_name(v, left_out): _config(spec, ctx.settings, v) for v in ctx.settings["variants"]
    }
    empty = not_estimable(configs, left_out)
    if missing := set(configs) - empty - set(predictions["variant"]):
        raise DataError(f"{spec.name}: no predictions of {', '.join(sorted(missing))}")
    inputs = {
        v: () if v in empty else inputs_of(spec, config, left_out) for v, config in configs.items()
    }
    captioner = ", ".join(sorted({who for table in _WRITTEN for who in _captioners(ctx, table)}))
    targets, splits = ctx.inputs["targets"].frame(), ctx.inputs["splits"].frame()
    scores = score(predictions, catalogue, flow_bins(targets, catalogue, splits))
    return Product(
        leaderboard_rows(
            with_not_estimable(scores, empty),
            city=ctx.name,
            method=spec.name,
            inputs=inputs,
            protocol={v: protocol(spec, config) for v, config in configs.items()},
            captioner={v: captioner for v, m in inputs.items() if TEXTS & set(m)},
            contained_in=dict(zip(catalogue["indicator"], catalogue["contained_in"], strict=True)),
            n_train=training_sizes(targets, splits),
        )
    )


# Tables that captioners write, by the table that methods read.
_WRITTEN = {
    "calibrated_captions": "calibrated_captions",
    "poi_descriptions": "poi_descriptions",
    "description_features": "region_descriptions",
}
TEXTS = frozenset(modality for modality, table in TABLE_OF.items() if table in _WRITTEN)


def _captioners(ctx: Context, table: str) -> set[str]:
    if (name := _WRITTEN[table]) not in ctx.inputs or not ctx.has(name):
        return set()
    return set(ctx.inputs[name].frame(["captioner"])["captioner"])


# --- pictures ------------------------------------------------------------------------------------


def _losses(spec: MethodSpec, ctx: Context, written: Written) -> bytes | None:
    """How every fit of the stage went; None where none was trained step by step."""
    import pandas as pd

    from model_code.report import figures

    records = [json.loads(path.read_text()) for path in sorted(written.path.parent.glob("*.json"))]
    rows = [
        {**record["fit"], "loss": record["loss"], "validation": record.get("validation", [])}
        for record in records
        if record.get("loss")
    ]
    rows += [  # a second training, on a panel of its own
        {**fit, "variant": f"{fit['variant']} {name}", "loss": loss, "validation": []}
        for key, name in (
            ("align_loss", "alignment"),
            ("word_loss", "words"),
            ("contrast_loss", "contrast"),
        )
        for fit, loss in ((record["fit"], record.get(key)) for record in records)
        if loss
    ]
    return figures.loss_curves(pd.DataFrame(rows), title=f"{spec.title}: loss") if rows else None


def _drawn(spec: MethodSpec, ctx: Context, written: Written) -> bytes:
    from model_code.report import figures
    from resources.lake import read_arrow

    drawn = read_arrow(written.path.with_name("map.parquet")).to_pandas()
    regions = ctx.inputs["regions"].geo()
    return figures.embedding_scatter(drawn, regions, title=f"Embeddings of {spec.title}")


def _scatter(spec: MethodSpec, ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    predictions = written.frame()
    own = predictions[predictions["variant"] == _shown(predictions["variant"])]
    return figures.true_vs_predicted(
        own, classes=_classes(ctx), title=f"{spec.title}: true, predicted"
    )


def _classes(ctx: Context) -> list[str]:
    catalogue = ctx.inputs["targets"].frame(file="indicators.parquet")
    names = catalogue.loc[catalogue["kind"] == "classification", "indicator"]
    return [str(name) for name in names]


def _errors(spec: MethodSpec, ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    predictions = ctx.inputs[f"{spec.name}_predictions"].frame()
    own = predictions[predictions["variant"] == _shown(predictions["variant"])]
    return figures.error_map(ctx.inputs["regions"].geo(), own, classes=_classes(ctx))


# --- factory -------------------------------------------------------------------------------------


def _tables(spec: MethodSpec) -> tuple[str, ...]:
    tables = [TABLE_OF[modality] for modality in spec.needs if modality in TABLE_OF]
    return tuple(dict.fromkeys(tables))


def _reads_for_fit(spec: MethodSpec, tables: tuple[str, ...], city: City) -> tuple[str, ...]:
    if spec.kind == "supervised":
        return ("regions", *tables, "splits", "targets")
    transductive = _protocols(spec, city) == {"transductive"}
    return ("regions", *tables) if transductive else ("regions", *tables, "splits")


def _reads_for_heads(spec: MethodSpec, tables: tuple[str, ...], city: City) -> tuple[str, ...]:
    from model_code.methods.run import tunes_encoder, variant_configs

    choice = city.methods[spec.name]
    configs = variant_configs(spec.name, choice.config, choice.variants).values()
    encoder = (f"{spec.name}_checkpoint", *tables) if any(map(tunes_encoder, configs)) else ()
    return ("regions", f"{spec.name}_embeddings", "splits", "targets", *encoder)


_DATA_KEYS = ("chips.min_valid_share", "min_modality_share")
_RUN = "model_code.methods.run"


def method_stages(spec: MethodSpec) -> list[Any]:
    """All assets of one method."""
    name, tables = spec.name, _tables(spec)
    heads = f"{name}_finetuned"
    fitted = heads if spec.kind == "supervised" else f"{name}_checkpoint"
    own = (spec.module, f"{__name__}:method_data")

    def make(
        asset: str,
        about: str,
        group: str,
        body: Callable[[MethodSpec, Context], Product],
        **declared: Any,
    ) -> Any:
        code = (f"{__name__}:{body.__name__}", *declared.pop("code", ()))
        return define(
            Stage(
                name=asset,
                about=f"{spec.title}: {about}",
                group=group,
                body=partial(body, spec),
                code=code,
                absent=partial(_not_chosen, spec),
                **declared,
            )
        )

    return [
        make(
            fitted,
            "fitted on its tasks, by fold and seed."
            if spec.kind == "supervised"
            else "fitted without labels, by seed.",
            "finetuning" if spec.kind == "supervised" else "pretraining",
            _fit,
            inputs=("regions", *tables, "splits", "targets")
            if spec.kind == "supervised"
            else ("regions", *tables, "splits"),
            reads=partial(_reads_for_fit, spec, tables),
            settings=partial(_fit_settings, spec),
            config=_DATA_KEYS,
            kinds=("safetensors",),
            picture=partial(_losses, spec),
            code=own,
        ),
        make(
            f"{name}_embeddings",
            "embeddings of all regions.",
            "finetuning" if spec.kind == "supervised" else "embeddings",
            _embed_of(fitted),
            inputs=("regions", *tables, fitted),
            settings=partial(_fit_settings, spec),
            config=_DATA_KEYS,
            table=contract("embeddings"),
            picture=partial(_drawn, spec),
            code=(*own, f"{__name__}:_embed"),
        ),
        *(
            []
            if spec.kind == "supervised"
            else [
                make(
                    heads,
                    "heads on its embeddings, by fold and seed.",
                    "finetuning",
                    _heads,
                    inputs=(
                        *("regions", *tables, f"{name}_checkpoint", f"{name}_embeddings"),
                        *("splits", "targets"),
                    ),
                    reads=partial(_reads_for_heads, spec, tables),
                    settings=partial(_all_settings, spec),
                    config=_DATA_KEYS,
                    kinds=("safetensors",),
                    picture=partial(_losses, spec),
                    code=own,
                )
            ]
        ),
        make(
            f"{name}_predictions",
            "predictions for test regions.",
            "predictions",
            _predict,
            inputs=(
                "regions",
                *tables,
                *([f"{name}_embeddings"] if spec.kind == "pretrained" else []),
                heads,
                "splits",
                "targets",
            ),
            settings=partial(_all_settings, spec),
            config=_DATA_KEYS,
            table=contract("predictions"),
            picture=partial(_scatter, spec),
            code=own,
        ),
        make(
            f"{name}_metrics",
            "its rows of the leaderboard.",
            "evaluation",
            _score,
            inputs=(
                *("regions", f"{name}_predictions", "splits", "targets"),
                *(written for table, written in _WRITTEN.items() if table in tables),
            ),
            settings=partial(_all_settings, spec),
            table=contract("leaderboard"),
            picture=partial(_errors, spec),
        ),
    ]


def _embed_of(source: str) -> Callable[[MethodSpec, Context], Product]:
    def body(spec: MethodSpec, ctx: Context) -> Product:
        return _embed(spec, source, ctx)

    body.__name__ = "_embed"
    return body


def _triplet_sheet(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.triplet_sheet(written.frame(), title="Triplets of MuseCL")


_MUSECL = METHODS["musecl"]
_SHOWN_TRIPLETS = 6


@stage(group="pretraining", kinds=("torch",), absent=partial(_not_chosen, _MUSECL),
       inputs=("regions", *_tables(_MUSECL)), config=_DATA_KEYS, picture=_triplet_sheet,
       settings=lambda city: _configs(_MUSECL, city, HEAD_KEYS)["default"],
       code=(_MUSECL.module,))  # fmt: skip
def musecl_triplets(ctx: Context) -> Product:
    """Examples of the triplets that MuseCL learns from: anchor, positive and negative pictures."""
    import numpy as np
    import pandas as pd

    from model_code.methods.musecl import example_triplets

    data = method_data(_MUSECL, ctx)
    config = _MUSECL.config.model_validate(ctx.settings)
    parts = []
    for view, (regions, alike, pictures) in example_triplets(
        data, config, count=_SHOWN_TRIPLETS, seed=0
    ).items():
        count, _, height, width, _ = pictures.shape
        own = pd.DataFrame(
            {
                "view": view,
                "triplet": np.repeat(np.arange(count, dtype=np.int32), 3),
                "role": np.tile(["anchor", "positive", "negative"], count),
                "region_id": data.region_ids[regions.ravel()],
                "similarity": np.insert(alike, 0, np.nan, axis=1).ravel(),
                "pixels": [picture.tobytes() for picture in pictures.reshape(-1, height, width, 3)],
                "height_px": np.int32(height),
                "width_px": np.int32(width),
            }
        )
        parts.append(own.sort_values(["view", "triplet", "role"]))
    columns = contract("musecl_triplets").names()
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return Product(found[columns])


def _graph_maps(ctx: Context, written: Written) -> bytes:
    from model_code.report import graphs

    return graphs.graph_maps(written.frame(), ctx.inputs["regions"].geo())


_URBANMMCL = METHODS["urbanmmcl"]
_SHOWN_LINKS = 400  # of each graph


@stage(group="pretraining", absent=partial(_not_chosen, _URBANMMCL),
       inputs=("regions", *_tables(_URBANMMCL)), config=_DATA_KEYS, picture=_graph_maps,
       settings=lambda city: _configs(_URBANMMCL, city, HEAD_KEYS)["default"],
       code=(_URBANMMCL.module, "model_code.graphs.views"))  # fmt: skip
def urbanmmcl_graphs(ctx: Context) -> Product:
    """The strongest links of UrbanMMCL's graphs of function, mobility and distance."""
    import numpy as np
    import pandas as pd

    from model_code.methods.urbanmmcl import city_graphs
    from model_code.report.graphs import strongest

    data = method_data(_URBANMMCL, ctx)
    config: Any = _URBANMMCL.config.model_validate(ctx.settings)
    found = city_graphs(data, config, np.ones(len(data), bool))
    rows = [strongest(graph, data.region_ids, _SHOWN_LINKS, name) for name, graph in found.items()]
    columns = contract("urbanmmcl_graphs").names()
    joined = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    return Product(joined.sort_values(columns[:3], ignore_index=True)[columns])


def _look_alikes(ctx: Context, written: Written) -> bytes:
    from model_code.report import look_alikes

    views = look_alikes.by_view(written.frame())
    _, anchors = look_alikes.anchors(views)
    return look_alikes.alike_maps(ctx.inputs["regions"].geo(), views, anchors)


@stage(group="embeddings", kinds=("torch",), absent=partial(_not_chosen, _URBANMMCL),
       inputs=("regions", *_tables(_URBANMMCL), "urbanmmcl_checkpoint"), config=_DATA_KEYS,
       picture=_look_alikes, settings=partial(_fit_settings, _URBANMMCL))  # fmt: skip
def urbanmmcl_views(ctx: Context) -> Product:
    """What UrbanMMCL's embedding is the fusion of: the node feature, and the vector of each graph."""
    import pyarrow as pa

    from model_code.methods.urbanmmcl_inside import parts

    data, checkpoint, config = _shown_fit(_URBANMMCL, ctx, "urbanmmcl_checkpoint")
    found = parts(checkpoint, data, config)
    views = (
        pa.record_batch(
            {
                "view": [view] * len(data),
                "region_id": pa.array(data.region_ids),
                "vector": _vectors(vectors),
            }
        )
        for view, vectors in sorted(found.items())
    )
    return Product(views)


def _expert_scatter(ctx: Context, written: Written) -> bytes:
    from model_code.report import expert_outputs

    return expert_outputs.expert_scatter(written.frame())


_URBANMOE = METHODS["urbanmoe"]
_SHOWN_TASKS = 3  # whose experts are drawn: as many as the paper has


@stage(group="finetuning", kinds=("torch",), absent=partial(_not_chosen, _URBANMOE),
       inputs=("regions", *_tables(_URBANMOE), "urbanmoe_finetuned"), config=_DATA_KEYS,
       picture=_expert_scatter, settings=partial(_fit_settings, _URBANMOE))  # fmt: skip
def urbanmoe_outputs(ctx: Context) -> Product:
    """What UrbanMoE's experts put out for regions that it was not trained on, in two dimensions."""
    import numpy as np
    import pandas as pd

    from model_code.evaluation.expert_map import drawn_regions, expert_map
    from model_code.methods.urbanmoe_inside import MIXTURE, experts_of_a_task, outputs

    data, checkpoint, config = _shown_fit(_URBANMOE, ctx, "urbanmoe_finetuned")
    # Those that it was trained on have an embedding of their own, all others the unknown one.
    unseen = np.flatnonzero(~np.isin(data.region_ids, checkpoint.record["regions"]))
    regions = drawn_regions(unseen, experts_of_a_task(checkpoint))
    rows = []
    for found in outputs(checkpoint, data, config, regions, tasks=_SHOWN_TASKS):
        drawn = expert_map(found.experts, found.mixture, found.gates)
        rows.append(
            drawn.assign(
                branch=found.branch,
                task=found.task,
                kind=np.array([*found.kinds, MIXTURE], object)[drawn["number"]],
                region_id=data.region_ids[regions[drawn["region"]]],
            )
        )
    every = contract("urbanmoe_outputs")
    joined = pd.concat(rows, ignore_index=True)[every.names()].astype({"number": "int32"})
    return Product(joined.sort_values(list(every.key), ignore_index=True))


def _attention(ctx: Context, written: Written) -> bytes:
    from model_code.report import attention

    return attention.attention_maps(written.frame(), ctx.inputs["regions"].geo())


_LMEMR = METHODS["lmemr"]


@stage(group="finetuning", kinds=("torch",), absent=partial(_not_chosen, _LMEMR),
       inputs=("regions", *_tables(_LMEMR), "lmemr_finetuned"), config=_DATA_KEYS, picture=_attention,
       settings=partial(_fit_settings, _LMEMR))  # fmt: skip
def lmemr_attention(ctx: Context) -> Product:
    """What regions give to their neighbours in LMEMR's graph attention; `states.parquet` has its
    modalities in two dimensions, with and without the contrast between them."""
    import pandas as pd

    from model_code.evaluation.modality_map import modality_map
    from model_code.methods.lmemr_inside import inside

    data, fitted = method_data(_LMEMR, ctx), ctx.inputs["lmemr_finetuned"]
    ids, shown = data.region_ids, _shown(ctx.settings["variants"])
    rows: list[pd.DataFrame] = []
    drawn: list[pd.DataFrame] = []
    for contrast, variant in _contrasted(ctx.settings["variants"], shown).items():
        checkpoint = fitted.checkpoint(_first_fit(fitted, variant))
        found = inside(checkpoint, data, _config(_LMEMR, ctx.settings, variant))
        if variant == shown:
            ends = {"region_id": ids[found.target], "neighbour_id": ids[found.source]}
            rows = [
                pd.DataFrame({"modality": name, **ends, "weight": weights.astype("float64")})
                for name, weights in found.attention.items()
            ]
        states = modality_map(found.states, found.present, found.modalities)
        drawn.append(states.assign(contrast=contrast, region_id=ids[states["region"]]))
    columns = contract("lmemr_attention").names()
    joined = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    every = contract("lmemr_states")
    writer = plain_table_writer(every, pd.concat(drawn, ignore_index=True)[every.names()])
    ordered = joined.sort_values(columns[:3], ignore_index=True)[columns]
    return Product(ordered, files={"states.parquet": writer})


def _contrasted(variants: dict[str, Any], shown: str) -> dict[str, str]:
    """The shown variant and the one that differs from it in the contrast between modalities alone, if
    there is one: by whether they have that."""
    if not variants[shown]["inter"]:
        return {"without": shown}
    other = {**variants[shown], "inter": False}
    same = [name for name, settings in sorted(variants.items()) if settings == other]
    return {"with": shown, "without": same[0]} if same else {"with": shown}


def _shown_fit(spec: MethodSpec, ctx: Context, asset: str) -> tuple[RegionData, Checkpoint, Any]:
    """The method's inputs, and the first checkpoint of the shown variant in `asset`, with its settings."""
    fitted, shown = ctx.inputs[asset], _shown(ctx.settings["variants"])
    checkpoint = fitted.checkpoint(_first_fit(fitted, shown))
    return method_data(spec, ctx), checkpoint, _config(spec, ctx.settings, shown)


def _first_fit(fitted: Handle, variant: str) -> str:
    """The name of a variant's checkpoint of the first fold and seed."""
    about = {name: fitted.record(name)["fit"] for name in fitted.checkpoints}
    own = [name for name, fit in about.items() if fit["variant"] == variant]
    return min(own, key=lambda name: [about[name][key] for key in ("split", "fold", "seed")])


ASSETS = [
    *(asset for spec in METHODS.values() for asset in method_stages(spec)),
    musecl_triplets,
    urbanmmcl_graphs,
    urbanmmcl_views,
    urbanmoe_outputs,
    lmemr_attention,
]
