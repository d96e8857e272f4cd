"""Clean-label poisons by feature collision: the transfer setting, where a backbone is reused.

The poisons look like class ``target`` and carry its label, which is right. In the frozen feature
space they sit on the victim's image, so a new head puts the victim into ``target``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from nclib.activations import PENULTIMATE, evaluating, pooled, tap
from nclib.data import ImageSet, check_images
from nclib.doors import finite, gradients, integer, number
from nclib.poisons.sets import PoisonedSet, check_budget, check_target, choose_count, poisoned


@gradients
def feature_collision(
    data: ImageSet,
    model: nn.Module,
    victims: Tensor,
    target: int,
    *,
    poisons: int = 1,
    eps: float = 1.0,
    watermark: float = 0.3,
    beta: float = 0.1,
    lr: float = 0.01,
    steps: int = 200,
    layer: str = PENULTIMATE,
    seed: int = 0,
) -> PoisonedSet:
    """Poison Frogs (Shafahi et al. 2018, arXiv 1804.00792): each poison collides with a victim.

    Minimises |f(x) - f(t)|^2 + beta |x - b|^2 by forward-backward splitting from the base image b,
    a sample of ``target``, mixed with ``watermark`` of the victim t; poison i takes victim i mod T
    of ``victims`` ``[T, C, H, W]``. No pixel moves by more than ``eps`` (1: the paper's attack,
    which has no bound). Raises ``ValueError`` for bad arguments.
    """
    check_victims(data, victims, target, eps)
    check_budget(watermark, "watermark")
    integer(steps, "steps", 0)
    number(lr, "lr", 0)
    index = choose_count(data, poisons, data.labels == target, seed)
    base, aim = data.images[index], victims[torch.arange(poisons) % len(victims)]
    with evaluating(model):
        goal = represent(model, aim, layer).detach()
        images = within(watermark * aim + (1 - watermark) * base, base, eps)
        centre = images  # the backward step pulls towards the watermarked base, as the authors do
        for _ in range(steps if poisons else 0):
            images = images.requires_grad_()
            distance = (represent(model, images, layer) - goal).square().sum()
            (slope,) = torch.autograd.grad(distance, images)
            forward = images.detach() - lr * slope
            images = within((forward + lr * beta * centre) / (1 + lr * beta), base, eps)
    return replaced(data, index, images.detach(), "feature_collision", target, victims)


@gradients
def bullseye_polytope(
    data: ImageSet,
    model: nn.Module | Sequence[nn.Module],
    victims: Tensor,
    target: int,
    *,
    poisons: int = 5,
    eps: float = 0.1,
    lr: float = 0.04,
    steps: int = 4000,
    layers: Sequence[str] = (PENULTIMATE,),
    seed: int = 0,
) -> PoisonedSet:
    """Bullseye Polytope (Aghakhani et al. 2021, arXiv 2005.00191): the poisons' mean hits the mark.

    Minimises |f(t) - mean_p f(x_p)|^2 / |f(t)|^2 over the ``poisons`` samples of ``target``, with
    Adam, averaged over ``layers`` and over the surrogate models when ``model`` is a sequence.
    f(t) is the mean over ``victims`` ``[T, C, H, W]``. No pixel moves by more than ``eps``. Raises
    ``ValueError`` for bad arguments.
    """
    options = (poisons, eps, lr, steps, layers, seed)
    return _around("bullseye_polytope", _middle, data, model, victims, target, *options)


@gradients
def convex_polytope(
    data: ImageSet,
    model: nn.Module | Sequence[nn.Module],
    victims: Tensor,
    target: int,
    *,
    poisons: int = 5,
    eps: float = 0.1,
    lr: float = 0.04,
    steps: int = 4000,
    layers: Sequence[str] = (PENULTIMATE,),
    seed: int = 0,
) -> PoisonedSet:
    """Convex Polytope (Zhu et al. 2019, arXiv 1905.05897): the poisons' hull holds the victim.

    As ``bullseye_polytope``, but the mean may have any weights: in each step and for each model it
    is the point of the poisons' convex hull that lies nearest to f(t).
    """
    options = (poisons, eps, lr, steps, layers, seed)
    return _around("convex_polytope", nearest_in_hull, data, model, victims, target, *options)


def _middle(hidden: Tensor, mark: Tensor) -> Tensor:
    return hidden.mean(0)


def nearest_in_hull(hidden: Tensor, mark: Tensor) -> Tensor:
    """The point ``[D]`` of the convex hull of ``hidden [P, D]`` nearest to ``mark [D]``.

    Non-negative least squares; a heavy last row makes the weights add up to one. The gradient
    goes to ``hidden`` with the weights held, which is right at their optimum.
    """
    rows = hidden.detach().cpu().double()
    heavy = 1e3 * float(rows.norm(dim=1).max().clamp_min(1e-6))
    left = torch.cat([rows.T, torch.full((1, len(rows)), heavy, dtype=torch.float64)])
    right = torch.cat([mark.detach().cpu().double(), torch.tensor([heavy], dtype=torch.float64)])
    weights = torch.from_numpy(nnls(left.numpy(), right.numpy())[0]).to(hidden)
    return (weights / weights.sum()) @ hidden


def _around(
    attack: str,
    point: Callable[[Tensor, Tensor], Tensor],
    data: ImageSet,
    model: nn.Module | Sequence[nn.Module],
    victims: Tensor,
    target: int,
    poisons: int,
    eps: float,
    lr: float,
    steps: int,
    layers: Sequence[str],
    seed: int,
) -> PoisonedSet:
    """Poisons whose ``point(features [P, D], f(t) [D])`` hits f(t), on average over surrogates."""
    check_victims(data, victims, target, eps)
    integer(steps, "steps", 0)
    number(lr, "lr", 0)
    surrogates = [model] if isinstance(model, nn.Module) else list(model)
    index = choose_count(data, poisons, data.labels == target, seed)
    base = data.images[index]
    aims = [[represent(m, victims, k).detach().mean(0) for k in layers] for m in surrogates]

    def miss(images: Tensor) -> Tensor:
        total = images.new_zeros(())
        for net, marks in zip(surrogates, aims, strict=True):
            for layer, mark in zip(layers, marks, strict=True):
                gap = point(represent(net, images, layer), mark) - mark
                total = total + gap.square().sum() / mark.square().sum()
        return total / (len(surrogates) * len(layers))

    images = descend(miss, base, eps, lr, steps) if poisons and eps > 0 else base
    return replaced(data, index, images, attack, target, victims)


def descend(
    loss: Callable[[Tensor], Tensor], base: Tensor, eps: float, lr: float, steps: int
) -> Tensor:
    """Adam on the images themselves, put back into the eps-box and [0, 1] after each step."""
    images = base.clone().requires_grad_()
    optimiser = torch.optim.Adam([images], lr)
    for _ in range(steps):
        (images.grad,) = torch.autograd.grad(loss(images), images)
        optimiser.step()
        with torch.no_grad():
            images.copy_(within(images, base, eps))
    return images.detach()


def represent(model: nn.Module, images: Tensor, layer: str = PENULTIMATE) -> Tensor:
    """Features ``[N, D]`` of ``layer`` in evaluation mode, with their gradient."""
    with evaluating(model), tap(model, [layer]) as seen:
        model(images)
    return finite(pooled(seen[layer], "flat"), "features")


def within(images: Tensor, base: Tensor, eps: float) -> Tensor:
    """The nearest images that differ from ``base`` by at most ``eps`` and lie in [0, 1]."""
    return torch.minimum(torch.maximum(images, base - eps), base + eps).clamp(0, 1)


def replaced(
    data: ImageSet, index: Tensor, images: Tensor, attack: str, target: int, victims: Tensor
) -> PoisonedSet:
    """``data`` with ``images`` at ``index``, labels as they were."""
    everyone = data.images.clone()
    everyone[index] = images
    return poisoned(data, everyone, data.labels, attack, target=target, victims=victims)


def check_victims(data: ImageSet, victims: Tensor, target: int, eps: float) -> None:
    """Refuse victims of another shape than ``data``, an unknown ``target``, and a bad ``eps``.

    ``victims`` are float images ``[T, C, H, W]`` in [0, 1]; everything else is a ``ValueError``.
    """
    check_images(victims, "victims")
    if tuple(victims.shape[1:]) != data.shape:
        raise ValueError(f"victims: got {tuple(victims.shape)}; [T, {data.shape}] is needed")
    check_target(data, target)
    check_budget(eps)
