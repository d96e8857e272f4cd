"""The board: heat maps of methods x poisons, a ranking with intervals, the points of a capstone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nclib.plots.style import CLEAN, NEUTRAL, POISON, class_colours, heatmap, label, panels

NAMES = {
    "auroc": "AUROC",
    "tpr_1": "found at 1% false positives",
    "accuracy": "accuracy",
    "asr": "attack success",
}
COLOURS = {"auroc": "vlag", "tpr_1": "viridis", "accuracy": "viridis", "asr": "viridis_r"}


def board(found: Mapping[str, pd.DataFrame], dataset: str) -> Figure:
    """One heat map per metric ``{metric: methods x poisons}``; empty cells were not measured."""
    found = {metric: values for metric, values in found.items() if values.size}
    columns = max(values.shape[1] for values in found.values())
    rows = max(values.shape[0] for values in found.values())
    figure, axes = panels(len(found), width=2.0 + 0.5 * columns, height=2.0 + 0.3 * rows)
    for ax, (metric, values) in zip(axes, found.items(), strict=True):
        low = np.nanmin(values.to_numpy()) if metric == "accuracy" else 0
        heatmap(
            values.to_numpy(),
            list(values.index),
            list(values.columns),
            title=f"{NAMES.get(metric, metric)}, {dataset}",
            x="poison",
            y="method",
            centre=0.5 if metric == "auroc" else None,
            vmin=low,
            vmax=1,
            cmap=COLOURS.get(metric),
            ax=ax,
        )
    return figure


def ranking(table: pd.DataFrame, title: str = "AUROC on the board") -> Axes:
    """Detectors, best at the top, with intervals; yours in another colour and shape.

    ``table`` has "method", "mean", "low", "high" and "yours".
    """
    ax = panels(width=6.2, height=0.34 * len(table) + 1.3)[1][0]
    for place, row in enumerate(table[::-1].to_dict("records")):
        colour, marker = (POISON, "D") if row["yours"] else (CLEAN, "o")
        ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
        ax.plot(row["mean"], place, marker, color=colour, ms=7)
    ax.set_yticks(range(len(table)), list(table.method[::-1]))
    ax.axvline(0.5, ls=":", color=NEUTRAL)
    return label(ax, title, "AUROC, mean and 95% interval over seeds", "detector")


def points(rows: Sequence[Mapping], parts: Sequence[str]) -> Axes:
    """The points of each case: rows are cases with their true state, columns the parts."""
    values = [[row[part] for part in parts] for row in rows]
    names = [f"seed {row['seed']}: {row['state']}" for row in rows]
    ax = panels(width=6)[1][0]
    title = "points per case"
    return heatmap(values, names, parts, title=title, x="part", y="case", vmin=0, vmax=1, ax=ax)


def suspects_by_class(
    counts: Sequence[int], classes: Sequence[str], title: str, top: float | None = None
) -> Axes:
    """How many suspects carry each label; ``top`` ends the axis, so that figures compare."""
    ax = panels(width=5)[1][0]
    ax.bar([str(c) for c in classes], counts, color=CLEAN)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, top)
    return label(ax, title, "label", "suspects")


def few_shot(
    series: Mapping[str, Mapping[int, Sequence[float]]], title: str, y: str = "accuracy"
) -> Axes:
    """A line per backbone ``{name: {shots: values over seeds}}``: the mean, and each seed."""
    ax = panels(width=5.6)[1][0]
    colours = class_colours(len(series))
    for (name, line), colour in zip(series.items(), colours, strict=True):
        shots = list(line)
        ax.plot(shots, [np.mean(line[s]) for s in shots], "o-", color=colour, label=name)
        for s in shots:
            ax.plot([s] * len(line[s]), line[s], ".", color=colour, alpha=0.5)
    ax.set_xscale("log")
    ax.set_xticks(shots, [str(s) for s in shots])
    ax.minorticks_off()
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "shots: labelled images per new class", y)
