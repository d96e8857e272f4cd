"""Figures of neural collapse: the curves, the angles, and features closing on the simplex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.geometry import Collapse, measure
from nclib.plots.style import class_colours, heatmap, label, panels

NAMES = {
    "nc1": "NC1: within / between",
    "nc2_norm": "NC2: spread of lengths",
    "nc2_angle": "NC2: spread of cosines",
    "nc3": "NC3: distance W to means",
    "nc4": "NC4: disagreement (share)",
}


def curves(history: Mapping[str, list], probe: str = "train", zero_at: int | None = None) -> Figure:
    """Training error, then NC1 to NC4, by epoch; ``zero_at`` marks the epoch of zero error."""
    figure, axes = panels(3, width=4)
    axes[0].plot(history["epoch"], 1 - np.array(history["accuracy"]), marker=".")
    label(axes[0], "Training error", "epoch", "share of wrong labels")
    for names, ax, title in (
        (("nc1",), axes[1], "NC1: variability collapses"),
        (("nc2_norm", "nc2_angle", "nc3", "nc4"), axes[2], "NC2 to NC4: a simplex, shared"),
    ):
        for name in names:
            ax.plot(
                history["probe_epoch"], history[f"{probe}/{name}"], marker=".", label=NAMES[name]
            )
        label(ax, title, "epoch", "value (no unit)")
        ax.legend(fontsize=7)
    axes[1].set_yscale("log")
    if zero_at is not None:
        for ax in axes:
            ax.axvline(zero_at, color="0.4", linestyle="--", linewidth=1)
    return figure


def compare(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, y: str
) -> Axes:
    """One line per name of ``{name: (epochs, values)}``."""
    _, (ax,) = panels(width=5.5, height=3.4)
    for name, (epochs, values) in series.items():
        ax.plot(epochs, values, marker=".", label=name)
    ax.set_yscale("log")
    ax.legend(fontsize=8)
    return label(ax, title, "epoch", y)


def angles(collapse: Collapse, classes: Sequence[str], title: str, ax: Axes | None = None) -> Axes:
    """Cosines between the centred class means; -1/(K-1) off the diagonal is the simplex."""
    centred = collapse.means - collapse.global_mean
    unit = centred / centred.norm(dim=1, keepdim=True)
    names = [classes[c] for c in collapse.classes]
    scale: dict[str, Any] = {"centre": 0, "vmin": -1, "vmax": 1}
    return heatmap(unit @ unit.T, names, names, title=title, x="class", y="class", **scale, ax=ax)


def class_axes(features: Tensor, labels: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """Features ``[N, dims]`` and class means ``[K, dims]`` along the main axes of the means.

    Centred on the global mean and scaled so that the mean class has length 1. The axes are those
    of ``features``, so pictures of different epochs are comparable only up to a rotation.
    """
    found = measure(features, labels)
    centred = found.means - found.global_mean
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:dims].T / found.norms.mean()
    return (features.cpu().double() - found.global_mean) @ basis, centred @ basis


def aligned(points: Tensor, means: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Turn ``points`` and ``means`` so that the means come closest to ``target`` (Procrustes)."""
    u, _, vh = torch.linalg.svd(means.T @ target)
    return points @ u @ vh, means @ u @ vh


def plane(
    points: Tensor, labels: Tensor, means: Tensor, title: str, ax: Axes | None = None
) -> Axes:
    """Features and class means in two dimensions, with the lines that join the means."""
    ax = panels(width=3.6, height=3.4)[1][0] if ax is None else ax
    colours = class_colours(len(means))
    x, y = points.T
    dots = [colours[i] for i in labels.tolist()]
    ax.scatter(x, y, c=dots, s=8, alpha=0.5, linewidths=0, zorder=3)
    ring = torch.cat([means, means[:1]])
    ax.plot(*ring.T, color="0.2", linewidth=1, marker="o", markersize=3)
    reach = max(1.7, float(points.norm(dim=1).quantile(0.97)))  # before training: a wide cloud
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return label(ax, title, "first axis of the means", "second axis")


def by_layer(found: Mapping[str, Mapping[str, Collapse]], title: str) -> Axes:
    """NC1 per layer, shallow to deep, one line per name of ``{name: {layer: Collapse}}``."""
    _, (ax,) = panels(width=4.6)
    for name, layers in found.items():
        ax.plot(list(layers), [c.nc1 for c in layers.values()], marker="o", label=name)
    ax.set_yscale("log")
    ax.legend(fontsize=8)
    return label(ax, title, "layer, shallow to deep", "NC1 (no unit)")
