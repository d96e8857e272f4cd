"""Deep partition aggregation: a certificate against poisoning, by training on disjoint parts.

One poisoned sample reaches one part, so it changes one vote. Levine and Feizi 2021 (arXiv
2006.14768).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nclib.data import ImageSet, check_labels
from nclib.doors import finite, integer, numbers

Predictor = TypeVar("Predictor", bound=Callable[[Tensor], Tensor])  # images -> labels


@numbers
def parts(images: Tensor, k: int) -> Tensor:
    """The part 0..k-1 of each image ``[N]``, by a hash of its pixels alone.

    Nothing but its own pixels decides where a sample goes, so that adding, dropping or relabelling
    one sample leaves every other part as it was. Replacing an image is a drop and an addition.
    """
    integer(k, "k", 1)
    finite(images, "images")
    rows = images.cpu().contiguous().flatten(1).numpy()
    hashes = [int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8]) for row in rows]
    return torch.tensor([h % k for h in hashes])


@numbers
def train(
    data: ImageSet, k: int, learner: Callable[[ImageSet, int], Predictor]
) -> list[Predictor | None]:
    """One predictor per part: ``learner(part, number)``, which must not depend on anything else.

    The part arrives sorted by content, because a certificate has no say over the order. An empty
    part gives None, and no vote.
    """
    where = parts(data.images, k)
    return [
        learner(ordered(data.subset(where == i)), i) if (where == i).any() else None
        for i in range(k)
    ]


def ordered(data: ImageSet) -> ImageSet:
    """The same samples in an order that their content decides."""
    rows = data.images.cpu().contiguous().flatten(1).numpy()
    keys = [(row.tobytes(), int(y)) for row, y in zip(rows, data.labels.tolist(), strict=True)]
    return data.subset(torch.tensor(sorted(range(len(keys)), key=keys.__getitem__)))


@numbers
def votes(predictors: Sequence[Predictor | None], images: Tensor, num_classes: int) -> Tensor:
    """How many of the predictors name each class: int64 ``[N, K]``."""
    present = [p for p in predictors if p is not None]
    if not present:
        raise ValueError("predictors: got none that was trained; every part is empty")
    named = [p(images) for p in present]
    for labels in named:
        check_labels(labels, len(images), num_classes, "predictors")
    return torch.stack([one_hot(labels, num_classes) for labels in named]).sum(0)


def certificate(votes: Tensor) -> tuple[Tensor, Tensor]:
    """The label ``[N]`` with most votes (ties to the smaller) and the poisons it tolerates ``[N]``.

    So many samples added, dropped or relabelled, in any way, cannot change the label: each turns at
    most one vote from the first class to another, which closes the gap by two. Raises
    ``ValueError`` for votes that are no counts ``[N, K]``.
    """
    if votes.ndim != 2 or votes.dtype != torch.int64 or (len(votes) and votes.min() < 0):
        got = f"{votes.dtype} {tuple(votes.shape)}"
        raise ValueError(f"votes: got {got}; counts, int64 [N, K], are needed")
    labels = votes.argmax(1)
    count = torch.arange(votes.shape[1], device=votes.device)
    first = votes.gather(1, labels[:, None])
    rivals = votes + (count < labels[:, None]).long()  # a smaller rival wins a tie
    rivals = rivals.scatter(1, labels[:, None], -1)
    return labels, (first[:, 0] - rivals.amax(1)).div(2, rounding_mode="floor")
