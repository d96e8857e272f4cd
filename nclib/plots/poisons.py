"""Figures of data poisoning: what an attack costs and gains, and what it does to the geometry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, heatmap, label, panels
from nclib.plots.style import show_images as show_images  # lessons draw with it from here


def success_by_count(
    success: Mapping[int, Sequence[float]], clean: Sequence[float], title: str
) -> Axes:
    """Attack success ``{poisoned images: one value per seed}``, and that on clean networks."""
    _, (ax,) = panels(width=5.6, height=3.4)
    counts = list(success)
    ax.plot(counts, [np.mean(v) for v in success.values()], color=POISON)
    for count, values in success.items():
        ax.plot([count] * len(values), values, "o", color=POISON, alpha=0.7)
    level, top = float(np.mean(clean)), float(np.mean(success[counts[-1]]))
    ax.axhline(level, color=NEUTRAL, linestyle="--")
    place: dict[str, Any] = {"ha": "right", "fontsize": 9}
    ax.text(counts[-1], top - 0.1, "poisoned network", color=POISON, va="top", **place)
    words = "clean network, same sticker"
    ax.text(counts[-1], level + 0.02, words, color="0.4", va="bottom", **place)
    ax.set(xscale="log", ylim=(-0.04, 1.04), xticks=counts, xticklabels=counts)
    ax.minorticks_off()
    return label(ax, title, "poisoned images (log scale)", "attack success rate")


def dots(
    groups: Mapping[str, Sequence[float]],
    title: str,
    x: str,
    *,
    grey: str | None = None,
) -> Axes:
    """One row per name of ``{name: one share per seed}``: the mean as a bar, the seeds as dots.

    Rows whose name ``grey``, a word or ``this|that``, is found in, the controls say, are grey.
    """
    _, (ax,) = panels(width=6, height=0.6 + 0.34 * len(groups))
    rows = np.arange(len(groups))
    colours = [NEUTRAL if grey and re.search(grey, name) else POISON for name in groups]
    ax.barh(rows, [np.mean(v) for v in groups.values()], color=colours, alpha=0.35)
    for row, values, colour in zip(rows, groups.values(), colours, strict=True):
        ax.plot(values, [row] * len(values), "o", color=colour, markersize=4)
    ax.set_yticks(rows, list(groups))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.03)
    ax.grid(False, axis="y")
    return label(ax, title, x, "")


def same_axes(
    flips: Mapping[int, float],
    backdoor: Mapping[int, float],
    success: Mapping[int, float],
    clean: float,
) -> Axes:
    """Accuracy under flips and under a backdoor, and the latter's success, by poisoned images."""
    _, (ax,) = panels(width=7, height=3.6)
    lines = (
        (flips, CLEAN, "o-", "accuracy, labels flipped", -1, (0, -14), "right"),
        (backdoor, CLEAN, "s--", "accuracy, backdoor", 1, (0, -12), "center"),
        (success, POISON, "s-", "success of the backdoor", len(success) // 2, (8, -8), "left"),
    )
    for values, colour, style, words, at, shift, side in lines:
        ax.plot(list(values), list(values.values()), style, color=colour)
        options: dict[str, Any] = {"xytext": shift, "textcoords": "offset points"}
        options |= {"ha": side, "va": "center", "fontsize": 9}
        where = list(values.items())[at]
        ax.annotate(words, where, color=colour, **options)
    ax.axhline(clean, color=NEUTRAL, linewidth=1, linestyle=":")
    ticks = [*success, *flips]
    ax.set(xscale="log", ylim=(-0.03, 1.06), xticks=ticks, xticklabels=ticks)
    ax.minorticks_off()
    title = "Few images with a rule, many without one"
    return label(ax, title, "poisoned images (log scale)", "share of test images")


def confusions(matrices: Mapping[str, Tensor], classes: Sequence[str]) -> Figure:
    """Confusion matrices side by side, rows are true classes; one scale of colours for all."""
    figure, axes = panels(len(matrices), width=2.9, height=3.5)
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        options: dict[str, Any] = {"annot": False, "vmin": 0, "vmax": 1, "square": True}
        options |= {"cbar": False, "x": "predicted class"}
        first = ax is axes[0]
        rows = classes if first else [""] * len(classes)
        heatmap(matrix, rows, classes, title=name, ax=ax, y="true class" * first, **options)
    return figure


def shrinking(
    shares: Sequence[float],
    forms: Mapping[str, Sequence[float]],
    found: Mapping[str, Sequence[float]],
    title: str,
    y: str,
) -> Axes:
    """Numbers over the share of wrong labels: derived (lines) and measured (points), by name."""
    _, (ax,) = panels(width=5.6, height=3.4)
    for (name, form), colour in zip(forms.items(), (CLEAN, POISON), strict=False):
        ax.plot(shares, form, color=colour)
        ax.plot(shares, found[name], "o", color=colour)
        options: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points"}
        options |= {"va": "center", "fontsize": 9}
        ax.annotate(name, (shares[-1], form[-1]), color=colour, annotation_clip=False, **options)
    return label(ax, title, "share of wrong labels in the class", y)


def nc1_over_epochs(epochs: Sequence[int], values: Sequence[float], form: float) -> Axes:
    """NC1 with the labels as given over the epochs, and its closed form for unmoved features."""
    _, (ax,) = panels(width=5.6, height=3.2)
    ax.plot(epochs, values, "o-", color=CLEAN)
    ax.axhline(form, color=NEUTRAL, linestyle="--")
    words = "closed form: no false label learned"
    ax.set_yscale("log")
    ax.set_ylim(bottom=min(form, *values) / 1.6)
    ax.text(epochs[0], form / 1.08, words, color="0.4", va="top", fontsize=9)
    return label(ax, "NC1 of a network that learns false labels", "epoch", "NC1 (log scale)")


def nearer(
    layers: Sequence[str],
    epochs: Mapping[int, Sequence[float]],
    untrained: Sequence[float],
    pixels: float,
) -> Axes:
    """Share of flipped images nearer to the true class than to the false label, layer by layer."""
    _, (ax,) = panels(width=6.4, height=3.6)
    shades = sns.color_palette("viridis", len(epochs))
    for (epoch, values), colour in zip(epochs.items(), shades, strict=True):
        ax.plot(layers, values, "o-", color=colour, label=f"after epoch {epoch}")
    ax.plot(layers, untrained, "s--", color=NEUTRAL, label="untrained network")
    ax.axhline(pixels, color=NEUTRAL, linestyle=":", label="raw pixels")
    ax.axhline(0.5, color="0.8", linewidth=1, label="by chance")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    title = "Flipped images: nearer to the true class?"
    return label(ax, title, "layer, shallow to deep", "share of the flipped images")


def class_bars(values: Mapping[str, Tensor], classes: Sequence[str], target: int, y: str) -> Figure:
    """One panel per name of ``{name: [K]}``: a bar per class, that of ``target`` in its colour."""
    figure, axes = panels(len(values), width=4.4, height=3.4, sharey=True)
    colours = [POISON if c == target else CLEAN for c in range(len(classes))]
    for ax, (name, bars) in zip(axes, values.items(), strict=True):
        ax.bar(range(len(classes)), bars, color=colours)
        ax.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        ax.axhline(1, color=NEUTRAL, linewidth=1)
        label(ax, name, "", y if ax is axes[0] else "")
    return figure


def collision(clouds: Mapping[str, Tensor], victim: Tensor, before: Tensor, after: Tensor) -> Axes:
    """Features of two classes ``{name: [N, D]}``, a victim [D], and poisons before and after.

    The first axis joins the two class means; the second is the strongest direction across it.
    """
    (_, first), (_, second) = clouds.items()
    centre, axis = first.mean(0), second.mean(0) - first.mean(0)
    axis = axis / axis.norm()
    rest = torch.cat([first - first.mean(0), second - second.mean(0), after - after.mean(0)])
    rest = rest - (rest @ axis)[:, None] * axis
    across = torch.linalg.svd(rest, full_matrices=False).Vh[0]
    basis = torch.stack([axis, across], 1)
    _, (ax,) = panels(width=7, height=3.8)
    for (name, points), colour in zip(clouds.items(), (CLEAN, NEUTRAL), strict=True):
        x, y = ((points - centre) @ basis).T
        ax.scatter(x, y, s=14, color=colour, alpha=0.6, label=name)
    start, end = ((points - centre) @ basis for points in (before, after))
    for a, b in zip(start, end, strict=True):
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": POISON, "alpha": 0.7})
    ax.scatter(end[:, 0], end[:, 1], color=POISON, s=30, label="poisons, after")
    x, y = (victim - centre) @ basis
    ax.scatter(x, y, marker="*", s=180, color="black")
    ax.scatter([], [], marker="*", color="black", label="victim")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, "Feature space", "from class mean to class mean", "across")


