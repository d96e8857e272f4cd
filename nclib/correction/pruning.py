"""Fine-pruning: channels that clean images leave dormant may serve a trigger; switch them off."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from nclib import activations, training
from nclib.correction.repair import fine_tune
from nclib.data import ImageSet
from nclib.doors import gradients, number


@gradients
def fine_pruning(
    model: nn.Module, clean: ImageSet, *, cost: float = 0.04, **options: Any
) -> training.Run:
    """Prune a *copy* of ``model`` on ``clean`` images, then fine-tune it; ``model`` stays.

    The inputs of the classifier are switched off in the order of their mean activation on clean
    images, the quietest first, as long as accuracy on them falls by no more than ``cost``; then all
    weights are tuned (``options`` go to ``fine_tune``). Liu, Dolan-Gavitt and Garg 2018 (arXiv
    1805.12185). Raises ``ValueError`` for a cost outside [0, 1].
    """
    number(cost, "cost", 0, 1)
    model = copy.deepcopy(model)
    head = activations.replaceable(model, clean.images)
    quiet = activations.penultimate(model, clean.images).abs().mean(0).argsort()
    least, whole = training.accuracy(model, clean) - cost, head.weight.detach().clone()
    low, high = 0, len(quiet)  # the most channels that may go, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        _silence(head, whole, quiet[:middle])
        enough = training.accuracy(model, clean) >= least
        low, high = (middle, high) if enough else (low, middle - 1)
    _silence(head, whole, quiet[:low])
    mask = head.weight.detach() != 0
    hook = head.weight.register_hook(lambda gradient: gradient * mask)
    run = fine_tune(model, clean, **options)
    hook.remove()
    return run


def _silence(head: nn.Linear, whole: Tensor, channels: Tensor) -> None:
    with torch.no_grad():
        head.weight.copy_(whole)
        head.weight[:, channels.to(head.weight.device)] = 0
