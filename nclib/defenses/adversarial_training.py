"""Adversarial training: each maker returns a ``loss(model, images, labels)`` for ``training.fit``.

All inner attacks are in the Linf ball, run in evaluation mode, and start from noise that depends on
the batch and ``seed`` alone, so that a training run can be repeated and kept in the cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from nclib.activations import evaluating
from nclib.doors import finite, gradients, integer, number, numbers, seeded
from nclib.training import Loss


@numbers
def pgd_training(eps: float, alpha: float | None = None, steps: int = 5, seed: int = 0) -> Loss:
    """Train on PGD images instead of the clean ones; Madry et al. 2018 (arXiv 1706.06083).

    ``eps`` and ``alpha`` in units of images in [0, 1]; ``alpha=None`` means 2.5 eps / steps.
    Raises ``ValueError`` for a negative ``eps`` or ``alpha``, or ``steps`` below 1.
    """
    alpha = _step(eps, alpha, steps)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        def objective(x: Tensor) -> Tensor:
            return cross_entropy(model(x), labels, reduction="sum")

        start = images + eps * noise(images, seed)
        hostile = ascend(model, objective, images, start, eps, alpha, steps)
        return cross_entropy(model(hostile), labels)

    return loss


@numbers
def fast_training(
    eps: float, alpha: float | None = None, random_start: bool = True, seed: int = 0
) -> Loss:
    """Train on one signed step from a random start; Wong et al. 2020 (arXiv 2001.03994).

    ``alpha=None`` means 1.25 eps, the paper's. ``random_start=False`` is FGSM training (Goodfellow
    et al. 2015). Both can overfit catastrophically: the network learns to beat single steps only,
    and PGD accuracy falls to 0 while the training loss keeps falling. Watch PGD accuracy.
    """
    alpha = _step(eps, 1.25 * eps if alpha is None else alpha, 1)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        def objective(x: Tensor) -> Tensor:
            return cross_entropy(model(x), labels, reduction="sum")

        start = images + eps * noise(images, seed) if random_start else images
        hostile = ascend(model, objective, images, start, eps, alpha, 1)
        return cross_entropy(model(hostile), labels)

    return loss


@numbers
def noisy_fast_training(
    eps: float, alpha: float | None = None, k: float = 2.0, seed: int = 0
) -> Loss:
    """Train on noise of ``k`` eps and one signed step from there; N-FGSM (arXiv 2202.01181).

    De Jorge et al. 2022: the step is not cut back to the ball of ``eps``, and the noise is larger
    than it; with both a single step does not overfit catastrophically at their settings.
    ``alpha=None`` means ``eps``, the paper's. Raises ``ValueError`` for a negative number.
    """
    alpha, far = _step(eps, eps if alpha is None else alpha, 1), number(k, "k", 0) * eps

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        def objective(x: Tensor) -> Tensor:
            return cross_entropy(model(x), labels, reduction="sum")

        start = images + far * noise(images, seed)
        hostile = ascend(model, objective, images, start, far + alpha, alpha, 1)
        return cross_entropy(model(hostile), labels)

    return loss


@numbers
def trades(
    eps: float, beta: float = 6.0, alpha: float | None = None, steps: int = 5, seed: int = 0
) -> Loss:
    """Clean cross-entropy + beta KL(clean || hostile); TRADES, Zhang et al. 2019 (1901.08573).

    The inner attack maximises the KL divergence and needs no label. ``beta`` buys robustness with
    clean accuracy. Raises ``ValueError`` like ``pgd_training``, and for a negative ``beta``.
    """
    alpha = _step(eps, alpha, steps)
    number(beta, "beta", 0)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with evaluating(model), torch.no_grad():
            belief = log_softmax(model(images), 1)

        def objective(x: Tensor) -> Tensor:
            return _kl(belief, model(x), "sum")

        start = images + 1e-3 * noise(images, seed)  # at the image itself the gradient is 0
        hostile = ascend(model, objective, images, start, eps, alpha, steps)
        clean = model(images)
        return cross_entropy(clean, labels) + beta * _kl(
            log_softmax(clean, 1), model(hostile), "batchmean"
        )

    return loss


@gradients
def ascend(
    model: nn.Module,
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    eps: float,
    alpha: float,
    steps: int,
) -> Tensor:
    """``steps`` signed gradient steps that raise ``objective``, within ``eps`` and [0, 1]."""
    low, high = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
    x = start.clamp(low, high).detach()
    with evaluating(model), torch.enable_grad():
        for _ in range(steps):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(objective(x), x)
            x = (x.detach() + alpha * gradient.sign()).clamp(low, high)
    return x


def noise(images: Tensor, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1], shaped like ``images``; the same batch and seed give the same noise."""
    key = int(finite(images, "images").sum() * 1000) + 1_000_003 * seed
    generator = seeded(key, images.device)
    draw = torch.rand(images.shape, generator=generator, device=images.device)
    return 2 * draw - 1


def _kl(belief: Tensor, logits: Tensor, reduction: str) -> Tensor:
    return kl_div(log_softmax(logits, 1), belief, reduction=reduction, log_target=True)


def _step(eps: float, alpha: float | None, steps: int) -> float:
    """The step size, after the checks that all makers share."""
    number(eps, "eps", 0)
    integer(steps, "steps", 1)
    return number(2.5 * eps / steps if alpha is None else alpha, "alpha", 0)
