"""Attacks that follow the gradient inside a ball of radius eps: FGSM, PGD, PGD on the margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nclib.attacks.common import (
    Loss,
    Model,
    batched,
    check_counts,
    check_eps,
    check_positive,
    cross_entropy,
    input_gradient,
    margin,
    margins,
    prepared,
    source,
    uniform,
)
from nclib.doors import gradients


@gradients
def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    targets: Tensor | None = None,
    batch_size: int = 512,
) -> Tensor:
    """One step of size ``eps`` along the sign of the gradient: ``x + eps sign(grad loss)``.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``, ``eps`` in image units;
    with ``targets`` ``[N]`` the step goes towards them. Returns images like ``images``. Raises
    ``ValueError`` for arguments that do not fit. Goodfellow et al. 2015 (arXiv 1412.6572).
    """
    walk = _Walk(eps, eps or None, 1, "Linf", False, cross_entropy, False, source(None, 0))
    return _attack(walk, model, images, labels, 1, targets, batch_size)


@gradients
def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    alpha: float | None = None,
    steps: int = 40,
    norm: str = "Linf",
    random_start: bool = True,
    *,
    restarts: int = 1,
    targets: Tensor | None = None,
    loss: Loss = cross_entropy,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> Tensor:
    """``steps`` steps of size ``alpha`` up the loss, each put back into the eps-ball and [0, 1].

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``; ``eps`` and ``alpha``
    in image units (``alpha=None`` is ``2.5 eps / steps``), ``norm`` "Linf" or "L2". With
    ``targets`` ``[N]`` the steps go down their loss. Each restart starts anew from a random point
    for the images that still hold. ``loss(logits, labels)`` gives ``[N]``. Returns the last
    iterates. The same seed and batch size give the same images. Raises ``ValueError`` for arguments
    that do not fit. Madry et al. 2018 (arXiv 1706.06083).
    """
    walk = _Walk(eps, alpha, steps, norm, random_start, loss, False, source(generator, seed))
    return _attack(walk, model, images, labels, restarts, targets, batch_size)


@gradients
def margin_pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    alpha: float | None = None,
    steps: int = 40,
    norm: str = "Linf",
    random_start: bool = True,
    *,
    restarts: int = 1,
    targets: Tensor | None = None,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> Tensor:
    """PGD on the logit margin: it still finds the way where the softmax is flat.

    Arguments as for ``pgd``. Returns, for each image, the iterate with the largest margin. Loss:
    Carlini & Wagner 2017 (arXiv 1608.04644); walk: Madry et al. 2018 (arXiv 1706.06083).
    """
    walk = _Walk(eps, alpha, steps, norm, random_start, margin, True, source(generator, seed))
    return _attack(walk, model, images, labels, restarts, targets, batch_size)


def _attack(
    walk: _Walk,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    restarts: int,
    targets: Tensor | None,
    batch_size: int,
) -> Tensor:
    """The first walk of all images, then ``restarts - 1`` more of those that still hold."""
    check_counts(restarts=restarts, batch_size=batch_size)
    if restarts > 1 and not walk.random_start:
        raise ValueError("restarts: without random_start each restart is the same; 1 is allowed")
    with prepared(model, images, labels, targets) as (net, images, goal, sign):
        if walk.eps == 0:
            return images.clone()
        best = batched(lambda x, y: walk(net, x, y, sign), batch_size, images, goal)
        if restarts == 1:
            return best
        score = sign * margins(net, best, goal, batch_size)
        for _ in range(restarts - 1):
            todo = (score <= 0).nonzero().squeeze(1)
            if not len(todo):
                break
            x, y = images[todo], goal[todo]
            new = batched(lambda x, y: walk(net, x, y, sign), batch_size, x, y)
            new_score = sign * margins(net, new, y, batch_size)
            better = new_score > score[todo]
            best[todo[better]], score[todo[better]] = new[better], new_score[better]
    return best


@dataclass
class _Walk:
    """One run from the start to the last step, for one batch."""

    eps: float
    alpha: float | None  # None: 2.5 eps / steps
    steps: int
    norm: str
    random_start: bool
    loss: Loss
    keep_best: bool
    generator: torch.Generator

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        check_counts(steps=self.steps)
        if self.alpha is not None:
            check_positive(alpha=self.alpha)

    def __call__(self, model: Model, images: Tensor, goal: Tensor, sign: float) -> Tensor:
        x = self.start(images) if self.random_start else images
        step = 2.5 * self.eps / self.steps if self.alpha is None else self.alpha
        best, best_score = x, torch.full_like(goal, -torch.inf, dtype=x.dtype)
        for _ in range(self.steps):
            gradient, logits = input_gradient(model, x, goal, self.loss)
            if self.keep_best:
                best, best_score = _better(best, best_score, x, sign * margin(logits, goal))
            x = self.project(x + sign * step * self.direction(gradient), images)
        if not self.keep_best:
            return x
        with torch.no_grad():
            return _better(best, best_score, x, sign * margin(model(x), goal))[0]

    def start(self, images: Tensor) -> Tensor:
        """A point drawn uniformly from the eps-ball around each image."""
        if self.norm == "Linf":
            noise = uniform(self.generator, images, images.shape) * 2 - 1
        else:
            device = self.generator.device
            noise = torch.randn(
                images.shape, generator=self.generator, device=device, dtype=images.dtype
            )
            radius = uniform(self.generator, images, (len(images), 1, 1, 1))
            noise = unit(noise.to(images.device)) * radius ** (1 / images[0].numel())
        return (images + self.eps * noise).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest step of length 1 in the norm."""
        return gradient.sign() if self.norm == "Linf" else unit(gradient)

    def project(self, x: Tensor, images: Tensor) -> Tensor:
        """The nearest point of the eps-ball around the images, then of [0, 1]."""
        delta = x - images
        if self.norm == "Linf":
            delta = delta.clamp_(-self.eps, self.eps)
        else:
            delta = delta * (self.eps / length(delta)).clamp_(max=1)
        return (images + delta).clamp_(0, 1)


def length(delta: Tensor) -> Tensor:
    """L2 norm of each sample, ``[N, 1, 1, 1]``, at least 1e-12."""
    return delta.flatten(1).square().sum(1).sqrt().clamp_min(1e-12).reshape(-1, 1, 1, 1)


def unit(delta: Tensor) -> Tensor:
    """Each sample scaled to L2 norm 1; a sample of zeros stays zero."""
    return delta * (1 / length(delta))


def _better(best: Tensor, best_score: Tensor, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    better = score > best_score
    best = torch.where(better.reshape(-1, 1, 1, 1), x, best)
    return best, torch.where(better, score, best_score)
