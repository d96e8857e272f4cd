"""Exercises of lesson 07: integrated gradients, a line near one image, Shapley values, a map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nclib import explain
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual


class _Bent(nn.Module):
    """Logits that are no straight line: squares of sums of pixels."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(3, 12, generator=draw))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) @ self.weight.T).square()


def _slope(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    picked = model(x).gather(1, classes[:, None]).sum()
    return torch.autograd.grad(picked, x)[0]


def _integrated(
    model: nn.Module, images: Tensor, classes: Tensor, baseline: float, steps: int
) -> Tensor:
    way, total = images - baseline, torch.zeros_like(images)
    for k in range(steps):
        total += _slope(model, baseline + (k + 0.5) / steps * way, classes)
    return way * total / steps


@exercise(
    "07.integrated",
    reference=_integrated,
    hints=(
        "At the share t of the way the image is baseline + t * (images - baseline). Take the slope "
        "of the class's logit there, for t = (k + 1/2) / steps.",
        "The mean of the slopes, times the way: (images - baseline) * total / steps.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    net, images, classes = (
        _Bent(),
        torch.rand(4, 1, 3, 4, generator=draw),
        torch.tensor([0, 2, 1, 0]),
    )
    kept, base, steps = images.clone(), 0.25, 8
    found = tensor(answer(net, images, classes, base, steps), "the map").double()
    shape = tuple(images.shape)
    expect(found.shape == images.shape, f"a number for each pixel value, {shape}, is expected")
    expect(torch.equal(images, kept), "your function changes its input; work on a copy")
    exact, way = _integrated(net, images, classes, base, steps).double(), images - base
    chances = nn.Sequential(net, nn.Softmax(1))
    slopes = exact / way
    usual(
        found,
        {
            "that is the slope at the image alone; average it over the way": (
                way * _slope(net, images, classes)
            ),
            "the mean slope is still to be multiplied by the way, images - baseline": slopes,
            "multiply by images - baseline, not by the image: the way starts at the baseline": (
                slopes * images
            ),
            "that is the sum of the slopes: divide by the number of steps": exact * steps,
            "start the way at the baseline, not at 0": _integrated(
                net, images, classes, 0.0, steps
            ),
            "the logit is asked for, without a softmax": _integrated(
                chances, images, classes, base, steps
            ),
            "ask for the logit of each image's class, not for the sum of all logits": (
                sum(_integrated(net, images, torch.full((4,), c), base, steps) for c in range(3))
            ),
        },
        atol=1e-4,
    )
    # The independent fact: the map adds up to the rise of the logit; midpoints are exact here.
    with torch.no_grad():
        ends = [net(x).gather(1, classes[:, None])[:, 0] for x in (images, 0 * images + base)]
    close(found.flatten(1).sum(1), ends[0] - ends[1], "the sum of each map", rtol=2e-2, atol=1e-3)
    close(found, exact, "the map", rtol=2e-2, atol=1e-3)


def _line(on: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    root = weights.double().sqrt()[:, None]
    table = torch.cat([on.double(), torch.ones(len(on), 1, dtype=torch.float64)], 1)
    return torch.linalg.lstsq(root * table, root * scores.double()[:, None]).solution[:-1, 0]


@exercise(
    "07.surrogate",
    reference=_line,
    hints=(
        "Add a column of ones to `on` for the intercept. torch.linalg.lstsq(A, B).solution is the "
        "X with the smallest |A X - B|^2.",
        "the sum of w (a x - b)^2 is that of (sqrt(w) a x - sqrt(w) b)^2: multiply each row of "
        "both sides by sqrt(w). Then leave the intercept out of what you return.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    on = (torch.rand(60, 5, generator=draw) < 0.5).float()
    slopes = torch.tensor([2.0, -1.0, 0.0, 0.5, 3.0])
    weights = torch.rand(60, generator=draw) ** 2
    scores = on @ slopes + 4 + 3 * torch.randn(60, generator=draw)
    found = tensor(answer(on, scores, weights), "the slopes").double().flatten()
    expect(len(found) != 6, "leave the intercept out: one slope for each square")
    expect(len(found) == 5, f"one slope for each square, (5,), is expected, not {found.shape}")
    none = torch.zeros(60)
    wrong = np.linalg.lstsq((weights.sqrt()[:, None] * on).numpy(), weights.sqrt() * scores)[0]
    usual(
        found,
        {
            "the weights do not count yet: multiply the rows by their square root": (
                _line(on, scores, none + 1)
            ),
            "you weigh twice: the square root of the weight belongs to each side": (
                _line(on, scores, weights**2)
            ),
            "the line needs an intercept: with all squares off the logit is not 0": wrong,
        },
        atol=1e-4,
    )
    # The independent fact: without noise the slopes that made the scores come back.
    plain = tensor(answer(on, on @ slopes + 4, weights), "the slopes").double().flatten()
    close(plain, slopes, "on scores that are a line, the slopes", atol=1e-3)
    close(found, _line(on, scores, weights), "the slopes", atol=1e-3, rtol=1e-3)


Game = Callable[[Tensor], float]


def _shapley(game: Game, count: int, orders: int, generator: torch.Generator) -> Tensor:
    values = torch.zeros(count)
    for _ in range(orders):
        on = torch.zeros(count, dtype=torch.bool)
        before = float(game(on))
        for square in torch.randperm(count, generator=generator).tolist():
            on[square] = True
            after = float(game(on))
            values[square] += (after - before) / orders
            before = after
    return values


def _game(on: Tensor) -> float:
    """Four squares: two that count together only, one that counts alone, one that is idle."""
    there = [bool(o) for o in on]
    return 1.0 + 6.0 * (there[0] and there[1]) + 2.0 * there[2]


@exercise(
    "07.shapley",
    reference=_shapley,
    hints=(
        "For each order: start with no square, take them as torch.randperm says, and "
        "note by how much the game's value rises when each is added.",
        "values[square] += (after - before) / orders; then the next square starts from `after`.",
    ),
)
def _(answer: Any) -> None:
    def ask(orders: int, seed: int = 0) -> Tensor:
        dice = torch.Generator().manual_seed(seed)
        found = tensor(answer(_game, 4, orders, dice), "the values").double().flatten()
        expect(len(found) == 4, f"one value for each square, (4,), is expected, not {found.shape}")
        return found

    found, few = ask(400), ask(1)
    everything, nothing = _game(torch.ones(4)), _game(torch.zeros(4))
    usual(
        found,
        {
            "that asks what is lost without each square, one by one: two that count together are "
            "counted twice": torch.tensor([6.0, 6.0, 2.0, 0.0]),
            "that asks what each square is worth alone: two that count together are lost": (
                torch.tensor([0.0, 0.0, 2.0, 0.0])
            ),
        },
        atol=1e-3,
    )
    total = float(found.sum())
    expect(
        not math.isclose(total, 400 * (everything - nothing), rel_tol=1e-3),
        "that is the sum over the orders: divide by their number",
    )
    expect(
        not math.isclose(total, everything, rel_tol=1e-3),
        f"the values add up to {everything:g}; from no square to all the game rises by "
        f"{everything - nothing:g}: subtract its value without any square",
    )
    close(total, everything - nothing, "the sum of the values", atol=1e-2)
    close(float(few.sum()), everything - nothing, "with one order, the sum", atol=1e-3)
    exact = torch.zeros(4, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        for k, square in enumerate(order):
            on = torch.zeros(4)
            on[list(order[:k])] = 1
            before = _game(on)
            on[square] = 1
            exact[square] += (_game(on) - before) / 24
    fixed = torch.allclose(ask(40), ask(40, 7), atol=1e-6)
    if not torch.allclose(found, exact, atol=0.8):
        raise Wrong(
            "all squares come in one order: draw a new one with torch.randperm each time"
            if fixed or torch.allclose(found, few, atol=1e-6)
            else f"the values are {found.tolist()}, far from the exact {exact.tolist()}"
        )


def _better(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    return explain.occlusion(model, images, classes, window=5, stride=1)


@exercise(
    "07.better_map",
    reference=_better,
    hints=(
        "Grad-CAM is coarse: its maps have as many pixels as the last layer. What is finer?",
        "What the answer does when a window is covered needs no slope: try explain.occlusion with "
        "other windows, or multiply two maps that err in different ways.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(4, 3))
    net.layer_names = ("1",)  # type: ignore[assignment]
    images, classes = torch.rand(3, 3, 12, 12, generator=draw), torch.tensor([0, 1, 2])
    kept = images.clone()
    found = tensor(answer(net.eval(), images, classes), "the maps")
    expect(torch.equal(images, kept), "your function changes its input; work on a copy")
    shape = (3, 12, 12)
    expect(found.shape == shape, f"one map per image, {shape}, is expected, not {found.shape}")
    expect(bool(found.isfinite().all()), "a map holds finite numbers")
    spread = found.double().flatten(1).std(1)
    expect(bool((spread > 0).any()), "a map that is the same everywhere points nowhere")


prediction(
    "07.restored",
    "With the pixels of occlusion put back, what share of the stickered signs is read right?",
    above=0.7,
    usual={
        (None, 0.3): "few pixels, but they are the cause: without the square the rule is silent",
    },
)

prediction(
    "07.spread",
    "With as many pixels put back, what share of the PGD-attacked signs is read right again?",
    below=0.4,
    usual={
        (0.6, None): "no pixel of this attack counts for much, and no map finds what is not there",
    },
)

prediction(
    "07.random_network",
    "How do the maps of gradient x input agree with those of a network that knows nothing?",
    above=0.1,
    unit="(rank correlation)",
    usual={
        (None, 0.1): "the picture itself is a factor of both maps, and it is the same picture",
        (0.6, None): "the other factor is the slope, and that did change",
    },
)
