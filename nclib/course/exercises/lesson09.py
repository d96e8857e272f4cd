"""Exercises and predictions of lesson 09: worst margins, adversarial losses, a look along FGSM."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, softplus

from nclib import attacks
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual


def _worst_margin(
    weight: Tensor, bias: Tensor, images: Tensor, labels: Tensor, eps: float
) -> Tensor:
    logits = images @ weight.T + bias
    lead = logits.gather(1, labels[:, None]) - logits
    lead = lead - eps * (weight[labels][:, None] - weight[None]).abs().sum(2)
    return lead.scatter(1, labels[:, None], float("inf")).min(1).values


@exercise(
    "09.worst_margin",
    reference=_worst_margin,
    hints=(
        "Without the attacker: logits of the label minus all logits, [N, K]. Then subtract eps "
        "times the L1 norms of weight[labels][:, None] - weight[None], which is [N, K, D].",
        "The label itself must not count: .scatter(1, labels[:, None], inf), then .min(1).values.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(4, 6, generator=draw), torch.randn(4, generator=draw)
    images, labels, eps = torch.randn(9, 6, generator=draw), torch.arange(9) % 4, 0.3
    found = tensor(answer(weight, bias, images, labels, eps), "the margin").float()
    expect(found.shape == (9,), f"the shape is {tuple(found.shape)}; (9,) is expected")

    # The independent fact: the minimum over every corner of the cube, by trying all 64.
    corners = eps * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)))
    logits = (images[:, None] + corners) @ weight.T + bias
    by_corner = -attacks.margin(logits.flatten(0, 1), labels.repeat_interleave(64))
    exact = by_corner.reshape(9, 64).min(1).values
    clean = images @ weight.T + bias
    plain, size = -attacks.margin(clean, labels), weight.abs().sum(1)
    lead = clean.gather(1, labels[:, None]) - clean

    def least(loss: Tensor) -> Tensor:
        return (lead - loss).scatter(1, labels[:, None], float("inf")).amin(1)

    gap, pair = weight[labels][:, None] - weight, size[labels][:, None]
    usual(
        found,
        {
            "that is the margin without the attacker: subtract eps times the L1 norm": plain,
            "that is the norm of one row, w_y; the attacker uses w_y - w_j": least(eps * pair),
            "that is the norm of one row, w_j; the attacker uses w_y - w_j": least(eps * size),
            "the norm is of the difference w_y - w_j, not a sum of two norms": least(
                eps * (pair + size)
            ),
            "that is the L2 norm; against a change of each pixel by eps it is the L1 norm": least(
                eps * gap.norm(dim=2)
            ),
            "that is the largest entry; against a change of each pixel by eps it is the L1 norm": (
                least(eps * gap.abs().amax(2))
            ),
            "eps is missing: subtract eps times the L1 norm": least(gap.abs().sum(2)),
            "the attacker does better, not worse: subtract": least(-eps * gap.abs().sum(2)),
            "the L1 norm is the sum of the absolute values: take abs before the sum": least(
                eps * gap.sum(2).abs()
            ),
        },
        atol=1e-4,
    )
    if (found - exact).min() > -1e-4 and (found - exact).max() > 1e-3:
        raise Wrong("the attacker does better: is it the L1 norm, and of w_y - w_j, not of w_y?")
    if torch.allclose(found, -exact, atol=1e-4):
        raise Wrong("the sign is the other way round: above 0 means that the answer stays right")
    expect(bool(found.max() != 0 or exact.max() == 0), "leave the label itself out of the minimum")
    close(found, exact, "the margin, beside all corners of the cube,", atol=1e-4)
    still = answer(weight, bias, images, labels, 0.0)
    close(still, plain, "the margin at eps 0", atol=1e-4)


def _adversarial_loss(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int = 3
) -> Tensor:
    return cross_entropy(model(attacks.pgd(model, images, labels, eps, steps=steps)), labels)


class _Two(nn.Module):
    """A linear network of two classes."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.fc = nn.Linear(4, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.randn(2, 4, generator=draw))
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.fc(images.flatten(1))


