"""Experiments on CIFAR-10, each a row or a few at a time; what they share stands here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from nclib import data, fast, models, training
from nclib.data import ImageSet

DRY = 5000  # on fewer training images everything is small: a dry run


@dataclass(frozen=True)
class Photographs:
    """CIFAR-10 on one device; ``source`` says which copies, and goes into every table."""

    train: ImageSet
    test: ImageSet
    source: str
    name: str  # under which ``data.load`` found them

    @property
    def dry(self) -> bool:
        return len(self.train) < DRY

    def few(self, n_train: int, seed: int = 0) -> ImageSet:
        """``n_train`` training images, as many of each class; all where there are no more."""
        if n_train >= len(self.train):
            return self.train
        return self.train.subset(data.stratified(self.train.labels, n_train, seed))


def photographs(
    name: str, device: torch.device | str | None = None, **sizes: int | None
) -> Photographs:
    """CIFAR-10 as ``data.load`` reads it: "cifar10", or "folder:PATH" for the JPEG copies."""
    train, test = data.load(name, device=device, **sizes)
    source = "JPEG copies" if name.startswith("folder:") else "original"
    # a folder comes class by class, and the fast network whitens by the first images
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return Photographs(train.subset(order), test, source, name)


def widths(train: ImageSet) -> tuple[int, int, int]:
    """Those of the fast network's blocks: its own on a GPU, narrow on a CPU, tiny in a dry run."""
    if len(train) < DRY:
        return 8, 16, 16
    return (32, 64, 64) if train.device.type == "cpu" else (64, 256, 256)


def trained(train: ImageSet, seed: int = 0, *, keep: bool = False, epochs: int = 8) -> nn.Module:
    """The fast network after ``epochs`` of its recipe (one in a dry run).

    ``keep`` it in the run cache: for what several jobs need.
    """
    model = models.build("fast", train, seed=seed, widths=widths(train))
    plan = fast.recipe(train, epochs=1 if len(train) < DRY else epochs)
    training.fit(model, train, **plan, seed=seed, cache=keep, progress=False)
    return model.to(memory_format=torch.channels_last)  # one from the cache is not, and slower


@cache
def clean(photos: Photographs, seed: int) -> nn.Module:
    """The fast network on the clean photographs, from the cache where it was trained before."""
    return trained(photos.train, seed, keep=True)
