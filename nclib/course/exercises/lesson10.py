"""Exercises of lesson 10: distillation, the gradient that vanishes, the attack on the margin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import attacks
from nclib.course.exercises import Wrong, choice, close, exercise, expect, number, tensor, usual


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
    exact, found = cross_entropy(logits / 3, targets), tensor(answer(logits, targets, 3.0), "the loss")
    expect(found.ndim == 0, f"one number is expected, not shape {tuple(found.shape)}")
    entropy = -(targets * targets.log()).sum(1).mean()
    softer = (targets.log() / 3).softmax(1)
    usual(
        found,
        {
            "the temperature has no effect: divide the logits by it": cross_entropy(logits, targets),
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
            "the targets have their temperature already: only the logits are divided": cross_entropy(
                logits / 3, softer
            ),
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


choice(
    "10.with_temperature",
    "rises",
    ("falls", "stays", "rises"),
    why={
        "falls": "the logits grow with T, and what does the softmax do with large logits?",
        "stays": "the figure below says otherwise; whether to believe it is the rest of the lesson",
    },
    hints=(
        "It was published as a defence. What did its authors see?",
        "Look at the right end of the line 'PGD' in the figure below.",
    ),
)


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


number(
    "10.factor",
    20,
    500,
    reference=100,
    hints=(
        "Z / 100 has to be as large as the logits of an ordinary network. How large is Z?",
        "The order of magnitude is enough: it is T.",
    ),
)


def _margin_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int = 20
) -> Tensor:
    return attacks.margin_pgd(model, images, labels, eps, steps=steps, random_start=False)


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
    "10.margin_pgd",
    reference=_margin_pgd,
    hints=(
        "The loop of lesson 06 with another objective: attacks.margin(model(x), labels).sum().",
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
    found = tensor(answer(net, images, labels, eps), "the images").float()
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
        raise Wrong("most images do not move: is the objective the margin, not the cross-entropy?")
    with torch.no_grad():
        after = attacks.margin(net(found), labels)
        best = attacks.margin(net(_margin_pgd(net, images, labels, eps)), labels)
    expect(bool((after >= before).float().mean() > 0.9), "the margin falls: climb it")
    gap = float(((best - after) / before.abs().clamp_min(1)).mean())
    expect(gap < 0.1, "the margin could be much higher: take all steps, along the sign")
    expect(passes >= 20, f"the network is asked {passes} times; 20 steps need a gradient each")


number(
    "10.left",
    0,
    0.1,
    reference=0.01,
    hints=(
        "Does dividing all logits by 100 change any answer? What, then, is different at T = 100?",
        "About as much as PGD leaves to the ordinary network of lesson 06 at this eps.",
    ),
)

choice(
    "10.flagged",
    "student",
    ("student", "adversarial training", "both"),
    why={
        "adversarial training": "its gradients point uphill: PGD needs no help there",
        "both": "a flag needs a symptom; adversarial training does not hide its gradients",
    },
    hints=(
        "Which of the two lets PGD work?",
        "Zero gradients are one of the symptoms. Who has them?",
    ),
)
