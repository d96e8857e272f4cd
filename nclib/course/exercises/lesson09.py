"""Exercises of lesson 09: the worst margin of a linear classifier, and adversarial losses."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, softplus

from nclib import attacks
from nclib.course.exercises import Wrong, choice, close, exercise, expect, tensor, usual


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


choice(
    "09.clean_accuracy",
    "falls",
    ("rises", "stays", "falls"),
    why={
        "rises": "more data often helps, but these images are harder. Look at the grey line",
        "stays": "it stays at first, and falls at 0.2 and 0.3. Look at the grey line",
    },
    hints=(
        "The network has to be right in a whole ball around each image. What if two balls meet?",
        "Look at the left end of the curves: eps 0 of the attack.",
    ),
)

choice(
    "09.what_rises",
    "FGSM accuracy",
    ("FGSM accuracy", "PGD accuracy", "neither"),
    why={
        "PGD accuracy": "that is the robustness which is being lost",
        "neither": "the loss falls in training, so something in it gets better: which images?",
    },
    hints=(
        "Which images does the loss see in this training?",
        "The network learns to beat exactly the attack that it is shown.",
    ),
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


choice(
    "09.nc1_with_eps",
    "rises",
    ("rises", "falls"),
    why={"falls": "the class has to hold its attacked images, too. Look at the clean line"},
    hints=(
        "How many different images must fit around one vertex, with and without the attack?",
        "Look at the line of the clean images below.",
    ),
)

choice(
    "09.helps_against",
    "faint pattern",
    ("patch", "faint pattern"),
    why={"patch": "the patch changes pixels by up to 1. How far does the inner attack reach?"},
    hints=(
        "Compare the size of the change with the eps of the training.",
        "Blended at 15% moves no pixel by more than 0.15.",
    ),
)