def _passes(net: _Two, answer: Any, images: Tensor, labels: Tensor, eps: float, steps: int) -> int:
    """How often the network is asked where so many steps are wanted."""
    net.passes = 0
    answer(net, images, labels, eps, steps=steps)
    return net.passes


@exercise(
    "09.adversarial_loss",
    reference=_adversarial_loss,
    hints=(
        "Two lines: hostile = attacks.pgd(model, images, labels, eps, steps=steps), then the loss.",
        "cross_entropy(model(hostile), labels): the model of now, on the images of the attack.",
    ),
)
def _(answer: Any) -> None:
    net, draw = _Two(), torch.Generator().manual_seed(1)
    images = 0.3 + 0.4 * torch.rand(16, 1, 2, 2, generator=draw)
    labels, eps = torch.arange(16) % 2, 0.2
    found = answer(net, images, labels, eps)
    expect(isinstance(found, torch.Tensor), f"a tensor is expected, not {type(found).__name__}")
    expect(found.ndim == 0, f"a scalar is expected, not shape {tuple(found.shape)}")
    expect(found.requires_grad, "the loss has no gradient: do not detach it, no item(), no no_grad")
    found, clean = found.detach(), cross_entropy(net(images), labels).detach()
    if abs(float(found - clean)) < 1e-5:
        raise Wrong("that is the loss on the clean images: attack them first")
    # The independent fact: for two linear classes the worst loss is softplus(-worst margin).
    worst = _worst_margin(net.fc.weight, net.fc.bias, images.flatten(1), labels, eps)
    exact = softplus(-worst).mean().detach()
    expect(float(found) > float(clean), "the loss is below that of the clean images: go uphill")
    if abs(float(found - (exact + clean) / 2)) < 1e-3:
        raise Wrong("train on the attacked images alone here, not on half and half")
    close(found, exact, "the loss, beside the closed form for two linear classes,", atol=1e-3)
    few, many = (_passes(net, answer, images, labels, eps, steps) for steps in (5, 9))
    expect(few >= 6, "the attack takes fewer steps than asked for: pass steps on")
    expect(many > few, f"5 steps or 9, the network is asked {few} times: pass steps on")
    expect(few <= 4 * 5 + 4, f"for 5 steps the network is asked {few} times: pass steps on")


prediction(
    "09.ordinary",
    "Accuracy of the ordinary network, and of the robust one, under PGD at 16/255.",
    reading="rises",
    usual={
        "flat": "the ordinary network has never seen such an image, and PGD looks for the worst",
        "falls": "being right on clean images does not protect: it answers with near certainty",
    },
)


def _along(
    model: nn.Module, images: Tensor, labels: Tensor, moved: Tensor, shares: Sequence[float]
) -> list[float]:
    with torch.no_grad():
        ways = [model(images + share * (moved - images)) for share in shares]
        return [float(cross_entropy(logits, labels)) for logits in ways]


class _Hill(nn.Module):
    """Two classes whose logits bend: the loss rises up to a grey of .6, and falls beyond."""

    def forward(self, images: Tensor) -> Tensor:
        way = images.flatten(1).mean(1) - 0.5
        return torch.stack([way * 0, 4 * way - 20 * way.square()], 1)


