"""What the pipeline does with a method, as pure functions: which fits it needs, whether its inputs
are there, and the way from tables to masks, labels and predictions. N regions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model_code.errors import CityloomError, DataError
from model_code.heads import check_labels, fit_head, predict_head
from model_code.methods import (
    MADE_FROM,
    METHODS,
    NO_INPUT,
    SOURCES_OF,
    MethodConfig,
    MethodSpec,
    Modality,
    Probed,
    Tuned,
    method_config,
)
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Parts,
    Pretrained,
    RegionData,
    Supervised,
    Targets,
    Task,
    Tunable,
    Workspace,
)
from model_code.scaling import inverse, transform

if TYPE_CHECKING:
    import pandas as pd

    from model_code.city import MethodChoice

# --- which fits ----------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Fit:
    """One fit of a method, up to its seed; `all` and -1 where it saw no label and no split."""

    variant: str
    split: str
    fold: int


def variant_configs(
    name: str, overrides: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, MethodConfig]:
    """By variant, the hyper-parameters of method `name`: `default` has the city's overrides, the
    others change these further."""
    configs = {"default": method_config(name, dict(overrides))}
    for variant, changes in sorted(variants.items()):
        configs[variant] = method_config(name, {**overrides, **changes})
    return configs


def modalities_read(methods: Mapping[str, MethodChoice]) -> set[Modality]:
    """What the methods of a city read, by the settings of any of their variants."""
    return {
        need
        for name, choice in methods.items()
        for need in read_by(
            METHODS[name], variant_configs(name, choice.config, choice.variants).values()
        )
    }


def read_by(spec: MethodSpec, configs: Iterable[MethodConfig]) -> set[Modality]:
    """What a method needs by any of the settings."""
    return {need for config in configs for need in set(spec.needs) - config.switched_off()}


def folds(splits: pd.DataFrame) -> list[tuple[str, int]]:
    """Every (split, fold) of a splits table, in order."""
    pairs = splits[["split", "fold"]].drop_duplicates().itertuples(index=False)
    return sorted((str(split), int(fold)) for split, fold in pairs)


def fits(
    spec: MethodSpec, config: MethodConfig, splits: pd.DataFrame, variant: str = "default"
) -> list[Fit]:
    """The fits of a method's checkpoint: one for all folds where it sees every region and no label,
    else one a fold."""
    if protocol(spec, config) == "transductive":
        return [Fit(variant, "all", -1)]
    return [Fit(variant, split, fold) for split, fold in folds(splits)]


def protocol(
    spec: MethodSpec, config: MethodConfig
) -> Literal["transductive", "inductive", "supervised", "supervised, transductive"]:
    """Which regions a method's embedding knows: all without labels, the training and validation
    regions without labels, or the training regions with their labels; the last with the inputs of
    their neighbours, whichever part these are in, where it reads borders."""
    if spec.kind == "supervised":
        borders = "adjacency" in spec.needs and "adjacency" not in config.switched_off()
        return "supervised, transductive" if borders else "supervised"
    assert isinstance(config, Probed)
    return "inductive" if config.inductive else "transductive"


# --- whether it can run --------------------------------------------------------------------------


def needs_check(
    spec: MethodSpec,
    city: str,
    coverage: Mapping[str, float],
    available: Collection[str],
    floor: float,
    configs: Mapping[str, MethodConfig],
) -> tuple[Modality, ...]:
    """The modalities of a method that are to be left out (given as None) because they reach less
    than the share `floor` of the regions, or because the city lacks them and the method can do
    without; `coverage` is that share by modality. What needs no source is always there, and what
    none of the `configs` (by variant) reads is not asked for.

    Raises:
        CityloomError: the city lacks a modality, or nothing would be left of the inputs of the method.
    """
    read = read_by(spec, configs.values())
    needed = [m for m in spec.needs if SOURCES_OF[m] and m in read]
    key: dict[Modality, str] = {
        m: " or ".join(f"`sources.{source}`" for source in SOURCES_OF[m]) for m in needed
    }
    missing = [m for m in needed if m not in available and m not in spec.optional]
    if missing:
        raise CityloomError(
            f"method {spec.name!r} needs {' and '.join(missing)}, which city {city!r} does not have",
            fix=f"add {' and '.join(key[m] for m in missing)} to the city's YAML, "
            f"or remove `methods.{spec.name}`",
        )
    thin = tuple(m for m in needed if coverage.get(m, 0.0) < floor)
    shares = {m: f"{m} ({key[m]}) reaches {coverage.get(m, 0.0):.0%} of the regions" for m in thin}
    if thin and len(thin) == len(read - NO_INPUT):
        raise CityloomError(
            f"method {spec.name!r} in city {city!r}: {', '.join(shares.values())}, below the floor of "
            f"{floor:.0%}",
            fix=f"remove `methods.{spec.name}`, or lower `min_modality_share`",
        )
    default = configs.get("default")
    if default and not_estimable({"default": default}, thin):
        own = [shares[m] for m in thin if m not in default.switched_off()]
        raise CityloomError(
            f"nothing is left to read for the default of method {spec.name!r} in city {city!r}: "
            f"{', '.join(own)}, below the floor of {floor:.0%}",
            fix=f"change `methods.{spec.name}.config`, or lower `min_modality_share`",
        )
    return thin


def not_estimable(
    configs: Mapping[str, MethodConfig], left_out: Collection[Modality]
) -> frozenset[str]:
    """The variants for which nothing is left to read without these modalities."""
    return frozenset(
        variant
        for variant, config in configs.items()
        if set(left_out) - config.switched_off() and not _stands(config.without(left_out))
    )


def _stands(config: MethodConfig) -> bool:
    """Whether these settings, which were changed, would pass as a city's."""
    try:
        type(config).model_validate(config.model_dump())
    except ValidationError:
        return False
    return True


