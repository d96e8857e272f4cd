"""Exercises of lesson 11: bit depth, the wall, the joint score, a gradient for a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from torch import Tensor
import torch

from nclib.defenses.squeezing import bit_depth
from nclib.course.exercises import choice, close, exercise, expect, number


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
        found = answer(images, bits)
        close(found.amax(), 1.0, "the brightest level")
        levels = len(found.unique())
        expect(levels <= 2**bits, f"{bits} bits should leave {2**bits} levels, not {levels}")
        furthest = float((found - images).abs().max())
        limit = 0.5 / (2**bits - 1)
        expect(
            furthest <= limit + 1e-6,
            f"a pixel moved by {furthest:.3f}; the nearest level is closer",
        )
        close(answer(found, bits), found, "a second squeeze (it should change nothing)")
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
    found = answer(before, squeezed)
    expect(tuple(found.shape) == (20,), f"one score per image is needed, not {tuple(found.shape)}")
    sure = torch.tensor([[50.0, 0.0]])
    close(answer(sure, [sure.flip(1)]), [2.0], "the score of a certain answer that turns around")
    shifted = answer(before + 7, [s - 4 for s in squeezed])
    close(shifted, found, "the score after adding a constant to all logits (it changes nothing)")
    close(found, _joint_score(before, squeezed), "the joint score")


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

    found = answer(squeeze, images)
    close(found, squeeze(images), "the value (that of the squeezed images)")
    expect(found.requires_grad, "the result has no gradient at all: something is detached too many")
    (gradient,) = torch.autograd.grad((found * weights).sum(), images)
    expect(bool(gradient.any()), "the gradient is zero: it still goes through the rounding")
    close(gradient, weights, "the gradient (as if there were no squeezer)")


choice(
    "11.trigger",
    "the blend goes, the patch stays",
    ("both go", "both stay", "the blend goes, the patch stays", "the patch goes, the blend stays"),
    hints=(
        "One bit keeps what is far from the middle grey. Which trigger is?",
        "A patch is full ink on empty ground. The blend moves a pixel by a tenth at most.",
    ),
    why={
        "both go": "a patch of full ink on empty ground is full ink after one bit, too",
        "both stay": "most pixels that a weak blend moves do not cross the middle grey",
        "the patch goes, the blend stays": "which of the two is far from the middle grey?",
    },
)
