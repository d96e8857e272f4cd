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


def score_map(
    found: Mapping[str, Sequence[Sequence[float]]],
    layers: Sequence[str],
    epochs: Sequence[int],
    what: str,
    *,
    x: str = "epoch",
    y: str = "layer",
) -> Figure:
    """AUROC as layer x epoch, one panel per score ``{name: [layers][epochs]}``; 0.5 is chance.

    ``x`` and ``y`` name the axes where they are something else.
    """
    figure, axes = panels(
        len(found), width=0.52 * len(epochs) + 1.6, height=0.5 * len(layers) + 1.2
    )
    for ax, (name, values) in zip(axes, found.items(), strict=True):
        heatmap(
            np.asarray(values),
            layers,
            [str(e) for e in epochs],
            title=f"{name}, {what}",
            x=x,
            y=y,
            centre=0.5,
            vmin=0,
            vmax=1,
            cbar_kws={"label": "AUROC"},
            ax=ax,
        )
    return figure


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


def histogram(score: Tensor, bad: Tensor, title: str, x: str, ax: Axes | None = None) -> Axes:
    """The distribution of a score on clean and poisoned samples."""
    ax = panels(width=5)[1][0] if ax is None else ax
    bad = bad.cpu()
    edges = np.linspace(float(score.min()), float(score.max()), 40).tolist()
    for mask, colour, name in ((~bad, CLEAN, "clean"), (bad, POISON, "poison")):
        share = np.full(int(mask.sum()), 1 / max(1, int(mask.sum())))
        ax.hist(score[mask].numpy(), edges, weights=share, color=colour, alpha=0.6, label=name)
    ax.legend(fontsize=8)
    return label(ax, title, x, "share of the samples")


def repairs(table: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Accuracy and, where there is one, ASR of each method ``{method: {"accuracy", "asr"}}``."""
    names = list(table)
    with_asr = any("asr" in row for row in table.values())
    ax = panels(width=1.1 * len(names) + 1.5, height=3.2)[1][0]
    x = np.arange(len(names))
    shift = 0.2 if with_asr else 0.0
    bars = [("accuracy", -shift, CLEAN)] + ([("ASR", shift, POISON)] if with_asr else [])
    for name, offset, colour in bars:
        height = [table[n].get(name.lower(), 0.0) for n in names]
        drawn = ax.bar(x + offset, height, 0.4 if with_asr else 0.6, color=colour, label=name)
        ax.bar_label(drawn, fmt="%.2f", fontsize=7)
    ax.set_xticks(x, names, rotation=20, ha="right")
    ax.set_ylim(0, 1.12)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "", "share of the test images")


def looks(shares: Mapping[str, Sequence[tuple[float, float]]], names: Sequence[str]) -> Figure:
    """Poison found and clean images lost after each look: ``{set: [(found, lost), ...]}``."""
    figure, axes = panels(2, width=4.4, height=3.2)
    for ax, part, title in zip(axes, (0, 1), ("poison found", "clean images lost"), strict=True):
        for (kind, steps), marker in zip(shares.items(), "os^Dv", strict=False):
            ax.plot(names, [step[part] for step in steps], f"{marker}-", label=kind, alpha=0.8)
        label(ax, title, "after the look", "share of the " + title.split()[0])
    axes[1].set_ylim(bottom=0)
    axes[1].legend(fontsize=8)
    return figure


def rates(table: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Detection rates: one row per kind of suspects, one column per layer."""
    rows, columns = list(table), list(next(iter(table.values())))
    values = [[table[r][c] for c in columns] for r in rows]
    y = "suspects"
    return heatmap(values, rows, columns, title=title, x="layer", y=y, vmin=0, vmax=1)


def by_depth(series: Mapping[str, Mapping[str, float]], title: str) -> Axes:
    """Detection rate over depth, one line per kind of suspects; the level is dotted."""
    ax = panels(width=5.6)[1][0]
    for (name, row), style in zip(series.items(), ("o-", "s--", "^:", "D-."), strict=False):
        layers = [layer for layer in row if layer != "any layer"]
        ax.plot(layers, [row[layer] for layer in layers], style, label=name)
    ax.axhline(0.05, ls=":", color=NEUTRAL, label="level 5%")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "layer, shallow to deep", "detection rate")
