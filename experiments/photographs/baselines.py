"""Other ways to defuse a poisoned training set, to compare with: friendly noise and EPIC."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, one_hot
from tqdm.auto import tqdm

from nclib.activations import evaluating
from nclib.data import ImageSet, check_images, check_labels
from nclib.doors import finite, integer, number, numbers, seeded
from nclib.doors import gradients as with_gradients
from nclib.training import predict


@with_gradients
def friendly_noise(
    images: Tensor,
    model: nn.Module,
    *,
    eps: float = 16 / 255,
    weight: float = 0.1,
    steps: int = 30,
    lr: float = 0.02,
    seed: int = 0,
    chunk: int = 256,
    progress: bool = True,
) -> Tensor:
    """The largest noise within +-``eps`` that leaves the model's answer alone: ``images`` + noise.

    Minimises KL(answer with noise, answer without) - ``weight`` times the noise's root mean square
    in units of ``eps``, by Adam from a random start. ``model`` is trained for a few epochs on the
    poisoned set itself. Result in [0, 1], the model as it was. Liu, Yang and Mirzasoleiman 2022
    (arXiv 2208.10224), eps 16/255; train on it with ``augment=random_noise()``, the second half of
    the defence.
    """
    check_images(images)
    number(eps, "eps", 0, 1), number(weight, "weight", 0), number(lr, "lr", 0)
    integer(steps, "steps", 0), integer(chunk, "chunk", 1)
    draw = seeded(seed, images.device)
    start = torch.rand(images.shape, generator=draw, device=images.device) * 2 - 1
    pairs = list(zip(images.split(chunk), start.split(chunk), strict=True))
    bar = tqdm(pairs, desc="friendly noise", unit="chunk", disable=not progress)
    with evaluating(model):
        return torch.cat([_befriend(x, u, model, eps, weight, steps, lr) for x, u in bar])


def _befriend(
    x: Tensor, unit: Tensor, model: nn.Module, eps: float, weight: float, steps: int, lr: float
) -> Tensor:
    """One chunk; ``unit`` is the noise in units of ``eps``, within +-1."""
    with torch.no_grad():
        before = finite(model(x), "logits").log_softmax(1)
    unit = unit.clone().requires_grad_()
    optimiser = torch.optim.Adam([unit], lr)
    for _ in range(steps):
        after = model((x + eps * unit).clamp(0, 1)).log_softmax(1)
        apart = kl_div(before, after, log_target=True, reduction="none").sum(1)  # KL(after, before)
        size = unit.flatten(1).square().mean(1).add(1e-12).sqrt()
        (unit.grad,) = torch.autograd.grad((apart - weight * size).sum(), unit)
        optimiser.step()
        unit.data.clamp_(-1, 1)
    return (x + eps * unit.detach()).clamp(0, 1)


@numbers
def random_noise(amount: float = 16 / 255) -> Callable[[Tensor, torch.Generator], Tensor]:
    """An ``augment`` for ``training.fit``: uniform noise within +-``amount``, cut to [0, 1]."""
    if not 0 <= amount <= 1:
        raise ValueError(f"amount: got {amount}; 0 to 1 is allowed")

    def add(images: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(images.shape, generator=generator, device=generator.device)
        return (images + amount * (2 * drawn - 1).to(images.device)).clamp(0, 1)

    return add


@numbers
def isolated(gradients: Tensor, labels: Tensor, share: float = 0.2) -> Tensor:
    """Samples that stand alone among the gradients of their class: a mask bool ``[N]``.

    In each class, ``share`` of the samples become medoids, chosen greedily to cover the class
    (facility location); a medoid that no other sample is nearest to is isolated. ``gradients``
    ``[N, D]``. Yang, Liu and Mirzasoleiman 2022 (arXiv 2210.09671), Algorithm 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share}; above 0 to 1 is allowed")
    if gradients.ndim != 2:
        raise ValueError(f"gradients: got {tuple(gradients.shape)}; [N, D] is needed")
    finite(gradients, "gradients")
    check_labels(labels, len(gradients), int(labels.max()) + 1)
    alone = torch.zeros(len(labels), dtype=torch.bool, device=gradients.device)
    for c in labels.unique():
        index = (labels == c).nonzero()[:, 0]
        apart = torch.cdist(gradients[index], gradients[index])
        medoids = _cover(apart, max(round(share * len(index)), 1))
        nearest = medoids[apart[:, medoids].argmin(1)]
        nearest[medoids] = medoids  # a medoid belongs to itself, even beside its twin
        sizes = torch.bincount(nearest, minlength=len(index))
        alone[index[sizes == 1]] = True
    return alone


def _cover(apart: Tensor, count: int) -> Tensor:
    """``count`` medoids, each the one that most lowers the summed distance to the nearest."""
    best = apart.max().expand(len(apart)).clone()
    place, taken = torch.arange(len(apart), device=apart.device), torch.zeros_like(best).bool()
    chosen = []
    for _ in range(count):
        gain = (best[:, None] - apart).clamp_min(0).sum(0)
        chosen.append(gain.masked_fill(taken, -1).argmax())
        taken = taken | (place == chosen[-1])
        best = torch.minimum(best, apart[:, chosen[-1]])
    return torch.stack(chosen)


def loss_gradients(model: nn.Module, data: ImageSet) -> Tensor:
    """The gradient of each sample's cross-entropy by its logits, p - y: ``[N, K]``.

    By the last layer's weights the gradient is this times the features; the paper, too, works with
    the last layer alone.
    """
    answers = predict(model, data.images).softmax(1)
    return answers - one_hot(data.labels, data.num_classes).float()


@numbers
def to_drop(model: nn.Module, data: ImageSet, share: float = 0.2) -> Tensor:
    """What EPIC drops by ``model``: the ``isolated`` samples, a mask bool ``[N]``.

    A class never loses its last two samples.
    """
    alone = isolated(loss_gradients(model, data), data.labels, share)
    for c in data.labels.unique():
        mine = data.labels == c
        if (mine & ~alone).sum() < 2:
            alone[mine] = False
    return alone


@numbers
def epic(
    train: ImageSet,
    learn: Callable[[ImageSet, int], nn.Module],
    *,
    rounds: int = 3,
    share: float = 0.2,
) -> tuple[nn.Module, Tensor]:
    """EPIC in small: train, drop the isolated samples, ``rounds`` times; train on what is left.

    ``learn(data, turn)`` returns a trained model; ``turn`` counts from 0. Here each turn has a new
    network; the paper drops in the course of one training: ``lambda data, turn: fit(model, data,
    epochs=10, seed=turn).model`` goes on with ``model``. Returns ``(model, kept)``: the last model
    and a mask bool ``[N]``, on the device of ``train``, of the samples that were kept. Raises
    ``ValueError`` for ``rounds`` below 1.
    """
    integer(rounds, "rounds", 1)
    kept = torch.ones(len(train), dtype=torch.bool, device=train.device)
    for turn in range(rounds):
        part = train.subset(kept)
        alone = to_drop(learn(part, turn), part, share)
        kept[kept.nonzero()[:, 0][alone]] = False
    return learn(train.subset(kept), rounds), kept
