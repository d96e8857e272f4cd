"""Exercises and predictions of lesson 10: distillation, and the gradient that vanishes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import attacks
from nclib.attacks.common import Loss
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual


def _soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return cross_entropy(logits / temperature, targets)


@exercise(
    "10.soft_cross_entropy",
    reference=_soft_cross_entropy,
    hints=(
        "First log p: (logits / temperature).log_softmax(1), which is safer than log of softmax.",
        "Then -(targets * log_p).sum(1).mean(): sum over the classes, mean over the images.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(12, 5, generator=draw)
    targets = torch.randn(12, 5, generator=draw).softmax(1)
    exact, found = (
        cross_entropy(logits / 3, targets),
        tensor(answer(logits, targets, 3.0), "the loss"),
    )
    expect(found.ndim == 0, f"one number is expected, not shape {tuple(found.shape)}")
    entropy = -(targets * targets.log()).sum(1).mean()
    softer = (targets.log() / 3).softmax(1)
    usual(
        found,
        {
            "the temperature has no effect: divide the logits by it": cross_entropy(
                logits, targets
            ),
            "divide the logits by the temperature": cross_entropy(3 * logits, targets),
            "your value is N times too large: take the mean over the images": exact * 12,
            "your value is K times too small: sum over the classes": exact / 5,
            "the sign is the other way round: a loss is positive here": -exact,
            "no factor T squared here; this is the plain cross-entropy": 9 * exact,
            "that is the KL divergence, less by the entropy of the targets": exact - entropy,
            "the targets are soft: use all their probabilities, not the largest one's class": (
                cross_entropy(logits / 3, targets.argmax(1))
            ),
            "the targets are probabilities at T already: no softmax of them": cross_entropy(
                logits / 3, targets.softmax(1)
            ),
            "the targets have their temperature already: "
            "only the logits are divided": cross_entropy(logits / 3, softer),
            "that is a mean of log p over the classes: weigh it with the targets": (
                -(logits / 3).log_softmax(1).mean()
            ),
            "the logarithm of p is missing": -(targets * (logits / 3).softmax(1)).sum(1).mean(),
            "log_softmax over the classes, dimension 1, not over the images": (
                -(targets * (logits / 3).log_softmax(0)).sum(1).mean()
            ),
            "p and the targets have changed places: -(targets * log p)": (
                -((logits / 3).softmax(1) * targets.log()).sum(1).mean()
            ),
        },
    )
    close(found, exact, "the loss", atol=1e-4)
    flat = answer(torch.zeros(2, 5), torch.full((2, 5), 0.2), 7.0)
    close(flat, torch.tensor(5.0).log(), "the loss of equal logits, which is log K,", atol=1e-4)
    large = answer(torch.tensor([[900.0, 0.0]]), torch.tensor([[0.5, 0.5]]), 1.0)
    close(large, 450.0, "the loss for logits 900 and 0 (use log_softmax)", atol=1e-2)


def _logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    one_hot = torch.eye(logits.shape[1], device=logits.device)[labels]
    return logits.softmax(1) - one_hot


@exercise(
    "10.logit_gradient",
    reference=_logit_gradient,
    hints=(
        "Two terms: the probabilities, logits.softmax(1), and a 1 in the place of the label.",
        "torch.eye(K, device=logits.device)[labels] has one row per image with a 1 at the label.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=draw)
    labels = torch.arange(6) % 4
    found = tensor(answer(logits, labels), "the gradient").float()
    expect(found.shape == (6, 4), f"the shape is {tuple(found.shape)}; (6, 4) is expected")
    exact = _logit_gradient(logits, labels)
    expect(not torch.allclose(found, -exact, atol=1e-5), "the sign is the other way round")
    expect(
        not torch.allclose(found, exact / 6, atol=1e-5), "one loss per image: do not divide by N"
    )
    expect(not torch.allclose(found, logits.softmax(1), atol=1e-5), "the 1 at the label is missing")
    sums = float(found.sum(1).abs().max())
    expect(sums < 1e-4, f"each row should sum to 0; yours sum to up to {sums:.3g}")
    step, wide = 1e-4, logits.double()  # the independent fact: finite differences
    for j in range(4):
        shift = step * torch.eye(4, dtype=torch.float64)[j]
        up, down = (cross_entropy(wide + s * shift, labels, reduction="none") for s in (1, -1))
        slope = (up - down) / (2 * step)
        close(found[:, j], slope, f"column {j}, beside finite differences,", atol=1e-4)


def _climb(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, objective: Loss, steps: int = 20
) -> Tensor:
    x = images
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(model(x), labels).sum(), x)
        change = x + 2.5 * eps / steps * gradient.sign() - images
        x = (images + change.clamp(-eps, eps)).clamp(0, 1)
    return x.detach()


class _Saturated(nn.Module):
    """A linear network whose softmax is flat in float32 while its logits are not."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 9, generator=draw))
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return 1000 * images.flatten(1) @ self.weight.T


