"""What a purifier has to beat: simpler washes, and a number for how well a pattern outlives one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nclib.data import check_images
from nclib.doors import finite, integer, number, numbers, seeded

Wash = Callable[[Tensor], Tensor]


@numbers
def hidden(images: Tensor, share: float = 0.5, *, seed: int = 0) -> Tensor:
    """Images without a ``share`` of their pixels, each filled with the mean of its neighbours.

    Where all eight are hidden, too, it is the mean of the image.
    """
    check_images(images)
    number(share, "share", 0, 1)
    draw = seeded(seed, images.device)
    shape = (len(images), 1, *images.shape[2:])
    seen = torch.rand(shape, generator=draw, device=images.device) >= share
    around, count = avg_pool2d(images * seen, 3, 1, 1), avg_pool2d(seen.float(), 3, 1, 1)
    middle = (images * seen).mean((2, 3), keepdim=True) / seen.float().mean((2, 3), keepdim=True)
    filled = torch.where(count > 0, around / count.clamp_min(1e-6), middle.nan_to_num(0.5))
    return torch.where(seen, images, filled).clamp(0, 1)


@numbers
def main_axes(others: Tensor, count: int = 50) -> Wash:
    """A wash that keeps of an image what the first ``count`` main axes of ``others`` hold.

    ``others`` ``[N, C, H, W]``: images that the victim does not have; 1,000 of them are used.
    """
    check_images(others)
    flat = others[:1000].flatten(1).cpu().double()
    integer(count, "count", 1, min(flat.shape))
    centre = flat.mean(0)
    axes = torch.linalg.svd(flat - centre, full_matrices=False).Vh[:count]
    centre, axes = (part.float().to(others.device) for part in (centre, axes))

    def wash(images: Tensor) -> Tensor:
        kept = (images.flatten(1) - centre) @ axes.T @ axes + centre
        return kept.view_as(images).clamp(0, 1)

    return wash


def contrast(clean: Tensor, marked: Tensor, pattern: Tensor) -> float:
    """How far a matched filter holds marked and clean images apart, in standard deviations.

    The filter is the product with ``pattern`` ``[C, H, W]``; ``clean`` and ``marked`` ``[N, C, H,
    W]`` are images without and with it, after the same wash. Raises ``ValueError`` for a pattern
    of zeros.
    """
    if not bool(finite(pattern, "pattern").any()):
        raise ValueError("pattern: got zeros alone; a trigger's pattern is needed")
    low, high = ((part * pattern).flatten(1).sum(1).double() for part in (clean, marked))
    return float((high.mean() - low.mean()) / low.std().clamp_min(1e-12))
