"""Exercises of lesson 03: a collision step, the bullseye, the alignment, a quiet backdoor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nclib import models, poisons
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet

EPS, SHARE = 8 / 255, 0.05  # what a quiet backdoor may do to a pixel, and to how many images


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
        return x.flatten(1) @ matrix.to(x.dtype)

    before = start.clone()
    found = tensor(answer(start, base, goal, represent, 0.05, 0.5), "the step").float()
    expect(torch.equal(start, before), "the images you were given have changed")
    # for linear features the gradient is known: 2 (x A - goal) A^T
    slope = (2 * (start.flatten(1) @ matrix - goal) @ matrix.T).reshape(start.shape)

    def step(lr: float = 0.05, pull: float = 0.025, towards: Tensor = base) -> Tensor:
        return ((start - lr * slope + pull * towards) / (1 + pull)).clamp(0, 1)

    mistakes = {
        "the forward step is right; the backward step towards the base is missing": step(pull=0),
        "you go up the gradient; the distance should get smaller": step(-0.05),
        "that solves the backward step for beta |x - b|^2, with 2 lr beta; the paper's step, and "
        "ours, has lr beta": step(pull=0.05),
        "the backward step has lr beta, not beta alone": step(pull=0.5),
        "the gradient is that of half the squared distance: a factor 2 is lost": step(0.025),
        "the gradient is that of a mean: sum the squares over the batch and the features": step(
            0.05 / 15
        ),
        "the backward step pulls towards the base, not towards the image itself": step(
            towards=start
        ),
        "the sum with the base is not divided by 1 + lr beta": (
            start - 0.05 * slope + 0.025 * base
        ).clamp(0, 1),
    }
    usual(found, mistakes)
    far = tensor(answer(start, base, 100 * goal, represent, 0.05, 0.5))
    expect(float(far.min()) >= 0 and float(far.max()) <= 1, "the images leave [0, 1]: clamp them")
    close(found, step(), "the step", atol=1e-5)


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
    found = tensor(answer(hidden, goal), "the loss")
    gap, length = (hidden.mean(0) - goal).square().sum(), goal.square().sum()
    usual(
        found,
        {
            "that is the mean of the distances; take the distance of the mean": (
                (hidden - goal).square().sum(1).mean() / length
            ),
            "that is the sum of the distances; take the distance of the mean": (
                (hidden - goal).square().sum() / length
            ),
            "the loss depends on the scale of the features: divide by |goal|^2": gap,
            "the loss is the ratio of the squared lengths; yours has the lengths": (
                gap / length
            ).sqrt(),
            "divide by the squared length of the goal, not by its length": gap / length.sqrt(),
            "divide by the features of the victim, not by those of the poisons": (
                gap / hidden.mean(0).square().sum()
            ),
        },
    )
    if found.ndim == 0 and abs(float(answer(3 * hidden, 3 * goal)) / float(found) - 1) > 1e-4:
        raise Wrong("your value depends on the scale of the features: divide by |goal|^2")
    close(found, gap / length, "the loss", atol=1e-5)
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
    found = float(tensor(answer(first, second), "the cosine"))
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


def _quiet(train: ImageSet, surrogate: nn.Module, seed: int) -> PoisonedSet:
    return poisons.narcissus(
        train, surrogate, SHARE, target=3, eps=EPS, warmup=0, steps=60, seed=seed
    )


@exercise(
    "03.quiet_backdoor",
    reference=_quiet,
    hints=(
        "Which of the three triggers of this section was strong, although nobody sees it?",
        "A wave of 8/255 can be made stronger at test time, as Narcissus does. So can any pattern.",
        "poisons.narcissus(train, surrogate, 0.05, target=3, eps=8 / 255, warmup=0, steps=60, "
        "seed=seed)",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    images, labels = torch.rand(200, 3, 16, 16, generator=draw), torch.arange(10).repeat(20)
    clean = ImageSet(images, labels, tuple("abcdefghij"), "noise")
    found = answer(clean, models.build("mlp", clean, widths=(8,)), 3)
    told = (
        f"a poisoned set is expected, not {type(found).__name__}: begin with one of nclib.poisons"
    )
    expect(isinstance(found, PoisonedSet), told)
    expect(len(found) == len(clean), "the set keeps its size: change images, and add none")
    wrong = int((found.labels.cpu() != labels).sum())
    expect(wrong == 0, f"{wrong} labels have changed; clean-label poison leaves all of them")
    gap = (found.images.cpu() - images).abs().flatten(1).amax(1)
    share, most = float((gap > 0).double().mean()), float(gap.max())
    expect(share > 0, "no image has changed")
    expect(share <= SHARE + 1e-3, f"{share:.1%} of the images are changed; 5% are allowed")
    allowed = "8/255 is allowed"
    expect(most <= EPS + 1e-6, f"a pixel has moved by {255 * most:.0f}/255; {allowed}")
    expect(found.target is not None, "a backdoor has a target: the class that its trigger calls")
    expect(found.trigger is not None, "a backdoor has a trigger, to be used at test time")


prediction(
    "03.hits",
    "Of eight victims, how many does Bullseye Polytope hit at 16/255, on its own backbone?",
    above=3.5,
    usual={
        (None, 2.5): "16/255 on 3,072 pixels adds up: a small step each, all in one direction",
    },
    unit="victims",
)

prediction(
    "03.strangers",
    "And of sixteen trials on two backbones that the attacker has never seen?",
    below=4,
    usual={
        (6, None): "another seed has another feature space, and the collision happens in one alone",
    },
    unit="hits",
)

prediction(
    "03.clean_network",
    "Under the tripled Narcissus noise, what share of the other signs does a CLEAN network call "
    "the target?",
    below=0.2,
    usual={
        (0.4, None): "that is so on small grey digits; ask this network, on these images",
    },
)