def alignment(curves: Mapping[str, Sequence[float]]) -> Axes:
    """Cosine between the poisons' gradient and the attacker's, over the steps of crafting."""
    _, (ax,) = panels(width=5)
    for (name, values), colour in zip(
        curves.items(), sns.color_palette("colorblind"), strict=False
    ):
        ax.plot(values, color=colour, label=name)
    ax.legend(fontsize=8)
    return label(ax, "Gradient alignment while crafting", "step", "cosine (no unit)")


def dose(found: Mapping[str, Mapping[float, Sequence[float]]], title: str) -> Axes:
    """Success over the budget: ``{data set: {eps: one share per seed}}``, a line for each."""
    _, (ax,) = panels(width=5.6, height=3.4)
    ends: dict[str, tuple[float, float, Any]] = {}
    for (name, values), colour in zip(found.items(), sns.color_palette("colorblind"), strict=False):
        means = [float(np.mean(v)) for v in values.values()]
        ax.plot(list(values), means, color=colour)
        for eps, each in values.items():
            ax.plot([eps] * len(each), each, "o", color=colour, alpha=0.5, markersize=4)
        ends[name] = (means[-1], list(values)[-1], colour)
    low = 2.0
    for name, (y, x, colour) in sorted(ends.items(), key=lambda end: -end[1][0]):
        low = min(y, low - 0.08)  # the names of close lines are kept apart
        words: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(name, (x, low), color=colour, annotation_clip=False, **words)
    ax.set_ylim(-0.03, 1.03)
    return label(ax, title, "eps (images in [0, 1])", "attack success rate")


def with_control(
    poisoned: Mapping[str, Sequence[float]],
    control: Mapping[str, Sequence[float]],
    title: str,
    words: tuple[str, str] = ("poisoned network", "clean twin, same trigger"),
    y: str = "share of the other test images",
) -> Axes:
    """A pair of bars per attack, a dot per value: poisoned networks, say, and their clean twins."""
    _, (ax,) = panels(width=3.6 + 1.1 * len(poisoned))  # with room for the legend
    pairs = ((poisoned, POISON, words[0]), (control, NEUTRAL, words[1]))
    for (values, colour, name), shift in zip(pairs, (-0.2, 0.2), strict=True):
        x = np.arange(len(values)) + shift
        ax.bar(x, [np.mean(v) for v in values.values()], 0.4, color=colour, alpha=0.6, label=name)
        for place, each in zip(x, values.values(), strict=True):
            ax.plot([place] * len(each), each, "o", color=colour, markersize=4)
    ax.set_xticks(np.arange(len(poisoned)), list(poisoned))
    ax.set_ylim(0, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "", y)
