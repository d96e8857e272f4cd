"""Backdoors are learned too easily: isolate what is, and unlearn it. Two published rivals.

Both work without the transplant test's retrainings; ABL is told how much to isolate, ASSET is given
clean images.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import training
from nclib.data import ImageSet
from nclib.doors import gradients, number, seeded


def losses(model: nn.Module, data: ImageSet) -> Tensor:
    """The cross-entropy of each sample: float64 ``[N]``, CPU."""
    logits = training.predict(model, data.images).double()
    return cross_entropy(logits, data.labels, reduction="none").cpu()


def isolated(model: nn.Module, data: ImageSet, *, gamma: float = 0.5, **options: Any) -> Tensor:
    """Minus the loss of each sample under local gradient ascent: what is learned too easily.

    ``model`` is trained in place on sign(loss - ``gamma``) x loss, so that honest samples hover at
    ``gamma`` and the shortcut falls below: the first stage of ABL. ``options`` go to
    ``training.fit``. Higher = more suspicious, float64 ``[N]``, CPU. Li et al. 2021 (arXiv
    2110.11571).
    """
    number(gamma, "gamma", 0)

    def ascent(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        each = cross_entropy(model(images), labels, reduction="none").mean()
        return (each - gamma).sign() * each

    training.fit(model, data, loss=ascent, **options)
    return -losses(model, data)


@gradients
def unlearned(
    model: nn.Module,
    data: ImageSet,
    bad: Tensor,
    *,
    epochs: int = 5,
    lr: float = 5e-4,
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` that climbs the loss of the samples of the mask ``bad`` ``[N]``.

    The last stage of ABL (Li et al. 2021), plain SGD. Stops when most of ``bad`` has lost its
    label, as a model that climbs on unlearns everything.
    """
    model, part = copy.deepcopy(model).train(), data.subset(bad.to(data.device))
    if not len(part):
        return model.eval()
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    order = seeded(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(part), generator=order).split(64):
            index = index.to(data.device)
            optimiser.zero_grad()
            (-cross_entropy(model(part.images[index]), part.labels[index])).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        if training.accuracy(model, part) < 0.2:
            break
    return model.eval()


@gradients
def asset(
    model: nn.Module,
    data: ImageSet,
    clean: ImageSet,
    *,
    epochs: int = 2,
    lr: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> Tensor:
    """The loss of each sample after the clean images hold the honest ones down: ``[N]``.

    A copy of the trained ``model`` descends the loss of ``clean`` and climbs that of ``data``: the
    two cancel for what is alike in both, and only poison is left to climb. Zeng et al. 2023 (ASSET,
    arXiv 2302.11408), the outer loop alone, without their concentration of poison in the batch.
    float64, CPU.
    """
    model, order = copy.deepcopy(model), seeded(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        for index in torch.randperm(len(data), generator=order).split(batch_size):
            index = index.to(data.device)
            own = torch.randint(len(clean), (len(index),), generator=order).to(data.device)
            model.eval()  # the statistics of batch normalisation stay those of the training
            optimiser.zero_grad()
            down = cross_entropy(model(clean.images[own]), clean.labels[own])
            up = cross_entropy(model(data.images[index]), data.labels[index])
            (down - up).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
    return losses(model, data)