@exercise(
    "10.climb",
    reference=_climb,
    hints=(
        "The loop of lesson 06; what it climbs is objective(model(x), labels).sum().",
        "x = x.detach().requires_grad_(), the gradient of that sum, a step of 2.5 * eps / steps "
        "along its sign, the change clamped to [-eps, eps], the image to [0, 1].",
    ),
)
def _(answer: Any) -> None:
    net, draw = _Saturated(), torch.Generator().manual_seed(1)
    images, eps = torch.rand(30, 1, 3, 3, generator=draw), 0.1
    with torch.no_grad():
        labels = net(images).argmax(1)
        before = attacks.margin(net(images), labels)
        kept = images.clone()
    net.passes = 0
    found = tensor(answer(net, images, labels, eps, attacks.margin), "the images")
    passes = net.passes
    expect(torch.equal(images, kept), "your function changes its input; work on a copy")
    shapes = f"the shape is {tuple(found.shape)}; {tuple(images.shape)} is expected"
    expect(found.shape == images.shape, shapes)
    expect(bool(found.isfinite().all()), "your images hold NaN or infinite values")
    size = float((found - images).abs().max())
    expect(size <= eps + 1e-5, f"a pixel moves by {size:.3f}; eps = {eps} is allowed")
    inside = float(found.min()) >= 0 and float(found.max()) <= 1
    expect(inside, "a pixel leaves [0, 1]: clamp the result")
    moved = (found - images).flatten(1).abs().amax(1) > 0.5 * eps
    if moved.float().mean() < 0.9:
        raise Wrong("most images do not move: do you climb the objective that you were given?")
    highest = _climb(net, images, labels, eps, attacks.margin)
    with torch.no_grad():
        after, best = (attacks.margin(net(at.float()), labels) for at in (found, highest))
    expect(bool((after >= before).float().mean() > 0.9), "the objective falls: climb it")
    gap = float(((best - after) / before.abs().clamp_min(1)).mean())
    expect(gap < 0.1, "the margin could be much higher: take all steps, along the sign")
    expect(passes >= 20, f"the network is asked {passes} times; 20 steps need a gradient each")
    blind = tensor(answer(net, images, labels, eps, attacks.cross_entropy), "the images")
    stays = (blind - images)[before < -200].abs().amax() < 1e-6
    expect(bool(stays), "where the objective has no slope an image has to stay where it is")
    wide = answer(net.double(), images.double(), labels, eps, attacks.margin)
    expect(wide.dtype == torch.float64, "float64 images went in, others came out: keep the type")


prediction(
    "10.with_temperature",
    "What does the accuracy under PGD do as the temperature of the training rises?",
    usual={
        "falls": "the logits grow with T, and what does the softmax do with large logits?",
        "flat": "the figure says otherwise; whether to believe it is the rest of the lesson",
    },
    reading="rises",
)
prediction(
    "10.factor",
    "By which factor are the student's logits larger than those of the student at T = 1?",
    usual={
        (None, 2): "at T = 1 it has to answer like its teacher at T = 100: its logits over 100 do",
        (500, None): "not more than T: it learned to have the right logits over T",
    },
    above=5,
    unit="times",
)
prediction(
    "10.wide",
    "The same student, the same PGD, computed in float64: which accuracy is left?",
    usual={
        (0.7, None): "then rounding would not be the cause; e^-100 is 0 in float32 and not in "
        "float64",
    },
    below=0.6,
)
prediction(
    "10.left",
    "Which accuracy does the same PGD leave to the student, if it climbs the margin instead?",
    usual={
        (0.4, None): "dividing all logits by 100 changes no answer; it is as easy to fool as "
        "before",
    },
    below=0.2,
)
prediction(
    "10.flags",
    "How many of the six flags does the student raise?",
    usual={
        (None, 1.5): "zero gradients have more than one consequence: who profits from them?",
        6: "one step does not beat many, where neither moves at all",
    },
    above=2,
    unit="flags",
)
prediction(
    "10.ripple",
    "A network with a ripple: no flag, and PGD leaves more than half. What does an attack leave "
    "that knows of the ripple?",
    usual={
        (0.4, None): "no flag means that six searches agree; they may agree because all are lost",
    },
    below=0.25,
)
