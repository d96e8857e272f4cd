"""Figures of randomised smoothing: the vote, the shopping, the worst case, certified accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike
from scipy.stats import norm
from torch import Tensor

from nclib.plots.style import CLEAN, NEUTRAL, POISON, class_colours, label, panels, picture


def vote(copies: Tensor, counts: Sequence[int], classes: Sequence[str], title: str) -> Figure:
    """Some noisy copies ``[M, C, H, W]`` of an image, and how often each class was named."""
    shown = min(len(copies), 5)
    figure, axes = panels(shown + 1, width=1.6, height=2.3, width_ratios=[*[1] * shown, 2.4])
    for image, ax in zip(copies, axes[:shown], strict=False):
        picture(image.clamp(0, 1), ax)
    axes[-1].barh(classes, counts, color=CLEAN)
    axes[-1].invert_yaxis()
    axes[-1].tick_params(axis="y", labelsize=7)
    label(axes[-1], "the vote", "noisy copies", "")
    figure.suptitle(title)
    return figure


def worst_case(share: float, sigma: float, shift: float) -> Figure:
    """The two noise clouds, the half-space that holds ``share`` of the first, and what is left.

    Left: the picture in the plane. Right: the worst share after a shift of each length.
    """
    figure, (left, right) = panels(2, width=4.8, height=3.4)
    edge = sigma * norm.ppf(share)  # to the right of it the classifier may say anything else
    generator = np.random.default_rng(0)
    cloud = sigma * generator.standard_normal((400, 2))
    for centre, colour, name in ((0, CLEAN, "noise at x"), (shift, POISON, "noise at x + shift")):
        left.scatter(cloud[:, 0] + centre, cloud[:, 1], s=6, alpha=0.5, color=colour, label=name)
        left.plot(centre, 0, "o", color=colour, markeredgecolor="k", markersize=8)
    wide = max(4 * sigma, shift + 3 * sigma)
    left.axvline(edge, color="k")
    left.axvspan(edge, wide, color=NEUTRAL, alpha=0.25)
    left.set(xlim=(-3 * sigma, wide), ylim=(-3.2 * sigma, 3.2 * sigma))
    left.legend(fontsize=7, loc="lower left")
    label(left, "Grey: where the model says something else", "along the shift", "across")
    shifts = np.linspace(0, max(2 * edge, shift, sigma), 200)
    right.plot(shifts, norm.cdf(norm.ppf(share) - shifts / sigma), color=POISON)
    right.axhline(0.5, color="0.4", linestyle="--", linewidth=1)
    right.axvline(edge, color="k", linewidth=1)
    right.plot(shift, norm.cdf(norm.ppf(share) - shift / sigma), "o", color=POISON, mec="k")
    right.set_ylim(0, 1.02)
    return_title = f"The worst share; it reaches 1/2 at radius {edge:.2f}"
    label(right, return_title, "length of the shift (L2)", "share of the vote")
    return figure


def shopping(
    shift: float, disc: float, strip: float, edge: float, worth: Mapping[str, float]
) -> Figure:
    """Three regions that hold as much of the first cloud, and how much each holds of the second.

    In units of sigma: a disc of radius ``disc`` and a strip of half width ``strip`` about the
    shifted cloud, and all beyond ``edge``; ``worth`` names them and says the second share.
    """
    figure, axes = panels(3, width=3.2, height=3.2, sharey=True)
    cloud = np.random.default_rng(0).standard_normal((2, 500, 2)) + np.array(
        [[[0, 0]], [[shift, 0]]]
    )
    grey: dict[str, Any] = {"facecolor": "0.3", "edgecolor": "k", "alpha": 0.35, "zorder": 3}
    axes[0].add_patch(Circle((shift, 0), disc, **grey))
    axes[1].axvspan(shift - strip, shift + strip, **grey)
    axes[2].axvspan(edge, 4, **grey)
    for ax, (name, value) in zip(axes, worth.items(), strict=True):
        for points, colour in zip(cloud, (CLEAN, POISON), strict=True):
            ax.scatter(points[:, 0], points[:, 1], s=5, alpha=0.45, color=colour)
        ax.set(xlim=(-3, 4), ylim=(-3, 3), aspect="equal")
        label(ax, f"{name} buys {value:.0%} of the orange", "along the shift (sigma)", "")
    axes[0].set_ylabel("across (sigma)")
    return figure


def certified(
    x: Sequence[float], curves: Mapping[str, ArrayLike], title: str, against: str
) -> Axes:
    """Certified accuracy over a radius or a number of poisons, one line per name.

    A curve is a row of numbers, or several rows (seeds), of which the mean and the range are drawn.
    """
    _, (ax,) = panels(width=5.6, height=3.4)
    for (name, values), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
        runs = np.atleast_2d(np.asarray(values))
        ax.step(x, runs.mean(0), where="post", color=colour, label=name)
        ax.fill_between(x, runs.min(0), runs.max(0), step="post", color=colour, alpha=0.2)
    ax.set_ylim(-0.02, 1.02)
    ax.legend(fontsize=8)
    return label(ax, title, against, "certified accuracy (share)")


def radius_by_n(curves: Mapping[str, Sequence[float]], counts: Sequence[int], sigma: float) -> Axes:
    """The certified radius over the number of draws, one line per observed share of hits."""
    _, (ax,) = panels(width=5.2, height=3.4)
    for (name, values), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
        ax.plot(counts, values, marker="o", color=colour, label=name)
    ax.set_xscale("log")
    ax.legend(fontsize=8)
    title = f"What more draws buy (sigma {sigma:g})"
    return label(ax, title, "draws n", "certified radius (L2)")


def attack(
    eps: Sequence[float],
    found: Mapping[str, Sequence[float]],
    title: str,
    length: str = "eps (L2)",
    ax: Axes | None = None,
) -> Axes:
    """Certified accuracy as a floor, and the accuracy that an attack leaves, over eps."""
    ax = ax or panels(width=5.2, height=3.4)[1][0]
    for (name, values), colour in zip(found.items(), (CLEAN, POISON, NEUTRAL), strict=False):
        ax.plot(eps, values, marker="o", color=colour, label=name)
    floor = next(iter(found.values()))
    ax.fill_between(eps, 0, floor, color=CLEAN, alpha=0.12)
    ax.set_ylim(-0.02, 1.02)
    ax.legend(fontsize=8)
    return label(ax, title, length, "accuracy (share)")


def floors(
    eps: Sequence[float], found: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]
) -> Figure:
    """For each network a panel with (certified, attacked) accuracy over eps, one pair a seed."""
    figure, axes = panels(len(found), width=4.4, height=3.2, sharey=True)
    for ax, (name, seeds) in zip(axes, found.items(), strict=True):
        middle = np.mean(seeds, 0)
        named = {"certified by intervals": middle[0], "left by PGD": middle[1]}
        attack(eps, named, name, "change of each pixel (1/255)", ax)
        for pair in seeds:
            for values, colour in zip(pair, (CLEAN, POISON), strict=True):
                ax.plot(eps, values, color=colour, linewidth=0.7, alpha=0.6)
    return figure
