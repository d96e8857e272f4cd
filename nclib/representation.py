"""Features without a classifier: few-shot prototypes, two views of an image, images with captions.

What lesson 14 needs to learn with few labels or none; each function is one idea of one paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from nclib import models, training
from nclib.data import ImageSet
from nclib.doors import integer, number, numbers, seeded


@numbers
def few_shot(
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    shots: int = 5,
    episodes: int = 100,
    seed: int = 0,
) -> Tensor:
    """The labels ``[episodes, N]`` that prototypical networks give to the queries.

    Both sides are features ``[., D]`` and labels 0..K-1 ``[.]``. Each episode draws ``shots``
    images of each class from ``support``; the nearest of their means names a query (Snell et al.
    2017, arXiv 1703.05175). Raises ``ValueError`` for a class with fewer than ``shots`` images.
    """
    integer(episodes, "episodes", 1)
    features, labels = support
    least = int(labels.bincount().min())
    integer(shots, "shots", 1, least)
    draw = seeded(seed)
    classes = [torch.where(labels.cpu() == c)[0] for c in range(int(labels.max()) + 1)]
    drawn = torch.stack(
        [
            torch.stack([at[torch.randperm(len(at), generator=draw)[:shots]] for at in classes])
            for _ in range(episodes)
        ]
    )
    prototypes = features[drawn.to(features.device)].mean(2)
    return torch.cdist(query[0].expand(episodes, -1, -1), prototypes).argmin(2)


def two_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image twice, ``[N, 2C, H, W]``: cut out, turned, lit and tinted anew; never mirrored.

    What the two views of an image share is all that SimCLR learns to keep, and a mirror would make
    one sign of "turn left" and "turn right".
    """

    def draw(low: float, high: float, *shape: int) -> Tensor:
        size = (len(images), *shape)
        return low + (high - low) * torch.rand(size, generator=generator, device=images.device)

    def view() -> Tensor:
        size, angle = draw(0.4, 1.0), draw(-math.pi / 9, math.pi / 9)
        cosine, sine = size * angle.cos(), size * angle.sin()
        move = draw(-1, 1, 2) * (1 - size)[:, None]
        pose = torch.stack([cosine, -sine, move[:, 0], sine, cosine, move[:, 1]], 1)
        grid = affine_grid(pose.unflatten(1, (2, 3)), list(images.shape), align_corners=False)
        cut = grid_sample(images, grid, padding_mode="border", align_corners=False)
        middle = cut.mean((2, 3), keepdim=True)
        lit = (cut - middle) * draw(0.6, 1.4, 1, 1, 1) + middle * draw(0.6, 1.4, 1, 1, 1)
        tinted = lit * draw(0.5, 1.5, images.shape[1], 1, 1)
        return (tinted + 0.05 * draw(-1, 1, *images.shape[1:])).clamp(0, 1)

    return torch.cat([view(), view()], 1)


@numbers
def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """SimCLR's loss of two views ``[N, D]`` each (Chen et al. 2020, arXiv 2002.05709, equation 1).

    Each view has to find its twin among the 2N - 1 others by the cosine, divided by the
    temperature. Raises ``ValueError`` for a temperature that is not above 0.
    """
    number(temperature, "temperature", 1e-6)
    both = normalize(torch.cat([first, second]))
    own = torch.eye(len(both), dtype=torch.bool, device=both.device)
    logits = (both @ both.T / temperature).masked_fill(own, float("-inf"))
    return cross_entropy(logits, torch.arange(len(both), device=both.device).roll(len(first)))


@numbers
def clip_loss(images: Tensor, texts: Tensor, temperature: float = 0.1) -> Tensor:
    """CLIP's loss of pairs ``[N, D]``: each image finds its text, each text its image, by cosine.

    Radford et al. 2021 (arXiv 2103.00020), figure 3. Raises ``ValueError`` for a temperature that
    is not above 0.
    """
    number(temperature, "temperature", 1e-6)
    logits = normalize(images) @ normalize(texts).T / temperature
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


class Captions(nn.Module):
    """A small text encoder for a fixed list of captions: the mean of the words' vectors, a layer.

    Called with positions in the list ``[N]`` it gives ``[N, dim]``.
    """

    words: Tensor

    def __init__(self, captions: Sequence[str], dim: int = 64, seed: int = 0) -> None:
        super().__init__()
        known = sorted({word for caption in captions for word in caption.split()})
        counts = [[caption.split().count(word) for word in known] for caption in captions]
        self.register_buffer("words", normalize(torch.tensor(counts).float(), p=1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.vectors = nn.Linear(len(known), 2 * dim, bias=False)
            self.out = nn.Sequential(nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, which: Tensor) -> Tensor:
        return self.out(self.vectors(self.words[which]))


def simclr(
    train: ImageSet, *, epochs: int = 15, seed: int = 0, progress: bool = False
) -> nn.Module:
    """The small CNN trained on the images of ``train`` alone, with a linear head of 64 numbers.

    Its features are those before the head: ``activations.penultimate``. The labels are not used.
    """
    channels = train.shape[0]

    def loss(model: nn.Module, views: Tensor, _: Tensor) -> Tensor:
        return nt_xent(model(views[:, :channels]), model(views[:, channels:]))

    model = _encoder(train, seed)
    how: dict[str, Any] = {"loss": loss, "augment": two_views, "optimizer": _adam(2e-3)}
    training.fit(model, train, epochs=epochs, batch_size=250, seed=seed, progress=progress, **how)
    return model


def paired(
    train: ImageSet, *, epochs: int = 20, seed: int = 0, progress: bool = False
) -> nn.Module:
    """Images and captions trained together: ``model(images)`` and ``model.texts(positions)``.

    The captions are ``train.classes``, and a label says which of them belongs to an image.
    """

    def loss(model: nn.Module, images: Tensor, which: Tensor) -> Tensor:
        return clip_loss(model(images), model.get_submodule("texts")(which))

    model = _encoder(train, seed)
    model.texts = Captions(train.classes, seed=seed).to(train.device)
    how: dict[str, Any] = {"loss": loss, "optimizer": _adam(3e-3)}
    training.fit(model, train, epochs=epochs, batch_size=64, seed=seed, progress=progress, **how)
    return model


def _encoder(train: ImageSet, seed: int, dim: int = 64) -> nn.Module:
    """The small CNN whose last layer gives ``dim`` numbers in place of logits."""
    names = tuple(map(str, range(dim)))
    plain = ImageSet(train.images, torch.zeros_like(train.labels), names)
    return models.build("cnn", plain, seed=seed)


def _adam(rate: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, rate, weight_decay=1e-3)
