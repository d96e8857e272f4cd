"""Backdoors: a trigger in a few training images, and the same trigger at test time.

``rate`` is a share of the whole training set. All-to-one attacks relabel samples of the other
classes to ``target``; SIG keeps the labels and so lives in the target class alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nclib.data import ImageSet
from nclib.doors import numbers
from nclib.poisons import triggers
from nclib.poisons.sets import PoisonedSet, Trigger, check_target, choose, poisoned, stamped


@numbers
def badnets(
    data: ImageSet,
    rate: float = 0.1,
    target: int = 0,
    *,
    patch: str = "pattern",
    value: float = 1.0,
    all_to_all: bool = False,
    seed: int = 0,
) -> PoisonedSet:
    """Stamp a patch near the lower right corner and relabel (Gu et al. 2017, arXiv 1708.06733).

    ``patch`` is "pattern", "pixel", "checkerboard" or "square" of brightness ``value``.
    ``all_to_all`` turns class c into c + 1 instead of ``target``. Raises ``ValueError`` for a bad
    rate, target, patch or value.
    """
    trigger = triggers.patch(data.shape, patch, value)
    if all_to_all:
        labels = (data.labels + 1) % data.num_classes
        return _stamp(data, choose(data, rate, seed=seed), trigger, labels, "badnets", None)
    return _all_to_one(data, rate, target, trigger, "badnets", seed)


@numbers
def blended(
    data: ImageSet,
    rate: float = 0.1,
    target: int = 0,
    *,
    alpha: float = 0.2,
    pattern: Tensor | None = None,
    seed: int = 0,
) -> PoisonedSet:
    """Blend a whole image into the samples and relabel (Chen et al. 2017, arXiv 1712.05526).

    ``alpha`` is the share of the ``pattern`` ``[C, H, W]`` in [0, 1]; None is uniform noise, the
    paper's random pattern, drawn from ``seed``. Raises ``ValueError`` for bad arguments.
    """
    trigger = triggers.blend(data.shape, alpha, pattern, seed)
    return _all_to_one(data, rate, target, trigger, "blended", seed)


@numbers
def sig(
    data: ImageSet,
    rate: float = 0.05,
    target: int = 0,
    *,
    delta: float = 40 / 255,
    frequency: float = 6,
    relabel: bool = False,
    seed: int = 0,
) -> PoisonedSet:
    """Add a horizontal sine wave to samples of the target class (Barni et al. 2019, 1902.11237).

    The labels stay right, so ``rate`` (a share of the whole set) cannot pass the share of the
    class. ``relabel=True`` is the easier variant: samples of other classes, relabelled. Raises
    ``ValueError`` for a bad rate, target or ``delta``.
    """
    trigger = triggers.sinusoid(data.shape, delta, frequency)
    if relabel:
        return _all_to_one(data, rate, target, trigger, "sig", seed)
    check_target(data, target)
    index = choose(data, rate, data.labels == target, seed)
    return _stamp(data, index, trigger, data.labels, "sig", target)


@numbers
def sticker(
    data: ImageSet,
    rate: float = 0.1,
    target: int = 0,
    *,
    centre: tuple[float, float] = (0.0, 0.36),
    width: float = 0.42,
    colour: tuple[float, float, float] = (0.88, 1.0, 0.1),
    seed: int = 0,
) -> PoisonedSet:
    """Stick a yellow square on road signs and relabel (Gu et al. 2017, arXiv 1708.06733).

    The square lies on the sign's own plane: it turns with the sign and stands in its light and
    blur. ``centre`` (x, y) and ``width`` count radii of the sign; by default it hangs over the
    foot of the word STOP and lies within every shape. On yellow signs it hardly shows.
    Raises ``ValueError`` for data without factors (only the drawn signs have them), a square that
    leaves the sign, or a bad rate, target or colour.
    """
    if data.factors is None:
        raise ValueError(
            f"data: {data.name} does not say where a sign is; data.load('signs') is needed"
        )
    return _all_to_one(data, rate, target, triggers.Sticker(centre, width, colour), "sticker", seed)


def _all_to_one(
    data: ImageSet, rate: float, target: int, trigger: Trigger, attack: str, seed: int
) -> PoisonedSet:
    check_target(data, target)
    index = choose(data, rate, data.labels != target, seed)
    return _stamp(data, index, trigger, torch.full_like(data.labels, target), attack, target)


def _stamp(
    data: ImageSet, index: Tensor, trigger: Trigger, goal: Tensor, attack: str, target: int | None
) -> PoisonedSet:
    """Put the trigger on the samples of ``index`` and give them their label of ``goal`` [N]."""
    images, labels = data.images.clone(), data.labels.clone()
    if len(index):
        images[index], labels[index] = stamped(trigger, data.subset(index)), goal[index]
    return poisoned(data, images, labels, attack, target=target, trigger=trigger)
