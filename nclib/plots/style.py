"""One look for every figure: seaborn on matplotlib, one palette, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

CLEAN, POISON, NEUTRAL = "#0173b2", "#d55e00", "#949494"  # blue, vermilion, grey
SEQUENTIAL, DIVERGING = "viridis", "vlag"  # heat maps: from 0 upwards; around 0
DPI = 80


def apply() -> None:
    """Set the course's look for all figures that follow; importing ``nclib.plots`` does it."""
    sns.set_theme("notebook", "whitegrid", "colorblind", font_scale=0.9)
    plt.rcParams.update(
        {"figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True}
    )
    plt.rcParams.update({"axes.titlesize": "medium", "image.cmap": "gray_r"})


def class_colours(count: int) -> list[tuple[float, float, float]]:
    """One colour per class: the ten of seaborn's colour-blind palette, then evenly spaced hues."""
    return sns.color_palette("colorblind" if count <= 10 else "husl", count)


def panels(
    count: int = 1, *, width: float = 4.2, height: float = 3.2, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A row of ``count`` axes, each ``width`` x ``height`` inches; ``options`` go to subplots."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, **options)
    return figure, list(axes[0])


def label(axes: Axes, title: str, x: str, y: str) -> Axes:
    """Title and axis labels; units belong in the labels."""
    axes.set(title=title, xlabel=x, ylabel=y)
    return axes


def pixels(image: Tensor) -> np.ndarray:
    """``[C, H, W]`` as matplotlib wants it: ``[H, W, C]``, or ``[H, W]`` for one channel."""
    found = image.detach().cpu().permute(1, 2, 0).numpy()
    return found.squeeze(-1) if found.shape[2] == 1 else found


def picture(image: Tensor, ax: Axes, title: str = "", **options: Any) -> Axes:
    """One image ``[C, H, W]``, grey or colour, without axes."""
    look: dict[str, Any] = {"vmin": 0, "vmax": 1} | options
    ax.imshow(pixels(image), **look)
    ax.set_title(title, fontsize=8)
    ax.axis("off")
    return ax


def band(ax: Axes, x: Sequence, runs: ArrayLike, name: str, alpha: float = 0.2, **look: Any) -> Any:
    """A line through the means of ``runs`` ``[runs, x]`` and their span behind it: its colour."""
    values = np.array(runs, dtype=float)
    (line,) = ax.plot(x, values.mean(0), marker="o", label=name, **look)
    ax.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=alpha)
    return line.get_color()


def show_images(
    images: Tensor, titles: Sequence[str] | None = None, *, columns: int = 10, title: str = ""
) -> Figure:
    """A grid of images ``[N, C, H, W]`` in [0, 1], grey or colour, with a line above each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.1 * columns, 1.3 * rows), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            picture(images[i], ax, "" if titles is None else str(titles[i]))
    figure.suptitle(title)
    return figure


def heatmap(
    values: ArrayLike | Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    x: str,
    y: str,
    centre: float | None = None,
    fmt: str = ".2f",
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """An annotated matrix; ``centre`` makes the colours diverge around that value."""
    values = np.asarray(values)
    if ax is None:
        longest = max(map(len, map(str, columns)), default=0)
        below = 0.09 * longest if longest > 8 else 0  # inches: long names are turned
        height = 1.2 + 0.4 * len(rows) + below
        _, (ax,) = panels(width=1.8 + 0.55 * len(columns), height=height)
    look: dict[str, Any] = {
        "cmap": SEQUENTIAL if centre is None else DIVERGING,
        "center": centre,
        "fmt": fmt,
    }
    look |= {"annot": values.size <= 150, "annot_kws": {"fontsize": 8}, "linewidths": 0.3}
    sns.heatmap(values, xticklabels=columns, yticklabels=rows, ax=ax, **(look | options))
    ax.tick_params(axis="y", rotation=0)  # a single row would lie on its side
    return label(ax, title, x, y)
