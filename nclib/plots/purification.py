"""Figures of purification: energies, images on their way, success against accuracy, distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, heatmap, label, panels, show_images

__all__ = [
    "against",
    "at_rest",
    "by_strength",
    "distances",
    "energies",
    "grid",
    "outcomes",
    "show_images",
    "survivors",
    "training",
    "walk",
]


DEFENCES = ["none", "jpeg", "friendly", "epic", "energy", "diffusion", "naive", "reps", "filt"]


def energies(groups: Mapping[str, Tensor], unit: float) -> Axes:
    """Histograms of E / ``unit`` (the temperature), one per group ``{name: [N]}``."""
    _, (ax,) = panels(width=6.4, height=3.4)
    values = {name: (e / unit).cpu().numpy() for name, e in groups.items()}
    every = np.concatenate(list(values.values()))
    low, high = np.quantile(every, (0.002, 0.998))
    bins = np.linspace(low, high, 45).tolist()
    colours = [CLEAN, POISON, NEUTRAL, "#029e73"]
    for (name, e), colour in zip(values.items(), colours, strict=False):
        weights = np.full(len(e), 1 / len(e))
        ax.hist(e, bins, weights=weights, alpha=0.55, color=colour, label=name)
    ax.legend(fontsize=8)
    return label(ax, "Energy of the images", "energy / temperature", "share of the group")


def walk(frames: Mapping[str, Tensor], title: str, columns: int = 6) -> Figure:
    """The same images ``[n, C, H, W]`` at several moments ``{name: images}``: one row per image."""
    count = len(next(iter(frames.values())))
    rows = [images[i] for i in range(count) for images in frames.values()]
    titles = list(frames) + [""] * (len(rows) - len(frames))
    return show_images(torch.stack(rows), titles, columns=len(frames) or columns, title=title)


def outcomes(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Success and accuracy ``{defence: {"success": [seeds], "accuracy": [seeds]}}``, side by side.

    Bars are means, dots are seeds.
    """
    figure, axes = panels(2, width=4.6)
    named = (("success", "Success of the poison", POISON), ("accuracy", "Accuracy", CLEAN))
    for ax, (key, title, colour) in zip(axes, named, strict=True):
        for x, row in enumerate(rows.values()):
            ax.bar(x, np.mean(row[key]), color=colour)
            ax.plot([x] * len(row[key]), row[key], "o", color="black", markersize=3)
        ax.set_xticks(range(len(rows)), list(rows), rotation=30, ha="right")
        ax.set_axisbelow(True)  # the grid
        label(ax, title, "", "share of the test images")
    axes[0].set_ylim(0, 1.03)
    lowest = min(min(row["accuracy"]) for row in rows.values())
    axes[1].set_ylim(max(0, lowest - 0.05), 1.005)
    return figure


def at_rest(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of results/purification.csv at the default strengths, not those of the curve."""
    strength = {"energy": "100", "diffusion": "75" if dataset == "mnist" else "100"}
    rows = table[table.dataset == dataset]
    wanted = rows.defence.map(strength)
    return rows[wanted.isna() | (rows.strength.astype(str) == wanted)]


def grid(table: pd.DataFrame, dataset: str, value: str = "success") -> pd.DataFrame:
    """Attacks in rows, ``DEFENCES`` in columns, means over the seeds; last the clean network."""
    rows = at_rest(table, dataset)
    kind = rows.variant.str.extract("(strong trigger|large patch)")[0]
    rows = rows.assign(attack=rows.attack + (", " + kind).fillna(""))
    wide = rows.pivot_table(value, "attack", "defence")[DEFENCES]
    return wide.assign(control=rows.groupby("attack")["control_" + value].mean())


def by_strength(table: pd.DataFrame) -> Figure:
    """Success and accuracy over the strength, one panel per defence; bands run over the seeds."""
    names = {"energy": "steps of Langevin", "diffusion": "noise level t"}
    figure, axes = panels(len(names), width=4.6, sharey=True)
    for ax, (defence, x) in zip(axes, names.items(), strict=True):
        rows = table[table.defence.isin(["none", defence])]  # "none" is the strength 0
        rows = rows.assign(strength=rows.strength.astype(int))
        look = {"x": "strength", "data": rows, "ax": ax, "marker": "o", "errorbar": ("pi", 100)}
        sns.lineplot(y="success", color=POISON, label="success of the poison", **look)
        sns.lineplot(y="accuracy", color=CLEAN, label="accuracy", **look)
        ax.axhline(rows.control_accuracy.mean(), color=NEUTRAL, linestyle="--", linewidth=1)
        ax.set_ylim(-0.03, 1.03)
        label(ax, defence, x, "share of the test images")
        ax.legend(fontsize=8)
    return figure


def against(table: pd.DataFrame, title: str) -> Axes:
    """Heat map of the numbers in ``table``: attacks in rows, defences in columns."""
    _, (ax,) = panels(width=2.4 + 0.75 * table.shape[1], height=1.3 + 0.45 * len(table))
    names = [str(name).replace("_", " ") for name in table.index]
    look: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "viridis_r", "ax": ax}
    return heatmap(table.to_numpy(), names, list(table.columns), title=title, x="", y="", **look)


def distances(rows: Mapping[str, Sequence[float]]) -> Axes:
    """Distance of the poisons to their class mean, clean images of the class = 1: dots per seed."""
    _, (ax,) = panels(width=1.6 + 0.9 * len(rows))
    for x, values in enumerate(rows.values()):
        ax.plot([x] * len(values), values, "o", color=POISON, alpha=0.7)
        ax.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color="black")
    ax.axhline(1, color=NEUTRAL, linestyle="--")
    ax.set_xticks(range(len(rows)), list(rows))
    return label(ax, "Poisons and their class mean", "", "distance, poisons / clean")


def training(histories: Mapping[str, Sequence[float]], limit: float) -> Figure:
    """The gap of the energies over the updates, one panel per training."""
    figure, axes = panels(len(histories), width=4.6)
    for ax, (name, gaps) in zip(axes, histories.items(), strict=True):
        ax.plot(range(1, len(gaps) + 1), gaps, color=CLEAN if abs(gaps[-1]) < limit else POISON)
        ax.set_yscale("symlog", linthresh=1e-3)
        label(ax, name, "update", "E(data) - E(samples)")
    return figure


def survivors(success: Mapping[str, float]) -> Axes:
    """Success of the poison by case, as horizontal bars."""
    _, (ax,) = panels(width=6, height=0.9 + 0.32 * len(success))
    names = list(success)[::-1]
    ax.barh(names, [success[name] for name in names], color=POISON)
    ax.set_xlim(0, 1.03)
    return label(ax, "What survives", "success of the poison", "")
