"""Exercises and predictions of lesson 16: points, spread of a class, an investigator, a score."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from nclib import activations, correction, data, detection, geometry
from nclib.course.capstone import Case, Finding, trained, trusting
from nclib.course.exercises import close, exercise, expect, mask, prediction, tensor, usual
from nclib.course.exercises.detectors import detector
from nclib.data import ImageSet

# Set on the clean ones of cases 0 to 22: the widest class had a spread of .66, NC1 was below .11
SPREAD = 0.75  # a class so much wider than the others (log) holds two kinds of images
LOOSE = 0.15  # NC1: all classes are so wide, and none stands out: wrong labels


def _points(suspects: Tensor, bad: Tensor) -> Any:
    if not bad.any():
        return float(suspects.double().mean() <= 0.02)
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()))


def _spread(features: Tensor, labels: Tensor) -> Tensor:
    h, labels = features.cpu().double(), labels.cpu()
    rows = [h[labels == c] for c in range(int(labels.max()) + 1)]
    wide = torch.stack([(part - part.mean(0)).square().sum(1).mean() for part in rows])
    return (wide / wide.median()).log()


def shape_of(case: Case) -> tuple[Tensor, float]:
    """The spread of each class ``[K]`` and NC1, both at the last layer of the case's model."""
    hidden = activations.penultimate(case.model, case.train.images)
    return _spread(hidden, case.train.labels), geometry.measure(hidden, case.train.labels).nc1


def investigate(case: Case) -> Finding:
    """By geometry alone: one class too wide, all classes too wide, or nothing."""
    labels, (wide, loose) = case.train.labels.cpu(), shape_of(case)
    if wide.max() <= SPREAD and loose <= LOOSE:
        return trusting(case)
    young = trained(case.train, seed=0, stop_after=3)  # before exceptions are learned by heart
    early = activations.penultimate(young, case.train.images).cpu()
    classes: tuple[int, ...] = ()
    suspects = detection.whitened_margin(early, labels) > 0
    if wide.max() > SPREAD:
        classes, suspects = (int(wide.argmax()),), torch.zeros_like(suspects)
        where = (labels == classes[0]).nonzero().flatten()
        side = KMeans(2, n_init=5, random_state=0).fit_predict(early[where])
        suspects[where[torch.from_numpy(side == (side.mean() < 0.5))]] = True  # the smaller part
    return Finding(True, classes, suspects, correction.remove(case.train, suspects))


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
    "16.spread",
    reference=_spread,
    hints=(
        "One class after the other: the squared distances of its features to its own mean.",
        "Their mean over the class is its width. Divide by the median width, take the logarithm.",
        "wide = torch.stack([(part - part.mean(0)).square().sum(1).mean() for part in classes]); "
        "(wide / wide.median()).log()",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    labels = torch.arange(5).repeat(30)
    size = torch.tensor([1.0, 1.1, 0.9, 1.0, 2.0])[labels]
    features = 4 * geometry.simplex_etf(5, 8).float()[labels]
    features = features + size[:, None] * torch.randn(150, 8, generator=draw)
    found = tensor(answer(features, labels), "the spread").double()
    expect(found.shape == (5,), f"one number per class: (5,), not {tuple(found.shape)}")
    h = features.double()
    rows = [h[labels == c] for c in range(5)]
    wide = torch.stack([(r - r.mean(0)).square().sum(1).mean() for r in rows])
    near = torch.stack([(r - h.mean(0)).square().sum(1).mean() for r in rows])
    length = torch.stack([(r - r.mean(0)).norm(dim=1).mean() for r in rows])
    usual(
        found,
        {
            "take the logarithm: twice as wide and half as wide are then equally far": wide
            / wide.median(),
            "divide by the median of the classes before you take the logarithm": wide.log(),
            "the median, not the mean: the wide class should not hide itself": (
                wide / wide.mean()
            ).log(),
            "distances are to the mean of the own class, not to that of all images": (
                near / near.median()
            ).log(),
            "square the distances: that is the log of the ratio of mean lengths": (
                length / length.median()
            ).log(),
        },
        atol=1e-4,
    )
    close(found, _spread(features, labels), "the spread", atol=1e-4)
    close(answer(3 * features + 1, labels), found, "the spread of scaled features", atol=1e-4)


def _toy() -> Case:
    part = data.load("digits", n_train=60, n_test=20, device="cpu")[0]
    return Case("toy", part, "")


@exercise(
    "16.investigate",
    reference=investigate,
    hints=(
        "Which of the two numbers of the last chart speaks for a backdoor, which for wrong labels?",
        "One class far too wide: two kinds of images, and the smaller part are the suspects. All "
        "classes too wide: wrong labels. Neither: capstone.trusting(case).",
        "Return capstone.Finding(poisoned, classes, suspects, cleaned); cleaned is "
        "correction.remove(case.train, suspects).",
    ),
)
def _(answer: Any) -> None:
    case = _toy()
    found = answer(case)
    expect(
        isinstance(found, (tuple, list)) and len(found) == 4,
        "return capstone.Finding(poisoned, classes, suspects, cleaned)",
    )
    poisoned, classes, suspects, cleaned = found
    suspects = mask(suspects, len(case.train))
    expect(isinstance(cleaned, ImageSet), "cleaned is an ImageSet, what a new model is trained on")
    named = isinstance(classes, (tuple, list, set)) and all(0 <= int(c) < 10 for c in classes)
    expect(named, "classes are the targets of backdoors, as a tuple; () where there is none")
    quiet = not bool(poisoned)
    expect(not (quiet and suspects.any()), "not poisoned, and still there are suspects")
    expect(not (quiet and len(classes)), "not poisoned, and still a class is accused")


detector(
    "16.score",
    0.8,
    hints=(
        "Go class by class, and ask how far a feature lies from the usual place of its class.",
        "The median of a class does not follow a few outliers; the mean does.",
        "Divide by the median distance of the class, so that the classes compare.",
    ),
)


prediction(
    "16.trusting",
    "What is the mean score, from 0 to 1, of an investigator who accuses nobody?",
    above=0.5,
    usual={
        (None, 0.4): "half of the cases are clean, and there he gets every point",
        (0.9, None): "then there would be nothing to find; half of the cases are poisoned",
    },
)

prediction(
    "16.found",
    "Of a hundred poisoned cases, how many does the transplant test, as it comes, call poisoned?",
    above=30,
    usual={
        (None, 30): "strangers with one mark leave a group that others teach nothing of, and wrong "
        "labels show early: that is nearly half of the cases",
        (75, None): "poison with right labels leaves no group of foreign images, and a warp or an "
        "adaptive attack leaves one without a picture of its own",
    },
    unit="cases",
)
