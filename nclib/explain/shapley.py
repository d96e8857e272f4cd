"""Shapley values: what each square adds, averaged over the orders in which they may come."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nclib.attacks.common import check_counts, prepared
from nclib.doors import gradients, number, seeded
from nclib.explain.surrogate import ask, squares


@gradients
def shapley(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    side: int = 4,
    orders: int = 16,
    fill: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """What switching a square on adds to the class's logit, mean over random orders: [N, H, W].

    Arguments as for ``surrogate``; each order switches the squares of a plain image on one after
    another, so the values of the squares add up to the rise from the plain image. Strumbelj
    and Kononenko 2010 (JMLR 11), Lundberg and Lee 2017 (arXiv 1705.07874).
    """
    check_counts(orders=orders)
    number(fill, "fill", 0, 1)
    grid, dice = squares(images, side), seeded(seed)
    count = int(grid.max()) + 1
    draws = torch.stack([torch.randperm(count, generator=dice) for _ in range(orders)])
    # row k of an order has its first k squares on
    on = torch.arange(count + 1)[:, None] > draws.argsort(1)[:, None]
    maps = []
    with prepared(model, images, classes) as (net, images, goal, _), torch.no_grad():
        for image, cls in zip(images, goal, strict=True):
            here = (on.flatten(0, 1).to(image.device), grid.to(image.device))
            scores = ask(net, image, cls, *here, fill).reshape(orders, -1)
            gains = scores.diff(dim=1).cpu()
            values = torch.zeros(orders, count).scatter_(1, draws, gains).mean(0)
            maps.append(values[grid].to(image))
    return torch.stack(maps)
