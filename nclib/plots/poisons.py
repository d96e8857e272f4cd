"""Figures of data poisoning: what an attack costs and gains, and what it does to the geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, heatmap, label, panels, show_images

__all__ = [
    "against_form",
    "alignment",
    "collision",
    "confusions",
    "mean_lengths",
    "memorised",
    "nc1_over_epochs",
    "norm_changes",
    "show_images",
    "success_by_budget",
    "trade_off",
    "with_control",
]


def trade_off(
    flips: Mapping[float, float], backdoors: Mapping[float, Mapping[str, float]]
) -> Figure:
    """Accuracy under flips ``{rate: accuracy}`` beside the ``metrics.outcome`` of backdoors."""
    figure, (left, right) = panels(2, width=4.4, sharey=True)
    left.plot(list(flips), list(flips.values()), color=CLEAN, marker="o", label="accuracy")
    label(left, "Label flips", "share of the labels flipped", "share of test images")
    lines = (
        ("accuracy", CLEAN, "o-", "accuracy"),
        ("success", POISON, "s-", "success of the trigger"),
        ("control_success", NEUTRAL, "s--", "the same on the clean network"),
    )
    for key, colour, style, name in lines:
        values = [row[key] for row in backdoors.values()]
        right.plot(list(backdoors), values, style, color=colour, label=name)
    right.set_xscale("log")
    label(right, "Backdoor", "share of the images poisoned (log scale)", "")
    for ax in (left, right):
        ax.set_ylim(-0.03, 1.03)
        ax.legend(fontsize=8)
    return figure


def confusions(matrices: Mapping[str, Tensor], classes: Sequence[str]) -> Figure:
    """Confusion matrices side by side, rows are true classes."""
    figure, axes = panels(len(matrices), width=3.5, height=3.3)
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        options: dict[str, Any] = {
            "annot": False,
            "vmin": 0,
            "vmax": 1,
            "cbar": ax is axes[-1],
            "square": True,
        }
        options |= {"x": "predicted class", "y": "true class"}
        heatmap(matrix, classes, classes, title=name, ax=ax, **options)
    return figure


def against_form(rates: Sequence[float], found: Sequence[float], form: Sequence[float]) -> Axes:
    """NC1 measured under flips (points) on the closed form (line)."""
    _, (ax,) = panels(width=4.8)
    ax.plot(rates, form, color=NEUTRAL, label="closed form")
    ax.plot(rates, found, "o", color=CLEAN, label="measured, features of the clean network")
    ax.legend(fontsize=8)
    return label(ax, "NC1 when labels are flipped", "share of the labels flipped", "NC1 (no unit)")


def mean_lengths(lengths: Mapping[str, Tensor], classes: Sequence[str]) -> Axes:
    """Length of each class mean, one bar per name of ``{name: [K]}``."""
    _, (ax,) = panels(width=6.4)
    width = 0.8 / len(lengths)
    for i, (name, values) in enumerate(lengths.items()):
        ax.bar(
            np.arange(len(classes)) + i * width - 0.2,
            values,
            width,
            color=(CLEAN, POISON, NEUTRAL)[i],
            label=name,
        )
    ax.set_xticks(range(len(classes)), classes)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, "Length of the class means", "class", "distance to the global mean")


def nc1_over_epochs(
    curves: Mapping[float, tuple[Sequence[int], Sequence[float]]], form: Mapping[float, float]
) -> Axes:
    """NC1 with the given labels over the epochs, per rate of flips, and its closed form."""
    _, (ax,) = panels(width=5.4)
    for (rate, (epochs, values)), colour in zip(
        curves.items(), sns.color_palette("colorblind"), strict=False
    ):
        ax.plot(epochs, values, "o-", color=colour, label=f"{rate:.0%} flipped")
        ax.axhline(form[rate], color=colour, linestyle="--", linewidth=1)
    ax.set_yscale("log")
    ax.legend(fontsize=8, title="dashed: closed form", title_fontsize=8)
    return label(ax, "NC1 with the labels as given", "epoch", "NC1 (log scale)")


def memorised(
    history: Mapping[str, Sequence[float]], layers: Sequence[str], epochs: Sequence[int]
) -> Figure:
    """Where flipped images lie, by layer and epoch: near their true class or their false label."""
    figure, axes = panels(2, width=4.4, sharey=True)
    picked = sorted({0, len(epochs) // 3, 2 * len(epochs) // 3, len(epochs) - 1})
    shades = sns.color_palette("viridis", len(picked))
    for ax, side, name in zip(axes, ("true", "given"), ("true class", "false label"), strict=True):
        for place, colour in zip(picked, shades, strict=True):
            values = [history[f"flipped/{layer}/{side}"][place] for layer in layers]
            ax.plot(layers, values, "o-", color=colour, label=f"epoch {epochs[place]}")
        ax.set_ylim(-0.03, 1.03)
        label(ax, f"Nearest to the mean of the {name}", "layer, shallow to deep", "")
    axes[0].set_ylabel("share of the flipped images")
    axes[1].legend(fontsize=8)
    return figure


def norm_changes(
    changes: Mapping[str, Tensor], classes: Sequence[str], expected: float | None = None
) -> Figure:
    """Length of each class mean, poisoned over clean; ``expected`` is drawn as a dashed line."""
    figure, axes = panels(len(changes), width=4.8, sharey=True)
    for ax, (name, values) in zip(axes, changes.items(), strict=True):
        ax.bar(range(len(classes)), values, color=CLEAN)
        ax.set_xticks(range(len(classes)), classes)
        if expected is not None:
            ax.axhline(expected, color=POISON, linestyle="--", label="1 - alpha")
        label(ax, name, "class", "length, poisoned / clean")
    axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
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


def success_by_budget(
    rates: Mapping[str, Mapping[str, Mapping[float, tuple[float, float, float]]]],
) -> Figure:
    """Share of hits with its interval: ``{data set: {attack: {eps: (rate, low, high)}}}``."""
    figure, axes = panels(len(rates), width=4.2, sharey=True)
    colours = sns.color_palette("colorblind")
    for ax, (dataset, attacks) in zip(axes, rates.items(), strict=True):
        for i, (name, points) in enumerate(attacks.items()):
            x = np.array(list(points)) + 0.006 * (i - (len(attacks) - 1) / 2)
            mean, low, high = np.array(list(points.values())).T
            bars = {"yerr": [mean - low, high - mean], "capsize": 3, "color": colours[i]}
            ax.errorbar(x, mean, marker="o", label=name.replace("_", " "), **bars)
        ax.set_ylim(-0.03, 1.03)
        label(ax, f"Victims hit, {dataset}", "eps (images in [0, 1])", "")
    axes[0].set_ylabel("share of the victims, 95% interval")
    axes[0].legend(fontsize=8)
    return figure


def with_control(
    poisoned: Mapping[str, float], control: Mapping[str, float], title: str = "Success"
) -> Axes:
    """A pair of bars per attack: the poisoned network, and the clean one under the same trigger."""
    _, (ax,) = panels(width=3.6 + 1.1 * len(poisoned))  # with room for the legend
    x = np.arange(len(poisoned))
    ax.bar(x - 0.2, list(poisoned.values()), 0.4, color=POISON, label="poisoned network")
    heights = [control[name] for name in poisoned]
    ax.bar(x + 0.2, heights, 0.4, color=NEUTRAL, label="clean network, same trigger")
    ax.set_xticks(x, list(poisoned))
    ax.set_ylim(0, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "", "share of the other test images")
