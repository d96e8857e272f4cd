"""How an attacker adapts: past steps without gradient, past randomness, from another model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nclib.attacks.common import Attack, check_counts
from nclib.attacks.gradient import pgd
from nclib.doors import gradients, numbers


class _StraightThrough(torch.autograd.Function):
    """Forward ``value``; backward as if it were ``stand_in``."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _BPDA(nn.Module):
    def __init__(
        self,
        model: nn.Module,
        defence: Callable[[Tensor], Tensor],
        stand_in: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        self.model, self.defence, self.stand_in = model, defence, stand_in

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            defended = self.defence(images)
        stand_in = images if self.stand_in is None else self.stand_in(images)
        if defended.shape != stand_in.shape:
            raise ValueError(
                f"defence: made {tuple(defended.shape)}, the stand-in {tuple(stand_in.shape)}; "
                "one shape is needed (pass a differentiable stand_in that has it)"
            )
        return self.model(_StraightThrough.apply(stand_in, defended))


def bpda(
    model: nn.Module,
    defence: Callable[[Tensor], Tensor],
    stand_in: Callable[[Tensor], Tensor] | None = None,
) -> nn.Module:
    """``model(defence(x))`` whose backward pass treats the defence as ``stand_in``.

    ``defence`` maps images to images and needs no gradient; ``stand_in`` is a differentiable
    function like it (None: the identity). The outputs are exactly the defended ones: attack the
    result, and measure on it. Raises ``ValueError`` where the shapes differ. Athalye et al. 2018
    (arXiv 1802.00420), backward pass differentiable approximation.
    """
    return _BPDA(model, defence, stand_in)


class _EOT(nn.Module):
    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, images: Tensor) -> Tensor:
        total = self.model(images)
        for _ in range(self.samples - 1):
            total = total + self.model(images)
        return total / self.samples


@numbers
def eot(model: nn.Module, samples: int = 16) -> nn.Module:
    """The mean logits of ``samples`` runs of a random model: its gradient is the expected one.

    Attack the result, measure on ``model``. Raises ``ValueError`` for ``samples`` below 1. Athalye
    et al. 2018 (arXiv 1707.07397), expectation over transformation.
    """
    check_counts(samples=samples)
    return _EOT(model, samples)


class MeanLogits(nn.Module):
    """Several models as one, whose logits are the mean of theirs: all of them have to be fooled."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([model(images) for model in self.models]).mean(0)


@gradients
def transfer(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    surrogate: nn.Module | Sequence[nn.Module],
    attack: Attack = pgd,
    **options: Any,
) -> Tensor:
    """Black box: images made by ``attack`` on the ``surrogate``; ``model`` is never asked.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``; several surrogates
    are attacked through their mean logits. ``options`` reach ``attack``, which raises the
    ``ValueError``, as does an empty ``surrogate``. Papernot et al. 2016 (arXiv 1605.07277).
    """
    if not isinstance(surrogate, nn.Module):
        surrogate = MeanLogits(_several(surrogate))
    return attack(surrogate, images, labels, eps, **options)


def _several(surrogate: Any) -> list[nn.Module]:
    models = list(surrogate) if isinstance(surrogate, Iterable) else [surrogate]
    if not models or not all(isinstance(model, nn.Module) for model in models):
        kinds = ", ".join(type(model).__name__ for model in models) or "nothing"
        raise ValueError(f"surrogate: got {kinds}; an nn.Module or several of them are needed")
    return models
