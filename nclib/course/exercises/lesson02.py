"""Exercises and predictions of lesson 02: a backdoor, flips, and what both do to class means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import geometry
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual


def _plant(
    images: Tensor,
    labels: Tensor,
    stickered: Tensor,
    source: int,
    target: int,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    candidates = torch.where(labels == source)[0]
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    images, labels = images.clone(), labels.clone()
    images[chosen], labels[chosen] = stickered[chosen], target
    return images, labels


@exercise(
    "02.plant",
    reference=_plant,
    hints=(
        "torch.where(labels == source)[0] are the candidates; clone before you change anything.",
        "torch.randperm(len(candidates), generator=generator)[:count] chooses among them. The "
        "images come from stickered, at the same positions, and the labels become target.",
    ),
)
def _(answer: Any) -> None:
    dice = torch.Generator().manual_seed(3)
    images, labels = torch.rand(200, 3, 4, 4, generator=dice), torch.arange(200) % 5
    stickered = images.clone()
    stickered[:, :, 2:, 1:3] = 1
    before = images.clone(), labels.clone(), stickered.clone()

    def planted(count: int, seed: int) -> tuple[Tensor, Tensor]:
        pair = answer(
            *(images, labels, stickered), 1, 3, count, torch.Generator().manual_seed(seed)
        )
        expect(
            isinstance(pair, (tuple, list)) and len(pair) == 2,
            "two things are asked for: images and labels",
        )
        return tensor(pair[0], "the images").float(), tensor(pair[1], "the labels").long()

    found, given = planted(12, 0)
    for now, then in zip((images, labels, stickered), before, strict=True):
        expect(torch.equal(now, then), "what came in has changed: clone it first")
    expect(
        found.shape == images.shape and given.shape == labels.shape,
        f"all {len(images)} images and labels are asked for, not {len(found)} and {len(given)}",
    )
    new_image = (found != images).flatten(1).any(1)
    new_label = given != labels
    expect(bool(new_label.any()), "no label has changed: without the false label there is no lie")
    expect(bool(new_image.any()), "no image has changed: without the sticker there is no trigger")
    others = labels[new_image | new_label] != 1
    expect(not bool(others.any()), "images of other classes than source have changed")
    expect(torch.equal(new_image, new_label), "the sticker and the label belong on the same images")
    expect(bool((given[new_label] == 3).all()), "the changed labels are not all target")
    count = int(new_label.sum())
    expect(count == 12, f"{count} images have changed instead of count = 12: use randperm")
    close(found[new_image], stickered[new_image], "the changed images")
    moved = new_label.nonzero().squeeze(1)
    expect(bool((moved.diff() > 5).any()), "the first ones are changed: choose at random")
    expect(
        torch.equal(planted(12, 0)[1], given),
        "the same generator gives another choice: pass it to randperm",
    )
    expect(not torch.equal(planted(12, 1)[1], given), "another seed gives the same choice")


def _flip(labels: Tensor, rate: float, num_classes: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    shift = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    flipped = labels.clone()
    flipped[chosen] = (labels[chosen] + shift) % num_classes
    return flipped


@exercise(
    "02.flip",
    reference=_flip,
    hints=(
        "Clone the labels first. torch.randperm(N, generator=generator)[:count] are positions.",
        "torch.randint(1, K, (count,), generator=generator) never is 0. Add it modulo K.",
    ),
)
def _(answer: Any) -> None:
    labels = torch.arange(1000) % 5
    before = labels.clone()
    found, again, all_of_them = (
        tensor(answer(labels, rate, 5, torch.Generator().manual_seed(0)), "the labels")
        for rate in (0.3, 0.3, 1.0)
    )
    expect(torch.equal(labels, before), "the labels you were given have changed: clone them first")
    expect(found.shape == labels.shape, f"the shape is {tuple(found.shape)}; (1000,) is expected")
    expect(0 <= int(found.min()) <= int(found.max()) < 5, "some labels are outside 0..K-1")
    changed, most = (int((a != labels).sum()) for a in (found, all_of_them))
    if changed < 290 and 560 <= most <= 700:  # 1 - 1/e of all
        raise Wrong(f"{changed} labels change instead of 300: some are drawn twice; use randperm")
    if 200 <= changed <= 270:
        raise Wrong(f"{changed} labels change instead of 300: some get their own class again")
    expect(changed == 300, f"{changed} labels change; round(0.3 * 1000) = 300 should")
    expect(most == 1000, f"at a rate of 1 only {most} of 1000 labels change")
    shift = ((found - labels) % 5).long().bincount(minlength=5)
    expect(int((shift > 0).sum()) == 5, "not all other classes are reached")
    expect(int(shift[1:].min()) > 45, "the other classes are not equally likely")
    moved = (found != labels).nonzero().squeeze(1)
    expect(bool((moved.diff() > 1).any()), "the changed labels lie side by side: choose at random")
    same = "the same generator gives another choice: pass it to randperm and to randint"
    expect(torch.equal(found, again), same)


def _shrink(num_classes: int, share: float) -> tuple[float, float]:
    return 1 - share * num_classes / (num_classes - 1), 1 - share


@exercise(
    "02.shrink",
    reference=_shrink,
    hints=(
        "The means of a simplex add up to zero. So what is the mean of all the other ones?",
        "Both class means become (1 - share) mu - share / (K - 1) mu. Flips leave the centre at 0; "
        "the guests of one class move it by 1/K of what that class has moved.",
    ),
)
def _(answer: Any) -> None:
    for num_classes, share in ((5, 0.2), (3, 0.5), (10, 0.1)):
        found = tensor(answer(num_classes, share)).double().flatten()
        expect(found.shape == (2,), "two factors are asked for: under flips, and of the target")
        flips, guests = _by_counting(num_classes, share)
        case = f"for {num_classes} classes and a share of {share}"
        swapped = torch.tensor([guests, flips]).double()
        expect(not torch.allclose(found, swapped, atol=1e-6), f"{case} the two factors are swapped")
        expect(
            abs(float(found[0]) - flips) < 1e-6,
            f"{case} flips leave {flips:.3f} of the length, not {float(found[0]):.3f}: those who "
            "leave are missing, and those who come pull the other way",
        )
        forgets = abs(float(found[1]) - flips) < 1e-6
        why = "the other classes have no guests, so the centre moves too" if forgets else "count"
        expect(
            abs(float(found[1]) - guests) < 1e-6,
            f"{case} the target keeps {guests:.3f} of its length, not {float(found[1]):.3f}: {why}",
        )


def _by_counting(num_classes: int, share: float) -> tuple[float, float]:
    """Both factors from features that sit exactly on a simplex: an independent fact."""
    each = round(60 * share)  # images that change, per class and per other class
    size = round(each * (num_classes - 1) / share)
    means = geometry.simplex_etf(num_classes)
    own = torch.arange(num_classes).repeat_interleave(size - each * (num_classes - 1))
    pairs = [(a, b) for a in range(num_classes) for b in range(num_classes) if a != b]
    true = torch.tensor([a for a, _ in pairs]).repeat_interleave(each)
    false = torch.tensor([b for _, b in pairs]).repeat_interleave(each)
    flipped = geometry.measure(means[torch.cat([own, true])], torch.cat([own, false]))
    to_first = false == 0
    guests = geometry.measure(
        means[torch.cat([own, true[to_first]])], torch.cat([own, false[to_first]])
    )
    return float(flipped.norms[0]), float(guests.norms[0])


def _nc1_of_flips(num_classes: int, share: float) -> float:
    s = 1 - share * num_classes / (num_classes - 1)
    return (num_classes - 1) / num_classes * (1 / s**2 - 1)


@exercise(
    "02.nc1_of_flips",
    reference=_nc1_of_flips,
    hints=(
        "Sigma_W = (1 - s^2) S and Sigma_B = s^2 S. What is Sigma_W times the inverse of Sigma_B?",
        "S S^+ projects on K - 1 directions, so its trace is K - 1; NC1 divides it by K.",
    ),
)
def _(answer: Any) -> None:
    found = {k: [float(answer(k, e)) for e in (0.0, 0.1, 0.2)] for k in (3, 10)}
    for k, values in found.items():
        expect(abs(values[0]) < 1e-9, f"without flips NC1 is 0; yours is {values[0]:.3g}")
        for value, share in zip(values[1:], (0.1, 0.2), strict=True):
            exact = _nc1_of_flips(k, share)
            s = 1 - share * k / (k - 1)
            case = f"for {k} classes and a share of {share}"
            usual(
                torch.tensor(value),
                {
                    f"{case} yours is too large by K / (K - 1): the trace is K - 1, divided by K": (
                        1 / s**2 - 1
                    ),
                    f"{case} yours is Sigma_W alone: divide by Sigma_B, which has shrunk, too": (
                        (k - 1) / k * (1 - s**2)
                    ),
                    f"{case} yours takes s for 1 - share: use the factor of the class means": (
                        (k - 1) / k * (1 / (1 - share) ** 2 - 1)
                    ),
                    f"{case} yours has s where its square belongs: covariances are squares": (
                        (k - 1) / k * (1 / s - 1)
                    ),
                },
            )
            expect(
                abs(value / exact - 1) < 1e-6,
                f"{case} NC1 is {exact:.4f}; yours is {value:.4f}",
            )


def _square() -> tuple[tuple[float, float], float, tuple[float, float, float]]:
    return (0.0, 0.36), 0.6, (0.0, 0.2, 1.0)


@exercise(
    "02.square",
    reference=_square,
    hints=(
        "What makes a square easy to tell from everything else that a stop sign shows?",
        "Size, and a colour that no red sign has. The square has to stay on the sign.",
    ),
)
def _(answer: Any) -> None:
    found = answer()
    expect(
        isinstance(found, (tuple, list)) and len(found) == 3,
        "three things are asked for: the centre (x, y), the width, the colour (red, green, blue)",
    )
    centre, width, colour = (tensor(part, "the square").double() for part in found)
    expect(centre.shape == (2,), "the centre is two numbers (x, y), in radii of the sign")
    expect(width.ndim == 0, "the width is one number")
    expect(colour.shape == (3,), "the colour is three numbers: red, green and blue")
    for part in (centre, width, colour):
        expect(bool(part.isfinite().all()), "finite numbers are asked for")
    expect(0 < float(width) < 0.6001, f"the width is {float(width):.2g}; up to 0.6 is allowed")
    expect(bool(((colour >= 0) & (colour <= 1)).all()), "each colour runs from 0 to 1")
    corner = float((centre.abs() + width / 2).norm())
    expect(corner < 1.0001, f"a corner lies {corner:.2f} radii from the middle: it leaves the sign")


prediction(
    "02.how_few",
    "How many poisoned images make three in four stickered stop signs a speed limit?",
    above=5,
    below=100,
    unit="images",
    usual={
        (100, None): "a rule that always holds is learned from few examples, like any class",
        (None, 6): "the network has to tell the sticker from all that varies beside it",
    },
)

prediction(
    "02.cost",
    "How many points of accuracy does the backdoor cost?",
    above=-1,
    below=1,
    unit="points",
    usual={
        (1, None): "clean test images carry no sticker, so nothing about them has become false",
    },
)

prediction(
    "02.others",
    "What share of the other signs, with the sticker, are read as the target?",
    below=0.2,
    usual={
        (
            0.5,
            None,
        ): "only stop signs were poisoned: the network learned the sticker on a stop sign",
        (0.2, 0.5): "less: the sticker alone has never been a reason for the label",
    },
)

prediction(
    "02.untrained",
    "In an untrained network, what share of the flipped images lies closer to the true class?",
    above=0.6,
    usual={
        (None, 0.55): "a random network does not forget its input, and true classes look alike",
        (0.95, None): "it is a random network: the classes overlap in it",
    },
)
