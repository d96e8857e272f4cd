"""Figures of few labels and none: transfer over the training, a sign and its likeliest captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, label, panels


def transfer(
    epochs: Sequence[int],
    nc1: Sequence[Sequence[float]],
    accuracy: Sequence[Sequence[float]],
    controls: Mapping[str, float],
    title: str,
    y: str,
) -> Figure:
    """NC1 of the training classes beside what the features do for others, a line a seed."""
    figure, axes = panels(2, width=4.4, height=3.2)
    places = np.arange(len(epochs))
    for ax, runs, colour in zip(axes, (nc1, accuracy), (NEUTRAL, CLEAN), strict=True):
        for run in runs:
            ax.plot(places, run, color=colour, alpha=0.4, linewidth=1)
        middle = np.exp(np.mean(np.log(runs), axis=0)) if ax is axes[0] else np.mean(runs, axis=0)
        ax.plot(places, middle, "o-", color=colour, linewidth=2)
        ax.set_xticks(places, list(map(str, epochs)))
    axes[0].set_yscale("log")
    for (name, value), style in zip(controls.items(), ("--", ":"), strict=False):
        axes[1].axhline(value, color=POISON, linestyle=style, linewidth=1)
        axes[1].annotate(
            name,
            (1, value),
            xycoords=("axes fraction", "data"),  # inside the axes the curves run through it
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=POISON,
            fontsize=8,
        )
    label(axes[0], "The training classes collapse", "epoch (not to scale)", "NC1 (log scale)")
    label(axes[1], title, "epoch (not to scale)", y)
    return figure


def menu(image: Tensor, captions: Sequence[str], cosines: Sequence[float], right: int) -> Figure:
    """A sign ``[C, H, W]`` and the captions that fit it best, the one at ``right`` in blue."""
    figure, (left, ax) = panels(2, width=3.6, height=2.2, width_ratios=[1, 1.6])
    left.imshow(image.cpu().permute(1, 2, 0), interpolation="nearest")
    left.set_axis_off()
    rows = np.arange(len(captions))
    ax.barh(rows, cosines, color=[CLEAN if i == right else NEUTRAL for i in rows])
    ax.set_yticks(rows, captions, fontsize=8)
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    label(ax, "The five captions that fit best", "cosine", "")
    return figure
