"""Occlusion: cover a window, and see how far the logit falls."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nclib.attacks.common import batched, check_counts, prepared
from nclib.doors import gradients, number
from nclib.explain.gradients import logit


@gradients
def occlusion(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    window: int = 4,
    stride: int = 2,
    fill: float = 0.5,
    batch_size: int = 512,
) -> Tensor:
    """How far the class's logit falls when a window is ``fill``, mean of the windows: [N, H, W].

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``classes`` int64 ``[N]``; the window is a square
    of ``window`` pixels and moves by ``stride``. Raises ``ValueError`` for a window that does not
    fit and other arguments that do not. Zeiler and Fergus 2014 (arXiv 1311.2901).
    """
    check_counts(window=window, stride=stride)
    number(fill, "fill", 0, 1)
    height, width = images.shape[-2:]
    if window > min(height, width):
        raise ValueError(f"window: got {window}; up to {min(height, width)} pixels are allowed")
    corners = [
        (top, left)
        for top in _starts(height, window, stride)
        for left in _starts(width, window, stride)
    ]

    def falls(x: Tensor, c: Tensor) -> Tensor:
        before, total, seen = logit(net(x), c), x.new_zeros(x[:, 0].shape), x.new_zeros(x.shape[2:])
        for top, left in corners:
            area = (slice(top, top + window), slice(left, left + window))
            covered = x.clone()
            covered[:, :, *area] = fill
            total[:, *area] += (before - logit(net(covered), c))[:, None, None]
            seen[area] += 1
        return total / seen

    with prepared(model, images, classes) as (net, images, goal, _), torch.no_grad():
        return batched(falls, batch_size, images, goal)


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Where the windows begin; the last one ends at the edge."""
    return sorted({*range(0, size - window, stride), size - window})
