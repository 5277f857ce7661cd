"""LMEMR: the hourly outflow of each region from four static modalities and descriptions of them.

Zhao et al. 2026, "Learning Fine-Grained Urban Mobility Dynamics through Large Model-Enhanced Multimodal
Representations". Each modality has a frozen spatial feature and a frozen vector of its description. The
two are drawn together (eq 3-4) and fused by channels (eq 5-6); graph attention on the regions that share
a border adds their surroundings (eq 8-10); the modalities are drawn together (eq 11) and fused by a
Transformer (eq 12); a Transformer over 24 hours gives each hour a distribution over bins of the flow,
and its expectation (eq 13-15). One loss (eq 16-19) trains all that is not frozen.

A region's embedding is the fused vector z of eq 12. It is fitted to labels of the training regions, and
it depends on other regions through the declared graph alone, which is transductive: a training region
sees the inputs (never the labels) of its neighbours, whichever part they are in.

What the paper leaves open, or what would not work as printed:

- The matrix of eq 5 is [D, D], between channels. It is computed over the training regions, divided by
  their number, and kept as a buffer, so that an embedding does not depend on who shares its batch. Eq 6
  contracts so that the widths fit: psi_v(G) S^T.
- Frozen features and vectors are standardised on the training regions, and each goes through an MLP of
  one hidden layer to width D; the published code has three.
- The flow's logarithm is standardised by one mean and one deviation over all hours of the training
  regions, so that a bin means the same at every hour. Open end bins stand for the mean of the training
  values in them.
- Contrasts are over training regions that have both sides. What a region lacks is a learned token,
  trained by hiding a few at random.
- Eq 8 sums over neighbours only, so a region without any keeps its own features by the residual.
- The validation regions choose the epoch by the squared error of the expectation.

N regions, M modalities, E edges, D width, C bins, B training regions of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.bins import Bins
from model_code.errors import DataError
from model_code.fusion import Fusion
from model_code.graphs.layers import GATConv, GCNConv
from model_code.hours import HOURS
from model_code.losses import mean_info_nce
from model_code.methods import LmemrConfig, MethodConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    Parts,
    RegionData,
    Targets,
    Workspace,
)
from model_code.methods.modalities import ReadsModalities
from model_code.methods.urbanmoe import Frozen
from model_code.scaling import Scaler
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays
from model_code.transformers import hour_vectors, transformer

_REGIONS_AT_ONCE = 1024  # in the temporal Transformer outside training


# --- one modality --------------------------------------------------------------------------------


def channel_similarity(query: Tensor, key: Tensor) -> Tensor:
    """S [D, D] of eq 5, from psi_q(F) and psi_k(G) [B, D] of the training regions: the softmax over
    each row of their products, divided by the number of regions."""
    return (query.T @ key / max(len(query), 1)).softmax(dim=1)


class Side(nn.Module):
    """Frozen numbers of the regions to [N, D]; a learned token where they are absent."""

    def __init__(self, values: Floats, seen: Mask, width: int, dropout: float) -> None:
        super().__init__()
        self.given = Frozen(values, seen)
        self.layers = nn.Sequential(
            nn.Linear(self.given.width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.absent = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D], and whose are there [N]; those of `hidden` [N] regions are not read."""
        everyone = torch.arange(len(hidden), device=hidden.device)
        numbers, present = self.given(everyone)
        present = present & ~hidden
        return torch.where(present[:, None], self.layers(numbers), self.absent), present


