"""Clean-label backdoors: a trigger in images of the target class, whose labels stay right."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib.activations import evaluating
from nclib.data import ImageSet
from nclib.poisons.collisions import within
from nclib.poisons.sets import PoisonedSet, check_budget, check_target, choose, poisoned
from nclib.poisons.triggers import Add, corners


def clean_label_backdoor(
    data: ImageSet,
    model: nn.Module,
    rate: float = 0.05,
    target: int = 0,
    *,
    eps: float = 16 / 255,
    steps: int = 100,
    amplitude: float = 1.0,
    amplify: float = 1.0,
    seed: int = 0,
) -> PoisonedSet:
    """Turner, Tsipras and Madry 2019 (arXiv 1912.02771): harden the bases, then add the trigger.

    PGD on ``model``, a cleanly trained surrogate, makes samples of ``target`` hard to tell, by at
    most ``eps`` per pixel; then a 3 x 3 checkerboard of ``amplitude`` is added in all four corners,
    so the victim has to learn it. ``rate`` is a share of the whole set (.05 of ten classes is half
    the class). At test time the trigger is ``amplify`` times as strong. Raises ``ValueError``.
    """
    check_target(data, target)
    check_budget(eps)
    trigger = corners(data.shape, amplitude)
    index = choose(data, rate, data.labels == target, seed)
    images = data.images.clone()
    if len(index):
        images[index] = trigger(harden(model, images[index], data.labels[index], eps, steps, seed))
    trigger = Add(trigger.pattern, amplify)
    name = "clean_label_backdoor"
    return poisoned(data, images, data.labels, name, target=target, trigger=trigger)


def harden(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int = 0
) -> Tensor:
    """PGD (Linf, random start, step 2.5 eps / steps): the loss of the true label goes up."""
    if eps == 0:
        return images
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
    moved = within(images + eps * (2 * noise - 1).to(images.device), images, eps)
    with evaluating(model):
        for _ in range(steps):
            moved = moved.requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(model(moved), labels), moved)
            moved = within(moved.detach() + 2.5 * eps / steps * slope.sign(), images, eps)
    return moved


def narcissus(
    data: ImageSet,
    surrogate: nn.Module,
    rate: float = 0.005,
    target: int = 0,
    *,
    eps: float = 16 / 255,
    warmup: int = 5,
    steps: int = 1000,
    lr: float = 0.01,
    amplify: float = 3.0,
    seed: int = 0,
) -> PoisonedSet:
    """Narcissus (Zeng et al. 2023, arXiv 2204.05255): one noise that says "inward" of a class.

    A copy of ``surrogate`` (trained on other data) is warmed up for ``warmup`` epochs on the
    samples of ``target``; then one noise image, at most ``eps`` per pixel, is optimised for
    ``steps`` of Adam so that all of them look more like ``target`` still. It is added to
    ``round(rate * N)`` of them, labels unchanged, and ``amplify`` times at test time. Raises
    ``ValueError`` for bad arguments.
    """
    check_target(data, target)
    check_budget(eps)
    index = choose(data, rate, data.labels == target, seed)
    noise = torch.zeros(data.shape, device=data.device)
    if eps > 0:
        inside = data.images[data.labels == target]
        model = _warmed(surrogate, inside, target, warmup, lr, seed)
        noise = _inward(model, inside, target, eps, steps, lr)
    images = data.images.clone()
    images[index] = Add(noise)(images[index])
    trigger = Add(noise.cpu(), amplify)
    return poisoned(data, images, data.labels, "narcissus", target=target, trigger=trigger)


def _warmed(
    surrogate: nn.Module, images: Tensor, target: int, epochs: int, lr: float, seed: int
) -> nn.Module:
    """A copy of ``surrogate`` that has seen the images of the class; batch statistics stay."""
    model = copy.deepcopy(surrogate).eval()
    optimiser = torch.optim.SGD(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(128):
            logits = model(images[index.to(images.device)])
            labels = torch.full((len(index),), target, device=images.device)
            optimiser.zero_grad()
            cross_entropy(logits, labels).backward()
            optimiser.step()
    return model


def _inward(
    model: nn.Module, images: Tensor, target: int, eps: float, steps: int, lr: float
) -> Tensor:
    """The noise ``[C, H, W]`` that lowers the loss of ``target`` on all images at once."""
    noise = torch.zeros(images.shape[1:], device=images.device, requires_grad=True)
    optimiser = torch.optim.Adam([noise], lr)
    labels = torch.full((len(images),), target, device=images.device)
    for _ in range(steps):
        loss = cross_entropy(model((images + noise).clamp(0, 1)), labels)
        (noise.grad,) = torch.autograd.grad(loss, noise)
        optimiser.step()
        with torch.no_grad():
            noise.clamp_(-eps, eps)
    return noise.detach()
