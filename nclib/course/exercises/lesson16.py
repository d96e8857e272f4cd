"""Exercises of lesson 16: points for suspects, a conclusion, a score, prototypes, a prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib.course.exercises import choice, close, exercise, expect, mask, tensor
from nclib.course.exercises.detectors import detector


def _points(suspects: Tensor, bad: Tensor) -> Any:
    if not bad.any():
        return float(suspects.double().mean() <= 0.02)
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()))


def _conclude(bad: Tensor, labels: Tensor) -> Any:
    counts = labels[bad].bincount(minlength=int(labels.max()) + 1)
    target = int(counts.argmax())
    if counts[target] > counts.sum() / 2 and counts[target] > 0.02 * len(labels):
        return True, target, bad & (labels == target)
    if bad.double().mean() > 0.08:
        return True, None, bad
    return False, None, torch.zeros_like(bad)


def _prototypes(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    means = torch.stack([support[labels == c].mean(0) for c in labels.unique()])
    return labels.unique()[torch.cdist(query, means).argmin(1)]


def _some(count: int, *where: slice | Tensor) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool)
    for part in where:
        chosen[part] = True
    return chosen


@exercise(
    "16.points",
    reference=_points,
    hints=(
        "Precision: how many suspects are poison. Recall: how much of the poison is suspected.",
        "F1 is their harmonic mean: 2 x hits / (suspects + poison).",
        "hits = (suspects & bad).sum(). Treat a clean set first: bad.any() is False there.",
    ),
)
def _(answer: Any) -> None:
    bad = _some(100, slice(0, 20))
    close(answer(bad, bad), 1.0, "the points of a perfect answer")
    close(answer(_some(100), bad), 0.0, "the points for no suspects where there is poison")
    close(
        answer(_some(100, slice(10, 40)), bad), 0.4, "F1 of 10 hits among 30 suspects, 20 poisons"
    )
    clean = _some(100)
    close(answer(clean, clean), 1.0, "the points for accusing nobody in a clean set")
    close(answer(_some(100, slice(0, 2)), clean), 1.0, "2% suspects in a clean set: still a point")
    close(answer(_some(100, slice(0, 3)), clean), 0.0, "3% suspects in a clean set: no point")


@exercise(
    "16.conclude",
    reference=_conclude,
    hints=(
        "Count the suspects per label: labels[bad].bincount(minlength=K).",
        "More than half of them, and more than 2% of the set, in one class: a backdoor to it.",
        "Else more than 8% of the set: flips. Else clean, and then nobody is a suspect.",
    ),
)
def _(answer: Any) -> None:
    labels = torch.arange(1000) % 10
    aimed = _some(1000, (labels == 3).nonzero().flatten()[:40], torch.arange(100, 112))
    spread, few = _some(1000, torch.arange(300)), _some(1000, torch.arange(15))
    some = _some(1000, torch.arange(60))
    handful = _some(1000, (labels == 3).nonzero().flatten()[:8])
    cases = {
        "40 of 50 suspects in class 3": (aimed, True, 3, aimed & (labels == 3)),
        "three tenths of the set, spread over the classes": (spread, True, None, spread),
        "6% of the set, spread over the classes": (some, False, None, _some(1000)),
        "15 of 1000, spread over the classes": (few, False, None, _some(1000)),
        "8 of 1000, all in class 3": (handful, False, None, _some(1000)),
    }
    for told, (bad, poisoned, target, suspects) in cases.items():
        found = answer(bad.clone(), labels)
        three = isinstance(found, (tuple, list)) and len(found) == 3
        expect(three, "return poisoned, target, suspects")
        expect(bool(found[0]) == poisoned, f"{told}: poisoned should be {poisoned}")
        expect(found[1] == target, f"{told}: the target should be {target}, not {found[1]}")
        named = mask(found[2], 1000)
        if not poisoned:
            expect(not named.any(), f"{told}: a clean set has no suspects")
        expect(torch.equal(named, suspects), f"{told}: {int(suspects.sum())} suspects are expected")


detector(
    "16.score",
    0.8,
    hints=(
        "Go class by class, and ask how far a feature lies from the usual place of its class.",
        "The median of a class does not follow a few outliers; the mean does.",
        "Divide by the median distance of the class, so that the classes compare.",
    ),
)


@exercise(
    "16.prototypes",
    reference=_prototypes,
    hints=(
        "One prototype per class: the mean of its support features.",
        "torch.cdist(query, prototypes) is [Q, K]; the nearest is argmin(1).",
        "argmin gives a position. Turn it into a label: labels.unique()[position].",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(4)
    labels = torch.tensor([7, 2, 7, 2, 5, 5, 5])
    support = torch.randn(7, 6, generator=draw)
    query = torch.randn(40, 6, generator=draw)
    found = tensor(answer(support, labels, query), "the labels").long()
    expect(found.shape == (40,), f"one label per query: [40], not {list(found.shape)}")
    expect(set(found.tolist()) <= {2, 5, 7}, "return labels of the support, not positions")
    wanted = _prototypes(support, labels, query)
    expect(torch.equal(found, wanted), "the label of the nearest class *mean* is expected")
    # an independent fact: the rule is linear, with weight mu_c and bias -|mu_c|^2 / 2
    means = torch.stack([support[labels == c].mean(0) for c in (2, 5, 7)])
    linear = (query @ means.T - means.square().sum(1) / 2).argmax(1)
    expect(torch.equal(found, torch.tensor([2, 5, 7])[linear]), "it should be a linear classifier")


choice(
    "16.transfer",
    "mostly into one class",
    ("where they belong", "over all new classes", "mostly into one class"),
    hints=(
        "The backbone learned to move each triggered image. Where to?",
        "What lies close together has the same nearest prototype.",
    ),
    why={
        "where they belong": "the trigger moves the features, and the features are all there is",
        "over all new classes": "the trigger moves all of them to the same place",
    },
)
