"""Stratified subsets: a part of a data set in which every class keeps its share."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from nclib.doors import integer, seed32, seeded


def stratified(labels: Tensor, n: int, seed: int = 0) -> Tensor:
    """Positions ``[n]`` of a random subset that keeps the class proportions, in rising order.

    Every class is in it. Raises ``ValueError`` where ``n`` is below the number of classes or above
    ``len(labels)``.
    """
    return split(labels, n, seed)[0].sort().values


def split(labels: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A stratified choice of ``n`` positions, and the rest."""
    labels, n, seed = labels.cpu(), integer(n, "n"), seed32(seed)
    present, counts = labels.unique(return_counts=True)
    if not len(present) <= n <= len(labels):
        raise ValueError(
            f"n: got {n}; {len(present)} (classes) to {len(labels)} (images) is allowed"
        )
    if n == len(labels):
        return torch.arange(n), torch.arange(0)
    rest = len(labels) - n
    if counts.min() < 2 or rest < len(present) or counts.min() * n < len(labels):
        order = _spread(labels, seed)  # scikit-learn refuses, or may lose the smallest class
        return order[:n], order[n:]
    chooser = StratifiedShuffleSplit(1, train_size=n, test_size=rest, random_state=seed)
    first, second = next(chooser.split(np.zeros(len(labels)), labels.numpy()))
    return torch.from_numpy(first), torch.from_numpy(second)


def _spread(labels: Tensor, seed: int) -> Tensor:
    """A random order whose every beginning holds each class in proportion, and all classes soon."""
    order = torch.randperm(len(labels), generator=seeded(seed))
    turn = torch.empty(len(labels))
    for c in labels.unique():
        mine = labels[order] == c
        turn[mine] = torch.arange(int(mine.sum())) / mine.sum()
    return order[turn.argsort(stable=True)]
