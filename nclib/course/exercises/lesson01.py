"""Exercises of lesson 01: angles, the lowest loss, the simplex, NC1, the nearest mean, a lie."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nclib import geometry
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor


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


def _lowest_loss(num_classes: int, radius: float) -> float:
    wrong = (num_classes - 1) * math.exp(-num_classes / (num_classes - 1) * radius)
    return math.log(1 + wrong)


@exercise(
    "01.lowest_loss",
    reference=_lowest_loss,
    hints=(
        "The formula stands above the cell. With radius 0 all logits are equal: the loss is log K.",
        "math.log(1 + (K - 1) * math.exp(-K / (K - 1) * radius))",
    ),
)
def _(answer: Any) -> None:
    found = {(k, r): float(tensor(answer(k, r))) for k in (2, 3, 10) for r in (0.0, 1.0, 5.0)}
    for k in (2, 3, 10):
        expect(
            abs(found[k, 0.0] - math.log(k)) < 1e-6,
            f"with radius 0 nothing can be told apart, and the loss of {k} classes is log {k} = "
            f"{math.log(k):.4f}; yours is {found[k, 0.0]:.4f}",
        )
        frame = 5**0.5 * geometry.simplex_etf(k)  # an independent fact: the loss of the simplex
        exact = float(torch.nn.functional.cross_entropy(frame @ frame.T, torch.arange(k)))
        said = f"the simplex of {k} classes with radius 5 has the loss {exact:.3g}"
        per_class = math.log(1 + (k - 1) * math.exp(-5.0))
        expect(
            abs(found[k, 5.0] / per_class - 1) > 1e-3,
            f"{said}; yours is {found[k, 5.0]:.3g}: the exponent has the factor K / (K - 1)",
        )
        expect(abs(found[k, 5.0] / exact - 1) < 1e-3, f"{said}; yours is {found[k, 5.0]:.3g}")
    close(found[3, 1.0], _lowest_loss(3, 1.0), "the lowest loss of 3 classes with radius 1")


prediction(
    "01.after_zero",
    "By which factor does NC1 fall after the training error has reached zero?",
    above=3,
    unit="times",
    usual={
        (None, 1.5): "zero error is not zero loss: a right answer can still become more certain",
        (1.5, 3): "the direction is right, and the effect is stronger: read the log scale",
    },
)

prediction(
    "01.no_decay",
    "How many times larger is NC1 without weight decay than with 1e-2?",
    above=4,
    unit="times",
    usual={
        (None, 1.0): "without a bound on the lengths the loss falls by longer features as well",
        (1.0, 3): "both networks fit, so the difference is easy to underrate: see the lines' ends",
    },
)

prediction(
    "01.by_layer",
    "What does NC1 of the training images do from the shallow layers to the deep ones?",
    reading="falls",
    usual={
        "flat": "each layer gathers a class a little more; that is what the layers are for",
        "rises": "NC1 measures the spread within the classes: it is large where they are mixed",
        "dips": "no layer undoes what an earlier one has gathered, not in this network",
    },
)

prediction(
    "01.liar",
    "How many times larger is the NC1 of a network with 20% wrong labels than its honest twin's?",
    above=3,
    unit="times",
    usual={
        (None, 1.5): "memorising costs: like images with unlike labels have to be pulled apart",
        (50, None): "the network learns the wrong labels by heart, and they collapse, too",
    },
)


def _traceless(labels: Tensor) -> Tensor:
    swapped = labels.clone()
    swapped[labels == 0], swapped[labels == 1] = 1, 0
    return swapped


@exercise(
    "01.traceless",
    reference=_traceless,
    hints=(
        "The random labels were hard to learn because like images got unlike labels. Avoid that.",
        "A network sees images. What would it notice if two classes had exchanged their names?",
    ),
)
def _(answer: Any) -> None:
    labels = torch.arange(10).repeat(20)
    before = labels.clone()
    found = tensor(answer(labels))
    expect(torch.equal(labels, before), "the labels that came in should stay as they were: copy")
    expect(found.shape == labels.shape, f"one label per image: {tuple(labels.shape)}")
    expect(not found.is_floating_point(), "labels are whole numbers")
    expect(0 <= int(found.min()) <= int(found.max()) <= 9, "a label here runs from 0 to 9")
    share = float((found.cpu() != before).double().mean())
    expect(share >= 0.199, f"{share:.0%} of the labels are wrong; at least 20% are asked for")


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
