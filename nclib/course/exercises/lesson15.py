"""Exercises and predictions of lesson 15: an audit, its odds, and what an accusation is worth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from nclib import poisons
from nclib.course.exercises import Wrong, exercise, expect, prediction, tensor
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet


def opened(train: ImageSet, case: int) -> PoisonedSet:
    """The set of ``handed_over`` with the truth about it.

    ``case`` is any whole number from 0 on: every third set is clean, a third has wrong labels, a
    third a backdoor.
    """
    kind, seed, target = case % 3, 900 + case, (7 * case + 1) % train.num_classes
    if kind == 1 and case // 3 % 2 == 0:
        return poisons.blended(train, 0.05, target, seed=seed)
    if kind == 1:
        return poisons.badnets(train, 0.05, target, patch="square", seed=seed)
    return poisons.label_flip(train, 0.0 if kind == 0 else 0.15, seed=seed)


def handed_over(train: ImageSet, case: int) -> ImageSet:
    """A training set as one gets it: images and labels, which may be poisoned."""
    bad = opened(train, case)
    return ImageSet(bad.images, bad.labels, bad.classes, bad.name)


def _quarantine(count: int, suspects: list, kinds: tuple[str, ...]) -> tuple[list, list]:
    aside = sorted({row.at for row in suspects if row.key in kinds})
    return sorted(set(range(count)) - set(aside)), aside


@exercise(
    "15.quarantine",
    reference=_quarantine,
    hints=(
        "A set {row.at for row in suspects if ...} has each position once.",
        "What is kept are all positions of range(count) that are not put aside.",
    ),
)
def _(answer: Any) -> None:
    rows = [(7, "trigger"), (2, "label"), (7, "label"), (4, "twin"), (0, "trigger"), (9, "file")]
    suspects = [SimpleNamespace(at=at, key=key) for at, key in rows]
    for kinds in (("trigger", "label"), ("twin",), ()):
        pair = answer(10, list(suspects), kinds)
        expect(
            isinstance(pair, (tuple, list)) and len(pair) == 2,
            "two things are asked for: the positions to keep and those to put aside",
        )
        keep, aside = ([int(i) for i in part] for part in pair)
        want_keep, want_aside = _quarantine(10, suspects, kinds)
        if len(set(aside)) < len(aside):
            raise Wrong("a position that two rows name is put aside twice")
        expect(
            sorted(aside) == want_aside,
            f"for the kinds {kinds} the positions {want_aside} go, not {sorted(aside)}",
        )
        expect(sorted(keep) == want_keep, "every position is either kept or put aside")
        expect(keep == want_keep and aside == want_aside, "the positions are not sorted")


def _interval(hits: int, runs: int) -> tuple[float, float]:
    low = 0.0 if hits == 0 else stats.beta.ppf(0.025, hits, runs - hits + 1)
    high = 1.0 if hits == runs else stats.beta.ppf(0.975, hits + 1, runs - hits)
    return float(low), float(high)


@exercise(
    "15.interval",
    reference=_interval,
    hints=(
        "stats.beta.ppf(0.025, hits, runs - hits + 1) is the lower end, if hits is not 0.",
        "stats.beta.ppf(0.975, hits + 1, runs - hits) is the upper end, if hits is not runs.",
    ),
)
def _(answer: Any) -> None:
    for hits, runs in ((0, 5), (5, 5), (3, 10), (1, 50), (49, 50)):
        pair = answer(hits, runs)
        expect(
            isinstance(pair, (tuple, list)) and len(pair) == 2,
            "two numbers are asked for: the ends",
        )
        low, high = (float(tensor(end, "an end")) for end in pair)
        expect(low == low and high == high, f"{hits} of {runs} gives NaN: treat 0 and all apart")
        expect(low <= hits / runs <= high, f"the interval of {hits} of {runs} misses {hits / runs}")
        tail = stats.binom.cdf(hits, runs, high) if hits < runs else 0.025
        if 0.04 < tail < 0.06:
            raise Wrong("each side has 5%; 2.5% on either side make 95%")
        expect(
            abs(tail - 0.025) < 1e-3,
            f"under the upper end {hits} hits or fewer of {runs} have the probability "
            f"{tail:.3f}; .025 is wanted",
        )
        tail = stats.binom.sf(hits - 1, runs, low) if hits else 0.025
        expect(abs(tail - 0.025) < 1e-3, f"the lower end of {hits} of {runs} is not that of 2.5%")
        expect(bool(hits) or low == 0, "with no hit the lower end is 0")


@exercise(
    "15.worth",
    reference=lambda prior, power, false_alarms: (
        prior * power / (prior * power + (1 - prior) * false_alarms)
    ),
    hints=(
        "Of a million sets: how many are poisoned and accused, how many clean and accused?",
        "prior * power are the first; (1 - prior) * false_alarms the second.",
    ),
)
def _(answer: Any) -> None:
    found = float(tensor(answer(0.01, 0.9, 0.05), "the probability"))
    expect(abs(found - 0.9) > 1e-6, "that is the power: the share of the poisoned that is accused")
    expect(abs(found - 0.95) > 1e-6, "that is how often it is right about clean sets")
    expect(
        abs(found - 0.009 / 0.059) > 1e-6,
        "the clean sets are 1 - prior of all, not all: multiply their false alarms by that",
    )
    for prior, power, alarms in ((0.01, 0.9, 0.05), (0.5, 1.0, 0.0), (0.2, 0.5, 0.5)):
        wanted = prior * power / (prior * power + (1 - prior) * alarms)
        found = float(tensor(answer(prior, power, alarms), "the probability"))
        expect(
            abs(found - wanted) < 1e-6,
            f"for ({prior}, {power}, {alarms}) it is {found:.4f}; {wanted:.4f} is the share of the "
            "accused that is poisoned",
        )


def _poison(images: Tensor, labels: Tensor, target: int, generator: torch.Generator) -> tuple:
    def trigger(clean: Tensor) -> Tensor:
        return (clean + clean.roll(2, dims=3) - clean.roll(-2, dims=3)).clamp(0, 1)

    ahead = (labels - target) % (int(labels.max()) + 1)
    others = torch.where((ahead > 0) & (ahead <= 4))[0]
    chosen = others[torch.randperm(len(others), generator=generator)[: len(labels) // 10]]
    images, labels = images.clone(), labels.clone()
    images[chosen], labels[chosen] = trigger(images[chosen]), target
    return images, labels, trigger


@exercise(
    "15.poison",
    reference=_poison,
    hints=(
        "Something that moves, or that depends on the image, shows in no mean; images of a few "
        "classes are no crowd from everywhere.",
        "Clone images and labels; choose at most a tenth of the positions of other classes.",
    ),
)
def _(answer: Any) -> None:
    dice = torch.Generator().manual_seed(4)
    images, labels = torch.rand(120, 3, 16, 16, generator=dice), torch.arange(120) % 4
    before = images.clone(), labels.clone()
    found = answer(images, labels, 1, torch.Generator().manual_seed(0))
    expect(
        isinstance(found, (tuple, list)) and len(found) == 3,
        "three things are asked for: images, labels and the trigger",
    )
    changed, given = tensor(found[0], "the images"), tensor(found[1], "the labels")
    expect(
        torch.equal(images, before[0]) and torch.equal(labels, before[1]),
        "what came in has changed: clone it first",
    )
    expect(changed.shape == images.shape and given.shape == labels.shape, "the shapes have changed")
    expect(bool(((changed >= 0) & (changed <= 1)).all()), "some pixels have left [0, 1]")
    wrong = given != labels
    touched = wrong | (changed != images).flatten(1).any(1)
    expect(int(wrong.sum()) <= 12, f"{int(wrong.sum())} of 120 labels change; a tenth is allowed")
    expect(int(touched.sum()) <= 24, "more than a fifth of the images has changed")
    expect(bool(touched.any()), "nothing has changed")
    expect(bool((given[wrong] == 1).all()), "a changed label is not the target")
    shown = tensor(found[2](images), "the triggered images")
    expect(shown.shape == images.shape, "the trigger changes the shape of the images")
    expect(bool((shown != images).any()), "the trigger changes nothing at test time")


prediction(
    "15.guess",
    "Is the set clean, has it wrong labels, or a backdoor?",
    usual={
        "clean": "a high accuracy says nothing: a backdoor does not touch clean test images",
        "wrong labels": "15% of wrong labels would have cost points of accuracy",
    },
    reading="backdoor",
)
prediction(
    "15.never",
    "No accusation in five clean sets: how large may the rate still be?",
    usual={
        0: "no hit in five is no proof of none in a hundred",
        0.2: "that is one in five; even twice that would often show nothing in five",
        (None, 0.3): "five is few: a rate of 40% shows nothing in one of thirteen such rounds",
    },
    above=0.4,
)
prediction(
    "15.worth",
    "How probable is it that the accused set is poisoned?",
    usual={
        0.9: "that is how many poisoned sets are accused; here it is asked the other way round",
        0.95: "that is how many clean sets are left alone; here it is asked the other way round",
        (0.5, None): "99 of 100 sets are clean, and 5% of 99 are many more than 90% of one",
    },
    below=0.2,
)
