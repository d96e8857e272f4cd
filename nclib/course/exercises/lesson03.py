"""Exercises of lesson 03: a collision step, the bullseye, the alignment, and the control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from torch import Tensor
import torch

from nclib.course.exercises import Wrong, choice, close, exercise, expect


def _step(
    images: Tensor,
    base: Tensor,
    goal: Tensor,
    represent: Callable[[Tensor], Tensor],
    lr: float,
    beta: float,
) -> Tensor:
    images = images.detach().requires_grad_()
    distance = (represent(images) - goal).square().sum()
    (slope,) = torch.autograd.grad(distance, images)
    forward = images.detach() - lr * slope
    return ((forward + lr * beta * base) / (1 + lr * beta)).clamp(0, 1)


@exercise(
    "03.collision_step",
    reference=_step,
    hints=(
        "images.detach().requires_grad_(), then torch.autograd.grad of |f(x) - goal|^2.",
        "Forward: x - lr * gradient. Backward: (forward + lr beta base) / (1 + lr beta).",
        "Images stay in [0, 1]: clamp at the end.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(16, 5, generator=generator) / 4
    base, start = (torch.rand(3, 1, 4, 4, generator=generator) / 2 + 0.25 for _ in range(2))
    goal = torch.randn(1, 5, generator=generator)

    def represent(x: Tensor) -> Tensor:
        return x.flatten(1) @ matrix

    before = start.clone()
    found = answer(start, base, goal, represent, 0.05, 0.5).detach()
    expect(torch.equal(start, before), "the images you were given have changed")
    # for linear features the gradient is known: 2 (x A - goal) A^T
    slope = (2 * (start.flatten(1) @ matrix - goal) @ matrix.T).reshape(start.shape)
    forward = start - 0.05 * slope
    exact = ((forward + 0.025 * base) / 1.025).clamp(0, 1)
    if torch.allclose(found, forward.clamp(0, 1), atol=1e-5):
        raise Wrong("the forward step is right; the backward step towards the base is missing")
    uphill = ((start + 0.05 * slope + 0.025 * base) / 1.025).clamp(0, 1)
    if torch.allclose(found, uphill, atol=1e-5):
        raise Wrong("you go up the gradient; the distance should get smaller")
    far = answer(start, base, 100 * goal, represent, 0.05, 0.5)
    expect(float(far.min()) >= 0 and float(far.max()) <= 1, "the images leave [0, 1]: clamp them")
    close(found, exact, "the step", atol=1e-5)


@exercise(
    "03.bullseye",
    reference=lambda hidden, goal: (hidden.mean(0) - goal).square().sum() / goal.square().sum(),
    hints=(
        "One mean over the poisons first. It is compared with the victim, not each poison alone.",
        "Squared length of the gap, divided by the squared length of the victim's features.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, goal = torch.randn(5, 8, generator=generator), torch.randn(8, generator=generator)
    found = torch.as_tensor(answer(hidden, goal))
    each = (hidden - goal).square().sum(1).mean() / goal.square().sum()
    exact = (hidden.mean(0) - goal).square().sum() / goal.square().sum()
    if found.ndim == 0 and abs(float(found / each) - 1) < 1e-4:
        raise Wrong("that is the mean of the distances; take the distance of the mean")
    if found.ndim == 0 and abs(float(answer(3 * hidden, 3 * goal) / found) - 1) > 1e-4:
        raise Wrong("your value depends on the scale of the features: divide by |goal|^2")
    close(found, exact, "the loss", atol=1e-5)
    around = goal + torch.stack([hidden[0], -hidden[0]])
    close(answer(around, goal), 0.0, "the loss of two poisons around the victim", atol=1e-5)


def _alignment(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    one, two = (torch.cat([a.flatten() for a in side]) for side in (first, second))
    return float(one @ two / (one.norm() * two.norm()))


@exercise(
    "03.alignment",
    reference=_alignment,
    hints=(
        "A gradient is a list of tensors, one per weight. Treat the list as one long vector.",
        "Sum the products over all tensors; divide by the two lengths, each over all tensors.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        [torch.randn(s, generator=generator) for s in ((4, 3), (4,), (2, 4))] for _ in range(2)
    )
    second = [b + scale * a for a, b, scale in zip(first, second, (3, 0.1, 1), strict=True)]
    found = float(answer(first, second))
    exact = _alignment(first, second)
    flat = [torch.cat([a.flatten() for a in side]) for side in (first, second)]
    pairs = zip(first, second, strict=True)
    mean = sum(float(torch.cosine_similarity(a.ravel(), b.ravel(), dim=0)) for a, b in pairs) / 3
    if abs(found - mean) < 1e-4:
        raise Wrong("that is the mean of the cosines per tensor; take one cosine over all of them")
    if abs(found - float(flat[0] @ flat[1])) < 1e-4:
        raise Wrong("that is the inner product; divide by the two lengths")
    if abs(found - (1 - exact)) < 1e-4:
        raise Wrong("that is 1 - cos, the loss; the alignment is the cosine itself")
    close(found, exact, "the cosine", atol=1e-5)
    close(answer(first, [2 * a for a in first]), 1.0, "the cosine with its own double", atol=1e-5)


choice(
    "03.control",
    "both",
    ("poisoned", "clean", "both"),
    why={
        "poisoned": "that number alone cannot tell poison from a strong adversarial noise",
        "clean": "then you know what the noise does, but not what the poison adds",
    },
    hints=(
        "The noise is optimised so that a network sees the target in it. Which networks do?",
        "What would you see if the poison did nothing at all?",
    ),
)
