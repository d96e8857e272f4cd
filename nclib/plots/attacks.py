"""Figures of attacks at test time: images before and after, curves over eps, shares by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, heatmap, label, panels, plt


def picture(image: Tensor, ax: Axes, title: str = "", **options: Any) -> Axes:
    """One image ``[C, H, W]``, grey or colour, without axes."""
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    look: dict[str, Any] = {"vmin": 0, "vmax": 1} | options
    ax.imshow(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels, **look)
    ax.set_title(title, fontsize=8)
    ax.axis("off")
    return ax


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
    axes[3].bar(range(len(belief)), belief.cpu(), color=colours)
    axes[3].set_xticks(range(len(classes)), classes, fontsize=7, rotation=90 * (len(classes) > 10))
    label(axes[3], "the network's belief", "class", "probability").set_ylim(0, 1)
    figure.suptitle(title, fontsize=10)
    return figure


def curves(tables: Sequence[pd.DataFrame], title: str) -> Axes:
    """Accuracy over eps per attack, from ``robustness`` tables; the band spans the tables."""
    _, (ax,) = panels(width=5.6, height=3.6)
    table = pd.concat(tables)
    table = table[table.attack != "worst case"]
    look = {"errorbar": ("pi", 100), "marker": "o", "style": "attack", "dashes": False}
    sns.lineplot(table, x="eps", y="accuracy", hue="attack", ax=ax, **look)
    ax.set_ylim(-0.02, 1.02)
    return label(ax, title, "eps (pixel values run from 0 to 1)", "accuracy (share of images)")


def lines(x: Sequence[float], series: Mapping[str, Sequence[float]], y: str) -> Axes:
    """Shares over eps, one line per name."""
    _, (ax,) = panels(width=5, height=3.3)
    for name, values in series.items():
        ax.plot(x, values, marker="o", label=name)
    ax.legend(fontsize=8)
    ax.set_ylim(-0.02, 1.02)
    return label(ax, "How large a budget it takes", "eps (image units)", y)


def by_layer(layers: Sequence[str], series: Mapping[str, Sequence[Sequence[float]]]) -> Axes:
    """Share of images per layer: a line for the mean of the runs, a band for their span."""
    _, (ax,) = panels(width=5.6, height=3.5)
    for name, runs in series.items():
        values = np.array(runs)
        (line,) = ax.plot(layers, values.mean(0), marker="o", label=name)
        ax.fill_between(layers, values.min(0), values.max(0), color=line.get_color(), alpha=0.2)
    ax.legend(fontsize=8)
    ax.set_ylim(-0.02, 1.02)
    return label(ax, "Nearest class mean by layer", "layer, shallow to deep", "share of images")


def saliency(cases: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Images above, saliency maps below, each map on its own scale."""
    figure, axes = plt.subplots(2, len(cases), figsize=(2.1 * len(cases), 4.3))
    for (title, (image, found)), column in zip(cases.items(), axes.T, strict=True):
        picture(image, column[0], title)
        picture(found[None], column[1], "", cmap="viridis", vmin=0, vmax=float(found.max()))
    axes[0, 0].text(-0.1, 0.5, "image", transform=axes[0, 0].transAxes, ha="right", rotation=90)
    axes[1, 0].text(-0.1, 0.5, "saliency", transform=axes[1, 0].transAxes, ha="right", rotation=90)
    figure.suptitle("Which pixels speak for the answer (bright: much)", fontsize=10)
    return figure


def transfer(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Axes:
    """Accuracy of each network (column) on images made for each network (row)."""
    return heatmap(
        np.asarray(matrix),
        names,
        names,
        title="Accuracy on images made for another network",
        x="network that sees the images",
        y="network they were made on",
        vmin=0,
        vmax=1,
    )
