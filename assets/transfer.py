"""Pretrained in one city, tested in another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from assets.inputs import TABLE_OF, labels
from assets.methods import data_and_left_out, stored
from assets.stage import Context, Product, Written, stage
from model_code.city import City
from model_code.errors import DataError
from model_code.methods import HEAD_KEYS, METHODS, MethodConfig

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from model_code.methods.base import Checkpoint, RegionData, Targets


def _nothing_named(city: City) -> str:
    return "" if city.transfer else "the city's YAML names no `transfer`"


def _sources(city: City) -> tuple[tuple[str, str], ...]:
    """The assets of other cities that the transfer reads."""
    pairs = [(source, method) for method, sources in city.transfer.items() for source in sources]
    own = [(s, f"{m}_{part}") for s, m in pairs for part in ("checkpoint", "predictions")]
    return tuple(dict.fromkeys([*own, *((source, "regions") for source, _ in pairs)]))


def _inputs(methods: Iterable[str]) -> tuple[str, ...]:
    needs = [m for name in methods for m in METHODS[name].needs if m in TABLE_OF]
    tables = [TABLE_OF[modality] for modality in needs]
    metrics = [f"{name}_metrics" for name in methods]
    return tuple(dict.fromkeys(["regions", "splits", "targets", *tables, *metrics]))


_PRETRAINED = [name for name, spec in METHODS.items() if spec.kind == "pretrained"]


def matrix_of(rows: pd.DataFrame, split: str) -> bytes:
    """The figures of a split that rank methods, as a matrix."""
    from model_code.evaluation.leaderboard import HEADLINE
    from model_code.report import figures

    heads = rows[(rows["split"] == split) & (rows["scale"].map(HEADLINE) == rows["metric"])]
    title = f"R² (classes: macro F1), {split} split"
    return figures.transfer_matrix(heads.dropna(subset="value"), title=title)


def _matrix(ctx: Context, written: Written) -> bytes:
    """Of the spatial split, if there is one."""
    rows = written.frame()
    return matrix_of(rows, rows["split"].max())


@stage(group="transfer", kinds=("torch",), absent=_nothing_named, elsewhere=_sources,
       inputs=_inputs(_PRETRAINED), reads=lambda city: _inputs(city.transfer),
       config=("transfer", "methods", "chips.min_valid_share", "min_modality_share"), picture=_matrix,
       code=tuple(METHODS[name].module for name in _PRETRAINED))  # fmt: skip
def transfer(ctx: Context) -> Product:
    """Encoders that were pretrained in other cities, with heads of this one: a row a figure, beside
    the encoder that was pretrained here."""
    import pandas as pd

    from model_code.report.labels import is_default

    targets = ctx.inputs["targets"]
    catalogue = targets.frame(file="indicators.parquet")
    parts = []
    for method, sources in sorted(ctx.city.transfer.items()):
        data, left_out = data_and_left_out(METHODS[method], ctx)
        labelled = labels(targets, data.region_ids)
        own = ctx.inputs[f"{method}_metrics"].frame()
        own = own[own["variant"].map(is_default)]
        parts.append(own.assign(pretrained_on=ctx.name, variant="default"))
        for source in sources:
            _check_apart(ctx, source)
            ctx.progress(f"{method}: pretrained on {source}")
            _check_alike(ctx, method, source, left_out)
            captioner = "" if own.empty else own["captioner"].iloc[0]
            rows = _scores(ctx, method, source, data, left_out, labelled, catalogue)
            parts.append(rows.assign(captioner=captioner))
    return Product(pd.concat(parts, ignore_index=True))


def _check_apart(ctx: Context, source: str) -> None:
    """A leak: pretraining in a city that shares ground with this one has seen its test regions."""
    from model_code.geo.regions import shared_ground

    other = ctx.elsewhere[source, "regions"]
    if not other.exists:
        raise DataError(
            f"`transfer` of {ctx.name!r} names {source!r}, which was never built",
            fix=f"make run CITY={source}",
        )
    shared = shared_ground(ctx.inputs["regions"].geo(), other.geo())
    if shared:
        raise DataError(
            f"{shared} regions of {ctx.name!r} lie in {source!r}, so that an encoder "
            "pretrained there has seen them",
            fix="take that city out of `transfer`",
        )


def _scores(
    ctx: Context,
    method: str,
    source: str,
    data: RegionData,
    left_out: tuple[str, ...],
    targets: Targets,
    catalogue: pd.DataFrame,
) -> pd.DataFrame:
    import pandas as pd

    from model_code.evaluation.leaderboard import leaderboard_rows, training_sizes
    from model_code.evaluation.metrics import score
    from model_code.methods.base import Adaptable
    from model_code.methods.run import (
        Fit,
        fit_predictor,
        folds,
        inputs_of,
        parts_for,
        predict,
        prediction_rows,
        variant_configs,
    )

    spec, choice = METHODS[method], ctx.city.methods[method]
    config = variant_configs(method, choice.config, {})["default"]
    checkpoints = ctx.elsewhere[source, f"{method}_checkpoint"]
    splits = ctx.inputs["splits"].frame()
    encoder: Any = spec.load()
    adaptable = isinstance(encoder, Adaptable)
    fresh = None if adaptable else _fresh(encoder, data, config)
    frames = []
    for fit, seed, whole in stored(checkpoints):
        if fit.fold >= 0 or fit.variant != "default":
            continue
        if adaptable:
            checkpoint = encoder.adapt(whole, data, config, seed=seed)
        else:
            checkpoint = _branches(whole, fresh, ctx.name, source)
        embedding = encoder.embed(checkpoint, data, config)
        for split, fold in folds(splits):
            parts = parts_for(splits, data.region_ids, split, fold)
            predictor = fit_predictor(
                spec, config, checkpoint, embedding,
                seed=seed, targets=targets, parts=parts, data=data,
            )  # fmt: skip
            predicted = predict(spec, config, predictor, embedding, data)
            where = Fit("default", split, fold)
            frames.append(prediction_rows(predicted, targets, parts, data.region_ids, where, seed))
    rows = leaderboard_rows(
        score(pd.concat(frames, ignore_index=True), catalogue),
        city=ctx.name,
        method=method,
        inputs={"default": inputs_of(spec, config, left_out)},
        protocol={"default": "transductive" if adaptable else "inductive"},
        captioner={},
        contained_in=dict(zip(catalogue["indicator"], catalogue["contained_in"], strict=True)),
        n_train=training_sizes(ctx.inputs["targets"].frame(), splits),
    )
    return rows.assign(pretrained_on=source)


def _fresh(method: Any, data: RegionData, config: MethodConfig) -> nn.Module | None:
    """This city's encoder, untrained; None for a method whose checkpoints are no such encoder."""
    from model_code.methods.base import Tunable

    return method.encoder(data, config) if isinstance(method, Tunable) else None


