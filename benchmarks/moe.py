"""What the batched experts of UrbanMoE cost: `python benchmarks/moe.py [--quick] [--threads N]`.

Three ways to the same numbers, with the paper's 34 experts a branch (8 a task, 2 a pair, 4 shared)
and the same weights: batched; a loop that runs each expert once; a loop over the tasks that runs all
experts of each task, the shared ones again for each. A training step (forward, backward, AdamW) and
inference, each way in a process of its own: best and median time, parameters, and the peak of its tensors'
memory above what the model and its data hold (activations, gradients, AdamW's state); and, as a floor, the experts' bare matrix products. On the CPU,
and on CUDA where there is one. Every way must give the first one's loss and gradient.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model_code.finetuning import LabelledModel
from model_code.methods import UrbanMoeConfig
from model_code.methods.base import Targets, Task
from model_code.methods.urbanmoe import Branch, ExpertHeads, ExpertRegions, Inputs, Pool
from model_code.training import seeded

WAYS = ("batched", "loop over experts", "loop over tasks and experts")
FLOOR = "bare matrix products"
POOL = Pool(3, 8, 2, 4)
CONFIG = UrbanMoeConfig()
TASKS = tuple(Task(name, "regression") for name in ("carbon", "population", "light"))


class LoopBranch(nn.Module):
    """The experts and routers of a `Branch` as modules of their own, one after another."""

    def __init__(self, branch: Branch, again: bool) -> None:
        super().__init__()
        pool, hidden, width = branch.pool, branch.hidden, branch.width
        self.again, self.threshold, self.allowed = again, branch.threshold, pool.allowed().tolist()
        self.absent = nn.Parameter(branch.absent.detach().clone())
        weight = torch.cat([branch.of_features, branch.of_context]).detach()
        first, second_bias = branch.first_bias.detach(), branch.second_bias.detach()

        def linear(into: int, out: int, values: Tensor, bias: Tensor) -> nn.Linear:
            layer = nn.Linear(into, out)
            layer.weight.data.copy_(values.T)
            layer.bias.data.copy_(bias)
            return layer

        experts = []
        for m in range(pool.experts):
            inner, outer = (slice(m * w, (m + 1) * w) for w in (hidden, width))
            experts.append(
                nn.Sequential(
                    linear(len(weight), hidden, weight[:, inner], first[inner]),
                    nn.ReLU(),
                    linear(hidden, width, branch.second[m].detach(), second_bias[outer]),
                    nn.LayerNorm(width, elementwise_affine=False),
                )
            )
        self.experts = nn.ModuleList(experts)
        start = pool.experts * hidden
        routers = [
            slice(start + t * pool.each, start + (t + 1) * pool.each) for t in range(pool.tasks)
        ]
        self.routers = nn.ModuleList(
            [linear(len(weight), pool.each, weight[:, own], first[own]) for own in routers]
        )

    def forward(self, features: Tensor, present: Tensor, context: Tensor) -> Tensor:
        z = torch.cat([torch.where(present[:, None], features, self.absent), context], dim=1)
        outputs = [] if self.again else [expert(z) for expert in self.experts]
        mixtures = []
        for router, allowed in zip(self.routers, self.allowed, strict=True):
            gates = router(z).softmax(dim=1)
            gates = torch.where(gates > self.threshold, gates, 0.0)
            own = [self.experts[m](z) if self.again else outputs[m] for m in allowed]
            mixtures.append(sum(gates[:, [k]] * out for k, out in enumerate(own)))
        return torch.stack(mixtures, dim=1)


def model_of(way: str, batch: int, features: int) -> LabelledModel:
    """Both branches with region and POI embeddings, and the heads, on noise."""
    rng = np.random.default_rng(0)
    ids = np.array([f"r{i:05}" for i in range(batch)])
    everyone = np.ones(batch, bool)
    inputs = Inputs(
        ids,
        {
            name: rng.standard_normal((batch, features)).astype(np.float32)
            for name in ("image", "text")
        },
        rng.poisson(3, (batch, 15)).astype(np.float32),
    )
    labels = {task.name: rng.standard_normal((batch, 1)) for task in TASKS}
    with seeded(0):
        encoder = ExpertRegions(inputs, CONFIG, POOL, ids.tolist(), everyone)
        heads = ExpertHeads(TASKS, encoder.width, CONFIG.head_hidden)
    if way != WAYS[0]:
        for name, branch in encoder.branches.items():
            encoder.branches[name] = LoopBranch(branch, way == WAYS[2])
    model = LabelledModel(encoder, heads)
    model.labels = heads.encode(Targets(TASKS, labels))
    return model


def one_way(way: str, device: str, batch: int, features: int, steps: int) -> dict[str, float]:
    """Times of one way in this process, and what must agree with the others."""
    model = model_of(way, batch, features).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    index = torch.arange(batch)

    def step() -> None:
        optimiser.zero_grad()
        torch.default_generator.manual_seed(0)  # the same ids are dropped
        model.loss(index).backward()
        optimiser.step()

    def infer() -> None:
        with torch.no_grad():
            model(index)

    with seeded(0):
        loss = model.loss(index)
    loss.backward()
    slope = sum(float(p.grad.double().abs().sum()) for p in model.parameters())
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss.item(),
        "slope": slope,
    }
    del loss
    optimiser.zero_grad()  # from here on gradients count
    found["peak_mib"] = peak_mib(step, device)
    found |= timed("train", step, device, steps)
    model.eval()
    return found | timed("infer", infer, device, steps)


def floor(device: str, batch: int, features: int, steps: int) -> dict[str, float]:
    """The same times for the matrix products of both branches' experts alone: what neither a loop nor
    a batch can go below."""
    width_in = features + CONFIG.region_width + CONFIG.poi_width
    shape = (POOL.experts, batch, CONFIG.hidden)
    z, first = (
        torch.randn(*s, device=device)
        for s in ((batch, width_in), (width_in, POOL.experts * CONFIG.hidden))
    )
    inner, second = (
        torch.randn(*s, device=device) for s in (shape, (POOL.experts, CONFIG.hidden, CONFIG.width))
    )
    hidden, outer = z @ first, torch.bmm(inner, second)

    def infer() -> None:
        for _ in range(2):
            torch.mm(z, first, out=hidden)
            torch.bmm(inner, second, out=outer)

    def step() -> None:  # forward, both weights' gradients, and that of the hidden layer
        infer()
        for _ in range(2):
            torch.mm(z.T, hidden)
            torch.bmm(inner.mT, outer)
            torch.bmm(outer, second.mT)

    return timed("train", step, device, steps) | timed("infer", infer, device, steps)


def timed(name: str, run: Callable[[], None], device: str, steps: int) -> dict[str, float]:
    """Best and median seconds of `steps` runs, after two that do not count."""
    seconds = []
    for number in range(steps + 2):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= 2:
            seconds.append(time.perf_counter() - started)
    return {f"{name}_best": min(seconds), f"{name}_median": float(np.median(seconds))}


def peak_mib(run: Callable[[], None], device: str) -> float:
    """Most memory of tensors above those that are there, in two runs: activations, gradients, and what
    the optimiser keeps from the first."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        run()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
        run()
    with tempfile.TemporaryDirectory() as folder:
        seen.export_chrome_trace(str(trace := Path(folder) / "trace.json"))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"]
    changes.sort(key=lambda change: change[0])
    return float(np.cumsum([size for _, size in changes]).max()) / 2**20


