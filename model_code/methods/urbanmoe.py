"""UrbanMoE: sparse experts on satellite chips and on texts of POIs, for any number of tasks.

Liu et al. 2026, "UrbanMoE: A Sparse Multi-Modal Mixture-of-Experts Framework for Multi-Task Urban
Region Profiling". Two branches, one on frozen image features, one on frozen text features, each with
an embedding of the region and one of its POIs beside them (eq 1). A branch has experts of each task,
of each pair of tasks and of all tasks (eq 2-3); a router a task weighs those that the task may use and
shuts off the faint ones (eq 4-5). A task reads its mixtures of both branches (eq 6-7).

A region's embedding is the mixtures of all tasks and branches side by side, before the heads. It is
fitted to labels of the training regions.

What the paper leaves open, or what would not work as printed:

- A region that was not trained on has no row in a table of regions. One more row, `unknown`, stands
  for it, and ids are dropped at random in training, so that this row is trained. Validation regions
  are unknown too, so the epoch is chosen for what testing asks.
- The paper's text is a summary by a large language model. Here the text tower reads every POI's name
  and every comment; a region has the mean of its names and the mean of its comments, in equal parts.
- Frozen features and log(1 + count) of POIs are standardised on the training regions: within one city
  features of CLIP are nearly one vector. The map of counts is linear.
- The nonlinearity of an expert is a ReLU; its output normalisation is a layer normalisation without
  gain or shift, so that all experts' outputs are of one size and the routers alone weigh them.
- Weights that a threshold leaves are not brought back to a sum of one (eq 5 as printed).
- A class is learned by cross-entropy, an hourly task by the mean error of its 24 outputs; labels are
  standardised on the training regions, and missing ones leave the loss.
- A missing chip, or a region without texts, is a learned token, trained by hiding a few at random.
- Alone (`single_task`), a task has as many experts of its own as it could use of its own and of its
  pairs, so 16 for the paper's three tasks, in both modes.

B regions in a batch, N regions, T tasks, M experts of a branch, K of them that a task may use, D width
of a feature, H and W widths of an expert's hidden layer and output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.calibration import sentences
from model_code.errors import DataError
from model_code.finetuning import (
    LabelledModel,
    TaskOutputs,
    embed_all,
    predict_all,
    restore,
    tune,
)
from model_code.methods import MethodConfig, UrbanMoeConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    Parts,
    RegionData,
    Targets,
    Task,
    Workspace,
)
from model_code.methods.urbanvlp import ImageTower, given_towers
from model_code.scaling import Scaler
from model_code.training import Settings, evaluating, seeded
from model_code.vision.clip import Towers, lengths, model_arguments, open_towers
from model_code.vision.clip_config import ClipConfig
from model_code.vision.pictures import resized

_TEXTS = 64  # that the text tower reads at once
_CHUNK = 1024  # regions whose gates are made at once


# --- experts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """How many experts a branch has: `specific` of each of the tasks, `pair` of each pair of them,
    `shared` of all. They are numbered in this order."""

    tasks: int
    specific: int
    pair: int
    shared: int

    @property
    def experts(self) -> int:
        """M, all experts of a branch."""
        pairs = self.tasks * (self.tasks - 1) // 2
        return self.tasks * self.specific + pairs * self.pair + self.shared

    @property
    def each(self) -> int:
        """K, the experts that a task may use."""
        return self.specific + (self.tasks - 1) * self.pair + self.shared

    def allowed(self) -> NDArray[np.int64]:
        """Numbers [T, K] of the experts that a task may use: its own, those of its pairs with each
        other task in their order, the shared ones."""
        tasks = np.arange(self.tasks)
        one, other = np.triu_indices(self.tasks, 1)
        number = np.zeros((self.tasks, self.tasks), np.int64)
        number[one, other] = number[other, one] = np.arange(len(one))
        pairs = number[~np.eye(self.tasks, dtype=bool)].reshape(self.tasks, -1, 1)
        first = self.tasks * self.specific
        own = tasks[:, None] * self.specific + np.arange(self.specific)
        joint = first + pairs * self.pair + np.arange(self.pair)
        shared = first + len(one) * self.pair + np.arange(self.shared)
        everyone = np.broadcast_to(shared, (self.tasks, self.shared))
        return np.hstack([own, joint.reshape(self.tasks, -1), everyone])


class Branch(nn.Module):
    """Features [B, D] of one modality with a context [B, C] to mixtures of experts [B, T, W].

    All experts' first layers and all routers are one matrix product, all second layers one grouped
    product. Features are frozen: no gradient is computed for them.
    """

    place: Tensor

    def __init__(
        self, pool: Pool, features: int, context: int, hidden: int, width: int, threshold: float
    ) -> None:
        super().__init__()
        self.pool, self.hidden, self.width, self.threshold = pool, hidden, width, threshold
        self.sizes = [pool.experts * hidden, pool.tasks * pool.each]  # first layers, routers
        first, fan_in = sum(self.sizes), features + context
        self.of_features = _weight(fan_in, features, first)
        self.of_context = _weight(fan_in, context, first)
        self.first_bias = _weight(fan_in, first)
        self.second = _weight(hidden, pool.experts, hidden, width)
        self.second_bias = _weight(hidden, pool.experts * width)
        self.absent = nn.Parameter(torch.randn(features))
        places = np.arange(pool.tasks)[:, None] * pool.experts + pool.allowed()
        self.register_buffer("place", torch.from_numpy(places.ravel()), persistent=False)

    def forward(self, features: Tensor, present: Tensor, context: Tensor) -> Tensor:
        """Mixtures [B, T, W] (eq 6); `features` are zero where they are not `present` [B]."""
        outer, gates = self.opened(features, present, context)
        experts, count = self.pool.experts, len(features)
        weights = gates.new_zeros(count, self.pool.tasks * experts)
        weights = weights.index_copy(1, self.place, gates.flatten(1))
        return torch.bmm(weights.view(count, -1, experts), outer.transpose(0, 1))

    def opened(self, features: Tensor, present: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """What mixtures are made of: the experts' outputs [M, B, W] (eq 3), and `gates`."""
        hidden, logits = torch.split(
            self._first(features, present, context, slice(None)), self.sizes, dim=1
        )
        gates = self._shut(logits)
        experts = self.pool.experts
        inner = (
            F.relu(hidden).view(len(features), experts, self.hidden).transpose(0, 1)
        )  # [M, B, H]
        outer = torch.baddbmm(self.second_bias.view(experts, 1, -1), inner, self.second)
        return F.layer_norm(outer, (self.width,)), gates

    def gates(self, features: Tensor, present: Tensor, context: Tensor) -> Tensor:
        """What each task gives to each of its experts, [B, T, K] (eq 4-5)."""
        return self._shut(self._first(features, present, context, slice(self.sizes[0], None)))

    def _first(self, features: Tensor, present: Tensor, context: Tensor, part: slice) -> Tensor:
        """The columns `part` of the first layers of the experts, M * H, and of the routers after them,
        T * K: [B, columns]."""
        of_features, of_context = self.of_features[:, part], self.of_context[:, part]
        # The token for absent features goes through their weights, once for the batch.
        absent = (~present).to(context.dtype)[:, None]
        weight = torch.cat([of_context, (self.absent @ of_features)[None]])
        start = torch.addmm(self.first_bias[part], torch.cat([context, absent], dim=1), weight)
        return torch.addmm(start, features, of_features)

    def _shut(self, logits: Tensor) -> Tensor:
        """Gates [B, T, K] of the routers' logits [B, T * K], the faint ones at zero (eq 5)."""
        gates = logits.reshape(len(logits), self.pool.tasks, -1).softmax(dim=2)
        return torch.where(gates > self.threshold, gates, 0.0)


