"""Availability poisoning: wrong labels, nothing else."""

from __future__ import annotations

import torch

from nclib.data import ImageSet
from nclib.doors import numbers, seeded
from nclib.poisons.sets import PoisonedSet, choose, poisoned

KINDS = ("symmetric", "pair", "random")


@numbers
def label_flip(
    data: ImageSet, rate: float = 0.2, *, kind: str = "symmetric", seed: int = 0
) -> PoisonedSet:
    """Change the labels of ``round(rate * N)`` random samples.

    ``kind`` "symmetric" moves each to another class, all equally likely; "pair" moves class c to
    c + 1 (Patrini et al. 2017, arXiv 1609.03683); "random" draws a label among all classes, the
    true one included, so about 1/K of the drawn ones stay clean (rate 1 is the random-label
    extreme of Zhang et al. 2017, arXiv 1611.03530). Raises ``ValueError`` for a bad rate or kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; allowed are {', '.join(KINDS)}")
    index, classes = choose(data, rate, seed=seed), data.num_classes
    generator = seeded(seed + 1)
    if kind == "pair":
        shift = torch.ones(len(index), dtype=torch.int64)
    else:
        first = 1 if kind == "symmetric" else 0
        shift = torch.randint(first, classes, (len(index),), generator=generator)
    labels = data.labels.clone()
    labels[index] = (labels[index] + shift.to(data.device)) % classes
    return poisoned(data, data.images.clone(), labels, "label_flip")
