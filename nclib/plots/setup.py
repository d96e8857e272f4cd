"""Figures of lesson 00: two clocks, the contact sheet of the data sets, one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from nclib.data import ImageSet
from nclib.plots.style import CLEAN, NEUTRAL, label, panels, picture, show_images

COLUMNS = 10  # images in a row
Clocks = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def clocks(times: Clocks, title: str) -> Figure:
    """Each run of ``{where: (seconds without waiting, seconds with waiting)}``, one panel each.

    The first run, which warms up, is drawn hollow.
    """
    figure, axes = panels(len(times), width=4.4, height=2.9, sharey=True)
    for ax, (where, both) in zip(axes, times.items(), strict=True):
        for seconds, colour, size, name in zip(
            both,
            (NEUTRAL, CLEAN),
            (8, 4),
            ("stopped at once", "stopped after waiting"),
            strict=True,
        ):
            y = [1000 * s for s in seconds]
            ax.semilogy(range(1, len(y)), y[1:], "o", color=colour, markersize=size, label=name)
            ax.semilogy(0, y[0], "o", color=colour, markersize=size, markerfacecolor="none")
        label(ax, where, "run (0 warms up)", "")
    axes[0].set_ylabel("milliseconds (log scale)")
    axes[-1].legend(title="the clock was", fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(title)
    return figure


def contact_sheet(sets: Sequence[ImageSet], title: str) -> Figure:
    """One row per data set: the first image of each of its first classes, the class above it."""
    size = (1.05 * COLUMNS + 1.2, 1.3 * len(sets) + 0.3)
    figure, axes = plt.subplots(len(sets), COLUMNS, figsize=size, squeeze=False)
    for row, data in zip(axes, sets, strict=True):
        for ax in row:
            ax.axis("off")
        for ax, c in zip(row, data.labels.unique().tolist(), strict=False):
            picture(data.images[data.labels == c][0], ax, data.classes[c][:14])
        size_said = " x ".join(map(str, data.shape[1:]))
        place = {"transform": row[0].transAxes, "ha": "right", "va": "center", "fontsize": 9}
        row[0].text(-0.15, 0.5, f"{data.name}\n{size_said}", **place)
    figure.suptitle(title)
    return figure


def gallery(data: ImageSet, cls: int, count: int = 20) -> Figure:
    """The first ``count`` images of one class; each line above gives the position in the set."""
    places = (data.labels == cls).nonzero()[:count, 0].tolist()
    title = f"{data.name}: class {data.classes[cls]!r}, the number is the position in the set"
    return show_images(data.images[places], places, columns=COLUMNS, title=title)
