"""What UrbanMoE's experts put out, in two dimensions and in words (its Fig. 4). Pictures are drawn with the
tools of `report.figures`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from model_code.report import palette
from model_code.report.figures import as_picture, headed, new_figure, short

KINDS = {"own": "own", "pair": "of pairs", "shared": "shared", "mixture": "the mixture"}
_SHUT = 0.15  # opacity


def sentences(outputs: pd.DataFrame) -> list[str]:
    """How much of an expert's output depends on the region, and whether an expert is known by its outputs, a
    sentence a branch: means over the tasks that the table has. Experts that are shut off for a region do not
    count.

    Args:
        outputs: the table `urbanmoe_outputs`.
    """
    said = []
    of_experts = outputs[outputs["kind"] != "mixture"].dropna(subset="spread")
    for branch, rows in of_experts.groupby("branch", sort=False):
        on = rows[rows["weight"] > 0]
        if not len(on):
            continue
        spread = on.groupby("kind")["spread"].mean()
        told = ", ".join(
            f"{KINDS[kind]} {spread[kind]:.2f}" for kind in KINDS if kind in spread.index
        )
        shut = (rows["weight"] == 0).mean()
        chance = 1 / rows.groupby("task")["number"].nunique().mean()
        text = f"{str(branch).capitalize()} branch: how much of an expert's output differs from region to "
        text += f"region (0: it puts out the same for all; 1: nothing in common): {told}. Of all outputs for "
        text += f"other regions, the nearest is of the same expert in {on['own_nearest'].mean():.0%} of cases "
        text += f"(by chance: {chance:.0%})."
        said.append(text + (f" {shut:.0%} are shut off, and left out." if shut else ""))
    return said


@as_picture
def expert_scatter(outputs: pd.DataFrame) -> Figure:
    """Outputs in two dimensions, a row of panels a task and a column a branch, coloured by the kind of the
    expert; pale where it is shut off.

    Args:
        outputs: the table `urbanmoe_outputs`.
    """
    tasks, branches = (list(dict.fromkeys(outputs[name])) for name in ("task", "branch"))
    shades = palette.qualitative(len(KINDS) - 1)
    colours = dict(zip(KINDS, (*shades, palette.INK), strict=True))
    figure = new_figure(0.4 + 3.4 * max(len(branches), 1), 0.7 + 2.9 * max(len(tasks), 1))
    headed(figure, "Outputs of the experts")
    handles = {}
    for place, (task, branch) in enumerate((task, branch) for task in tasks for branch in branches):
        own = outputs[(outputs["task"] == task) & (outputs["branch"] == branch)]
        axes = figure.add_subplot(len(tasks), len(branches), place + 1)
        axes.set_xticks([])
        axes.set_yticks([])
        if not len(own):
            axes.set_axis_off()
            continue
        size = float(np.clip(4000 / len(own), 3, 14))
        for kind in KINDS:
            rows = own[own["kind"] == kind]
            if len(rows):
                inks = [
                    (*to_rgb(colours[kind]), _SHUT if weight == 0 else 0.75)
                    for weight in rows["weight"]
                ]
                axes.scatter(rows["axis_1"], rows["axis_2"], s=size, color=inks, linewidths=0)
                handles[kind] = axes.scatter([], [], s=14, color=colours[kind], linewidths=0)
        drawn = {"tsne": "t-SNE", "pca": "PCA"}[str(own["projection"].iloc[0])]
        axes.set_title(
            f"{short(str(task).replace('_', ' '), 24)}: {branch} ({drawn})", fontsize=8.5
        )
    if handles:
        shown = [kind for kind in KINDS if kind in handles]
        figure.legend([handles[kind] for kind in shown], [KINDS[kind] for kind in shown],
                      loc="outside lower center", ncols=len(KINDS), markerscale=2)  # fmt: skip
    return figure
