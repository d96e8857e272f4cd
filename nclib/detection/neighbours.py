"""The nearest neighbours of every sample, exactly: searched in float32, settled in float64.

Where features have collapsed onto their class means, each sample's neighbours lie in its own cell:
the samples nearest to the same class mean. There the search costs 1/K of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nclib import device as devices
from nclib.detection.common import class_means

SPARE = 16  # candidates beyond k, among which float64 decides
CELLS = 2**26  # distances held at a time

Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def nearest(
    features: Tensor, k: int, labels: Tensor | None = None, *, device: torch.device | None = None
) -> Tensor:
    """Positions of the ``k`` nearest *other* rows of each row of ``[N, D]``: ``[N, k]``, unsorted.

    Euclidean, and exact up to ties of float64. With ``labels`` int64 ``[N]`` a row first looks into
    the cell of its nearest class mean, and no further where its k-th neighbour is nearer than the
    cell's edge. The search is a product of float32 matrices on ``device`` (None: that of
    ``device.pick()``), on a CPU through faiss where that is installed. Raises ``ValueError`` for
    another k.
    """
    if not 1 <= k < len(features):
        raise ValueError(f"k: got {k}; 1..{len(features) - 1} is allowed")
    hidden = features.detach().cpu().double()
    hidden = hidden - hidden.mean(0)
    hidden /= hidden.abs().max().clamp_min(1e-300)  # no overflow
    where = devices.pick() if device is None else device
    found = torch.empty(len(hidden), k, dtype=torch.int64)
    todo = torch.ones(len(hidden), dtype=torch.bool)
    if labels is not None:
        cell, room = _cells(hidden, labels.cpu())
        for rows in cell.argsort(stable=True).split(cell.bincount().tolist()):
            if len(rows) > k:
                found[rows], reach = _among(hidden, rows, rows, k, where)
                todo[rows] = reach >= room[rows]
    rows = todo.nonzero().flatten()
    if len(rows):
        found[rows], _ = _among(hidden, rows, torch.arange(len(hidden)), k, where)
    return found


def _cells(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The class whose mean is nearest ``[N]``, and how far the cell's nearest edge is ``[N]``.

    The edge to another cell is the plane halfway between the two means.
    """
    labels = labels.unique(return_inverse=True)[1]
    means = class_means(hidden, labels, int(labels.max()) + 1)
    squares = torch.cdist(hidden, means).square()
    own, cell = squares.min(1)
    apart = torch.cdist(means, means)[cell]
    room = ((squares - own[:, None]) / (2 * apart)).nan_to_num_(0)
    return cell, room.scatter_(1, cell[:, None], torch.inf).amin(1)


def _among(
    hidden: Tensor, rows: Tensor, members: Tensor, k: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The k nearest of each of ``rows`` among ``members`` (rising, and ``rows`` are of them).

    Positions ``[R, k]``, and a bound ``[R]`` on the distance to the last. Two float32 distances
    that differ by less than ``slack`` may be in the wrong order: then float64 decides.
    """
    base = hidden[members]
    base -= base.mean(0)
    scale = base.norm(dim=1).max().clamp_min(1e-300)
    base /= scale
    slack = 16 * torch.finfo(torch.float32).eps * base.shape[1] ** 0.5
    search, count = _search(base.float(), device), min(k + SPARE, len(members) - 1)
    chosen, reach = [], []
    for part in torch.searchsorted(members, rows).split(max(1, CELLS // len(members))):
        distance, near = search(part, count)
        best = near[:, :k].clone()
        if count > k:
            close = distance[:, k] - distance[:, k - 1] <= slack
            # beyond the candidates nothing can be nearer than this
            limit = torch.inf if count == len(members) - 1 else distance[close, -1] - slack
            best[close] = _settled(base, part[close], near[close], k, limit)
        chosen.append(members[best])
        reach.append((distance[:, k - 1].double() + slack).clamp_min(0).sqrt() * scale)
    return torch.cat(chosen), torch.cat(reach)


def _search(base: Tensor, device: torch.device) -> Search:
    """``search(rows, count)``: squared distances ``[R, count]``, rising, and their positions."""
    every = base.to(device)
    squares = every.square().sum(1)
    index = _faiss_index(base) if device.type == "cpu" else None

    def search(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if index is not None:
            # the row itself is among its neighbours; with many copies of it, perhaps unseen
            raw, places = map(torch.from_numpy, index.search(base[rows].numpy(), count + 1))
            raw[places == rows[:, None]] = torch.inf
            distance, order = raw.sort(1)
            return distance[:, :count], places.gather(1, order)[:, :count]
        at = rows.to(device)
        distance = torch.addmm(squares, every[at], every.T, alpha=-2) + squares[at, None]
        distance[torch.arange(len(at), device=device), at] = torch.inf
        top = distance.topk(count, largest=False)
        return top.values.cpu(), top.indices.cpu()

    return search


def _faiss_index(base: Tensor) -> Any:
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(base.shape[1])
    index.add(base.numpy())
    return index


def _settled(base: Tensor, rows: Tensor, near: Tensor, k: int, limit: Tensor | float) -> Tensor:
    """The k nearest among the candidates ``near`` in float64; among all, where ``limit`` is hit."""
    chosen = near[:, :k].clone()
    worst = torch.empty(len(rows), dtype=torch.float64)
    for part in torch.arange(len(rows)).split(256):
        gap = base[near[part]] - base[rows[part], None]
        top = gap.square().sum(2).topk(k, largest=False)
        chosen[part], worst[part] = near[part].gather(1, top.indices), top.values.amax(1)
    for part in (worst > limit).nonzero().flatten().split(256):
        distance = torch.cdist(base[rows[part]], base)
        distance[torch.arange(len(part)), rows[part]] = torch.inf
        chosen[part] = distance.topk(k, largest=False).indices
    return chosen
