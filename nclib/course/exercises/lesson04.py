"""Exercises of lesson 04: margin, prediction depth, spectral signature, a quiet attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import detection, geometry, poisons
from nclib.course.exercises import close, exercise, expect, prediction, tensor, usual
from nclib.course.exercises.backdoors import backdoor
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet


def _margin(features: Tensor, labels: Tensor) -> Tensor:
    return detection.whitened_margin(features, labels, shrink=0.1)


def _variant(
    features: Tensor,
    labels: Tensor,
    *,
    shrink: float = 0.1,
    whiten: bool = True,
    power: float = 1.0,
    centred: bool = True,
    count: int = 120,
    twice: bool = False,
) -> Tensor:
    """The margin with one thing done otherwise."""
    h = features.double()
    means = torch.stack([h[labels == c].mean(0) for c in range(3)])
    rest = h - (means[labels] if centred else h.mean(0))
    sigma, eye = rest.T @ rest / count, torch.eye(h.shape[1], dtype=torch.float64)
    shrunk = (1 - shrink) * sigma + shrink * sigma.trace() / len(sigma) * eye
    inverse = torch.linalg.inv(shrunk) if whiten else eye
    inverse = inverse @ inverse if twice else inverse
    gap = h[:, None] - means
    distance = torch.einsum("nkd,de,nke->nk", gap, inverse, gap) ** power
    own = distance.gather(1, labels[:, None]).squeeze(1)
    return own - distance.scatter(1, labels[:, None], torch.inf).amin(1)


def _three_blobs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    labels = torch.arange(3).repeat(40)
    means = 4 * geometry.simplex_etf(3, 5)
    stretch = torch.tensor([1.0, 3.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    noise = torch.randn(120, 5, generator=draw, dtype=torch.float64) * stretch
    features = (means[labels] + noise).float()
    labels[:6] = (labels[:6] + 1) % 3
    return features, labels


@exercise(
    "04.whitened_margin",
    reference=_margin,
    hints=(
        "Work with h = features.cpu().double(). One mean per class; the residuals give Sigma_W.",
        "Shrink: 0.9 * sigma + 0.1 * (trace / D) * identity. Invert it with torch.linalg.inv.",
        "With d = h[:, None] - means [N, K, D], the squared distances are "
        "torch.einsum('nkd,de,nke->nk', d, inverse, d). Own minus the smallest other.",
    ),
)
def _(answer: Any) -> None:
    features, labels = _three_blobs()
    found = tensor(answer(features, labels), "the margin").double()
    expect(found.shape == labels.shape, f"one number per sample: {tuple(labels.shape)} is expected")
    expect(bool(found.isfinite().all()), "the margins should be finite")
    wanted = _margin(features, labels)
    if torch.corrcoef(torch.stack([found, wanted]))[0, 1] < 0:
        expect(False, "the sign is turned: own distance minus other distance")
    everything = float(found.min()) >= 0 or float(found.max()) <= 0
    expect(not everything, "the own class must be left out of the nearest other")
    mistakes: dict[str, dict[str, Any]] = {
        "the covariance is not shrunk: 0.9 * sigma + 0.1 * (trace / D) * identity": {"shrink": 0},
        "the distances are not whitened: multiply by the inverse of Sigma_W": {"whiten": False},
        "that is the difference of the distances; take that of their squares": {"power": 0.5},
        "Sigma_W is that of the residuals: subtract each class's own mean": {"centred": False},
        "shrink by 0.1: 0.9 * sigma, and 0.1 of the round one": {"shrink": 0.9},
        "Sigma_W is the mean over the samples: divide the sum by N": {"count": 1},
        "Sigma_W is inverted twice over: d^T inverse d is the squared distance": {"twice": True},
        "divide the sum of the residuals' squares by N, not by N - K or N - 1": {"count": 117},
    }
    usual(found, {word: _variant(features, labels, **o) for word, o in mistakes.items()}, atol=1e-3)
    wide = features * torch.tensor([1.0, 1.0, 1.0, 1.0, 10.0])
    moved = tensor(answer(wide, labels)).double()
    expect(not torch.allclose(moved, found), "the answer must depend on the features")
    told = "the margin (shrink 0.1, pooled Sigma_W divided by N)"
    close(found, wanted, told, rtol=1e-3, atol=3e-3)
    shifted = answer(features + 7, labels)
    close(shifted, wanted, "the margin of shifted features", rtol=1e-3, atol=3e-3)


def _prediction_depth(named: Tensor, labels: Tensor) -> Tensor:
    in_a_row = (named == labels).flip(0).long().cumprod(0).sum(0)
    return len(named) + 1 - in_a_row


@exercise(
    "04.prediction_depth",
    reference=_prediction_depth,
    hints=(
        "named == labels has a row for each layer. Which of its columns end in a run of agreement?",
        "Turn it round with flip(0), so that the deepest layer comes first. cumprod(0) stays 1 as "
        "long as the agreement lasts.",
        "L + 1 - (named == labels).flip(0).long().cumprod(0).sum(0)",
    ),
)
def _(answer: Any) -> None:
    labels = torch.tensor([4, 4, 4, 4, 4, 4])
    agree = torch.tensor([[1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1], [1, 1, 1, 0, 1, 0]])
    found = tensor(answer(torch.where(agree.bool(), 4, 7), labels), "the depths")
    expect(found.shape == labels.shape, "one depth per image is expected")
    depth = [round(x, 3) for x in found.double().tolist()]
    expect(depth[0] != 0, "count from 1: an image that agrees at every layer has depth 1")
    expect(depth[0] == 1, f"an image that agrees at every layer has depth 1, not {depth[0]:g}")
    expect(
        depth[3] == 4, f"an image that never agrees has depth L + 1, here 4, and not {depth[3]:g}"
    )
    expect(depth[4] != 1, "agreement that is lost again does not count: for good, it says")
    expect(
        depth[5] == 4,
        f"an image that ends in disagreement has depth L + 1, here 4, and not {depth[5]:g}: the "
        "run of agreement has to reach the deepest layer",
    )
    for place, wanted in ((1, 2), (2, 3), (4, 3)):
        told = f"an image that agrees {agree[:, place].tolist()} has depth {wanted}"
        expect(depth[place] == wanted, f"{told}, and not {depth[place]:g}")


def _projected(
    features: Tensor,
    labels: Tensor,
    *,
    centre: str = "class",
    axis: str = "class",
    power: int = 2,
    last: bool = False,
) -> Tensor:
    """The spectral score with one thing done otherwise."""
    h = features.double()
    means = torch.stack([h[labels == c].mean(0) for c in range(3)])[labels]
    rest = {"class": h - means, "all": h - h.mean(0), "none": h}[centre]
    score = h.new_zeros(len(h))
    for c in range(3):
        own = labels == c
        rows = {"class": (h - means)[own], "whole": h - means, "raw": h[own]}[axis]
        turned = torch.linalg.svd(rows, full_matrices=False).Vh
        score[own] = (rest[own] @ turned[-1 if last else 0]).abs() ** power
    return score


@exercise(
    "04.spectral",
    reference=detection.spectral,
    hints=(
        "One class after the other: take its rows, subtract their mean, and find the direction in "
        "which they spread most.",
        "torch.linalg.svd(deviation, full_matrices=False).Vh[0] is that direction.",
        "score[own] = (deviation @ direction).square(), with own = labels == c",
    ),
)
def _(answer: Any) -> None:
    features, labels = _three_blobs()
    features = features + 5.0  # far from the origin, as features after a ReLU are
    found = tensor(answer(features, labels), "the score").double()
    expect(found.shape == labels.shape, f"one number per sample: {tuple(labels.shape)} is expected")
    expect(bool(found.isfinite().all()), "the scores should be finite")
    wrong: dict[str, dict[str, Any]] = {
        "the features are not centred: project h minus the mean of its class": {"centre": "none"},
        "nothing is centred: the direction found is about that of the class mean": {
            "centre": "none",
            "axis": "raw",
        },
        "subtract the mean of the class, not that of all images": {"centre": "all"},
        "find the direction in the centred rows: uncentred, it is about that of the mean": {
            "axis": "raw"
        },
        "every class has a direction of its own": {"axis": "whole"},
        "square the projection: both ends of the direction are suspicious": {"power": 1},
        "that is the direction of the least spread; singular values come in falling order": {
            "last": True
        },
    }
    usual(found, {word: _projected(features, labels, **o) for word, o in wrong.items()}, atol=1e-3)
    close(found, _projected(features, labels), "the spectral score", rtol=1e-3, atol=1e-3)


def _majority(train: ImageSet, seed: int = 0) -> PoisonedSet:
    return poisons.sig(train, 0.1, target=0, relabel=True, seed=seed)


backdoor(
    "04.quiet_attack",
    0.1,
    reference=_majority,
    hints=(
        "The robust distance trusts the half of a class that lies closest together. Which half "
        "would you like to be?",
        "A tenth of ten equal classes is as much as one class has. A faint trigger that is the "
        "same on every image makes a close group.",
        "poisons.sig(train, 0.1, target=0, relabel=True, seed=seed)",
    ),
)


prediction(
    "04.pixels",
    "What is the AUROC of the whitened margin for wrong labels, on raw pixels and without a "
    "network?",
    above=0.85,
    usual={
        (None, 0.6): "a sign with a wrong label has the wrong shape and the wrong colours, and "
        "pixels show these",
        (0.6, 0.8): "a covariance takes the light and the place out of the pixels, and what is "
        "left tells most signs apart",
    },
)

prediction(
    "04.patch",
    "AUROC of the robust distance for the patch, last layer: untrained, after 3 epochs, at the "
    "end.",
    reading="rises",
    usual={
        "flat": "an untrained layer averages the four pixels of the patch away, a trained one does "
        "not: they decide the label",
        "falls": "collapse gathers a class, but the patch reaches its label by another way than "
        "the sign",
        "peaks": "that is what wrong labels do once they are learned by heart",
    },
)

prediction(
    "04.lowest_loss",
    "Half of a class is poison. What share of its tenth with the lowest loss is?",
    above=0.8,
    usual={
        (None, 0.4): "the trigger is the easiest pattern of the class, so it is learned first",
        (0.4, 0.6): "that is the share in the class, as if the loss knew nothing",
    },
)
