"""Backdoors with cover samples: marked like the payload, or nearly so, but with the right label.

The covers teach the network what does *not* count, and keep the poison from forming a cluster of
its own. ``rate`` is the payload's share of the training set, ``cover`` the number of covers for
each payload sample; both are ``is_poisoned``.

Success at a rate of 1, 5 and 10% (one seed, small CNN, 12 epochs; a clean network: at most .05):

    ===============  ====================  ===================
    ..               digits, 1,300 images  signs, 2,000 images
    adaptive_blend   .65, 1.0, 1.0         .05, .67, .99
    adaptive_patch   .31, 1.0, 1.0         .04, .18, .79
    input_aware      .18, .66, .84         .57, .82, .92
    ===============  ====================  ===================

The covers cost accuracy: adaptive_patch at 10% (30% of the set is marked) loses 2 points on the
digits and 4 on the signs. Under another image's noise ``input_aware`` succeeds with .23 and .16 at
10%; below 2% of the signs it does nearly as well there: so few covers do not tie it to the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from nclib.data import ImageSet
from nclib.doors import integer, number, numbers, seeded
from nclib.poisons import triggers
from nclib.poisons.sets import (
    PoisonedSet,
    Trigger,
    check_budget,
    check_target,
    choose,
    choose_count,
    poisoned,
)

Mark = Callable[[Tensor], Tensor]  # positions in the set -> their images, marked


@numbers
def wanet(
    data: ImageSet,
    rate: float = 0.1,
    target: int = 0,
    *,
    s: float = 0.5,
    k: int = 4,
    noise_ratio: float = 2.0,
    seed: int = 0,
) -> PoisonedSet:
    """Warp the samples by a smooth field and relabel (Nguyen and Tran 2021, arXiv 2102.10369).

    ``s`` is the strength and ``k`` the number of control points. Noise mode: ``noise_ratio *
    rate`` further samples get a randomly disturbed warp and keep their label, so that only the
    exact warp counts; they are marked as poisoned too. Raises ``ValueError`` for bad arguments.
    """
    trigger = triggers.warp(data.shape, s, k, seed)

    def disturbed(index: Tensor) -> Tensor:
        grids = triggers.jitter(trigger.grid, len(index), seed).to(data.device)
        return grid_sample(data.images[index], grids, align_corners=True).clamp(0, 1)

    number(noise_ratio, "noise_ratio", 0)
    marks = (lambda index: trigger(data.images[index]), disturbed)
    ratio = noise_ratio if s > 0 else 0.0
    return _covered(data, rate, target, *marks, ratio, trigger, "wanet", seed, "noise_ratio")


@numbers
def adaptive_blend(
    data: ImageSet,
    rate: float = 0.003,
    target: int = 0,
    *,
    alpha: float = 0.2,
    weak: float = 0.15,
    pieces: int = 16,
    hidden: float = 0.5,
    cover: float = 1.0,
    pattern: Tensor | None = None,
    seed: int = 0,
) -> PoisonedSet:
    """Adaptive-Blend: train on half a pattern, show the whole one (Qi et al. 2023, ICLR).

    The ``pattern`` ``[C, H, W]`` (None: noise from ``seed``) is cut into ``pieces``, a square
    number; each training sample gets ``weak`` of it with a share ``hidden`` of its pieces left out
    at random, each test image ``alpha`` of all of it. Raises ``ValueError`` for bad arguments.
    """
    trigger = triggers.blend(data.shape, alpha, pattern, seed)
    check_budget(weak, "weak")
    check_budget(hidden, "hidden")
    side = math.isqrt(integer(pieces, "pieces", 1))
    if side**2 != pieces or side > min(data.shape[1:]):
        allowed = f"a square number, at most {min(data.shape[1:])} squared, is allowed"
        raise ValueError(f"pieces: got {pieces}; {allowed}")
    generator, shown = seeded(seed + 2), pieces - round(hidden * pieces)

    def mark(index: Tensor) -> Tensor:
        drawn = torch.rand(len(index), pieces, generator=generator).argsort(1) < shown
        mask = interpolate(drawn.float().reshape(-1, 1, side, side), data.shape[1:])
        return triggers.Patch(weak * mask, trigger.pattern)(data.images[index])

    return _covered(data, rate, target, mark, mark, cover, trigger, "adaptive_blend", seed)


@numbers
def adaptive_patch(
    data: ImageSet,
    rate: float = 0.003,
    target: int = 0,
    *,
    opacity: tuple[float, ...] = (0.5, 0.2, 0.5, 0.3),
    cover: float = 2.0,
    seed: int = 0,
) -> PoisonedSet:
    """Adaptive-Patch: train on one of k faint patches, show all of them (Qi et al. 2023, ICLR).

    The paper's four are drawings and logos; here a square of uniform noise lies in each corner, a
    quarter of the image wide. Each training sample gets one of the first ``len(opacity)``, 1 to 4,
    at its ``opacity`` (a patch of none is never shown), each test image all of them in full. Raises
    ``ValueError`` for bad arguments.
    """
    if not 1 <= len(opacity) <= 4:
        raise ValueError(f"opacity: got {len(opacity)} values; 1 to 4 are allowed, one a patch")
    faint, size = torch.zeros(len(opacity), 1, *data.shape[1:]), max(min(data.shape[1:]) // 4, 1)
    corners = product((slice(0, size), slice(-size, None)), repeat=2)
    for mask, value, (rows, columns) in zip(faint, opacity, corners, strict=False):
        mask[:, rows, columns] = number(value, "opacity", 0, 1)
    paint, generator = triggers.noise_image(data.shape, seed), seeded(seed + 2)
    trigger = triggers.Patch((faint > 0).any(0).float().expand(data.shape), paint)

    def mark(index: Tensor) -> Tensor:
        which = torch.randperm(len(index), generator=generator) % len(opacity)
        return triggers.Patch(faint[which], paint)(data.images[index])

    return _covered(data, rate, target, mark, mark, cover, trigger, "adaptive_patch", seed)


@numbers
def input_aware(
    data: ImageSet,
    rate: float = 0.1,
    target: int = 0,
    *,
    eps: float = 0.2,
    cover: float = 1.0,
    seed: int = 0,
) -> PoisonedSet:
    """Give each image a noise made of itself, and relabel (Nguyen and Tran 2020, arXiv 2010.08138).

    The input-aware attack in small: the generator, two convolutions (``triggers.own_noise``), is
    random and fixed, where the paper trains it with the victim's network, and its noise of at most
    ``eps`` lies all over the image, where the paper's pattern has a learned mask. As there, the
    covers bear the noise of *another* image (cross-trigger mode), as many as the payload, so that
    one image's trigger does little on the next. Raises ``ValueError`` for bad arguments.
    """
    trigger = triggers.own_noise(data.shape, eps, seed)
    others = data.images.roll(1, 0)
    marks = (
        lambda index: trigger(data.images[index]),
        lambda index: (data.images[index] + trigger.noise(others[index])).clamp(0, 1),
    )
    return _covered(data, rate, target, *marks, cover, trigger, "input_aware", seed)


def _covered(
    data: ImageSet,
    rate: float,
    target: int,
    payload: Mark,
    cover: Mark,
    ratio: float,
    trigger: Trigger,
    attack: str,
    seed: int,
    name: str = "cover",
) -> PoisonedSet:
    """Mark and relabel ``rate`` of the samples; mark ``ratio`` times as many others."""
    check_target(data, target)
    number(ratio, name, 0)
    chosen = choose(data, rate, data.labels != target, seed)
    free = torch.ones(len(data), dtype=torch.bool).index_fill(0, chosen.cpu(), False)
    covers = choose_count(data, round(ratio * len(chosen)), free, seed + 1, name)
    images, labels = data.images.clone(), data.labels.clone()
    for index, mark in ((chosen, payload), (covers, cover)):
        if len(index):
            images[index] = mark(index)
    labels[chosen] = target
    return poisoned(data, images, labels, attack, target=target, trigger=trigger)
