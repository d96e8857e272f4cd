"""Figures of purification: energies, walks over them, success against accuracy and contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator
from torch import Tensor

from nclib.plots.style import (
    CLEAN,
    NEUTRAL,
    POISON,
    class_colours,
    heatmap,
    label,
    panels,
    pixels,
    show_images,
)


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


def landscape(hills: Tensor, grid: Tensor, points: Tensor, images: Tensor, moment: str) -> Figure:
    """The energy ``[B, A]`` over a plane, walkers ``[N, 2]`` in it, and ``images`` on their way.

    Both axes are ``grid``: the amount of the trigger, and that of a pattern of noise.
    """
    figure, axes = panels(2, width=4.2, height=3.4)
    lines = axes[0].contourf(grid, grid, hills, levels=14, cmap="viridis")
    figure.colorbar(lines, ax=axes[0], label="energy / temperature")
    axes[0].plot(*points.T, "o", color=POISON, markeredgecolor="w", ms=5)
    low, high = float(grid[0]), float(grid[-1])
    axes[0].set(xlim=(low, high), ylim=(low, high))
    label(axes[0], f"The walkers {moment}", "amount of the trigger", "amount of a noise pattern")
    half = len(images) // 2
    strip = torch.cat([torch.cat([*part], 2) for part in (images[:half], images[half:])], 1)
    axes[1].imshow(pixels(strip), vmin=0, vmax=1)
    axes[1].set_axis_off()
    axes[1].set_title(f"their images {moment}")
    return figure


def walk(frames: Mapping[str, Tensor], title: str) -> Figure:
    """The same images ``[n, C, H, W]`` at several moments ``{name: images}``: one row per image."""
    count = len(next(iter(frames.values())))
    rows = [images[i] for i in range(count) for images in frames.values()]
    titles = list(frames) + [""] * (len(rows) - len(frames))
    return show_images(torch.stack(rows), titles, columns=len(frames), title=title)


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


def against(table: pd.DataFrame, title: str) -> Axes:
    """Heat map of the numbers in ``table``: defences in rows, attacks in columns."""
    _, (ax,) = panels(width=3.4 + 1.1 * table.shape[1], height=1.3 + 0.32 * len(table))
    look: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "viridis_r", "ax": ax}
    names = list(table.index), list(table.columns)
    return heatmap(table.to_numpy(), *names, title=title, x="", y="", **look)


def grouped(table: pd.DataFrame, groups: Mapping[str, Sequence[str]], title: str) -> Figure:
    """Heat map of ``table``: rows in named ``groups``, attacks in columns, "accuracy" beside it.

    A row that the table lacks is left out, and a number that it lacks stays empty.
    """
    kept = {group: [row for row in rows if row in table.index] for group, rows in groups.items()}
    names = [name for group, rows in kept.items() if rows for name in (group, *rows)]
    shown = table.reindex(names)  # a group's own line is empty
    attacks = shown.drop(columns="accuracy")
    figure, (ax, side) = plt.subplots(
        1,
        2,
        figsize=(4.2 + 0.75 * attacks.shape[1], 1.5 + 0.29 * len(names)),
        width_ratios=(attacks.shape[1], 2),
        sharey=True,
    )
    look: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "viridis_r", "ax": ax, "cbar": False}
    wrapped = [fill(str(name), 11) for name in attacks]
    heatmap(attacks.to_numpy(float), names, wrapped, title=title, x="", y="", **look)
    ax.tick_params(axis="x", rotation=0, labelsize=8)
    ax.grid(visible=False)
    for tick in ax.get_yticklabels():
        tick.set(fontweight="bold" if tick.get_text() in kept else "normal", fontsize=8)
    place, height = np.arange(len(names)) + 0.5, shown["accuracy"].to_numpy(float)
    side.barh(place, height, color=CLEAN, height=0.75)
    side.tick_params(axis="y", length=0, labelleft=False)
    side.grid(visible=False, axis="y")
    side.set_xlim(0, 1.18 * np.nanmax(height))
    for y, value in zip(place, height, strict=True):
        side.annotate("" if np.isnan(value) else f" {value:.2f}", (value, y), va="center", size=8)
    label(side, "Accuracy", "", "")
    return figure


def photographs(walks: Mapping[str, pd.DataFrame], shares: Mapping[str, pd.DataFrame]) -> Figure:
    """Walks of Langevin ("energy" over "at"), and histograms ("share" from "low" to "high").

    The histograms stand above one another, each over the outline of the first, with its "auroc".
    """
    figure, axes = panels(2, width=4.8, height=3.6)
    for (name, part), colour in zip(walks.items(), (NEUTRAL, CLEAN, POISON), strict=False):
        part = part.sort_values("at")
        axes[0].plot(part["at"], part["energy"], "o-", color=colour, ms=4, label=name)
    axes[0].legend(fontsize=8)
    label(axes[0], "Down the energy", "Langevin steps", "energy")
    parts = [part.sort_values("low") for part in shares.values()]
    first, step = parts[0], 1.1 * max(part["share"].max() for part in parts)
    for place, part in enumerate(parts):
        edges, low = [*part["low"], float(part["high"].iloc[-1])], place * step
        look: dict[str, Any] = {"color": POISON if place else CLEAN, "alpha": 0.6, "fill": True}
        axes[1].stairs(low + part["share"], edges, baseline=low, **look)
        axes[1].stairs(low + first["share"], edges, baseline=low, color="black", lw=0.8)
    names = [
        name if place == 0 else f"{name}, {part['auroc'].iloc[0]:.2f}"
        for place, (name, part) in enumerate(zip(shares, parts, strict=True))
    ]
    axes[1].set_yticks([place * step for place in range(len(parts))], names, fontsize=8)
    label(axes[1], "Energies; AUROC against clean images", "energy", "")
    return figure


def contrasts(table: pd.DataFrame) -> Axes:
    """Success over the contrast that is left, a dot for each row of the table, a colour a wash."""
    _, (ax,) = panels(width=6.4, height=3.6)
    names = list(table.groupby("defence").success.mean().sort_values(ascending=False).index)
    marks = dict(zip(sorted(set(table.attack)), "so^D", strict=False))
    for name, colour in zip(names, class_colours(len(names)), strict=True):
        for attack, part in table[table.defence == name].groupby("attack"):
            ax.plot(part.contrast, part.success, marks[str(attack)], color=colour, ms=5)
        ax.plot([], [], "o", color=colour, label=name)
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    where = "contrast that is left after the wash (deviations)"
    return label(ax, "What the filter sees decides", where, "success of the poison")


def distances(sides: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Distance of the poisons to a mean, clean images = 1: a panel a mean, dots per seed."""
    figure, axes = panels(len(sides), width=4.2, sharey=True)
    for ax, (title, rows) in zip(axes, sides.items(), strict=True):
        for x, values in enumerate(rows.values()):
            ax.plot([x] * len(values), values, "o", color=POISON, alpha=0.7)
            ax.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color="black")
        ax.axhline(1, color=NEUTRAL, linestyle="--")
        ax.set_xticks(range(len(rows)), list(rows), rotation=30, ha="right")
        label(ax, title, "", "distance, poisons / clean")
    return figure


