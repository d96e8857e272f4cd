"""Experiments on CIFAR-10, each a row or a few at a time; what they share stands here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nclib import data
from nclib.data import ImageSet


@dataclass(frozen=True)
class Photographs:
    """CIFAR-10 on one device; ``source`` says which copies, and goes into every table."""

    train: ImageSet
    test: ImageSet
    source: str

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
    return Photographs(train, test, source)