@exercise(
    "09.along",
    reference=_along,
    hints=(
        "At share 0 you are at the images, at share 1 at the moved ones. And at share t?",
        "images + share * (moved - images). Then the cross-entropy of the model there.",
        "[float(cross_entropy(model(images + t * (moved - images)), labels)) for t in shares], "
        "inside torch.no_grad()",
    ),
)
def _(answer: Any) -> None:
    net, shares, labels = _Hill(), (0.0, 0.25, 0.5, 1.0), torch.arange(6) % 2
    images = torch.linspace(0.4, 0.5, 6).reshape(6, 1, 1, 1).expand(6, 1, 3, 3).contiguous()
    moved, before = images + 0.4, images.clone()
    found = tensor(answer(net, images, labels, moved, shares), "the losses").double()
    expect(torch.equal(images, before), "the images should stay as they were: do not add in place")
    expect(found.shape == (4,), f"one loss per share is expected: 4, not {tuple(found.shape)}")

    def at(*greys: float) -> list[float]:  # by the formula, with no image in it
        start = torch.linspace(0.4, 0.5, 6)
        ways = [start + grey - 0.5 for grey in greys]
        bent = [torch.stack([w * 0, 4 * w - 20 * w.square()], 1) for w in ways]
        return [float(cross_entropy(z, labels)) for z in bent]

    usual(
        found,
        {
            "the other way round: share 0 is at the images, share 1 at the moved ones": at(
                0.4, 0.3, 0.2, 0.0
            ),
            "the images do not move: is it the loss at images + share * (moved - images)?": at(
                0, 0, 0, 0
            ),
            "every share is at the moved images: go a share of the way": at(0.4, 0.4, 0.4, 0.4),
            "that is the sum over the images; take the mean": [6 * v for v in at(0, 0.1, 0.2, 0.4)],
            "that is a straight line between the two losses: move the images, not the loss": [
                at(0)[0] + share * (at(0.4)[0] - at(0)[0]) for share in shares
            ],
        },
    )
    close(found, at(0, 0.1, 0.2, 0.4), "the losses on the way", atol=1e-4)


prediction(
    "09.one_step",
    "A network trained with one step of .2: accuracy under one step of .2, and under PGD of .2.",
    reading="falls",
    usual={
        "flat": "that holds at 8/255. A larger step can be dodged by bending the loss on its way",
        "rises": "PGD takes the same budget in several steps: it can only find worse images",
    },
)


def _trades_loss(
    clean_logits: Tensor, hostile_logits: Tensor, labels: Tensor, beta: float
) -> Tensor:
    log_p, log_q = clean_logits.log_softmax(1), hostile_logits.log_softmax(1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return cross_entropy(clean_logits, labels) + beta * divergence


@exercise(
    "09.trades_loss",
    reference=_trades_loss,
    hints=(
        "log_p = clean_logits.log_softmax(1), log_q = hostile_logits.log_softmax(1).",
        "KL(p || q): (log_p.exp() * (log_p - log_q)).sum(1).mean(). The cross-entropy is of the "
        "clean logits.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    clean, hostile = (2 * torch.randn(10, 4, generator=draw) for _ in range(2))
    labels, beta = torch.arange(10) % 4, 5.0
    p, q = clean.log_softmax(1), hostile.log_softmax(1)
    first = cross_entropy(clean, labels)
    forward, reverse = (
        kl_div(b, a, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p))
    )
    found = tensor(answer(clean, hostile, labels, beta), "the loss")
    expect(found.ndim == 0, f"a scalar is expected, not shape {tuple(found.shape)}")
    value = float(found)
    for other, word in (
        (first + beta * reverse, "the divergence is the other way round: KL(clean || hostile)"),
        (
            cross_entropy(hostile, labels) + beta * forward,
            "the cross-entropy is of the clean logits",
        ),
        (first + forward, "beta has no effect: multiply the divergence by it"),
        (
            first + beta * 10 * forward,
            "sum over the classes, mean over the images: N times too much",
        ),
        (
            first + beta * forward / 4,
            "sum over the classes, mean over the images: K times too little",
        ),
        (first - beta * forward, "the divergence is a penalty: add it"),
        (beta * forward, "the cross-entropy on the clean images is missing"),
    ):
        expect(abs(value - float(other)) > 1e-4, word)
    close(found, first + beta * forward, "the loss", atol=1e-4)
    same = answer(clean, clean, labels, beta)
    close(same, first, "the loss where both logits are equal", atol=1e-4)


prediction(
    "09.regroup",
    "Ordinary network, attacked images: how many times smaller is NC1 with the predicted labels?",
    above=3,
    unit="times",
    usual={
        (None, 1.5): "an attack moves an image to another class, so with the true labels every "
        "class is mixed",
    },
)

prediction(
    "09.alpha",
    "Up to which alpha does training at eps .1 keep the blended backdoor below one quarter?",
    above=0.14,
    usual={
        (None, 0.09): "what fits into the ball is stopped, and then some",
        0.1: "that is the ball. But alpha is the largest change of a pixel, and most move by less",
    },
)