def training(histories: Mapping[str, Sequence[Sequence[float]]], limit: float) -> Figure:
    """The gap of the energies over the updates: a panel per training, a line per seed.

    A line whose last gap is not below ``limit`` ends in a cross.
    """
    figure, axes = panels(len(histories), width=3.0, height=2.8, sharex=True, sharey=True)
    for ax, (name, seeds) in zip(axes, histories.items(), strict=True):
        for gaps in seeds:
            held = abs(gaps[-1]) < limit  # NaN is not
            colour, last = CLEAN if held else POISON, [len(gaps) - 1]
            mark: dict[str, Any] = {"marker": None if held else "X", "markevery": last}
            ax.plot(range(1, len(gaps) + 1), gaps, color=colour, alpha=0.8, **mark)
        ax.set_yscale("symlog", linthresh=1)
        ax.yaxis.set_major_locator(SymmetricalLogLocator(base=100, linthresh=1))
        label(ax, name, "update", "E(data) - E(samples)" if ax is axes[0] else "")
    return figure


def by_frequency(frequencies: Sequence[int], contrast: Mapping[str, Sequence[float]]) -> Axes:
    """The contrast of waves of several frequencies, one line for each wash."""
    _, (ax,) = panels(width=5.2, height=3.2)
    for (name, values), colour in zip(contrast.items(), class_colours(len(contrast)), strict=True):
        ax.plot(frequencies, values, "o-", color=colour, label=name)
    ax.set_ylim(bottom=0)
    ax.set_xticks(frequencies)
    ax.legend(fontsize=8)
    title = "What a filter sees of the wave"
    return label(ax, title, "stripes in the image", "contrast (deviations)")
