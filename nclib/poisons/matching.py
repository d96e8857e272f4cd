"""Gradient matching: poisons whose training gradient points where the attacker wants to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, grid_sample

from nclib.activations import evaluating
from nclib.data import ImageSet
from nclib.doors import finite, gradients, integer, number, numbers, seeded
from nclib.poisons import collisions
from nclib.poisons.sets import PoisonedSet, choose

Augment = Callable[[Tensor, torch.Generator], Tensor]


@gradients
def gradient_matching(
    data: ImageSet,
    model: nn.Module,
    victims: Tensor,
    target: int,
    *,
    rate: float = 0.01,
    eps: float = 16 / 255,
    steps: int = 250,
    restarts: int = 8,
    lr: float = 0.1,
    augment: Augment | None = None,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> PoisonedSet:
    """Witches' Brew (Geiping et al. 2021, arXiv 2009.02276), on samples of ``target`` alone.

    Minimises 1 - cos(gradient of the poisons, gradient of "the ``victims`` are ``target``") with
    respect to the weights of the trained ``model``: ``steps`` of Adam on the sign of the gradient,
    ``lr`` in units of ``eps``, cut tenfold at 3/8, 5/8 and 7/8 of the way; the best of ``restarts``
    random starts. ``augment(x, generator)`` must be differentiable (``random_shift``).
    ``on_step(restart, step, loss)`` is told every loss. Labels stay. Raises ``ValueError`` for bad
    arguments; a ``rate`` is a share of the whole set.
    """
    collisions.check_victims(data, victims, target, eps)
    integer(restarts, "restarts", 1)
    integer(steps, "steps", 0)
    number(lr, "lr", 0)
    index = choose(data, rate, data.labels == target, seed)
    base, best, lowest = data.images[index], data.images[index], float("inf")
    if len(index) and eps > 0:
        generator = seeded(seed, data.device)
        weights = [w for w in model.parameters() if w.requires_grad]
        with evaluating(model):
            wanted = weight_gradient(model, victims, target, weights)
            for restart in range(restarts):
                craft = _Craft(model, weights, wanted, base, target, eps, lr, augment, generator)
                for step in range(steps):
                    value = craft.step(step / steps)
                    if on_step is not None:
                        on_step(restart, step, value)
                value = craft.mismatch()
                if value < lowest:
                    lowest, best = value, craft.images().detach()
    return collisions.replaced(data, index, best, "gradient_matching", target, victims)


@gradients
def alignment(model: nn.Module, images: Tensor, victims: Tensor, target: int) -> float:
    """Cosine between the gradient of ``images`` labelled ``target`` and the attacker's gradient."""
    weights = [w for w in model.parameters() if w.requires_grad]
    with evaluating(model):
        ours = weight_gradient(model, images, target, weights)
        return float(_cosine(ours, weight_gradient(model, victims, target, weights)))


@numbers
def random_shift(pixels: float = 1.0) -> Augment:
    """A differentiable augmentation: each image moved by up to ``pixels`` each way, bilinear."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        shift = torch.rand(count, 2, generator=generator, device=images.device) * 2 - 1
        rows = torch.linspace(-1, 1, height, device=images.device)
        columns = torch.linspace(-1, 1, width, device=images.device)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        size = torch.tensor([width - 1, height - 1]).to(images.device)
        grid = torch.stack([x, y], -1) + (shift * 2 * pixels / size)[:, None, None]
        return grid_sample(images, grid, align_corners=True)

    return augment


def weight_gradient(
    model: nn.Module, images: Tensor, label: int, weights: Sequence[Tensor], graph: bool = False
) -> list[Tensor]:
    """Gradient of the mean cross-entropy of ``images`` with one ``label``, per weight tensor."""
    labels = torch.full((len(images),), label, device=images.device)
    loss = cross_entropy(finite(model(images), "logits"), labels)
    return list(torch.autograd.grad(loss, weights, create_graph=graph))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack([part.sum() for part in parts]).sum()


def _cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    dot = _total(a * b for a, b in zip(first, second, strict=True))
    norms = [_total(a.square() for a in side).sqrt() for side in (first, second)]
    return dot / (norms[0] * norms[1]).clamp_min(1e-30)


class _Craft:
    """One restart: the perturbation in units of eps, and a step of signed Adam on it."""

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[Tensor],
        wanted: Sequence[Tensor],
        base: Tensor,
        target: int,
        eps: float,
        lr: float,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None,
        generator: torch.Generator,
    ) -> None:
        self.model, self.weights, self.target = model, weights, target
        norm = _total(g.square() for g in wanted).sqrt().clamp_min(1e-30)
        self.wanted = [g / norm for g in wanted]
        self.base, self.eps, self.lr = base, eps, lr
        self.augment, self.generator = augment, generator
        noise = torch.rand(base.shape, generator=generator, device=base.device)
        self.delta = (noise * 2 - 1).requires_grad_()
        self.optimiser = torch.optim.Adam([self.delta], lr)

    def images(self) -> Tensor:
        return (self.base + self.eps * self.delta).clamp(0, 1)

    def mismatch(self) -> float:
        ours = weight_gradient(self.model, self.images().detach(), self.target, self.weights)
        return 1 - float(_cosine(ours, self.wanted))

    def step(self, way: float) -> float:
        images = self.images()
        if self.augment is not None:
            images = self.augment(images, self.generator)
        ours = weight_gradient(self.model, images, self.target, self.weights, graph=True)
        loss = 1 - _cosine(ours, self.wanted)
        (slope,) = torch.autograd.grad(loss, self.delta)
        self.delta.grad = slope.sign()
        cuts = sum(way >= mark for mark in (3 / 8, 5 / 8, 7 / 8))
        self.optimiser.param_groups[0]["lr"] = self.lr * 0.1**cuts
        self.optimiser.step()
        with torch.no_grad():
            self.delta.clamp_(-1, 1)
        return float(loss.detach())
