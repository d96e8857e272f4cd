"""Figures of feature squeezing: what it removes, what is left, and who is caught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, band, class_colours, label, panels, pixels


def gallery(
    rows: Mapping[str, Tensor], columns: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """One row of images per name of ``{name: [N, C, H, W]}``, values in [0, 1]."""
    count = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        len(rows), count, figsize=(1.3 * count + 1, 1.3 * len(rows)), squeeze=False
    )
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, ax in zip(images, line, strict=True):
            ax.imshow(pixels(image.clamp(0, 1)), vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for name, ax in zip(columns or (), axes[0], strict=False):
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def bars(table: Mapping[str, Mapping[str, ArrayLike]], title: str) -> Axes:
    """Accuracy of each defence, a bar per column: the mean of the seeds, a dot for each seed."""
    columns = list(next(iter(table.values())))
    _, (ax,) = panels(width=1.5 + 0.95 * len(table), height=3.4)
    width = 0.8 / len(columns)
    for i, (column, colour) in enumerate(zip(columns, (CLEAN, NEUTRAL, POISON), strict=False)):
        places = np.arange(len(table)) + (i - (len(columns) - 1) / 2) * width
        seeds = np.array([np.atleast_1d(row[column]) for row in table.values()])
        ax.bar(places, seeds.mean(1), width, label=column, color=colour)
        ax.plot(places, seeds, "k.", ms=3)
    ax.set_xticks(np.arange(len(table)), list(table), fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "squeezer", "accuracy (share)")


def by_eps(
    eps: Sequence[float],
    curves: Mapping[str, ArrayLike],
    walls: Mapping[str, float] | None = None,
    title: str = "",
) -> Axes:
    """A line per name ``{name: [seeds, eps]}`` with the span of the seeds; walls are dotted."""
    _, (ax,) = panels(width=6, height=3.6)
    for (name, runs), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
        band(ax, eps, runs, name, color=colour, ms=4)
        if walls and name in walls:
            ax.axvline(walls[name], color=colour, linewidth=1, linestyle=":")
    ax.set_ylim(-0.02, 1.02)
    ax.set_xticks(list(eps), [f"{value:.3g}" for value in eps])
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "eps (Linf, share of the grey scale)", "accuracy (share)")


def staircase(bits: Sequence[int], eps: float) -> Figure:
    """A pixel after bit depth over the pixel before, and how far ``eps`` takes a pixel of 0."""
    figure, axes = panels(len(bits), width=4, height=3.4, sharey=True)
    before = np.linspace(0, 1, 2001)
    for b, ax in zip(bits, axes, strict=True):
        steps = 2**b - 1
        reached = np.round(eps * steps) / steps
        ax.plot([0, 1], [0, 1], ":", color="0.6")
        ax.plot(before, np.round(before * steps) / steps, color=CLEAN)
        ax.axvspan(0, eps, color=POISON, alpha=0.3)
        ax.plot(eps, reached, "o", color=POISON)
        ax.annotate(f"0 becomes {reached:.2g}", (eps, reached), (0.45, 0.06), color=POISON)
        ax.axvline(0.5 / steps, color="0.3", linestyle="--", linewidth=1)
        ax.text(0.5 / steps + 0.01, 0.92, f"first edge: 1/{2 * steps}", fontsize=8)
        label(ax, f"{b} bits, eps {eps:g}", "pixel before", "pixel after")
    return figure


def roc(clean: Tensor, attacked: Mapping[str, Tensor], title: str) -> Figure:
    """Left: the scores. Right: who is caught at which false-positive rate; 5% is marked."""
    figure, (left, right) = panels(2, width=4.6, height=3.4)
    bins = np.linspace(0, 2, 41).tolist()
    left.hist(clean.cpu().numpy(), bins, color=CLEAN, alpha=0.7, label="clean")
    right.plot([0, 1], [0, 1], ":", color="0.5")
    for (name, scores), colour in zip(attacked.items(), (POISON, "0.3", NEUTRAL), strict=False):
        left.hist(scores.cpu().numpy(), bins, histtype="step", lw=2, color=colour, label=name)
        truth = np.r_[np.zeros(len(clean)), np.ones(len(scores))]
        both = np.r_[clean.cpu().numpy(), scores.cpu().numpy()]
        false, true, _ = roc_curve(truth, both)
        area = roc_auc_score(truth, both)
        right.plot(false, true, color=colour, lw=2, label=f"{name}: AUROC {area:.2f}")
    right.axvline(0.05, color="0.3", linewidth=1, linestyle="--")
    left.set_yscale("symlog")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    label(left, "Score of each image", "largest L1 distance between softmaxes", "images")
    label(right, title, "false-positive rate (share)", "detected (share)")
    return figure
