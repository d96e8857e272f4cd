"""Figures of lesson 00: times on a device, the data, and two runs that drift apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nclib.data import ImageSet
from nclib.plots.style import CLEAN, NEUTRAL, POISON, label, panels, show_images


def waiting(times: Mapping[str, tuple[float, float]], title: str) -> Axes:
    """Bars for ``{device: (seconds without waiting, seconds with waiting)}``, on a log scale."""
    _, (ax,) = panels(width=6.4, height=1.4 + 0.55 * len(times))
    rows = np.arange(len(times))
    early, honest = (1000 * np.array(column) for column in zip(*times.values(), strict=True))
    ax.barh(rows - 0.2, early, 0.36, color=NEUTRAL, label="clock stopped at once")
    ax.barh(rows + 0.2, honest, 0.36, color=CLEAN, label="clock stopped after waiting")
    ax.set_yticks(rows, list(times))
    ax.set_xscale("log")
    ax.set_xlim(left=early.min() / 3)  # a bar that begins at the edge still shows
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "milliseconds (log scale)", "")


def by_size(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], title: str) -> Axes:
    """Seconds against the side of the matrices, one line per device, with the slope of n^3."""
    _, (ax,) = panels(width=5.4)
    for name, column in seconds.items():
        ax.loglog(sizes, 1000 * np.array(column), marker="o", label=name)
    last = 1000 * min(column[-1] for column in seconds.values())
    guide = [last * (n / sizes[-1]) ** 3 for n in sizes]
    ax.loglog(sizes, guide, color="0.5", linestyle=":", label="eight times for twice the side")
    ax.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return label(ax, title, "side of the matrices (numbers)", "milliseconds")


def gallery(data: ImageSet, cls: int, count: int = 20, columns: int = 10) -> Figure:
    """The first ``count`` images of one class; each line above gives the position in the set."""
    places = (data.labels == cls).nonzero()[:count, 0].tolist()
    title = f"{data.name}: class {data.classes[cls]!r}, the number is the position in the set"
    return show_images(data.images[places], places, columns=columns, title=title)


def one_of_each(data: ImageSet, title: str, columns: int = 10) -> Figure:
    """The first image of each of the first 20 classes, its class name above it."""
    shown = [c for c in range(min(data.num_classes, 20)) if bool((data.labels == c).any())]
    first = [int((data.labels == c).nonzero()[0]) for c in shown]
    names = [data.classes[c] for c in shown]
    return show_images(data.images[first], names, columns=min(columns, len(shown)), title=title)


def class_counts(parts: Mapping[str, ImageSet], title: str) -> Axes:
    """How many images each class has, one group of bars per part."""
    classes = next(iter(parts.values())).classes
    _, (ax,) = panels(width=2.4 + 0.4 * min(len(classes), 20))
    width = 0.8 / len(parts)
    for i, (name, data) in enumerate(parts.items()):
        counts = torch.bincount(data.labels.cpu(), minlength=len(classes))
        places = np.arange(len(classes)) + (i - (len(parts) - 1) / 2) * width
        ax.bar(places, counts, width, label=name, color=(CLEAN, POISON, NEUTRAL)[i % 3])
    ax.set_xticks(
        np.arange(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0
    )
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "class", "images")


def drift(gaps: Mapping[str, Tensor], title: str) -> Axes:
    """Relative distance of two runs by epoch, ``{name: [runs, epochs + 1]}``, one line per run."""
    _, (ax,) = panels(width=5.8)
    for (name, rows), colour in zip(gaps.items(), (CLEAN, POISON, NEUTRAL), strict=False):
        for i, row in enumerate(rows.cpu()):
            ax.semilogy(row, color=colour, marker=".", label=name if i == 0 else None)
    ax.axhline(2.0**-23, color="0.4", linestyle="--", linewidth=1)
    end = next(iter(gaps.values())).shape[1] - 1
    ax.text(end, 1.3 * 2.0**-23, "one step of float32", fontsize=8, color="0.3", ha="right")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8)
    return label(ax, title, "epoch", "distance / length of the weights")
