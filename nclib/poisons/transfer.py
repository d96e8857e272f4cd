"""The transfer setting: a frozen backbone and a new head, trained on a few images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import activations
from nclib.data import ImageSet
from nclib.doors import finite, gradients


@gradients
def retrain_head(
    model: nn.Module, data: ImageSet, *, weight_decay: float = 1e-4, steps: int = 100
) -> nn.Module:
    """A copy of ``model`` whose classifier is trained anew on ``data``, from zero.

    The backbone is frozen, so this is logistic regression on the penultimate features of ``data``:
    convex, solved by L-BFGS, without luck.
    """
    fresh = copy.deepcopy(model).eval()
    head = activations.replaceable(fresh, data.images)
    hidden = finite(activations.penultimate(fresh, data.images), "features")
    nn.init.zeros_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(head(hidden), data.labels)
        loss = loss + weight_decay / 2 * head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    head.zero_grad()
    return fresh
