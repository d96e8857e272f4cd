"""Certificates against poisoning, by a vote of predictors that each see a part of the data.

Deep partition aggregation (Levine and Feizi 2021, arXiv 2006.14768): the parts are disjoint, so one
poisoned sample changes one vote. Finite aggregation (Wang, Levine and Feizi 2022, arXiv
2202.02628): finer parts, each seen by ``spread`` predictors, so it changes at most that many.
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
def parts(images: Tensor, k: int, seed: int = 0) -> Tensor:
    """The part 0..k-1 of each image ``[N]``, by a hash of its pixels (and ``seed``) alone.

    Nothing but its own pixels decides where a sample goes, so that adding, dropping or relabelling
    one sample leaves every other part as it was. Replacing an image is a drop and an addition.
    """
    integer(k, "k", 1)
    finite(images, "images")
    rows = images.cpu().contiguous().flatten(1).numpy()
    salt = str(integer(seed, "seed", 0)).encode() if seed else b""
    hashes = [int.from_bytes(hashlib.sha256(salt + row.tobytes()).digest()[:8]) for row in rows]
    return torch.tensor([h % k for h in hashes])


@numbers
def reach(k: int, spread: int = 1, seed: int = 0) -> Tensor:
    """Which of the k * spread predictors see each of as many parts: ``[k * spread, spread]``.

    The parts of a predictor lie at fixed random distances from it, so that each predictor sees
    ``spread`` parts, and with them one k-th of the data.
    """
    count = integer(k, "k", 1) * integer(spread, "spread", 1)
    draw = torch.Generator().manual_seed(integer(seed, "seed", 0))
    away = torch.randperm(count, generator=draw)[:spread] if spread > 1 else torch.zeros(1).long()
    return (torch.arange(count)[:, None] + away) % count


@numbers
def train(
    data: ImageSet,
    k: int,
    learner: Callable[[ImageSet, int], Predictor],
    *,
    spread: int = 1,
    seed: int = 0,
) -> list[Predictor | None]:
    """k * spread predictors: ``learner(part, number)``, which depends on nothing else.

    The part arrives sorted by content, because a certificate has no say over the order. An empty
    part gives None, and no vote.
    """
    seers = reach(k, spread, seed)
    where = parts(data.images, len(seers), seed)
    seen = [torch.isin(where, torch.where((seers == i).any(1))[0]) for i in range(len(seers))]
    return [
        learner(ordered(data.subset(mine)), i) if mine.any() else None
        for i, mine in enumerate(seen)
    ]


def ordered(data: ImageSet) -> ImageSet:
    """The same samples in an order that their content decides."""
    rows = data.images.cpu().contiguous().flatten(1).numpy()
    keys = [(row.tobytes(), int(y)) for row, y in zip(rows, data.labels.tolist(), strict=True)]
    return data.subset(torch.tensor(sorted(range(len(keys)), key=keys.__getitem__)))


@numbers
def named(predictors: Sequence[Predictor | None], images: Tensor, num_classes: int) -> Tensor:
    """The class that each predictor names, int64 ``[N, P]``; -1 where none was trained."""
    if all(p is None for p in predictors):
        raise ValueError("predictors: got none that was trained; every part is empty")
    absent = torch.full((len(images),), -1, device=images.device)
    said = [absent if p is None else p(images) for p in predictors]
    for labels in (one for one in said if one is not absent):
        check_labels(labels, len(images), num_classes, "predictors")
    return torch.stack(said, 1)


def votes(predictors: Sequence[Predictor | None], images: Tensor, num_classes: int) -> Tensor:
    """How many of the predictors name each class: int64 ``[N, K]``."""
    return _counts(named(predictors, images, num_classes), num_classes)


def _counts(said: Tensor, num_classes: int) -> Tensor:
    return one_hot(said + 1, num_classes + 1)[..., 1:].sum(1)


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


@numbers
def finite_certificate(said: Tensor, seers: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """As ``certificate``, of ``named`` predictors ``said`` ``[N, P]`` with the ``reach`` ``seers``.

    A poison in a part turns the vote of each predictor that sees it: by two where it named the
    winner, by one where it named a third class, by nothing where it names the rival already. The
    attacker takes the most harmful parts first.
    """
    counts = _counts(said, num_classes)
    labels = counts.argmax(1)
    tolerated = torch.full_like(labels, said.shape[1])
    for rival in range(num_classes):
        gap = counts.gather(1, labels[:, None]) - counts[:, rival, None]
        gap = gap - (rival < labels)[:, None].long()  # a smaller rival wins a tie
        harm = 1 + (said == labels[:, None]).long() - (said == rival).long()
        worst = harm[:, seers.to(said.device)].sum(2).sort(1, descending=True).values.cumsum(1)
        held = (worst <= gap).sum(1)
        tolerated = torch.where(labels == rival, tolerated, tolerated.minimum(held))
    return labels, tolerated