def _branches(
    checkpoint: Checkpoint, fresh: nn.Module | None, city: str, source: str
) -> Checkpoint:
    """The branches of an encoder that this city can feed. The features of the others would be the
    same in every region, that of their absent-token, and no head can learn from those."""
    from dataclasses import replace

    from model_code.training import load_arrays

    if fresh is None:
        return checkpoint
    own = fresh.state_dict()
    cut = {name: values for name, values in checkpoint.tensors.items() if name in own}
    try:
        load_arrays(fresh, cut)
    except RuntimeError as error:
        raise DataError(
            f"an encoder of {source!r} does not fit {city!r}: {str(error).splitlines()[-1].strip()}",
            fix="give both cities the same `captions.clip`",
        ) from error
    return replace(checkpoint, tensors=cut)


def _check_alike(ctx: Context, method: str, source: str, left_out: tuple[str, ...]) -> None:
    """An encoder of other settings would not fit these weights, and one that has not seen a modality
    of this city has no branch for it. A branch that this city cannot feed is left behind."""
    from model_code.methods.run import inputs_of, variant_configs

    config = variant_configs(method, ctx.city.methods[method].config, {})["default"]
    manifest = ctx.elsewhere[source, f"{method}_checkpoint"].manifest
    if manifest is None or manifest.absent:
        raise DataError(
            f"`transfer.{method}` of {ctx.name!r} names {source!r}, which has no such checkpoint",
            fix=f"add `methods.{method}` to that city's YAML, and make run CITY={source}",
        )
    own = config.model_dump(mode="json", exclude=set(HEAD_KEYS))
    theirs = manifest.inputs["config"]["settings"]["variants"]["default"]
    differ = sorted(key for key in own if own[key] != theirs.get(key))
    if differ:
        raise DataError(
            f"`methods.{method}` of {ctx.name!r} and of {source!r} differ in {', '.join(differ)}",
            fix="give both cities the same settings of the encoder",
        )
    if own.get("inductive"):
        raise DataError(
            f"`methods.{method}.config.inductive` leaves no encoder that saw {source!r} as a whole",
            fix="set it to false in both cities; a variant can still be inductive",
        )
    theirs_out = tuple(ctx.elsewhere[source, f"{method}_predictions"].metadata("left_out") or ())
    if unseen := sorted(set(theirs_out) & set(inputs_of(METHODS[method], config, left_out))):
        raise DataError(
            f"`methods.{method}` reads {', '.join(unseen)} in {ctx.name!r}, and leaves that out in "
            f"{source!r}",
            fix="change `min_modality_share`, or switch that modality off in both cities",
        )
