"""A grand tour: points in many dimensions, seen through a plane that turns until it is back.

Asimov, "The grand tour: a tool for viewing multidimensional data", 1985.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from nclib.plots.style import class_colours, panels


def grand_tour(points: Tensor, frames: int, seed: int = 0) -> Tensor:
    """The shadows ``[frames, N, 2]`` of ``points`` ``[N, D]`` on a plane that turns once around.

    The D dimensions are turned pair by pair, each pair at its own whole number of rounds, so the
    last frame leads back to the first. ``seed`` chooses the pairs. Raises ``ValueError`` for fewer
    than two dimensions or frames.
    """
    count = points.shape[1]
    if count < 2 or frames < 2:
        raise ValueError(f"points, frames: got {count} dimensions, {frames} frames; 2 are needed")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, count, dtype=torch.float64, generator=generator)
    axes = torch.linalg.qr(noise).Q
    rounds = torch.arange(count // 2, dtype=torch.float64) % 3 + 1
    angles = 2 * math.pi * torch.arange(frames)[:, None] / frames * rounds
    turned = torch.zeros(frames, count, 2, dtype=torch.float64)
    half = count // 2
    for column, start in enumerate((axes[0], axes[1])):
        even, odd = start[: 2 * half : 2], start[1 : 2 * half : 2]
        turned[:, : 2 * half : 2, column] = angles.cos() * even - angles.sin() * odd
        turned[:, 1 : 2 * half : 2, column] = angles.sin() * even + angles.cos() * odd
        turned[:, 2 * half :, column] = start[2 * half :]
    return points.cpu().double() @ (axes @ turned)


def shadow(
    points: Tensor,
    labels: Tensor,
    means: Tensor,
    marks: Sequence[str] | Tensor,
    title: str,
) -> Axes:
    """One frame: points ``[N, 2]`` and class means ``[K, 2]``, each at the end of a spoke.

    ``marks`` stand at the ends of the spokes: K names, or K pictures ``[K, C, H, W]`` in [0, 1],
    with a fourth channel for opacity if there is one.
    """
    ax = panels(width=4.6, height=4.8)[1][0]
    colours = class_colours(len(means))
    shades = [colours[i] for i in labels.tolist()]
    ax.scatter(points[:, 0], points[:, 1], c=shades, s=6, alpha=0.45, linewidths=0)
    for mean, colour, mark in zip(means.tolist(), colours, marks, strict=True):
        ax.plot((0, mean[0]), (0, mean[1]), color=colour, linewidth=1.5)
        length = max(math.hypot(*mean), 0.25)
        place = (mean[0] * (1 + 0.2 / length), mean[1] * (1 + 0.2 / length))
        if isinstance(mark, str):
            ax.text(*place, mark, fontsize=7, ha="center", va="center", clip_on=True)
        else:
            picture = OffsetImage(_pixels(mark), zoom=26 / mark.shape[-1])
            ax.add_artist(AnnotationBbox(picture, place, frameon=False))
    reach = max(1.45, float(points.norm(dim=1).quantile(0.97)))  # before training: a wide cloud
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    ax.set_axis_off()
    return ax


def _pixels(picture: Tensor) -> np.ndarray:
    """``[C, H, W]`` as matplotlib wants it: grey becomes three equal channels."""
    picture = picture.detach().cpu()
    return (picture.expand(3, -1, -1) if len(picture) == 1 else picture).permute(1, 2, 0).numpy()