def inputs_of(
    spec: MethodSpec, config: MethodConfig, left_out: Collection[str] = ()
) -> tuple[Modality, ...]:
    """The modalities that a variant reads: what its method needs, less what the config switches off,
    what the city cannot give, and what falls away with that. Pretrained weights are none of the city's,
    and borders say nothing of a region by themselves."""
    gone = {*NO_INPUT, *left_out, *config.without(left_out).switched_off()}
    return tuple(m for m in spec.needs if m not in gone)


def variant_name(variant: str, left_out: Sequence[Modality]) -> str:
    """A variant's name, which says what its city could not give it; what is made from something
    absent goes without saying."""
    told = (m for m in left_out if MADE_FROM.get(m) not in left_out)
    return "_without_".join([variant, *told])


# --- from tables ---------------------------------------------------------------------------------


def parts_for(
    splits: pd.DataFrame, region_ids: Sequence[str] | NDArray[np.str_], split: str, fold: int
) -> Parts:
    """The three masks [N] of one fold, in the order of `region_ids`."""
    rows = splits[(splits["split"] == split) & (splits["fold"] == fold)]
    if rows.empty:
        raise DataError(f"the splits table has no fold {fold} of split {split!r}")
    part = rows.set_index("region_id")["part"].reindex(list(region_ids)).to_numpy()
    return Parts(part == "train", part == "val", part == "test")


def visible_for(config: MethodConfig, parts: Parts | None, regions: int) -> NDArray[np.bool_]:
    """The regions [N] that pretraining may see: all, or those outside the test part."""
    if parts is None or not (isinstance(config, Probed) and config.inductive):
        return np.ones(regions, bool)
    return parts.train | parts.val


def targets_for(
    targets: pd.DataFrame, indicators: pd.DataFrame, region_ids: Sequence[str] | NDArray[np.str_]
) -> Targets:
    """Labels on the transformed scale from the tables `targets` and `indicators`, tasks by name."""
    row_of = {region: row for row, region in enumerate(region_ids)}
    tasks, values = [], {}
    for entry in indicators.sort_values("indicator").itertuples(index=False):
        task = Task(
            name=str(entry.indicator),
            kind=cast(Any, entry.kind),
            transform=cast(Any, entry.transform),
            slots=24 if entry.kind == "hourly" else 1,
            classes=tuple(cast(Any, entry.classes)) if entry.kind == "classification" else (),
        )
        own = targets[targets["indicator"] == task.name]
        labels = np.full((len(row_of), task.slots), np.nan)
        rows = own["region_id"].map(row_of).to_numpy(np.int64)
        labels[rows, own["slot"].to_numpy(np.int64)] = own["value"].to_numpy(np.float64)
        tasks.append(task)
        values[task.name] = transform(labels, task)
    return Targets(tuple(tasks), values)


# --- fitting and predicting ----------------------------------------------------------------------


def own_targets(spec: MethodSpec, targets: Targets) -> Targets:
    """The targets that a method predicts.

    Raises:
        DataError: there is none.
    """
    tasks = tuple(task for task in targets.tasks if task.kind in spec.predicts)
    if not tasks:
        kinds = " or ".join(spec.predicts)
        raise DataError(
            f"method {spec.name!r} predicts {kinds} indicators, and there is none",
            fix=f"add an indicator of `kind: {spec.predicts[0]}`, or remove `methods.{spec.name}`",
        )
    return Targets(tasks, {task.name: targets.values[task.name] for task in tasks})


