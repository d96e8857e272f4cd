"""Exercises of lesson 06: FGSM, a step of PGD, the margin, the way between vertices, transfer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import attacks
from nclib.course.exercises import Wrong, exercise, expect, prediction, tensor, usual


def _linear(seed: int, pixels: int = 6, classes: int = 3) -> nn.Module:
    layer = nn.Linear(pixels, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=generator))
    return nn.Sequential(nn.Flatten(), layer)


@exercise(
    "06.fgsm",
    reference=attacks.fgsm,
    hints=(
        "x = images.clone().requires_grad_(), then the loss of model(x), then torch.autograd.grad.",
        "images + eps * gradient.sign() leaves [0, 1] where a pixel was black or white: clamp.",
    ),
)
def _(answer: Any) -> None:
    net, eps = _linear(0), 0.1
    draw = torch.Generator().manual_seed(1)
    images = 0.2 + 0.6 * torch.rand(8, 1, 2, 3, generator=draw)
    labels = torch.arange(8) % 3
    found = _attacked(answer, net, images, labels, eps)
    change = found - images
    if change.abs().max() > eps + 1e-6:
        raise Wrong(f"a pixel moves by {change.abs().max():.3f}; eps = {eps} is allowed")
    reference = attacks.fgsm(net, images, labels, eps)
    if (change + (reference - images)).abs().max() < 1e-6:
        raise Wrong("that goes down the loss: the attacker goes up")
    if ((change.abs() - eps).abs() > 1e-5).any():
        raise Wrong("not every pixel moves by eps: only the sign of the gradient counts")
    # The independent fact: for one image and a convex loss of two classes, a corner is the best.
    two = _linear(2, 6, 2)
    for image, label in zip(images, labels % 2, strict=True):
        corners = torch.tensor(list(itertools.product((-eps, eps), repeat=6)))
        losses = cross_entropy(
            two(image + corners.reshape(-1, 1, 2, 3)), label.expand(64), reduction="none"
        )
        mine = cross_entropy(
            two(_attacked(answer, two, image[None], label[None], eps)), label[None]
        )
        if mine < losses.max() - 1e-4:
            raise Wrong("another corner of the cube has a higher loss: check the gradient")
    edge = _attacked(answer, net, images.round(), labels, eps)
    if edge.min() < 0 or edge.max() > 1:
        raise Wrong(f"pixels reach {edge.min():.2f} and {edge.max():.2f}: clamp to [0, 1]")
    if not torch.allclose(found, reference, atol=1e-5):
        raise Wrong("your images differ from nclib.attacks.fgsm")


def _attacked(answer: Any, net: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    kept = images.clone()
    found = tensor(answer(net, images, labels, eps), "the images").float()
    if found.shape != images.shape:
        raise Wrong(f"the shape is {tuple(found.shape)}; {tuple(images.shape)} is expected")
    if not torch.equal(images, kept):
        raise Wrong("your function changes its input; work on a copy")
    if any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters()):
        net.zero_grad()
        raise Wrong("gradients were left on the weights: torch.autograd.grad instead of backward")
    return found


def _pgd_step(x: Tensor, images: Tensor, gradient: Tensor, alpha: float, eps: float) -> Tensor:
    return (x + alpha * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)


@exercise(
    "06.pgd_step",
    reference=_pgd_step,
    hints=(
        "One step: x + alpha * gradient.sign(). Then two clamps: the budget, and [0, 1].",
        "clamp takes tensors as bounds: x.clamp(images - eps, images + eps).clamp(0, 1).",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 5, 5, generator=draw)
    gradient = torch.randn(images.shape, generator=draw)
    gradient[0] = 0.0
    inside = (images + 0.02 * torch.randn(images.shape, generator=draw)).clamp(0, 1)
    for x, alpha, eps in ((images, 0.1, 0.3), (inside, 0.05, 0.2), (inside, 0.2, 0.1)):
        kept, here = images.clone(), x.clone()
        found = tensor(answer(here, images, gradient, alpha, eps), "the step").float()
        if found.shape != images.shape:
            raise Wrong(f"the shape is {tuple(found.shape)}; {tuple(images.shape)} is expected")
        if not torch.equal(images, kept):
            raise Wrong("your function changes the clean images; work on a copy")
        if found.min() < 0 or found.max() > 1:
            raise Wrong("a pixel leaves [0, 1]: clamp the result")
        if (found - images).abs().max() > eps + 1e-5:
            raise Wrong("a pixel is further than eps from images: clamp around images, not x")

        def within(moved: Tensor, eps: float = eps) -> Tensor:
            return moved.clamp(images - eps, images + eps).clamp(0, 1)

        exact = _pgd_step(x, images, gradient, alpha, eps)
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        for word, wrong in {
            "that goes down the loss: the attacker goes up": within(x - alpha * gradient.sign()),
            "the step is taken from x, where the last one ended, not from images": within(
                images + alpha * gradient.sign()
            ),
            "the step is the gradient itself; only its sign counts": within(x + alpha * gradient),
            "the step is alpha times the sign, not eps times, nor the bare sign": within(
                x + eps * gradient.sign()
            ),
            "that is the step of the L2 norm; here it is alpha times the sign": within(
                x + alpha * gradient / length
            ),
            "nothing moves": x,
        }.items():
            if torch.allclose(found, wrong, atol=1e-5) and not torch.allclose(
                wrong, exact, atol=1e-5
            ):
                raise Wrong(word)
        if not torch.allclose(found, exact, atol=1e-5):
            raise Wrong("the step is not alpha times the sign of the gradient, taken from x")


def _of_shares(logits: Tensor, labels: Tensor) -> Tensor:
    return attacks.margin(logits.softmax(1), labels)


@exercise(
    "06.margin",
    reference=attacks.margin,
    hints=(
        "logits.gather(1, labels[:, None])[:, 0] is the logit of the label.",
        "For the best other one, put -inf in the label's place (scatter), then max over dim 1.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 5, generator=draw) - 4  # mostly below 0
    labels = torch.arange(40) % 5
    kept = logits.clone()
    found = tensor(answer(logits, labels), "the margin").float()
    if not torch.equal(logits, kept):
        raise Wrong("your function changes the logits; scatter without the underscore copies")
    if found.shape != (40,):
        raise Wrong(f"the shape is {tuple(found.shape)}; one number per image is expected")
    if found.min() >= 0:
        raise Wrong("your margin is never below 0: leave the label itself out of the maximum")
    by_hand = [
        max(row[j] for j in range(5) if j != label) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    exact = torch.tensor(by_hand)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("nan"))
    usual(
        found,
        {
            "the sign is the other way round: above 0 means that the answer is wrong": -exact,
            "the largest of the others counts, not their mean": others.nanmean(1) - own[:, 0],
            "the margin is of the logits, without a softmax": _of_shares(logits, labels),
            "mask the label with -inf, not with 0: the other logits may be below 0": (
                logits.scatter(1, labels[:, None], 0.0).amax(1) - own[:, 0]
            ),
        },
        atol=1e-4,
    )
    if not torch.allclose(found, exact, atol=1e-4):
        raise Wrong("your margins differ from a plain loop over the classes: mask with -inf, not 0")
    shifted = tensor(answer(logits + 7, labels)).float()
    if not torch.allclose(found, shifted, atol=1e-4):
        raise Wrong("adding a constant to all logits must not change the margin")


def _way(hidden: Tensor, start: Tensor, end: Tensor) -> Tensor:
    edge = end - start
    return ((hidden - start) * edge).sum(1) / edge.square().sum(1)


@exercise(
    "06.way",
    reference=_way,
    hints=(
        "The edge is end - start. Take each image's step from its start, and multiply it with the "
        "edge: an inner product for each row.",
        "At the end the step is the edge itself. By what must you divide to get 1 there?",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    start, end = (3 * torch.randn(12, 6, generator=draw) + 2 for _ in range(2))
    aside = torch.randn(12, 6, generator=draw)
    aside -= _way(aside, torch.zeros_like(start), end - start)[:, None] * (end - start)
    exact = torch.linspace(-0.5, 1.5, 12)
    hidden = start + exact[:, None] * (end - start) + aside
    found = tensor(answer(hidden, start, end), "the way").double()
    expect(found.shape == (12,), f"one share per image, (12,), is expected, not {found.shape}")
    step, edge = hidden - start, end - start
    usual(
        found,
        {
            "divide by the squared length of the edge: at its end the share is 1": (
                (step * edge).sum(1) / edge.norm(dim=1)
            ),
            "an inner product has no unit yet: divide by the squared length of the edge": (
                (step * edge).sum(1)
            ),
            "that is how far the image has moved, in any direction; only the part along counts": (
                step.norm(dim=1) / edge.norm(dim=1)
            ),
            "that is a cosine: it says in which direction, not how far": (
                (step * edge).sum(1) / step.norm(dim=1) / edge.norm(dim=1)
            ),
            "subtract the start first": (hidden * edge).sum(1) / edge.square().sum(1),
            "that runs from the end to the start": 1 - exact,
            "do not cut at 0 and 1: whoever walks past the vertex has a share above 1": (
                exact.clamp(0, 1)
            ),
        },
        atol=1e-4,
    )
    expect(
        torch.allclose(found, exact.double(), atol=1e-4),
        "on points whose share is known, yours differs: 0 at the start, 1 at the end",
    )


def _stranger(
    surrogates: Sequence[nn.Module], images: Tensor, labels: Tensor, eps: float
) -> Tensor:
    return attacks.transfer(surrogates[0], images, labels, eps, surrogate=surrogates, steps=20)


@exercise(
    "06.stranger",
    reference=_stranger,
    hints=(
        "What harms all your networks is likelier to harm a foreign one: use their mean logits.",
        "What depends on one network's own filters is fine-grained. Smooth the gradient before you "
        "take its sign (Dong et al. 2019): torch.nn.functional.avg_pool2d(gradient, 3, 1, 1).",
    ),
)
def _(answer: Any) -> None:
    nets, eps = [_linear(seed, 4 * 4 * 3) for seed in (0, 1)], 0.1
    draw = torch.Generator().manual_seed(1)
    images, labels = torch.rand(8, 3, 4, 4, generator=draw), torch.arange(8) % 3
    kept = images.clone()
    found = tensor(answer(nets, images, labels, eps), "the images").float()
    expect(found.shape == images.shape, f"images like those that came, {tuple(images.shape)}")
    expect(torch.equal(images, kept), "your function changes its input; work on a copy")
    far = float((found - images).abs().max())
    expect(far <= eps + 1e-5, f"a pixel moves by {far:.3f}; eps = {eps} is allowed")
    expect(float(found.min()) >= 0 and float(found.max()) <= 1, "pixels stay in [0, 1]")
    with torch.no_grad():
        loss = [sum(cross_entropy(net(x), labels) for net in nets) for x in (images, found)]
    expect(bool(loss[1] > loss[0]), "your own networks are not fooled: their loss does not rise")


prediction(
    "06.coin",
    "How many times larger must random signs be to do the harm of one gradient step?",
    above=4,
    unit="times",
    usual={
        (None, 2): "the size is the same, the direction is not: random signs cancel each other",
        (2, 4): "the direction is right, and the effect is stronger: read the two curves",
    },
)

prediction(
    "06.targeted",
    "How many times larger a budget does the target need than any wrong answer?",
    near=(1.6, 0.5),
    unit="times",
    usual={
        (
            None,
            1.05,
        ): "an attacker who takes any answer may take the nearest exit; this one may not",
        (3, None): "there are not so many directions: with ten classes the target is seldom far",
    },
)

prediction(
    "06.first_layer",
    "At the first layer: what share of the attacked images is nearest to the class it is read as?",
    below=0.5,
    usual={
        (0.8, None): "a pixel moves by little beside the image, and the first layer is near to it",
    },
)

prediction(
    "06.patch",
    "What share of unseen stop signs does the printed sticker turn into the target?",
    above=0.5,
    usual={
        (None, 0.3): "unlike a change of every pixel, a printed sticker may change its own at will",
    },
)
