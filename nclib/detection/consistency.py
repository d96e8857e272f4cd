"""Scores that ask the trained network again: does its answer stay when the image does not?

A trigger outvotes the rest of an image, so the answer to a poisoned image survives what changes the
answer to an honest one: another image laid over it, brighter pixels, larger weights. Each is
``score(model, images [N, C, H, W], ...) -> [N]`` (float64, CPU), higher = more suspicious, and
knows no labels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nclib.data import ImageSet
from nclib.doors import gradients, integer, number, seeded
from nclib.training import accuracy, predict

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@gradients
def strip(
    model: nn.Module, images: Tensor, hosts: Tensor, *, count: int = 20, seed: int = 0
) -> Tensor:
    """Minus the mean entropy (nats) of the answers to an image with others laid over it.

    ``hosts`` ``[M, C, H, W]`` are clean images; ``count`` of them are added to each image, clipped
    to [0, 1]. Gao et al. 2019 (arXiv 1902.06531). Raises ``ValueError`` for a ``count`` below 1 and
    for no hosts.
    """
    integer(count, "count", 1)
    integer(len(hosts), "hosts: the number of images", 1)
    draw, total = seeded(seed), torch.zeros(len(images), dtype=torch.float64)
    for _ in range(count):
        drawn = torch.randint(len(hosts), (len(images),), generator=draw).to(hosts.device)
        likely = predict(model, (images + hosts[drawn]).clamp(0, 1)).double().softmax(1)
        total += (likely * likely.clamp_min(1e-12).log()).sum(1).cpu()
    return total / count


@gradients
def scale_up(
    model: nn.Module, images: Tensor, *, factors: tuple[float, ...] = (3, 5, 7, 9, 11)
) -> Tensor:
    """How often the answer stays when all pixels are multiplied, clipped to [0, 1]: shares.

    Guo et al. 2023 (arXiv 2302.03251), without their clean images. Raises ``ValueError`` for no
    factor.
    """
    integer(len(factors), "factors: their number", 1)
    answer = predict(model, images).argmax(1)
    stays = [predict(model, (k * images).clamp(0, 1)).argmax(1) == answer for k in factors]
    return torch.stack(stays).double().mean(0).cpu()


@gradients
def ibd_psc(
    model: nn.Module,
    images: Tensor,
    clean: ImageSet,
    *,
    factor: float = 1.5,
    error: float = 0.6,
    models: int = 5,
) -> Tensor:
    """The mean probability of the answer when the last normalisations are amplified: ``[N]``.

    Scales and shifts of the last k batch normalisations are multiplied by ``factor``; k is the
    first for which more than ``error`` of the ``clean`` images are wrong, and up to ``models``
    networks, of k, k + 1, ... layers, are asked. Hou et al. 2024 (arXiv 2405.09786). Raises
    ``ValueError`` for a model without batch normalisation.
    """
    number(factor, "factor", 0)
    norms = sum(isinstance(part, NORMS) for part in model.modules())
    if not norms:
        raise ValueError("model: has no batch normalisation; IBD-PSC amplifies those")
    answer = predict(model, images).argmax(1, keepdim=True)
    louder = [_amplified(model, k, factor) for k in range(1, norms + 1)]
    wrong = [1 - accuracy(m, clean) > error for m in louder]
    first = wrong.index(True) if any(wrong) else norms - 1
    sure = [predict(m, images).softmax(1).gather(1, answer) for m in louder[first:][:models]]
    return torch.cat(sure, 1).double().mean(1).cpu()


def _amplified(model: nn.Module, layers: int, factor: float) -> nn.Module:
    """A copy whose last ``layers`` batch normalisations speak ``factor`` times as loud."""
    model = copy.deepcopy(model)
    for norm in [part for part in model.modules() if isinstance(part, NORMS)][-layers:]:
        with torch.no_grad():
            for weight in (norm.weight, norm.bias):
                if weight is not None:
                    weight.mul_(factor)
    return model