def fit_checkpoint(
    spec: MethodSpec,
    config: MethodConfig,
    data: RegionData,
    *,
    seed: int,
    targets: Targets | None = None,
    parts: Parts | None = None,
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """One fit of a method. `parts` is the fold (None for a transductive one); `targets` are only
    handed to a supervised method."""
    method = spec.load()
    if spec.kind == "pretrained":
        visible = visible_for(config, parts, len(data))
        return cast(Pretrained, method).pretrain(
            data, config, seed=seed, visible=visible, workspace=workspace
        )
    assert targets is not None and parts is not None
    targets = own_targets(spec, targets)
    check_labels(targets, parts)
    return cast(Supervised, method).fit(
        data, targets, parts, config, seed=seed, workspace=workspace
    )


def fit_predictor(
    spec: MethodSpec,
    config: MethodConfig,
    checkpoint: Checkpoint,
    embedding: Floats,
    *,
    seed: int,
    targets: Targets,
    parts: Parts,
    data: RegionData | None = None,
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """What predicts in one fold: a supervised method's own checkpoint; else the head on the
    embedding [N, D]; else, where the config's `mode` trains the encoder too, the tuned encoder with
    its heads, which needs `checkpoint` and `data`."""
    if spec.kind == "supervised":
        return checkpoint
    assert isinstance(config, Probed)
    if not tunes_encoder(config):
        return fit_head(embedding, targets, parts, config.head, seed)
    from model_code.finetuning import tune
    from model_code.training import Settings

    assert isinstance(config, Tuned) and data is not None
    method, tuning = cast(Tunable, spec.load()), config.tuning
    visible = visible_for(config, parts, len(data))
    return tune(
        lambda: method.encoder(data, config, visible),
        targets,
        parts,
        Settings.of(tuning, patience=tuning.patience),
        mode=config.mode,
        seed=seed,
        pretrained=None if config.mode == "scratch" else checkpoint.tensors,
        encoder_rate=tuning.encoder_learning_rate,
        hidden=tuning.hidden,
        workspace=workspace,
    )


def tunes_encoder(config: MethodConfig) -> bool:
    """Whether labels change the encoder, so that predictions need it and not its embedding."""
    return isinstance(config, Tuned) and config.mode != "probe"


def predict(
    spec: MethodSpec,
    config: MethodConfig,
    predictor: Checkpoint,
    embedding: Floats,
    data: RegionData,
) -> dict[str, Floats]:
    """By task, predictions of all regions [N, slots] on the transformed scale; the embedding is read
    where a head stands on it."""
    if spec.kind == "supervised":
        return cast(Supervised, spec.load()).predict(predictor, data, config)
    if not tunes_encoder(config):
        return predict_head(predictor, embedding)
    from model_code.finetuning import predict_all

    encoder = cast(Tunable, spec.load()).encoder(data, config)
    return predict_all(predictor, encoder, len(data))


def prediction_rows(
    predicted: Mapping[str, Floats],
    targets: Targets,
    parts: Parts,
    region_ids: Sequence[str] | NDArray[np.str_],
    fit: Fit,
    seed: int,
) -> pd.DataFrame:
    """Rows of the table `predictions` of one fold: its labelled test regions, on both scales."""
    import pandas as pd

    frames = []
    for task in sorted(targets.tasks, key=lambda task: task.name):
        if task.name not in predicted:  # the method predicts other kinds of target
            continue
        truth = targets.values[task.name]
        row, slot = np.nonzero(np.isfinite(truth) & parts.test[:, None])
        y_true, y_pred = truth[row, slot], np.asarray(predicted[task.name], np.float64)[row, slot]
        frames.append(
            pd.DataFrame(
                {
                    "variant": fit.variant,
                    "split": fit.split,
                    "fold": np.int32(fit.fold),
                    "seed": np.int32(seed),
                    "task": task.name,
                    "region_id": np.asarray(region_ids, dtype=object)[row],
                    "slot": slot.astype(np.int32),
                    "y_true": y_true,
                    "y_pred": y_pred,
                    "y_true_original": inverse(y_true, task),
                    "y_pred_original": inverse(y_pred, task),
                }
            )
        )
    key = ["variant", "task", "split", "fold", "seed", "region_id", "slot"]
    return pd.concat(frames, ignore_index=True).sort_values(key, ignore_index=True)
