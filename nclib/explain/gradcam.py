"""Grad-CAM: where the feature maps that speak for the class are active."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nclib.activations import layer_names, tap
from nclib.attacks.common import batched, prepared
from nclib.doors import gradients
from nclib.explain.gradients import logit


@gradients
def grad_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    layer: str | None = None,
    batch_size: int = 512,
) -> Tensor:
    """The feature maps of ``layer`` weighted by their mean slope, above 0, enlarged: [N, H, W].

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``classes`` int64 ``[N]``; ``layer`` None is the
    deepest of ``layer_names``. Raises ``ValueError`` for a layer without maps ``[N, D, h, w]`` and
    arguments that do not fit. Selvaraju et al. 2017 (arXiv 1610.02391).
    """
    layer = layer_names(model, images[:1])[-1] if layer is None else layer

    def cam(x: Tensor, c: Tensor) -> Tensor:
        score = logit(net(x.requires_grad_()), c).sum()
        maps = seen[layer]
        if maps.ndim != 4:
            raise ValueError(f"layer: {layer} gives {tuple(maps.shape)}; [N, D, h, w] is needed")
        (slope,) = torch.autograd.grad(score, maps)
        found = (slope.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
        return interpolate(found, x.shape[2:], mode="bilinear").squeeze(1).detach()

    with prepared(model, images, classes) as (net, images, goal, _), tap(model, [layer]) as seen:
        return batched(lambda x, c: cam(x.clone(), c), batch_size, images, goal)
