"""How often the transplant test is right *on this data*: known poison, planted in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nclib import poisons
from nclib.correction.verdict import Verdict, transplant
from nclib.data import ImageSet
from nclib.doors import integer

Plant = Callable[[ImageSet, float, int, int], ImageSet]


def _patch(data: ImageSet, rate: float, target: int, seed: int) -> ImageSet:
    return poisons.badnets(data, rate, target, patch="square", seed=seed)


def _blend(data: ImageSet, rate: float, target: int, seed: int) -> ImageSet:
    return poisons.blended(data, rate, target, seed=seed)


PLANTS: dict[str, tuple[Plant, float]] = {
    "1% patch": (_patch, 0.01),
    "5% patch": (_patch, 0.05),
    "5% blend": (_blend, 0.05),
}
FLIPS = 0.1
LEAST = 10  # images that a plant has at least


@dataclass(frozen=True)
class Planted:
    """What ``planted`` counted; each pair is (times, of so many)."""

    found: dict[str, tuple[int, int]]  # the planted kind: its class accused, most of it in the mask
    accused: tuple[int, int]  # classes in which nothing was planted
    permuted: tuple[int, int]  # classes, by groups that were shuffled
    trainings: int
    seconds: float  # CPU time of this process

    def __str__(self) -> str:
        named = {kind: kind if kind.endswith("s") else f"a {kind}" for kind in self.found}
        parts = [f"finds {named[kind]} {n} times of {of}" for kind, (n, of) in self.found.items()]
        wronged, of = self.accused
        parts.append(f"accuses a class without a trigger {wronged} times of {of}")
        return f"on this set the test {', '.join(parts)}"


def planted(data: ImageSet, *, runs: int = 3, seed: int = 0, **options: Any) -> Planted:
    """Run the whole of ``transplant`` on ``data`` with known poison in it, and count.

    Each of ``runs`` runs stamps a patch (1% and 5% of the set, 10 images at least) and a blended
    noise (5%) into classes drawn at random, into half of the classes at most; another run flips
    10% of the labels. Last, groups are shuffled within their classes: then there is nothing to be
    found. ``options`` go to ``transplant``. What is in ``data`` already counts against the test, so
    hand over what is left after its verdict. Costs up to 7 (2 ``runs`` + 1) trainings.
    """
    integer(runs, "runs", 1)
    start, trainings = time.process_time(), 0
    found, tried = Counter[str](), Counter[str]()
    wronged, innocent = 0, 0
    for run in range(runs):
        dirty, groups = _stamped(data, run, seed + run)
        verdict = transplant(dirty, seed=seed + run, **options)
        trainings += verdict.trainings + 1
        for kind, (target, group) in groups.items():
            tried[kind] += 1
            found[kind] += target in verdict.classes and _most(verdict, group)
        targets = {target for target, _ in groups.values()}
        wronged += len(set(verdict.classes) - targets)
        innocent += data.num_classes - len(targets)

        flipped = poisons.label_flip(data, FLIPS, seed=seed + run)
        verdict = transplant(flipped, seed=seed + run, **options)
        trainings += verdict.trainings + 1
        kind = f"{FLIPS:.0%} of wrong labels"
        tried[kind] += 1
        found[kind] += verdict.call == "wrong labels" and _most(verdict, flipped.is_poisoned)
        wronged += len(verdict.classes)
        innocent += data.num_classes
    null = transplant(data, seed=seed, permute=True, **options)
    counts = {kind: (found[kind], tried[kind]) for kind in tried}
    seconds = round(time.process_time() - start, 1)
    permuted = (len(null.classes), data.num_classes)
    trainings += null.trainings + 1
    return Planted(counts, (wronged, innocent), permuted, trainings, seconds)


def _stamped(data: ImageSet, run: int, seed: int) -> tuple[ImageSet, dict[str, tuple[int, Tensor]]]:
    """The set with plants in half of its classes; of each kind the class and the samples [N]."""
    order = torch.randperm(data.num_classes, generator=torch.Generator().manual_seed(seed))
    groups: dict[str, tuple[int, Tensor]] = {}
    kinds = list(PLANTS)
    for i in range(min(len(kinds), max(1, data.num_classes // 2))):
        kind = kinds[(run + i) % len(kinds)]
        (plant, rate), target, before = PLANTS[kind], int(order[i]), data.labels
        data = plant(data, max(rate, LEAST / len(data)), target, seed + 17 * i)
        groups[kind] = (target, (data.labels != before).cpu())
    return data, groups


def _most(verdict: Verdict, group: Tensor) -> bool:
    return float(verdict.mask[group.cpu()].double().mean()) > 0.5
