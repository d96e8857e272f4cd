"""Defensive distillation: a student learns the softened answers of its teacher.

Papernot et al. 2016 (arXiv 1511.04508). Teacher and student are trained at temperature T, and the
student is used at T = 1. It hides gradients rather than removing adversarial examples (Carlini and
Wagner 2017, arXiv 1608.04644). Works as a lesson on networks without batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from nclib.activations import evaluating
from nclib.data import ImageSet
from nclib.doors import finite, gradients, numbers
from nclib.training import Loss, fit, predict


@numbers
def tempered(temperature: float) -> Loss:
    """Cross-entropy of ``model(x) / temperature``, with labels ``[N]`` or soft labels ``[N, K]``.

    For ``training.fit(loss=...)``. Raises ``ValueError`` unless ``temperature`` is above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature}; more than 0 is needed")

    def loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(images) / temperature, targets)

    return loss


@numbers
def soft_labels(teacher: nn.Module, images: Tensor, temperature: float) -> Tensor:
    """The teacher's probabilities at ``temperature``: ``[N, K]``, rows sum to 1."""
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature}; more than 0 is needed")
    return softmax(predict(teacher, images) / temperature, 1)


@gradients
def distil(
    build: Callable[[], nn.Module], train: ImageSet, temperature: float, **options: Any
) -> tuple[nn.Module, nn.Module]:
    """Train a teacher and its student, both at ``temperature``: ``(teacher, student)``.

    ``build()`` gives a fresh network; ``options`` go to ``training.fit`` for both. Use the student
    as it is, that is at T = 1.
    """
    loss = tempered(temperature)
    teacher = fit(build(), train, loss=loss, **options).model
    targets = soft_labels(teacher, train.images, temperature)
    student = fit(build(), train, loss=loss, targets=targets, **options).model
    return teacher, student


@gradients
def vanished(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """For each image: whether the gradient of its cross-entropy is exactly 0 in float32, ``[N]``.

    An attack that follows this gradient cannot move such an image.
    """
    images = images.detach().clone().requires_grad_()
    with evaluating(model):
        loss = cross_entropy(finite(model(images), "logits"), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient.flatten(1).abs().amax(1) == 0
