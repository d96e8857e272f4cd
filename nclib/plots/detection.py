"""Where poison shows: score maps, features of one class, cut-offs, layer-test tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, heatmap, label, panels


def plane_of(rows: Tensor) -> np.ndarray:
    """The two principal axes of features ``[n, D]``: ``[n, 2]``."""
    rows = rows.cpu().double()
    rows = rows - rows.mean(0)
    left, scale, _ = torch.linalg.svd(rows, full_matrices=False)
    return (left * scale)[:, :2].numpy()


def one_class(
    points: np.ndarray,
    bad: Tensor,
    title: str,
    ax: Axes | None = None,
    names: tuple[str, str] = ("clean", "poison"),
) -> Axes:
    """Features of one labelled class in two dimensions, ``bad`` marked by colour and shape."""
    ax = panels()[1][0] if ax is None else ax
    mask, (x, y) = bad.cpu().numpy(), points.T
    ax.scatter(x[~mask], y[~mask], s=12, color=CLEAN, label=names[0], alpha=0.7)
    ax.scatter(x[mask], y[mask], s=16, color=POISON, marker="x", lw=1, label=names[1])
    ax.legend(fontsize=8)
    return label(ax, title, "first axis", "second axis")


def class_index(
    found: Mapping[str, Tensor], title: str, ax: Axes | None = None, *, threshold: float
) -> Axes:
    """An index of each class ``{moment: [K]}``, the ``threshold`` dashed."""
    ax = panels()[1][0] if ax is None else ax
    for (moment, values), marker in zip(found.items(), "ovs", strict=False):
        ax.plot(values.numpy(), marker, ms=5, alpha=0.8, label=moment)
    ax.axhline(threshold, ls="--", lw=1, color=NEUTRAL)
    ax.text(0, threshold, f"threshold {threshold:.1f}", fontsize=8, va="bottom")
    ax.set_xticks(range(len(values)))
    ax.set_ylim(top=1.2 * max(threshold, *(float(v.max()) for v in found.values())))
    ax.legend(fontsize=8)
    return label(ax, title, "class", "robust z of the likelihood ratio")


def atlas(
    found: Mapping[str, np.ndarray], scores: Sequence[str], places: Sequence[tuple[str, str]]
) -> Figure:
    """AUROC ``{set: [scores, places]}`` as heat maps one above the other; 0.5 is chance.

    ``places`` are (moment, layer); a line parts one moment from the next.
    """
    size = (0.55 * len(places) + 2.6, (0.32 * len(scores) + 0.75) * len(found))
    figure, axes = plt.subplots(len(found), 1, figsize=size, squeeze=False, sharex=True)
    moments = [moment for moment, _ in places]
    starts = [i for i, moment in enumerate(moments) if moment != moments[i - 1] or i == 0]
    names = [f"{layer}\n{m}" if i in starts else layer for i, (m, layer) in enumerate(places)]
    for ax, (name, values) in zip(axes[:, 0], found.items(), strict=True):
        look: dict[str, Any] = {"vmin": 0, "vmax": 1, "cbar": False}
        heatmap(values, scores, names, title=name, x="", y="", centre=0.5, ax=ax, **look)
        ax.vlines(starts[1:], 0, len(scores), color="black", lw=1.5)
        ax.tick_params(axis="x", rotation=0)
    return figure


def depths(found: Mapping[str, tuple[Tensor, Tensor]], layers: int) -> Figure:
    """How many samples agree with their label from which layer on: ``{title: (depth, bad)}``."""
    figure, axes = panels(len(found), width=4.4)
    x = np.arange(1, layers + 2)
    for ax, (title, (depth, bad)) in zip(axes, found.items(), strict=True):
        bad = bad.cpu()
        for shift, mask, colour, name in (
            (-0.2, ~bad, CLEAN, "clean"),
            (0.2, bad, POISON, "poison"),
        ):
            share = depth[mask].long().bincount(minlength=layers + 2)[1:] / max(1, int(mask.sum()))
            ax.bar(x + shift, share, 0.4, color=colour, label=name)
        ax.set_xticks(x, [*map(str, range(1, layers + 1)), "never"])
        ax.legend(fontsize=8)
        label(ax, title, "layer from which on it agrees", "share of the samples")
    return figure


def histogram(
    score: Tensor,
    bad: Tensor,
    title: str,
    x: str,
    ax: Axes | None = None,
    *,
    cut: float | None = None,
) -> Axes:
    """The distribution of a score on clean and poisoned samples, a ``cut`` drawn through it."""
    ax = panels(width=5)[1][0] if ax is None else ax
    bad = bad.cpu()
    edges = np.linspace(float(score.min()), float(score.max()), 40).tolist()
    for mask, colour, name in ((~bad, CLEAN, "clean"), (bad, POISON, "poison")):
        share = np.full(int(mask.sum()), 1 / max(1, int(mask.sum())))
        ax.hist(score[mask].numpy(), edges, weights=share, color=colour, alpha=0.6, label=name)
    if cut is not None:
        ax.axvline(cut, color="black", linestyle="--", linewidth=1.2, label="the cut")
    ax.legend(fontsize=8)
    return label(ax, title, x, "share of the samples")


def transplants(rows: Mapping[str, Sequence[float]], title: str) -> Axes:
    """Turned strangers of each class ``{class: (success, control, without, base)}``."""
    ax = panels(width=7.2, height=1.0 + 0.3 * len(rows))[1][0]
    names = ("met the group", "without random images", "never met the group", "nothing added")
    looks = (("o", POISON, 9), ("s", POISON, 5), ("D", CLEAN, 6), ("|", "black", 10))
    y = np.arange(len(rows))
    values = np.array(list(rows.values()))
    ax.hlines(y, values.min(1), values.max(1), color="0.85", zorder=0)
    for column, (name, (marker, colour, size)) in enumerate(zip(names, looks, strict=True)):
        look: dict[str, Any] = {"markersize": size, "alpha": 0.8, "label": name}
        ax.plot(values[:, column], y, marker, color=colour, **look)
    ax.set_yticks(y, list(rows))
    ax.invert_yaxis()
    ax.set_xlim(-0.03, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "share of the strangers that become this class", "")


def repairs(table: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Accuracy and success of each method, a dot for a seed and a bar for their mean.

    ``{method: {"accuracy": one value a seed, "asr": the same, or absent}}``.
    """
    shown = {"accuracy": ("test accuracy", CLEAN), "asr": ("success of the attack", POISON)}
    columns = [c for c in shown if any(c in row for row in table.values())]
    size = {"width": 4.4, "height": 0.9 + 0.32 * len(table)}
    figure, axes = panels(len(columns), sharey=True, **size)
    for ax, column in zip(axes, columns, strict=True):
        name, colour = shown[column]
        for y, row in enumerate(table.values()):
            values = row.get(column, ())
            ax.barh(y, np.mean(values) if len(values) else 0, color=colour, alpha=0.35)
            ax.plot(values, [y] * len(values), "o", color=colour, markersize=4)
        ax.set_yticks(range(len(table)), list(table))
        ax.set_xlim(0, 1.03)
        ax.grid(False, axis="y")
        label(ax, "", name, "")
    axes[0].invert_yaxis()
    figure.suptitle(title)
    return figure


def rates(table: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Detection rates: one row per kind of suspects, one column per layer."""
    rows, columns = list(table), list(next(iter(table.values())))
    values = [[table[r][c] for c in columns] for r in rows]
    y = "suspects"
    return heatmap(values, rows, columns, title=title, x="layer", y=y, vmin=0, vmax=1)


def by_depth(series: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Detection rate over depth, one line per kind of suspects; the level is dotted."""
    ax = panels(width=6.8)[1][0]
    for (name, row), style in zip(series.items(), ("o-", "s--", "^:", "D-."), strict=False):
        layers = [layer for layer in row if layer != "any layer"]
        ax.plot(layers, [row[layer] for layer in layers], style, label=name)
    ax.axhline(0.05, ls=":", color=NEUTRAL, label="level 5%")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "layer, shallow to deep", "detection rate")
