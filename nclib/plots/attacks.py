"""Figures of attacks at test time: images before and after, curves over eps, shares by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, band, label, panels, picture, plt


def side_by_side(
    images: Tensor,
    changed: Mapping[str, Tensor],
    confidence: Callable[[Tensor], tuple[Tensor, Tensor]],
    classes: Sequence[str],
) -> Figure:
    """The images, then a row for each of ``changed``, with answer and confidence above each."""
    rows = {"original": images, **changed}
    shape = (len(rows), len(images))
    figure, axes = plt.subplots(*shape, figsize=(1.3 * shape[1], 1.45 * shape[0]), squeeze=False)
    originals = confidence(images)[0].tolist()
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        answers, beliefs = (values.tolist() for values in confidence(row))
        for i, ax in enumerate(line):
            picture(row[i], ax, f"{classes[answers[i]]} ({beliefs[i]:.0%})")
            ax.title.set_color(CLEAN if answers[i] == originals[i] else POISON)
        line[0].text(-0.2, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    figure.suptitle("The network's answer and its confidence (orange: it has changed)", fontsize=10)
    return figure


def one_attack(
    image: Tensor, attacked: Tensor, belief: Tensor, classes: Sequence[str], title: str
) -> Figure:
    """Image, change, attacked image and the class probabilities ``[K]``."""
    figure, axes = panels(4, width=2.4, height=2.5)
    picture(image, axes[0], "before")
    change = (attacked - image).mean(0, keepdim=True)
    top = max(float(change.abs().max()), 0.01)
    picture(change, axes[1], "the change", cmap="RdBu_r", vmin=-top, vmax=top)
    picture(attacked, axes[2], "after")
    colours = [POISON if i == int(belief.argmax()) else NEUTRAL for i in range(len(belief))]
    axes[3].barh(range(len(belief)), belief.cpu(), color=colours)
    axes[3].set_yticks(range(len(classes)), classes, fontsize=7)
    axes[3].invert_yaxis()
    label(axes[3], "the network's belief", "probability", "").set_xlim(0, 1)
    figure.suptitle(title, fontsize=10)
    return figure


def curves(
    tables: Sequence[pd.DataFrame],
    title: str,
    points: Mapping[float, Sequence[float]] | None = None,
) -> Axes:
    """Accuracy over eps per attack, from ``robustness`` tables; the band spans the tables.

    ``points`` ``{eps: accuracies}`` are crosses: what somebody else's attack left.
    """
    _, (ax,) = panels(width=6.4, height=3.6)
    table = pd.concat(tables, ignore_index=True)
    table = table[table.attack != "worst case"].assign(eps=255 * table.eps)
    look = {"errorbar": ("pi", 100), "marker": "o", "style": "attack", "dashes": False}
    sns.lineplot(table, x="eps", y="accuracy", hue="attack", ax=ax, legend=False, **look)
    for i, (name, part) in enumerate(table.groupby("attack", sort=False)):
        last = part[part.eps == part.eps.max()]
        place = (last.eps.max(), last.accuracy.mean() + 0.04 * (1 - i))
        ax.annotate(f" {name}", place, fontsize=9, va="center")
    for eps, shares in (points or {}).items():
        ax.plot([255 * eps] * len(shares), shares, "kx", label="AutoAttack")
    ax.set_xscale("log", base=2)
    ax.set_xlim(right=3 * table.eps.max())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(-0.02, 1.02)
    if points:
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[:1], labels[:1], loc="lower left")
    return label(ax, title, "eps (in 1/255)", "accuracy (share of images)")


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[Sequence[float]]],
    title: str,
    y: str,
    unit: str = "eps (in 1/255)",
) -> Axes:
    """One line through the means of several runs for each name, labelled in a legend."""
    _, (ax,) = panels(width=5.6, height=3.3)
    for name, runs in series.items():
        band(ax, x, runs, name)
    ax.legend(fontsize=9)
    ax.set_ylim(-0.02, 1.02)
    return label(ax, title, unit, y)


def walk(clouds: Mapping[str, Tensor], corners: Tensor, names: Sequence[str], title: str) -> Axes:
    """Clouds ``{name: [N, 2]}`` of shares of the way, and three named class means ``[3, 2]``."""
    _, (ax,) = panels(width=4.4, height=3.9)
    for (name, cloud), colour in zip(clouds.items(), (CLEAN, NEUTRAL, POISON), strict=False):
        ax.scatter(
            cloud[:, 0], cloud[:, 1], s=12, color=colour, alpha=0.6, linewidths=0, label=name
        )
    closed = [*corners.tolist(), corners[0].tolist()]
    ax.plot(*zip(*closed, strict=True), color="0.6", lw=1, zorder=0)
    for (x, y), name in zip(corners.tolist(), names, strict=True):
        ax.annotate(name, (x, y), fontsize=9, weight="bold", ha="center", va="center")
    ax.set(xlim=(-0.9, 1.9), ylim=(-0.9, 1.9))
    ax.legend(fontsize=8, loc="upper left")
    return label(ax, title, f"share of the way to {names[1]}", f"share of the way to {names[2]}")