def _weight(fan_in: int, *shape: int) -> nn.Parameter:
    """A parameter that starts as those of `nn.Linear`."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class ExpertHeads(TaskOutputs):
    """A head a task, with one hidden layer, on the task's own mixtures (eq 7), all at once."""

    owner: Tensor

    def __init__(self, tasks: Sequence[Task], width: int, hidden: int) -> None:
        super().__init__(tasks)
        count = len(self.tasks)
        self.inner = _weight(width // count, count, width // count, hidden)
        self.inner_bias = _weight(width // count, count * hidden)
        self.outer = _weight(hidden, self.columns, hidden)
        self.outer_bias = _weight(hidden, self.columns)
        sizes = torch.tensor([span.stop - span.start for span in self.spans])
        owner = torch.repeat_interleave(torch.arange(count), sizes)
        self.register_buffer("owner", owner, persistent=False)  # [C]

    def forward(self, embedding: Tensor) -> Tensor:
        """Outputs [B, C] of mixtures [B, T * branches * W]."""
        count = len(self.tasks)
        own = embedding.view(len(embedding), count, -1).transpose(0, 1)
        hidden = F.gelu(torch.baddbmm(self.inner_bias.view(count, 1, -1), own, self.inner))
        return torch.einsum("cbh,ch->bc", hidden[self.owner], self.outer) + self.outer_bias


# --- regions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What the experts read of N regions: `region_ids` [N]; `features` by branch [N, D] (a row of
    NaN: absent); `counts` of POIs by category [N, C], or None."""

    region_ids: NDArray[np.str_]
    features: dict[str, Floats]
    counts: Floats | None


class Frozen(nn.Module):
    """Given numbers [N, D] of the regions, standardised on those of them that are `seen` [N]."""

    mean: Tensor
    scale: Tensor
    values: Tensor
    present: Tensor

    def __init__(self, values: Floats, seen: Mask) -> None:
        super().__init__()
        scaler = Scaler.fit(values, seen)
        self.width = values.shape[1]
        self.register_buffer("mean", torch.from_numpy(scaler.mean).float())
        self.register_buffer("scale", torch.from_numpy(scaler.scale).float())
        numbers = torch.from_numpy(np.array(values, np.float32))
        self.register_buffer("values", numbers, persistent=False)
        self.register_buffer("present", numbers.isfinite().all(dim=1), persistent=False)

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers [B, D], zero where they are absent, and whether they are present [B]."""
        present = self.present[index]
        numbers = (self.values[index] - self.mean) / self.scale
        return numbers.masked_fill(~present[:, None], 0), present


class ExpertRegions(nn.Module):
    """A `RegionEncoder`: both branches' mixtures for every task; its data is not in its state."""

    rows: Tensor

    def __init__(
        self, inputs: Inputs, config: UrbanMoeConfig, pool: Pool, known: Sequence[str], seen: Mask
    ) -> None:
        """`known` are the ids of the regions that have an embedding of their own; numbers are
        standardised on the regions `seen` [N]."""
        super().__init__()
        self.unknown_rate, self.absent_rate = config.unknown_rate, config.absent_rate
        self.features = nn.ModuleDict(
            {name: Frozen(values, seen) for name, values in inputs.features.items()}
        )
        context = 0
        self.table: nn.Parameter | None = None
        if config.region:
            self.table = nn.Parameter(0.02 * torch.randn(1 + len(known), config.region_width))
            rows = torch.from_numpy(_rows(inputs.region_ids, known))
            self.register_buffer("rows", rows, persistent=False)
            context += config.region_width
        self.counts: Frozen | None = None
        if inputs.counts is not None:
            self.counts = Frozen(np.log1p(inputs.counts), seen)
            self.poi = nn.Linear(self.counts.width, config.poi_width)
            context += config.poi_width
        self.branches = nn.ModuleDict(
            {
                name: Branch(
                    pool,
                    cast(Frozen, feature).width,
                    context,
                    config.hidden,
                    config.width,
                    config.threshold,
                )
                for name, feature in self.features.items()
            }
        )
        self.width = pool.tasks * len(self.branches) * config.width

    def forward(self, index: Tensor) -> Tensor:
        mixtures = [self.branches[name](*read) for name, read in self._read(index)]
        return torch.stack(mixtures, dim=2).flatten(1)  # [B, T * branches * W]

    def gates(self, index: Tensor) -> dict[str, Tensor]:
        """By branch, what each task gives to each of its experts, [B, T, K]."""
        return {n: cast(Branch, self.branches[n]).gates(*read) for n, read in self._read(index)}

    def opened(self, index: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By branch, all experts' outputs [M, B, W], and `gates` [B, T, K]."""
        return {n: cast(Branch, self.branches[n]).opened(*read) for n, read in self._read(index)}

    def _read(self, index: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
        """By branch, features [B, D], whether they are present [B], and the context [B, C] (eq 1)."""
        parts = []
        if self.table is not None:
            rows = self.rows[index]
            if self.training:
                rows = rows.masked_fill(self._drawn(index, self.unknown_rate), 0)
            parts.append(F.embedding(rows, self.table))
        if self.counts is not None:
            parts.append(self.poi(self.counts(index)[0]))
        for name, feature in self.features.items():
            numbers, present = feature(index)
            if self.training:
                present = present & ~self._drawn(index, self.absent_rate)
                numbers = numbers.masked_fill(~present[:, None], 0)
            yield name, (numbers, present, torch.cat([numbers[:, :0], *parts], dim=1))

    def _drawn(self, index: Tensor, rate: float) -> Tensor:
        """A share `rate` of the batch [B] at random."""
        return (torch.rand(len(index)) < rate).to(next(self.parameters()).device)


def _rows(ids: NDArray[np.str_], known: Sequence[str]) -> NDArray[np.int64]:
    """Rows [N] of the table of regions: 0, the unknown one, for an id that is not `known`."""
    order = np.argsort(names := np.asarray(known, dtype=str))
    at = np.searchsorted(names, ids, sorter=order)
    found = order[np.minimum(at, len(order) - 1)]
    return np.where(names[found] == ids, 1 + found, 0)


# --- fitting -------------------------------------------------------------------------------------


def fit_experts(
    inputs: Inputs,
    targets: Targets,
    parts: Parts,
    config: UrbanMoeConfig,
    *,
    seed: int,
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """Experts, routers and heads of all tasks, or of each task apart; the validation regions choose
    the epoch, and no test label is read. The record holds what routers give to each expert, on the
    validation regions (on the training regions, where there are none).

    Raises:
        DataError: a weight of a task that there is not; no expert for a task; a threshold that would
            shut off every expert of an even router.
    """
    names = [task.name for task in targets.tasks]
    if unknown := sorted(set(config.task_weights) - set(names)):
        raise DataError(
            f"`task_weights` names {', '.join(unknown)}, which is no indicator here",
            fix=f"methods.urbanmoe.config.task_weights takes {', '.join(names)}",
        )
    groups = [targets]
    if config.single_task:
        groups = [replace(targets, tasks=(task,)) for task in targets.tasks]
    known = inputs.region_ids[parts.train].tolist()
    judges = torch.from_numpy(np.flatnonzero(parts.val if parts.val.any() else parts.train))
    tensors: dict[str, NDArray[Any]] = {}
    nets: list[dict[str, Any]] = []
    for number, own in enumerate(groups):
        pool = _pool(config, len(own.tasks), len(names))
        resume = workspace.resume / str(number) if workspace.resume else None
        net = tune(
            partial(ExpertRegions, inputs, config, pool, known, parts.train),
            own,
            parts,
            Settings.of(config, patience=config.patience),
            mode="scratch",
            seed=seed,
            hidden=config.head_hidden,
            make_heads=ExpertHeads,
            task_weights=[config.task_weights.get(task.name, 1.0) for task in own.tasks],
            workspace=Workspace(workspace.progress, resume),
        )
        record = {**net.record, "pool": asdict(pool)}
        net = Checkpoint(net.tensors, record)
        record["routing"] = _routing(_model(net, inputs, config, known), judges)
        tensors |= {f"{number}.{name}": value for name, value in net.tensors.items()}
        nets.append(record)
    together = nets[0] if len(nets) == 1 else {"loss": [], "validation": []}
    curves = {key: together[key] for key in ("loss", "validation")}
    return Checkpoint(tensors, {**curves, "regions": known, "nets": nets})


def _pool(config: UrbanMoeConfig, tasks: int, among: int) -> Pool:
    """The experts of a net of `tasks` among all; see `single_task`."""
    pool = Pool(tasks, config.n_specific, config.n_pair, config.n_shared)
    if config.single_task:
        pool = Pool(1, config.n_specific + (among - 1) * config.n_pair, 0, config.n_shared)
    if not pool.each:
        raise DataError(
            "a single task has no pair, so it has no expert at all",
            fix="set methods.urbanmoe.config.n_specific or n_shared above 0",
        )
    if config.threshold * pool.each >= 1:
        raise DataError(
            f"a threshold of {config.threshold:g} shuts off every expert of a router that weighs its "
            f"{pool.each} experts evenly, as it does at the start",
            fix=f"set methods.urbanmoe.config.threshold below {1 / pool.each:.3g}",
        )
    return pool


def _routing(model: LabelledModel, index: Tensor) -> dict[str, Any]:
    """By branch, mean weights [T][K], and the shares [T][K] of the regions `index` where an expert is
    on."""
    encoder = cast(ExpertRegions, model.encoder)
    with evaluating(model):
        parts = [encoder.gates(rows) for rows in torch.split(index, _CHUNK)]
    found = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    return {
        name: {
            "weight": np.round(gates.mean(dim=0).numpy(), 6).tolist(),
            "active": np.round((gates > 0).double().mean(dim=0).numpy(), 6).tolist(),
        }
        for name, gates in found.items()
    }


def _nets(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    for number, record in enumerate(checkpoint.record["nets"]):
        start = f"{number}."
        own = {
            n.removeprefix(start): v for n, v in checkpoint.tensors.items() if n.startswith(start)
        }
        yield Checkpoint(own, record)


def _encoder(
    net: Checkpoint, inputs: Inputs, config: UrbanMoeConfig, known: Sequence[str]
) -> ExpertRegions:
    everyone = np.ones(len(inputs.region_ids), bool)
    with seeded(0):  # the weights are about to be replaced
        return ExpertRegions(inputs, config, Pool(**net.record["pool"]), known, everyone)


def _model(
    net: Checkpoint, inputs: Inputs, config: UrbanMoeConfig, known: Sequence[str]
) -> LabelledModel:
    return restore(net, _encoder(net, inputs, config, known), ExpertHeads)


def restored(
    checkpoint: Checkpoint, inputs: Inputs, config: UrbanMoeConfig
) -> Iterator[LabelledModel]:
    """The nets of a checkpoint, made as they are asked for: one, or one a task (`single_task`). Encoders are
    `ExpertRegions`."""
    known = checkpoint.record["regions"]
    for net in _nets(checkpoint):
        yield _model(net, inputs, config, known)


def embed_experts(checkpoint: Checkpoint, inputs: Inputs, config: UrbanMoeConfig) -> Floats:
    """Mixtures of all regions before the heads, float32 [N, T * branches * W]."""
    models = restored(checkpoint, inputs, config)
    return np.hstack([embed_all(model.encoder, len(inputs.region_ids)) for model in models])


def predict_experts(
    checkpoint: Checkpoint, inputs: Inputs, config: UrbanMoeConfig
) -> dict[str, Floats]:
    """By task, predictions of all regions on the transformed scale: [N, slots], or codes [N, 1]."""
    known = checkpoint.record["regions"]
    found: dict[str, Floats] = {}
    for net in _nets(checkpoint):
        encoder = _encoder(net, inputs, config, known)
        found |= predict_all(net, encoder, len(inputs.region_ids), ExpertHeads)
    return found


# --- frozen features -----------------------------------------------------------------------------


def read(data: RegionData, config: UrbanMoeConfig) -> Inputs:
    """What the experts read of a city. Features come from its satellite towers; without any, from
    random ones of the config's size, the same each time.

    Raises:
        DataError: no branch is left.
    """
    makers = {}
    if config.image and data.chips is not None:
        makers["image"] = _image_features
    if config.text and config.text_from == "names" and data.poi_names is not None:
        makers["text"] = _text_features
    if config.text and config.text_from == "descriptions" and data.poi_descriptions is not None:
        makers["text"] = _description_features
    if not makers:
        raise DataError(
            "neither satellite chips nor texts of POIs are left to read",
            fix="set one of methods.urbanmoe.config.image and text to true, and see that the city has "
            "it",
        )
    features = {}
    for name, make in makers.items():
        key = (make.__name__, config.chip_px, config.tower.model_dump_json())
        if key not in data.memo:
            data.memo[key] = make(data, _towers(data, config))
        features[name] = data.memo[key]
    return Inputs(data.region_ids, features, data.poi_counts if config.poi else None)


def _towers(data: RegionData, config: UrbanMoeConfig) -> Towers:
    if data.towers is not None:
        return open_towers(given_towers(data.towers, "satellite"))
    size = ClipConfig.model_validate(config.tower.model_dump())
    with seeded(0):
        model = model_arguments(size, (config.chip_px, config.chip_px))
        return Towers(model, np.empty(0, np.int64)).eval()


def _image_features(data: RegionData, towers: Towers) -> Floats:
    """Unit vectors [N, D] of the chips; NaN where there is none."""
    assert data.chips is not None and data.chip_present is not None
    with evaluating(towers):
        chips = resized(data.chips, towers.size_px)
        vectors = ImageTower(towers).vectors(chips, torch.arange(len(chips))).numpy()
    return np.where(data.chip_present[:, None], vectors, np.nan)


def _text_features(data: RegionData, towers: Towers) -> Floats:
    """Means [N, D] of the unit vectors of a region's names and of its comments, each of length one,
    added; NaN where there are neither."""
    kinds = ((data.poi_names, data.poi_name_region), (data.poi_comments, data.poi_comment_region))
    total = np.zeros((len(data), towers.embed_dim))
    for texts, region in kinds:
        if texts is not None and region is not None:
            total += _means(towers, len(data), texts, region)
    return np.where(total.any(axis=1, keepdims=True), total, np.nan).astype(np.float32)


def _description_features(data: RegionData, towers: Towers) -> Floats:
    """Mean [N, D] of the unit vectors of the sentences of a region's description, of length one; NaN
    where there is none. By sentence, since the text tower reads no more."""
    assert data.poi_descriptions is not None
    told = [(i, s) for i, text in enumerate(data.poi_descriptions) for s in sentences(text)]
    region = np.array([i for i, _ in told], np.int64)
    vectors = _means(towers, len(data), np.array([s for _, s in told], str), region)
    return np.where(vectors.any(axis=1, keepdims=True), vectors, np.nan).astype(np.float32)


def _means(
    towers: Towers, regions: int, texts: NDArray[np.str_], region: NDArray[np.int64]
) -> Floats:
    """Means [N, D] of the unit vectors of the texts of each region, each of length one; zeros for a
    region without any."""
    if not len(texts):
        return np.zeros((regions, towers.embed_dim))
    different, which = np.unique(texts, return_inverse=True)
    shape = (regions, len(different))
    told = sparse.coo_array((np.ones(len(which)), (region, which)), shape).tocsr()
    sums = told @ _encoded(towers, different.tolist()).astype(np.float64)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))


def _encoded(towers: Towers, texts: Sequence[str]) -> Floats:
    """Unit vectors [U, D] of texts. Texts of one length are read together, in blocks of one size, so
    that nothing is padded and no text's vector depends on the others."""
    ids = towers.tokenize(texts)
    length = lengths(ids)
    vectors = torch.empty(len(ids), towers.embed_dim)
    with evaluating(towers):
        for tokens in np.unique(length).tolist():
            for rows in torch.split(torch.nonzero(length == tokens)[:, 0], _TEXTS):
                block = F.pad(ids[rows], (0, 0, 0, _TEXTS - len(rows)))
                vectors[rows] = F.normalize(towers.text(block)[0][: len(rows)], dim=-1)
    return vectors.numpy()


class UrbanMoe:
    """The experts on a city's chips, POIs and their texts."""

    def fit(
        self,
        data: RegionData,
        targets: Targets,
        parts: Parts,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, UrbanMoeConfig)
        inputs = read(data, config)
        return fit_experts(inputs, targets, parts, config, seed=seed, workspace=workspace)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, UrbanMoeConfig)
        return embed_experts(checkpoint, read(data, config), config)

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        assert isinstance(config, UrbanMoeConfig)
        return predict_experts(checkpoint, read(data, config), config)


METHOD = UrbanMoe()
