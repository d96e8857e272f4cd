"""A counterfactual that can be seen: which squares of another image would change the answer?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nclib.attacks.common import Model, margin, prepared
from nclib.doors import gradients
from nclib.explain.surrogate import squares


@gradients
def counterfactual(
    model: nn.Module, images: Tensor, classes: Tensor, others: Tensor, *, side: int = 4
) -> tuple[Tensor, Tensor]:
    """Swap squares with ``others``, the best one first, until the model answers ``classes``.

    ``images`` and ``others`` float32 ``[N, C, H, W]`` in [0, 1], ``classes`` int64 ``[N]``: the
    answers that are wanted. Returns the changed images, and maps ``[N, H, W]``: 1 for the square
    that was swapped first, less for later ones, 0 for those that stayed. Raises ``ValueError`` for
    arguments that do not fit. Goyal et al. 2019 (arXiv 1904.07451).
    """
    if others.shape != images.shape:
        raise ValueError(f"others: got {tuple(others.shape)}; {tuple(images.shape)} is needed")
    grid = squares(images, side).to(images.device)
    with prepared(model, images, classes) as (net, images, goal, _), torch.no_grad():
        found = [_swap(net, *one, grid) for one in zip(images, goal, others, strict=True)]
    changed, maps = (torch.stack(each) for each in zip(*found, strict=True))
    return changed, maps


def _swap(
    model: Model, image: Tensor, wanted: Tensor, other: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor]:
    count = int(grid.max()) + 1
    rank, image = image.new_zeros(count), image.clone()
    for turn in range(count):
        if margin(model(image[None]), wanted[None]) < 0:
            break
        left = (rank == 0).nonzero().squeeze(1)
        tries = torch.where((grid == left[:, None, None]).unsqueeze(1), other, image)
        best = margin(model(tries), wanted.expand(len(left))).argmin()
        image, rank[left[best]] = tries[best], 1 - turn / count
    return image, rank[grid]
