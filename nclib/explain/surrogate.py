"""A simple model in the place of the network, near one image: switch squares off, fit a line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nclib.attacks.common import Model, check_counts, check_positive, prepared
from nclib.doors import gradients, number, seeded
from nclib.explain.gradients import logit


def squares(images: Tensor, side: int) -> Tensor:
    """The number of the square of ``side`` pixels that each pixel lies in: int64 ``[H, W]``."""
    check_counts(side=side)
    rows, columns = (torch.arange(size) // side for size in images.shape[-2:])
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def ask(model: Model, image: Tensor, cls: Tensor, on: Tensor, grid: Tensor, fill: float) -> Tensor:
    """The class's logit for ``image`` ``[C, H, W]`` with the squares of ``on`` ``[S, G]``: [S]."""
    found = []
    for part in on.split(512):
        shown = torch.where(part[:, grid].unsqueeze(1), image, torch.full_like(image, fill))
        found.append(logit(model(shown), cls.expand(len(part))))
    return torch.cat(found)


def ridge(on: Tensor, scores: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Slopes ``[G]`` of the weighted line through ``scores`` ``[S]`` over ``on`` ``[S, G]``.

    The intercept is free of the ``penalty`` on the squared slopes.
    """
    x, y, w = (t.cpu().double() for t in (on, scores, weights))
    x, y = (t - (w @ t) / w.sum() for t in (x, y))
    inner = x.T @ (w[:, None] * x) + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(inner, x.T @ (w * y))


@gradients
def surrogate(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    side: int = 4,
    samples: int = 256,
    fill: float = 0.5,
    width: float = 0.25,
    penalty: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """LIME: the slopes of a line fitted to the logit while squares are on and off: [N, H, W].

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``classes`` int64 ``[N]``; squares of ``side``
    pixels, each off (``fill``) in half of the ``samples``. A sample weighs exp(-d^2 / width^2),
    where d is its cosine distance from the whole image. Raises ``ValueError`` for arguments that do
    not fit. Ribeiro et al. 2016 (arXiv 1602.04938).
    """
    check_counts(samples=samples)
    check_positive(width=width, penalty=penalty)
    number(fill, "fill", 0, 1)
    grid = squares(images, side)
    on = torch.rand(samples, int(grid.max()) + 1, generator=seeded(seed)) < 0.5
    on[0] = True
    weights = torch.exp(-((1 - on.double().mean(1).sqrt()) ** 2) / width**2)
    maps = []
    with prepared(model, images, classes) as (net, images, goal, _), torch.no_grad():
        for image, cls in zip(images, goal, strict=True):
            scores = ask(net, image, cls, on.to(image.device), grid.to(image.device), fill)
            maps.append(ridge(on, scores, weights, penalty)[grid].to(image))
    return torch.stack(maps)
