"""Exercises of lesson 01: angles, the simplex ETF, NC1, the nearest class mean."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import math

import torch

from nclib import geometry
from nclib.course.exercises import Wrong, choice, exercise, tensor


@exercise(
    "01.cosines",
    reference=(-1 / 2, -1 / 3),
    hints=(
        "Three directions in a plane, evenly spread, enclose 120 degrees. And cos 120 degrees is?",
        "The K directions sum to zero. Multiply that sum by one of them: 1 + (K-1) cos = 0.",
    ),
)
def _(answer: Any) -> None:
    for classes, cosine in zip((3, 4), answer, strict=True):
        if not abs(cosine) <= 1:  # nan is not
            raise Wrong(f"{cosine} is no cosine; give the cosine, not the angle")
        if not abs(cosine + 1 / (classes - 1)) <= 0.005:
            raise Wrong(f"{cosine:.3f} is not the cosine for {classes} classes; their sum is zero")


def _nc1(features: Tensor, labels: Tensor) -> float:
    return geometry.measure(features, labels).nc1


@exercise(
    "01.simplex_etf",
    reference=geometry.simplex_etf,
    hints=(
        "torch.eye(K) has K orthogonal unit vectors as rows; their mean has 1/K in every place.",
        "A centred row has squared length (K-1)/K. What makes it 1?",
    ),
)
def _(answer: Any) -> None:
    for classes in (2, 3, 10):
        frame = tensor(answer(classes)).double()
        if frame.shape != (classes, classes):
            raise Wrong(f"the shape is {tuple(frame.shape)}; {(classes, classes)} is expected")
        if not bool(frame.isfinite().all()):
            raise Wrong("some entries are not finite numbers: check the factor")
        if frame.sum(0).abs().max() > 1e-5:
            raise Wrong("the rows do not sum to zero: subtract the mean 1/K everywhere")
        if (frame.norm(dim=1) - 1).abs().max() > 1e-5:
            raise Wrong(f"the rows have length {frame[0].norm():.3f}, not 1: check the factor")
        if (frame - geometry.simplex_etf(classes)).abs().max() > 1e-5:
            raise Wrong("lengths and sum are right, but the cosines are not all -1/(K-1)")


def _trace_ratios(features: Tensor, labels: Tensor) -> tuple[float, ...]:
    """tr(Sigma_W) / tr(Sigma_B), and that divided by K."""
    means = torch.stack([features[labels == c].mean(0) for c in labels.unique()])
    within = (features - means[labels]).square().sum(1).mean()
    ratio = float(within / (means - means.mean(0)).square().sum(1).mean())
    return ratio, ratio / len(means)


@exercise(
    "01.nc1",
    reference=_nc1,
    hints=(
        "Convert with features.cpu().double() first. Then one mean per class, torch.stack'ed.",
        "Sigma_W divides by the number of images, Sigma_B by the number of classes. The trace of "
        "Sigma_W @ torch.linalg.pinv(Sigma_B, rtol=1e-10) is still to be divided by K.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(15)[:50]  # classes of 12 and 13 images
    means = torch.randn(4, 6, generator=generator)
    features = means[labels] + 0.4 * torch.randn(50, 6, generator=generator)
    found, exact = float(tensor(answer(features, labels))), _nc1(features, labels)
    wide = float(tensor(answer(features.double(), labels)))
    if abs(wide / exact - 1) < 1e-6 and not abs(found / exact - 1) < 1e-6:
        raise Wrong("right for float64 features only: convert first, features.cpu().double()")
    if not math.isfinite(found):
        raise Wrong(f"your value is {found}; a finite number is expected")
    if abs(found / exact / 4 - 1) < 1e-4:
        raise Wrong("your value is K times too large: divide the trace by K")
    if any(abs(found / ratio - 1) < 1e-4 for ratio in _trace_ratios(features.double(), labels)):
        raise Wrong("that is the ratio of two traces; take the trace of Sigma_W @ pinv(Sigma_B)")
    if abs(float(answer(features + 3, labels)) / found - 1) > 1e-3:
        raise Wrong("your value changes when all features are shifted: subtract the means")
    if abs(float(answer(5 * features, labels)) / found - 1) > 1e-3:
        raise Wrong("your value changes when all features are scaled: NC1 has no unit")
    on_simplex = float(answer(geometry.simplex_etf(4)[labels], labels))
    if abs(on_simplex) > 1e-8:
        raise Wrong(f"on an exact simplex NC1 is 0; yours is {on_simplex:.2g}")
    if abs(found / exact - 1) > 1e-6:
        raise Wrong(f"your value is {found:.4f}; the definition gives {exact:.4f}")


choice(
    "01.after_zero",
    "falls tenfold",
    ("stays", "halves", "falls tenfold"),
    why={
        "stays": "zero error is not zero loss: the network goes on training. Look at the figure",
        "halves": "the direction is right, the effect is much stronger. Look at the figure",
    },
    hints=("Is the loss zero when the error is zero?", "Read the log scale of the figure below."),
)

choice(
    "01.train_or_test",
    "train",
    ("train", "test"),
    why={"test": "the loss never sees a test image. Which set can be fitted exactly?"},
    hints=("Which images does the loss see?", "Compare the ends of the two curves below."),
)


@exercise(
    "01.nearest_class_mean",
    reference=lambda features, means: torch.cdist(features, means).argmin(1),
    hints=(
        "torch.cdist(a, b) gives all distances between the rows of a and the rows of b.",
        "You need the position of the smallest entry in each row: argmin along dimension 1.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(5, 3, generator=generator) + 2
    features = 2 * torch.randn(40, 3, generator=generator) + 2
    exact = (features[:, None] - means).square().sum(2).argmin(1)
    found = tensor(answer(features, means))
    if found.shape != (40,):
        raise Wrong(f"the shape is {tuple(found.shape)}; one position per feature is expected")
    if torch.equal(found, (features @ means.T).argmax(1)):
        raise Wrong("that is the largest inner product; long means win too often. Use the distance")
    if not torch.equal(found.long(), exact):
        raise Wrong(f"{int((found != exact).sum())} of 40 are not positions of the nearest mean")
