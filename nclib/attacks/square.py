"""The Square attack: random search with the logits alone, no gradient at all."""

from __future__ import annotations

import bisect

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.attacks.common import (
    Model,
    batched,
    check_counts,
    check_eps,
    margin,
    prepared,
    signs,
    source,
    uniform,
)
from nclib.doors import gradients

# The paper halves the share of pixels at these thousandths of the queries.
HALVINGS = (1, 5, 20, 50, 100, 200, 400, 600, 800)


@gradients
def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    queries: int = 1000,
    p: float = 0.3,
    targets: Tensor | None = None,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Black box, Linf: paint random squares of ``+-eps``, keep each that raises the margin.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``, ``eps`` in image units;
    with ``targets`` ``[N]`` the goal is the target class. At most ``queries`` forward passes per
    image, none after its success. The first squares cover the share ``p`` of the pixels, later
    ones less. Returns images like ``images``. Raises ``ValueError`` for arguments that do not fit.
    Andriushchenko et al. 2020 (arXiv 1912.00049).
    """
    check_eps(eps)
    check_counts(queries=queries, batch_size=batch_size)
    if not (isinstance(p, int | float) and 0 < p <= 1):
        raise ValueError(f"p: got {p!r}; a share in (0, 1] is allowed")
    draw = source(generator, seed)
    with prepared(model, images, labels, targets) as (net, images, goal, sign), torch.no_grad():
        if eps == 0:
            return images.clone()

        def attack(x: Tensor, y: Tensor) -> Tensor:
            return _search(net, x, y, sign, eps, queries, p, draw, progress)

        return batched(attack, batch_size, images, goal)


def _search(
    model: Model,
    images: Tensor,
    goal: Tensor,
    sign: float,
    eps: float,
    queries: int,
    p: float,
    draw: torch.Generator,
    progress: bool,
) -> Tensor:
    count, channels, height, width = images.shape
    stripes = signs(draw, images, (count, channels, 1, width))
    best = (images + eps * stripes).clamp_(0, 1)
    score = sign * margin(model(best), goal)
    for query in tqdm(range(1, queries), desc="square", disable=not progress):
        todo = (score <= 0).nonzero().squeeze(1)
        if not len(todo):
            break
        share = p / 2 ** bisect.bisect_left(HALVINGS, 1000 * query / queries)
        side = max(1, min(round((share * height * width) ** 0.5), height, width))
        window = _windows(draw, images, len(todo), side)
        paint = signs(draw, images, (len(todo), channels, 1, 1))
        painted = (images[todo] + eps * paint).clamp_(0, 1)
        painted = torch.where(window, painted, best[todo])
        new = sign * margin(model(painted), goal[todo])
        better = new > score[todo]
        best[todo[better]], score[todo[better]] = painted[better], new[better]
    return best


def _windows(draw: torch.Generator, images: Tensor, count: int, side: int) -> Tensor:
    """One square of ``side`` pixels at a random place per sample: bool ``[count, 1, H, W]``."""
    inside = []
    for size in images.shape[2:]:
        first = (uniform(draw, images, (count, 1)) * (size - side + 1)).floor()
        place = torch.arange(size, device=images.device) - first
        inside.append((place >= 0) & (place < side))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
