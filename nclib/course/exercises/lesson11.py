"""Exercises and predictions of lesson 11: bit depth, its wall, the joint score, an attack on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nclib import attacks
from nclib.course.exercises import close, exercise, expect, number, prediction, tensor, usual
from nclib.defenses.squeezing import bit_depth


@exercise(
    "11.bit_depth",
    hints=(
        "With b bits there are 2**b levels, from 0 to 1. How many steps lie between them?",
        "Multiply by the number of steps, round, divide by it again.",
        "The number of steps is 2**bits - 1: with 1 bit there is one step, from 0 to 1.",
    ),
    reference=bit_depth,
)
def _(answer: Any) -> None:
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for bits in (1, 2, 5):
        found = tensor(answer(images, bits), "the squeezed image").float()
        close(found.amax(), 1.0, "the brightest level")
        levels = len(found.unique())
        many = "1 bit" if bits == 1 else f"{bits} bits"
        expect(levels <= 2**bits, f"{many} should leave {2**bits} levels, not {levels}")
        furthest = float((found - images).abs().max())
        limit = 0.5 / (2**bits - 1)
        expect(
            furthest <= limit + 1e-6,
            f"a pixel moved by {furthest:.3f}; the nearest level is closer",
        )
        again = answer(found.clone(), bits)
        close(again, found, "a second squeeze (it should change nothing)")
        close(found, bit_depth(images, bits), "the squeezed image")
    expect(torch.equal(images, before), "the images given should stay as they were")


number(
    "11.wall",
    0.16,
    0.175,
    reference=1 / 6,
    hints=(
        "Two bits leave four levels. Which are they?",
        "The levels are 0, 1/3, 2/3 and 1. A pixel goes to the nearest one.",
        "An empty pixel leaves 0 when it is nearer to 1/3: halfway.",
    ),
    why={
        1 / 3: "that is the next level itself; the pixel goes there from halfway on",
        1 / 4: "two bits leave four levels from 0 to 1, three steps: 0, 1/3, 2/3 and 1",
        1 / 8: "two bits leave four levels from 0 to 1, three steps: 0, 1/3, 2/3 and 1",
        1 / 2: "that is the wall of one bit, where the levels are 0 and 1",
        1 / 14: "that is the wall of three bits; how many levels leave two?",
        1 / 6 * 255: "in units of [0, 1], please, not of 0 to 255",
    },
)


def _joint_score(before: Tensor, squeezed: Sequence[Tensor]) -> Tensor:
    shares = before.softmax(1)
    return torch.stack([(s.softmax(1) - shares).abs().sum(1) for s in squeezed]).amax(0)


@exercise(
    "11.joint_score",
    hints=(
        "Softmax first: a distance between logits has no scale.",
        "L1: the sum over the classes of the absolute differences, one number per image.",
        "Then the largest over the squeezers: torch.stack([...]).amax(0).",
    ),
    reference=_joint_score,
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    before = 3 * torch.randn(20, 5, generator=generator)
    squeezed = [before + s * torch.randn(20, 5, generator=generator) for s in (0.5, 2.0, 1.0)]
    close(answer(before, [before]), torch.zeros(20), "the score where squeezing changes nothing")
    found = tensor(answer(before, squeezed), "the score")
    expect(tuple(found.shape) == (20,), f"one score per image is needed, not {tuple(found.shape)}")
    gaps = torch.stack([s.softmax(1) - before.softmax(1) for s in squeezed])
    distances = gaps.abs().sum(2)
    raw = torch.stack([s - before for s in squeezed]).abs().sum(2)
    usual(
        found,
        {
            "take the largest over the squeezers, not their mean": distances.mean(0),
            "take the largest over the squeezers, not their sum": distances.sum(0),
            "take the largest over the squeezers, not the smallest": distances.amin(0),
            "take the largest over the squeezers, not the median": distances.median(0).values,
            "that is the first squeezer's distance; ask all of them": distances[0],
            "that is the last squeezer's distance; ask all of them": distances[-1],
            "that is the distance of the logits: softmax first": raw.amax(0),
            "that is the Euclidean distance; L1 is the sum of the absolute differences": (
                gaps.norm(dim=2).amax(0)
            ),
            "sum over the classes; that is their mean": gaps.abs().mean(2).amax(0),
            "sum over the classes; that is their largest difference": gaps.abs().amax(2).amax(0),
            "L1 takes absolute values before the sum": gaps.sum(2).abs().amax(0),
        },
        atol=1e-6,
    )
    sure = torch.tensor([[50.0, 0.0]])
    close(answer(sure, [sure.flip(1)]), [2.0], "the score of a certain answer that turns around")
    shifted = answer(before + 7, [s - 4 for s in squeezed])
    told = "the score after adding a constant to all logits (it changes nothing)"
    close(shifted, found, told, atol=1e-5)
    close(found, _joint_score(before, squeezed), "the joint score", atol=1e-5)


def _straight_through(squeeze: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return images + (squeeze(images) - images).detach()


@exercise(
    "11.straight_through",
    hints=(
        "The value should be squeeze(images), the gradient that of images.",
        "x + (y - x) has the value y. What may the gradient not see?",
        "images + (squeeze(images) - images).detach()",
    ),
    reference=_straight_through,
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 4, 4, generator=generator).requires_grad_()
    weights = torch.randn(3, 1, 4, 4, generator=generator)

    def squeeze(x: Tensor) -> Tensor:
        return bit_depth(x, 2)

    found = torch.as_tensor(answer(squeeze, images))
    value = found.detach()
    usual(
        value,
        {
            "the value is that of the images: they should come squeezed": images,
            "the value is images + squeeze(images): take the images away again, detached": images
            + squeeze(images),
        },
    )
    close(value, squeeze(images), "the value (that of the squeezed images)")
    expect(found.requires_grad, "the result has no gradient at all: one detach is too many")
    (gradient,) = torch.autograd.grad((found * weights).sum(), images, allow_unused=True)
    apart = (
        "the gradient does not reach the images: requires_grad_() begins a new way, detach ends one"
    )
    expect(gradient is not None, apart)
    expect(bool(gradient.any()), "the gradient is zero: it still goes through the rounding")
    turned = torch.allclose(gradient, -weights.to(gradient), atol=1e-5)
    expect(not turned, "the gradient is turned: detach the difference, not the images before it")
    close(gradient, weights, "the gradient (as if there were no squeezer)")


def _quiet(before: Tensor, squeezed: Sequence[Tensor], labels: Tensor, lam: float) -> Tensor:
    return attacks.margin(before, labels).clamp(max=3) - lam * _joint_score(before, squeezed)


@exercise(
    "11.quiet",
    hints=(
        "The margin: the best wrong logit minus the true one. Fill the true class with "
        "-torch.inf by scatter before you take the largest.",
        "margin.clamp(max=3) - lam * joint_score(before, squeezed)",
    ),
    reference=_quiet,
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    before = 4 * torch.randn(30, 5, generator=draw)
    squeezed = [before + torch.randn(30, 5, generator=draw) for _ in range(2)]
    labels = torch.arange(30) % 5
    true = before.gather(1, labels[:, None]).squeeze(1)
    margin = before.scatter(1, labels[:, None], -torch.inf).amax(1) - true
    score = _joint_score(before, squeezed)
    found = tensor(answer(before, squeezed, labels, 2.0), "the objective")
    expect(found.shape == (30,), f"one number per image is needed, not {tuple(found.shape)}")
    usual(
        found,
        {
            "the score is the alarm: subtract it": margin.clamp(max=3) + 2 * score,
            "the margin is not cut off at 3": margin - 2 * score,
            "the margin is turned: the best wrong logit minus the true one": (-margin).clamp(max=3)
            - 2 * score,
            "lam has no effect: multiply the score by it": margin.clamp(max=3) - score,
            "cut off the margin, not the whole objective": (margin - 2 * score).clamp(max=3),
            "the margin is cut off at 3 from above, not from below": margin.clamp(min=3)
            - 2 * score,
            "leave the true class out of the largest logit": (before.amax(1) - true).clamp(max=3)
            - 2 * score,
        },
        atol=1e-4,
    )
    close(found, margin.clamp(max=3) - 2 * score, "the objective", atol=1e-4)
    logits = before.clone().requires_grad_()
    value = answer(logits, squeezed, labels, 2.0)
    told = "the objective has no gradient: an attack climbs it, so detach nothing"
    expect(isinstance(value, Tensor) and value.requires_grad, told)


prediction(
    "11.unaware",
    "Accuracy under an attack that does not know of it, behind the best of the squeezers.",
    above=0.75,
    usual={
        (None, 0.6): "the change of the attack is fine grain, and grain is what filters are for"
    },
)

prediction(
    "11.knowing",
    "Accuracy behind the best of the squeezers, under an attacker who knows it.",
    above=0.6,
    usual={
        (None, 0.45): "not every filter is an illusion: these images are smooth, and what he may "
        "change is small",
        (0.9, None): "he aims at what passes the filter, and some of what he wants does",
    },
)

prediction(
    "11.lambda",
    "Share of images that are wrong and not flagged, for lambda = 0, .1, 1, 10, 30.",
    reading="peaks",
    usual={
        "rises": "an attacker who minds the score alone leaves the image as it is",
        "falls": "at 0 he is wrong with much noise, and the detector hears it",
        "flat": "both ends fail, for opposite reasons",
    },
)
