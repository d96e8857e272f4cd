"""The board: heat maps of methods x poisons; the points and the evidence of a capstone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def points(rows: Sequence[Mapping], parts: Sequence[str]) -> Axes:
    """The points of each case: rows are cases with their true state, columns the parts."""
    values = [[row[part] for part in parts] for row in rows]
    names = [f"{row['case']}: {row['state'].replace('_', ' ')}" for row in rows]
    ax = panels(width=6.4, height=1.2 + 0.4 * len(rows))[1][0]
    title = "points per case"
    return heatmap(values, names, parts, title=title, x="part", y="", vmin=0, vmax=1, ax=ax)


def investigators(scores: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Axes:
    """Scores on clean and on poisoned cases ``{who: (clean, poisoned)}``: means, a dot per case."""
    ax = panels(width=2.2 + 1.2 * len(scores))[1][0]
    for side, (colour, words) in enumerate(((CLEAN, "clean cases"), (POISON, "poisoned cases"))):
        x = np.arange(len(scores)) + 0.4 * side - 0.2
        each = [pair[side] for pair in scores.values()]
        ax.bar(x, [np.mean(v) for v in each], 0.36, color=colour, alpha=0.5, label=words)
        for place, values in zip(x, each, strict=True):
            apart = np.linspace(-0.12, 0.12, len(values))
            ax.plot(place + apart, values, "o", color=colour, markersize=3)
    ax.set_xticks(range(len(scores)), list(scores))
    ax.set_ylim(0, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, "Sealed cases", "", "score")


def spread_of(spread: Sequence[float], classes: Sequence[str], title: str) -> Axes:
    """A bar for each class: the log of its width over the median width; one scale for all."""
    ax = panels(width=5, height=3)[1][0]
    ax.bar(range(len(spread)), spread, color=CLEAN)
    ax.set_xticks(range(len(spread)), classes, rotation=50, ha="right", fontsize=8)
    ax.axhline(0, color=NEUTRAL, linewidth=1)
    ax.set_ylim(-0.9, 1.5)
    return label(ax, title, "", "spread (log, no unit)")


def evidence(spread: Sequence[float], nc1: Sequence[float], states: Sequence[str]) -> Axes:
    """Each case by the spread of its widest class and by NC1, coloured by its state."""
    ax = panels(width=6.4, height=3.6)[1][0]
    names = sorted(set(states), key=lambda state: (state != "clean", state))
    for name, colour in zip(names, class_colours(len(names)), strict=True):
        which = [i for i, state in enumerate(states) if state == name]
        x, y = ([list(values)[i] for i in which] for values in (spread, nc1))
        marker = "o" if name == "clean" else "D"
        ax.plot(x, y, marker, color=colour, label=name.replace("_", " "))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, "What the last layer says", "spread of the widest class", "NC1")


def false_accusations(accused: Mapping[str, Sequence[float]]) -> Axes:
    """Share of clean images accused, a row per investigator, a dot per clean case."""
    ax = panels(width=6, height=0.8 + 0.34 * len(accused))[1][0]
    for row, values in enumerate(accused.values()):
        ax.plot(values, [row] * len(values), "o", color=POISON, alpha=0.6)
    ax.set_yticks(range(len(accused)), list(accused))
    ax.invert_yaxis()
    return label(ax, "Clean cases: who is accused?", "share of the images", "")


def both_sides(placed: pd.DataFrame, yours: str) -> Axes:
    """Each detector at its AUROC on both poisons of ``placed``: a dot per seed, the mean named."""
    y, x = (c for c in placed.columns if c not in ("method", "seed", "worse"))
    ax = panels(width=6, height=4)[1][0]
    for name, rows in placed.groupby("method"):
        colour = POISON if name == yours else CLEAN
        ax.plot(rows[x], rows[y], "o", color=colour, markersize=4, alpha=0.5)
        ax.plot(rows[x].mean(), rows[y].mean(), "D", color=colour)
        where = (float(rows[x].mean()), float(rows[y].mean()))
        options: dict[str, Any] = {"xytext": (-6, 6), "textcoords": "offset points"}
        options |= {"ha": "right", "fontsize": 9}
        ax.annotate(str(name).replace("_", " "), where, color=colour, **options)
    ax.axhline(0.5, ls=":", color=NEUTRAL)
    ax.axvline(0.5, ls=":", color=NEUTRAL)
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03))
    return label(ax, "Both sides of a detector", f"AUROC, {x}", f"AUROC, {y}")
