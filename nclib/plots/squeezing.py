"""Figures of feature squeezing: what it removes, what is left, and who is caught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, class_colours, label, panels


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
            picture = image.detach().cpu().permute(1, 2, 0).clamp(0, 1).numpy()
            ax.imshow(picture.squeeze(-1) if picture.shape[2] == 1 else picture, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for name, ax in zip(columns or (), axes[0], strict=False):
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def bars(table: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Accuracy of each defence: one group per name, one bar per column."""
    columns = list(next(iter(table.values())))
    _, (ax,) = panels(width=1.5 + 0.85 * len(table), height=3.4)
    width = 0.8 / len(columns)
    for i, (column, colour) in enumerate(
        zip(columns, (CLEAN, NEUTRAL, POISON, "0.2"), strict=False)
    ):
        places = np.arange(len(table)) + (i - (len(columns) - 1) / 2) * width
        ax.bar(places, [row[column] for row in table.values()], width, label=column, color=colour)
    ax.set_xticks(np.arange(len(table)), list(table), fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "squeezer", "accuracy (share)")


def by_eps(
    eps: Sequence[float],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    walls: Mapping[str, float] | None = None,
    title: str = "",
) -> Axes:
    """Accuracy over eps, a colour per defence; solid is the attacker of kind "knowing"."""
    _, (ax,) = panels(width=6, height=3.8)
    for (name, lines), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
        for kind, values in lines.items():
            style = "-" if kind == "knowing" else "--"
            ax.plot(eps, values, style, color=colour, marker="o", ms=4, label=f"{name}, {kind}")
        if walls and name in walls:
            ax.axvline(walls[name], color=colour, linewidth=1, linestyle=":")
    ax.set_ylim(-0.02, 1.02)
    ax.set_xticks(list(eps))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "eps (Linf, share of the grey scale)", "accuracy (share)")


def roc(clean: Tensor, attacked: Mapping[str, Tensor], title: str, at: float = 0.05) -> Figure:
    """Left: the scores. Right: who is caught at which false-positive rate; ``at`` is marked."""
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
    right.axvline(at, color="0.3", linewidth=1, linestyle="--")
    left.set_yscale("symlog")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    label(left, "Score of each image", "largest L1 distance between softmaxes", "images")
    label(right, title, "false-positive rate (share)", "detected (share)")
    return figure
