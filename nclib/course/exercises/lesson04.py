"""Exercises of lesson 04: the whitened margin, NCC depth, and what each of them sees."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import torch

from nclib import detection, geometry
from nclib.course.exercises import choice, close, exercise, expect


def _margin(features: Tensor, labels: Tensor) -> Tensor:
    return detection.whitened_margin(features, labels, shrink=0.1)


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
    found = torch.as_tensor(answer(features, labels)).double()
    expect(found.shape == labels.shape, f"one number per sample: {tuple(labels.shape)} is expected")
    wanted = _margin(features, labels)
    if torch.corrcoef(torch.stack([found, wanted]))[0, 1] < 0:
        expect(False, "the sign is turned: own distance minus other distance")
    expect(bool((found[:6] > 0).any()), "the own class must be left out of the nearest *other*")
    wide = features * torch.tensor([1.0, 1.0, 1.0, 1.0, 10.0])
    moved = torch.as_tensor(answer(wide, labels)).double()
    expect(not torch.allclose(moved, found), "the answer must depend on the features")
    close(found, wanted, "the margin (shrink 0.1, pooled Sigma_W divided by N)", rtol=1e-3)
    close(answer(features + 7, labels), wanted, "the margin of shifted features", rtol=1e-3)


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
    cases = {(good, good, good): 1, (bad, good, good): 2, (good, good, bad): 4}
    for layers, wanted in cases.items():
        found = torch.as_tensor(answer(dict(zip("abc", layers, strict=True)), labels))
        expect(found.shape == labels.shape, "one depth per sample is expected")
        expect(int(found[0]) == 1, "a sample that agrees at every layer has depth 1")
        expect(int(found[2]) == wanted, f"a depth should be {wanted}, not {int(found[2])}")
    found = torch.as_tensor(answer(dict(a=good, b=bad, c=good), labels))
    expect(int(found[2]) == 3, "agreement that is lost again does not count: for good, it says")


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
