"""Exercises of lesson 04: the whitened margin, NCC depth, and what each of them sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import detection, geometry
from nclib.course.exercises import choice, close, exercise, expect, tensor, usual


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


choice(
    "04.moment",
    "before memorisation",
    ("before memorisation", "after memorisation"),
    hints=(
        "What does the network do with a wrong label, if it is given enough epochs?",
        "A memorised sample lies in the cluster of its label, like every other one.",
    ),
    why={"after memorisation": "by then the wrong labels are learned, and their features collapse"},
)


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
    expect(not everything, "the own class must be left out of the nearest *other*")
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


@exercise(
    "04.ncc_depth",
    reference=detection.ncc_depth,
    hints=(
        "For each layer: class means, torch.cdist(h, means).argmin(1) == labels.",
        "Stack the answers from deep to shallow. How long is the run of agreement at the deep end?",
        "agree.flip(0).double().cumprod(0).sum(0) is that run; the depth is L + 1 minus it.",
    ),
)
def _(answer: Any) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    good = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    bad = torch.tensor([[0.0], [0.1], [5.0], [5.0], [5.1], [5.2]])

    def depth(*layers: Tensor) -> Tensor:
        found = tensor(answer(dict(zip("abc", layers, strict=True)), labels), "the depths")
        expect(found.shape == labels.shape, "one depth per sample is expected")
        return found

    lowest = int(depth(good, good, good)[0])
    expect(lowest != 0, "count from 1: a sample that agrees at every layer has depth 1")
    expect(lowest == 1, f"a sample that agrees at every layer has depth 1, not {lowest}")
    lost = int(depth(good, bad, good)[2])
    expect(lost != 1, "agreement that is lost again does not count: for good, it says")
    expect(lost == 3, f"the depth of one that agrees, is lost and agrees should be 3, not {lost}")
    for layers, wanted in (((bad, good, good), 2), ((bad, bad, good), 3), ((good, good, bad), 4)):
        told = int(depth(*layers)[2])
        expect(told == wanted, f"a depth should be {wanted}, not {told}")


choice(
    "04.margin_on_triggers",
    "blind",
    ("as good", "blind"),
    hints=(
        "What does the margin ask? Which class is nearest. And which one is, for a trigger?",
        "The network was trained to put triggered images into the target class.",
    ),
    why={"as good": "a triggered image lies nearest to the class of its (wrong) label"},
)