def measured(way: str, device: str, batch: int, features: int, steps: int) -> dict[str, float]:
    sizes = device, batch, features, steps
    return floor(*sizes) if way == FLOOR else one_way(way, *sizes)


def apart(*sizes: str | int) -> dict[str, float]:
    """`measured` in a process of its own, on as many threads as this one."""
    command = [sys.executable, __file__, "--child", *map(str, (*sizes, torch.get_num_threads()))]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    row: dict[str, float] = json.loads(said.splitlines()[-1])
    return row


def compare(
    measure: Callable[..., dict[str, float]], device: str, batch: int, features: int, steps: int
) -> None:
    print(
        f"{device}, {torch.get_num_threads()} thread(s): batch {batch}, {features} features, {POOL.experts} experts a "
        f"branch; ms best (median) of {steps}"
    )
    print(f"  {'way':30}{'step':>18}{'inference':>18}{'peak MiB':>10}{'parameters':>12}")
    first: dict[str, float] = {}
    for way in (*WAYS, FLOOR):
        row = measure(way, device, batch, features, steps)
        step, infer = (
            f"{row[f'{name}_best'] * 1e3:.1f} ({row[f'{name}_median'] * 1e3:.1f})"
            for name in ("train", "infer")
        )
        if way == FLOOR:
            print(f"  {way:30}{step:>18}{infer:>18}")
            continue
        first = first or row
        for key in ("loss", "slope"):
            np.testing.assert_allclose(row[key], first[key], rtol=1e-3)
        assert row["parameters"] == first["parameters"]
        print(f"  {way:30}{step:>18}{infer:>18}{row['peak_mib']:>10.0f}{row['parameters']:>12,}")
        if way != WAYS[0]:
            ratios = [row[f"{n}_best"] / first[f"{n}_best"] for n in ("train", "infer")]
            print(f"    batched is {ratios[0]:.2f} and {ratios[1]:.2f} times as fast")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        way, device, batch, features, steps, threads = sys.argv[2:]
        torch.set_num_threads(int(threads))
        print(json.dumps(measured(way, device, int(batch), int(features), int(steps))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, in one process")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        if asked.quick:
            compare(measured, device, batch=8, features=16, steps=2)
            continue
        for batch, features in ((256, 512), (256, 64), (16, 64)):
            compare(apart, device, batch, features, asked.steps)


if __name__ == "__main__":
    main()
