"""What UrbanVLP costs: `python benchmarks/urbanvlp.py [--quick] [probe | late]`.

probe: a head on frozen features that are computed once, against encoding every picture anew at each
epoch (as the published code does); both in one run, on the same made-up city, to the same head.
late: the late interaction of a batch with its gradient, unchunked in plain torch and in blocks of a
budget, each in a process of its own; time, CPU and peak memory above the inputs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_code.finetuning import LabelledModel, Table, TaskHeads, embed_all
from model_code.losses import late_interaction
from model_code.methods import UrbanVlpConfig
from model_code.methods.base import RegionData, Targets, Task
from model_code.methods.urbanvlp import METHOD
from model_code.training import Settings, fit, seeded

SETTINGS = Settings(epochs=3, batch=64, learning_rate=1e-3)
PLAIN = "plain torch, unchunked"
BUDGETS_MIB = (256, 16, 4, 1)


# --- probe ---------------------------------------------------------------------------------------


def city(regions: int) -> RegionData:
    """Noise of the demo's sizes: chips of 64 px, four views of 96 x 128 px in a region."""
    rng = np.random.default_rng(0)
    return RegionData(
        region_ids=np.array([f"r{i:06}" for i in range(regions)]),
        lonlat_deg=rng.random((regions, 2)),
        xy_m=rng.random((regions, 2)),
        area_km2=np.ones(regions),
        chips=rng.integers(0, 255, (regions, 64, 64, 3), np.uint8),
        chip_present=np.ones(regions, bool),
        views=rng.integers(0, 255, (4 * regions, 96, 128, 3), np.uint8),
        view_region=np.repeat(np.arange(regions), 4),
        view_location_features=rng.random((4 * regions, 512), np.float32),
    )


class Frozen(nn.Module):
    """An encoder that is asked again at every step, and never learns."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.width = encoder.requires_grad_(False).eval(), encoder.width

    def forward(self, index: Tensor) -> Tensor:
        with torch.no_grad():
            return self.encoder.eval()(index)


def head_on(encoder: nn.Module, regions: int) -> tuple[nn.Module, float]:
    """A linear head trained on an encoder, and seconds an epoch."""
    labels = np.random.default_rng(1).standard_normal((regions, 1))
    targets = Targets((Task("y", "regression"),), {"y": labels})
    with seeded(0):
        heads = TaskHeads(targets.tasks, encoder.width, 0)
    model = LabelledModel(encoder, heads)
    model.labels = heads.encode(targets)
    started = time.perf_counter()
    fit(model, np.arange(regions), SETTINGS, seed=0)
    return heads, (time.perf_counter() - started) / SETTINGS.epochs


def probe(quick: bool) -> None:
    regions = 16 if quick else 512
    with seeded(0):
        encoder = METHOD.encoder(city(regions), UrbanVlpConfig(text=False))
    head_on(Table(np.zeros((regions, 8), np.float32)), regions)  # imports
    started = time.perf_counter()
    features = embed_all(encoder, regions)
    once = time.perf_counter() - started
    cached, cached_s = head_on(Table(features), regions)
    anew, anew_s = head_on(Frozen(encoder), regions)
    for a, b in zip(cached.parameters(), anew.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    print(f"probe: {regions} regions, {5 * regions} pictures, {torch.get_num_threads()} thread(s)")
    print(f"  features, once            {once:10.3f} s")
    print(f"  an epoch on them          {cached_s:10.3f} s")
    print(f"  an epoch that encodes     {anew_s:10.3f} s")
    epochs = 100
    print(
        f"  {epochs} epochs: {once + epochs * cached_s:.1f} s against {epochs * anew_s:.1f} s, "
        f"{epochs * anew_s / (once + epochs * cached_s):.0f} times as fast, to the same head"
    )


# --- late interaction ----------------------------------------------------------------------------


def plain(v: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens with all tokens, at once."""
    dots = torch.einsum("ikd,jld->ijkl", v, t)
    best_text = dots.masked_fill(~mask[None, :, None, :], -torch.inf).amax(3)
    best_patch = dots.amax(2) * mask
    return best_text.mean(2), (best_patch.sum(2) / mask.sum(1)).T


def one_way(way: str, batch: int) -> dict[str, float]:
    """A step of one way in this process, after one that is not counted on a small batch."""
    with seeded(0):
        v = nn.functional.normalize(torch.randn(batch, 49, 96), dim=-1).requires_grad_()
        t = nn.functional.normalize(torch.randn(batch, 60, 96), dim=-1).requires_grad_()
        mask = torch.arange(60) < torch.randint(20, 61, (batch, 1))

    def step(rows: int) -> float:
        own = v[:rows], t[:rows], mask[:rows]
        if way == PLAIN:
            ahead, back = plain(*own)
        else:
            ahead, back = late_interaction(*own, budget_bytes=int(way) * 2**20)
        total = (ahead.square().sum() + back.square().sum()) / rows
        total.backward()
        return total.item()

    step(2)
    v.grad = t.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    held = memory_mib("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    value = step(batch)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "peak_mib": memory_mib("VmHWM") - held,
        "value": value,
        "slope": float(v.grad.double().abs().sum() + t.grad.double().abs().sum()),
    }


def memory_mib(key: str) -> float:
    """A figure of this process from Linux: resident memory now (VmRSS), or its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def late(quick: bool) -> None:
    for batch in (16,) if quick else (64, 128):
        whole = batch**2 * 49 * 60 * 4 / 2**20
        print(f"late interaction: batch {batch}, 49 patches, 60 words, width 96: {whole:.0f} MiB")
        print(f"  {'way':28}{'seconds':>10}{'CPU s':>10}{'peak MiB':>10}")
        first: dict[str, float] = {}
        for way in (PLAIN, *map(str, BUDGETS_MIB[-1:] if quick else BUDGETS_MIB)):
            command = [sys.executable, __file__, "--child", way, str(batch)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(said.splitlines()[-1])
            first = first or row
            for key in ("value", "slope"):
                np.testing.assert_allclose(row[key], first[key], rtol=1e-4)
            name = way if way == PLAIN else f"blocks of {way} MiB"
            print(f"  {name:28}{row['seconds']:>10.3f}{row['cpu']:>10.3f}{row['peak_mib']:>10.0f}")


SECTIONS = {"probe": probe, "late": late}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(one_way(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    asked = parser.parse_args()
    if unknown := set(asked.sections) - set(SECTIONS):
        parser.error(f"unknown sections {sorted(unknown)}; known: {', '.join(SECTIONS)}")
    for name in asked.sections or SECTIONS:
        SECTIONS[name](asked.quick)


if __name__ == "__main__":
    main()
