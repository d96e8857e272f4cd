"""Figures of explanations: maps over their image, and what the maps are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import band, heatmap, label, panels, picture, plt


def over(image: Tensor, found: Tensor, ax: Axes, title: str = "") -> Axes:
    """A map ``[H, W]`` on the grey image ``[C, H, W]``: red speaks for the class, blue against."""
    picture(image.mean(0, keepdim=True), ax, title, cmap="gray", alpha=0.55)
    found = found.detach().cpu()
    reach = max(float(found.abs().flatten().quantile(0.995)), 1e-12)
    ax.imshow(found, cmap="RdBu_r", vmin=-reach, vmax=reach, alpha=0.65)
    return ax


def maps(image: Tensor, found: Mapping[str, Tensor], title: str) -> Figure:
    """One image ``[C, H, W]`` and several maps of it ``{name: [H, W]}``, each on its own scale."""
    figure, axes = panels(len(found) + 1, width=1.5, height=2.0)
    picture(image, axes[0], "the picture")
    for ax, (name, each) in zip(axes[1:], found.items(), strict=True):
        over(image, each, ax, name)
    figure.suptitle(title, fontsize=10)
    return figure


def overlays(images: Tensor, found: Tensor, title: str) -> Figure:
    """Images ``[N, C, H, W]`` above, their maps ``[N, H, W]`` below."""
    size = (1.1 * len(images), 2.5)
    figure, axes = plt.subplots(2, len(images), figsize=size, squeeze=False)
    for image, each, column in zip(images, found, axes.T, strict=True):
        picture(image, column[0])
        over(image, each, column[1])
    figure.suptitle(title, fontsize=10)
    return figure


def table(shares: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Axes:
    """Shares ``{column: {row: one per seed}}`` as a heat map of their means, with their span."""
    columns = list(shares)
    rows = list(shares[columns[0]])
    runs = np.array([[shares[c][r] for c in columns] for r in rows])
    _, (ax,) = panels(width=1.6 * len(columns) + 1.8, height=1 + 0.42 * len(rows))
    words = [
        [f"{np.mean(v):.2f}  ({min(v):.2f}-{max(v):.2f})" for v in line] for line in runs.tolist()
    ]
    options: dict[str, Any] = {"annot": np.array(words), "vmin": 0, "vmax": 1, "fmt": ""}
    return heatmap(runs.mean(2), rows, columns, title=title, x="", y="put back", ax=ax, **options)


def cascade(
    steps: Sequence[str],
    curves: Mapping[str, Sequence[Sequence[float]]],
    twins: Mapping[str, Sequence[float]],
) -> Axes:
    """Agreement of maps with those of networks drawn anew, by layers, and with a twin's."""
    _, (ax,) = panels(width=7.2, height=3.7)
    for name, runs in curves.items():
        colour = band(ax, steps, runs, name, alpha=0.15)
        ax.plot("a trained twin", np.mean(twins[name]), "D", color=colour)
    ax.legend(fontsize=8, bbox_to_anchor=(1.02, 1), loc="upper left")
    title = "Does the map know what was learned?"
    return label(ax, title, "layers drawn anew", "rank correlation of the maps")
