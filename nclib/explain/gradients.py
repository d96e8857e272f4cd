"""Maps that follow the slope of a logit: gradient, gradient x input, integrated gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nclib.attacks.common import Model, batched, check_counts, input_gradient, prepared
from nclib.doors import gradients, number


def logit(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of each image's class: ``[N, K]``, ``[N]`` -> ``[N]``."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def _slope(model: Model, images: Tensor, classes: Tensor) -> Tensor:
    return input_gradient(model, images, classes, logit)[0]


@gradients
def gradient(model: nn.Module, images: Tensor, classes: Tensor, *, batch_size: int = 512) -> Tensor:
    """How much a small change of each pixel moves the class's logit, |channels| summed: [N, H, W].

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``classes`` int64 ``[N]``. Raises ``ValueError``
    for arguments that do not fit. Simonyan et al. 2014 (arXiv 1312.6034).
    """
    with prepared(model, images, classes) as (net, images, goal, _):
        return batched(lambda x, c: _slope(net, x, c).abs().sum(1), batch_size, images, goal)


@gradients
def gradient_x_input(
    model: nn.Module, images: Tensor, classes: Tensor, *, batch_size: int = 512
) -> Tensor:
    """Each pixel times the slope of the class's logit there, channels summed: [N, H, W].

    Arguments as for ``gradient``. A black pixel gets 0 whatever the slope. Shrikumar et al. 2016
    (arXiv 1605.01713).
    """
    with prepared(model, images, classes) as (net, images, goal, _):
        return batched(lambda x, c: (x * _slope(net, x, c)).sum(1), batch_size, images, goal)


@gradients
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    baseline: float = 0.0,
    steps: int = 32,
    batch_size: int = 512,
) -> Tensor:
    """The mean slope on the way from a plain image, times the way, channels summed: [N, H, W].

    Arguments as for ``gradient``; every pixel of the plain image is ``baseline``. A map adds up to
    the logit's rise on the way, as far as ``steps`` midpoints can tell. Sundararajan et al. 2017
    (arXiv 1703.01365).
    """
    check_counts(steps=steps)
    number(baseline, "baseline", 0, 1)

    def way(x: Tensor, c: Tensor) -> Tensor:
        places = (torch.arange(steps) + 0.5) / steps
        slopes = sum(_slope(net, baseline + float(t) * (x - baseline), c) for t in places)
        return ((x - baseline) * slopes / steps).sum(1)

    with prepared(model, images, classes) as (net, images, goal, _):
        return batched(way, batch_size, images, goal)