class GraphBlock(nn.Module):
    """A GATResBlock (eq 8-10): normalise, attend to the neighbours, GELU, dropout, add."""

    def __init__(self, kind: str, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv: nn.Module
        if kind == "gat":
            self.conv = GATConv(width, width // heads, heads, dropout=dropout, add_self_loops=False)
        else:
            self.conv = GCNConv(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, edges: Tensor) -> Tensor:
        """[N, D] of states [N, D] and edges [2, E], from and to."""
        found = self.conv(self.norm(state), edges)
        return state + cast(Tensor, self.dropout(F.gelu(found)))


class ModalityBranch(nn.Module):
    """One modality: its features, its descriptions, their fusion, and its graph.

    Attributes:
        similarity: S of eq 5, [D, D], as `freeze` left it.
    """

    similarity: Tensor

    def __init__(
        self, values: Floats, told: Floats | None, seen: Mask, config: LmemrConfig
    ) -> None:
        super().__init__()
        width = config.width
        self.spatial = Side(values, seen, width, config.dropout)
        self.semantic: Side | None = None
        if told is not None:
            self.semantic = Side(told, seen, width, config.dropout)
            self.query, self.key, self.value = (
                nn.Linear(width, width, bias=False) for _ in range(3)
            )
            self.mix = nn.Linear(width, width)
            self.register_buffer("similarity", torch.full((width, width), 1 / width))
        blocks = config.blocks if config.spatial != "none" else 0
        self.blocks = nn.ModuleList(
            GraphBlock(config.spatial, width, config.heads, config.dropout) for _ in range(blocks)
        )

    def sides(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """F [N, D] and who has it [N], G [N, D] and who has it [N] (None without descriptions)."""
        spatial, seen = self.spatial(hidden)
        if self.semantic is None:
            return spatial, seen, None, None
        semantic, told = self.semantic(hidden)
        return spatial, seen, semantic, told

    def channels(self, spatial: Tensor, semantic: Tensor) -> Tensor:
        """S [D, D] over the given regions [B, D]."""
        return channel_similarity(self.query(spatial), self.key(semantic))

    def fused(self, spatial: Tensor, semantic: Tensor, similarity: Tensor) -> Tensor:
        """H [N, D] of eq 6."""
        return spatial + cast(Tensor, self.mix(self.value(semantic) @ similarity.T))

    def surrounded(self, state: Tensor, edges: Tensor) -> Tensor:
        """The states [N, D] after the graph blocks."""
        for block in self.blocks:
            state = block(state, edges)
        return state


# --- the network ---------------------------------------------------------------------------------


def expectation(logits: Tensor, centres: Tensor) -> Tensor:
    """Eq 14-15: [..., C] logits to the expectation over the bins' centres [C]."""
    return logits.softmax(dim=-1) @ centres


def task_losses(
    logits: Tensor | None, predicted: Tensor, labels: Tensor, codes: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq 16-17: mean cross-entropy of the bins (zero without logits) and mean squared error, over the
    hours that have a label.

    Shapes:
        logits [B, 24, C], predicted and labels [B, 24] (NaN: no label), codes [B, 24].
    """
    known = ~labels.isnan()
    count = known.sum().clamp(min=1)
    squared = ((predicted - labels.nan_to_num()) ** 2 * known).sum() / count
    if logits is None:
        return squared.new_zeros(()), squared
    surprise = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
    return (surprise * known.flatten()).sum() / count, squared


class HourlyNet(nn.Module):
    """All of LMEMR on the whole graph; its data is not in its state.

    Attributes:
        mean, scale: of the transformed flow over all hours of the training regions.
        edges, centres: of the bins, on the standardised scale.
    """

    mean: Tensor
    scale: Tensor
    edges: Tensor
    centres: Tensor
    graph: Tensor

    def __init__(
        self,
        features: Mapping[str, Floats],
        descriptions: Mapping[str, Floats],
        neighbours: NDArray[np.int64] | None,
        seen: Mask,
        config: LmemrConfig,
    ) -> None:
        """`features` by modality [N, d] and `descriptions` of some of them [N, e] (rows of NaN:
        absent), `neighbours` [E, 2], `seen` [N] the regions that scales are fitted on."""
        super().__init__()
        self.config, self.regions = config, len(seen)
        width, heads = config.width, config.heads
        self.branches = nn.ModuleDict(
            {
                name: ModalityBranch(values, descriptions.get(name), seen, config)
                for name, values in features.items()
            }
        )
        count = len(self.branches)
        pairs = np.empty((0, 2), np.int64) if neighbours is None else neighbours
        self.register_buffer("graph", torch.from_numpy(pairs.T.copy()), persistent=False)
        self.kind = nn.Parameter(0.02 * torch.randn(count, width))
        self.modal: nn.Module
        if config.fusion == "transformer":
            self.modal = transformer(width, heads, config.fusion_layers, config.dropout)
            self.pool: nn.Module = Fusion("attention", count, width)
        elif config.fusion == "concat":
            self.modal = nn.Sequential(
                nn.Flatten(), nn.Linear(count * width, width), nn.GELU(), nn.Linear(width, width)
            )
        else:
            self.modal = Fusion("gate", count, width)
        self.hour = hour_vectors(HOURS, width)
        self.at_hour = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())
        self.temporal = transformer(width, heads, config.temporal_layers, config.dropout)
        outputs = 1 if config.objective == "regression" else config.n_bins
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("edges", torch.zeros(config.n_bins - 1))
        self.register_buffer("centres", torch.zeros(config.n_bins))
        self.train_rows = torch.from_numpy(np.flatnonzero(seen))
        self.labels = torch.empty(0)  # [N, 24] in training; not a part of the state
        self.codes = torch.empty(0)

    def set_labels(self, values: Floats) -> None:
        """Scales and bins of the training regions' labels, and all labels [N, 24] on that scale."""
        rows = self.train_rows.numpy()
        scaler = Scaler.fit(values[rows].reshape(-1, 1), np.ones(len(rows) * HOURS, bool))
        standard = scaler.apply(values)
        bins = Bins.fit(standard[rows], self.config.n_bins, self.config.bins)
        self.mean.copy_(torch.tensor(scaler.mean[0]))
        self.scale.copy_(torch.tensor(scaler.scale[0]))
        self.edges.copy_(torch.from_numpy(bins.edges))
        self.centres.copy_(torch.from_numpy(bins.centres))
        self.labels = torch.from_numpy(standard).float()
        self.codes = torch.from_numpy(bins.of(standard))

    # --- forward

    def states(self, contrasted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Graph-enhanced states [N, M, D] of all regions, and the contrastive loss (eq 18) over the
        regions `contrasted` [B] (zero without)."""
        device = self.graph.device
        states, intra, who = [], [], []
        for branch in cast(Mapping[str, ModalityBranch], self.branches).values():
            hidden = torch.zeros(self.regions, dtype=torch.bool, device=device)
            if self.training:
                hidden = (torch.rand(self.regions) < self.config.absent_rate).to(device)
            state, seen, semantic, told = branch.sides(hidden)
            if semantic is not None and told is not None:
                both = seen & told
                similarity = branch.similarity
                if self.training:
                    rows = self.train_rows[both[self.train_rows].cpu()]
                    similarity = branch.channels(state[rows], semantic[rows])
                if contrasted is not None and self.config.intra:
                    rows = contrasted[both[contrasted].cpu()]
                    intra.append(self._contrast(state[rows], semantic[rows]))
                state = branch.fused(state, semantic, similarity)
            states.append(branch.surrounded(state, self.graph))
            who.append(seen)
        together = torch.stack(states, dim=1)
        loss = together.new_zeros(())
        if contrasted is not None:
            loss = loss + sum(intra) + self._inter(states, who, contrasted)
        return together, loss

    def _contrast(self, left: Tensor, right: Tensor) -> Tensor:
        config = self.config
        return mean_info_nce(left, right, 1 / config.temperature, config.contrast_at_once)

    def _inter(self, states: list[Tensor], who: list[Tensor], rows: Tensor) -> Tensor | float:
        """The mean over the pairs of modalities of eq 11; 0 for a single one."""
        pairs = list(combinations(range(len(states)), 2)) if self.config.inter else []
        found = []
        for one, other in pairs:
            both = rows[(who[one] & who[other])[rows].cpu()]
            found.append(self._contrast(states[one][both], states[other][both]))
        return torch.stack(found).mean() if found else 0.0

    def fuse(self, states: Tensor) -> Tensor:
        """Eq 12: states [N, M, D] to z [N, D]."""
        tokens = states + self.kind
        if self.config.fusion == "gate":
            return cast(Tensor, self.modal(tokens.unbind(dim=1)))
        mixed = self.modal(tokens)
        if self.config.fusion == "transformer":
            mixed = self.pool(mixed.unbind(dim=1))
        return cast(Tensor, mixed)

    def hours(self, fused: Tensor) -> tuple[Tensor | None, Tensor]:
        """Eq 13-15: z [B, D] to logits [B, 24, C] (None without classes) and flows [B, 24]."""
        shape = (len(fused), HOURS, fused.shape[1])
        each = torch.cat([fused[:, None].expand(shape), self.hour.expand(shape)], dim=2)
        outputs = self.head(self.temporal(self.at_hour(each)))
        if self.config.objective == "regression":
            return None, outputs[..., 0]
        return outputs, expectation(outputs, self.centres)

    # --- training

    def loss(self, index: Tensor) -> Tensor:
        """Eq 19 over the training regions `index` [B]."""
        config = self.config
        states, contrast = self.states(index)
        logits, flows = self.hours(self.fuse(states[index]))
        device = flows.device
        labels, codes = self.labels[index].to(device), self.codes[index].to(device)
        surprise, squared = task_losses(logits, flows, labels, codes)
        weight = config.contrast_weight * contrast
        if config.objective == "regression":
            return config.beta * squared + weight
        if config.objective == "classification":
            return config.alpha * surprise + weight
        return config.alpha * surprise + config.beta * squared + weight

    def freeze(self) -> None:
        """Keep S of eq 5 as it is now, over the training regions; in evaluation mode."""
        for branch in cast(Mapping[str, ModalityBranch], self.branches).values():
            hidden = torch.zeros(self.regions, dtype=torch.bool, device=self.graph.device)
            spatial, seen, semantic, told = branch.sides(hidden)
            if semantic is not None and told is not None:
                rows = self.train_rows[(seen & told)[self.train_rows].cpu()]
                branch.similarity.copy_(branch.channels(spatial[rows], semantic[rows]))

    def validation(self, index: Tensor) -> float:
        """Mean squared error of the regions `index` on the standardised scale."""
        self.freeze()
        flows = self.flows(self.embedding()[index])
        labels = self.labels[index].to(flows.device)
        return float(task_losses(None, flows, labels, labels)[1])

    def embedding(self) -> Tensor:
        """z [N, D] of all regions."""
        return self.fuse(self.states()[0])

    def flows(self, fused: Tensor) -> Tensor:
        """Flows [B, 24] of z [B, D], on the standardised scale."""
        return torch.cat([self.hours(part)[1] for part in torch.split(fused, _REGIONS_AT_ONCE)])


# --- on the rails --------------------------------------------------------------------------------


def described(data: RegionData, config: LmemrConfig) -> dict[str, Floats]:
    """By modality, vectors [N, E] of the descriptions that the config reads; shuffled, they are of
    other regions, the same each time."""
    if not config.semantics or data.descriptions is None:
        return {}
    found = {m: rows for (form, m), rows in data.descriptions.items() if form == config.form}
    if config.prompt == "shuffle":
        order = np.random.default_rng(0).permutation(len(data))
        found = {name: rows[order] for name, rows in found.items()}
    return found


class Lmemr(ReadsModalities):
    """LMEMR on the hourly target of a city."""

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
        assert isinstance(config, LmemrConfig)
        if len(targets.tasks) != 1:
            names = ", ".join(task.name for task in targets.tasks)
            raise DataError(
                f"LMEMR predicts one hourly target, and there are several: {names}",
                fix="leave one indicator of `kind: hourly` in the city's YAML",
            )
        (task,) = targets.tasks
        values = targets.values[task.name]
        with seeded(seed):
            net = self._net(data, config, parts.train)
        net.set_labels(values)
        labelled = np.isfinite(values).any(axis=1)
        judges = torch.from_numpy(np.flatnonzero(parts.val & labelled))
        history = fit(
            net,
            np.flatnonzero(parts.train & labelled),
            Settings.of(config, schedule="cosine", patience=config.patience),
            seed=seed,
            validate=(lambda: net.validation(judges)) if len(judges) else None,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        with evaluating(net):
            net.freeze()
        record = {
            "task": task.name,
            "modalities": list(net.branches),
            "best_epoch": history.best_epoch,
            "loss": history.train,
            "validation": history.validation,
        }
        return Checkpoint(state_arrays(net), record)

    def _net(self, data: RegionData, config: LmemrConfig, seen: Mask) -> HourlyNet:
        neighbours = data.neighbours if config.spatial != "none" else None
        features = self.features(data, config)
        return HourlyNet(features, described(data, config), neighbours, seen, config)

    def restored(self, checkpoint: Checkpoint, data: RegionData, config: LmemrConfig) -> HourlyNet:
        """The net of a checkpoint, on the regions of `data`."""
        with seeded(0):  # the weights are about to be replaced, and the scales with them
            net = self._net(data, config, np.ones(len(data), bool))
        load_arrays(net, checkpoint.tensors)
        return net

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, LmemrConfig)
        net = self.restored(checkpoint, data, config)
        with evaluating(net):
            return net.embedding().numpy()

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        assert isinstance(config, LmemrConfig)
        net = self.restored(checkpoint, data, config)
        with evaluating(net):
            flows = net.flows(net.embedding()).double() * net.scale + net.mean
        return {checkpoint.record["task"]: flows.numpy()}


METHOD = Lmemr()
