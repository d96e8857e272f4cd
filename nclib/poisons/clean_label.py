"""Clean-label backdoors: a trigger in images of the target class, whose labels stay right."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib.attacks import pgd
from nclib.data import ImageSet
from nclib.doors import finite, gradients, integer, number, seeded
from nclib.poisons.sets import PoisonedSet, check_budget, check_target, choose, poisoned
from nclib.poisons.triggers import Add, corners


@gradients
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
    the class). At test time the trigger is ``amplify`` times as strong. Raises ``ValueError``
    for a class that ``data`` lacks, a ``rate`` that the class cannot fill, ``steps`` below 1, an
    ``eps`` or ``amplitude`` outside [0, 1], and images smaller than 6 x 6.
    """
    check_target(data, target)
    check_budget(eps)
    number(amplify, "amplify", 0)
    trigger = corners(data.shape, amplitude)
    index = choose(data, rate, data.labels == target, seed)
    images = data.images.clone()
    if len(index):
        base, labels = images[index], data.labels[index]
        # one batch, so that the seed's noise does not depend on a batch size
        hard = pgd(model, base, labels, eps, steps=steps, batch_size=len(base), seed=seed)
        images[index] = trigger(hard)
    trigger = Add(trigger.pattern, amplify)
    name = "clean_label_backdoor"
    return poisoned(data, images, data.labels, name, target=target, trigger=trigger)


@gradients
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
    ``ValueError`` for bad arguments, and where the warm-up leaves no loss to lower.
    """
    check_target(data, target)
    check_budget(eps)
    number(amplify, "amplify", 0)
    integer(warmup, "warmup", 0)
    integer(steps, "steps", 0)
    number(lr, "lr", 0)
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
    generator = seeded(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(128):
            logits = finite(model(images[index.to(images.device)]), "logits")
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
    if steps and float(noise.detach().abs().max()) < min(eps, lr * steps) / 10:  # no gradient
        raise ValueError(f"lr: got {lr}; smaller is needed: the warm-up has left no loss to lower")
    return noise.detach()
