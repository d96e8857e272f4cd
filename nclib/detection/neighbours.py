"""The nearest neighbours of every sample, exactly: searched in float32, settled in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nclib import device as devices

SPARE = 16  # candidates beyond k, among which float64 decides
CELLS = 2**26  # distances held at a time

Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def nearest(features: Tensor, k: int, *, device: torch.device | None = None) -> Tensor:
    """Positions of the ``k`` nearest *other* rows of each row of ``[N, D]``: ``[N, k]``, unsorted.

    Euclidean, and exact up to ties of float64. The search is a product of float32 matrices on
    ``device`` (None: ``device.pick()``), on a CPU through faiss where that is installed. Rounding
    there is at most ``slack``; a row whose k-th and next neighbour are nearer than that to each
    other is measured again in float64. N^2 D multiplications. Raises ``ValueError`` for another k.
    """
    if not 1 <= k < len(features):
        raise ValueError(f"k: got {k}; 1..{len(features) - 1} is allowed")
    hidden = features.detach().cpu().double()
    hidden = hidden - hidden.mean(0)
    hidden = hidden / hidden.abs().max().clamp_min(1e-300)  # no overflow
    hidden = hidden / hidden.norm(dim=1).max().clamp_min(1)  # lengths of 1 at most
    slack = 16 * torch.finfo(torch.float32).eps * hidden.shape[1] ** 0.5
    search = _search(hidden.float(), devices.pick() if device is None else device)
    count, found = min(k + SPARE, len(hidden) - 1), torch.empty(len(hidden), k, dtype=torch.int64)
    for rows in torch.arange(len(hidden)).split(max(1, CELLS // len(hidden))):
        distance, near = search(rows, count)
        found[rows] = near[:, :k]
        if count > k:
            close = distance[:, k] - distance[:, k - 1] <= slack
            # beyond the candidates nothing can be nearer than this
            limit = torch.inf if count == len(hidden) - 1 else distance[close, -1] - slack
            found[rows[close]] = _settled(hidden, rows[close], near[close], k, limit)
    return found


def _search(hidden: Tensor, device: torch.device) -> Search:
    """``search(rows, count)``: squared distances ``[R, count]``, rising, and their positions."""
    every = hidden.to(device)
    squares = every.square().sum(1)
    index = _faiss_index(hidden) if device.type == "cpu" else None

    def search(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if index is not None:
            # the row itself is among its neighbours; with many copies of it, perhaps unseen
            raw, places = map(torch.from_numpy, index.search(hidden[rows].numpy(), count + 1))
            raw[places == rows[:, None]] = torch.inf
            distance, order = raw.sort(1)
            return distance[:, :count], places.gather(1, order)[:, :count]
        at = rows.to(device)
        distance = torch.addmm(squares, every[at], every.T, alpha=-2) + squares[at, None]
        distance[torch.arange(len(at), device=device), at] = torch.inf
        top = distance.topk(count, largest=False)
        return top.values.cpu(), top.indices.cpu()

    return search


def _faiss_index(hidden: Tensor) -> Any:
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(hidden.shape[1])
    index.add(hidden.numpy())
    return index


def _settled(hidden: Tensor, rows: Tensor, near: Tensor, k: int, limit: Tensor | float) -> Tensor:
    """The k nearest among the candidates ``near`` in float64; among all, where ``limit`` is hit."""
    chosen = near[:, :k].clone()
    worst = torch.empty(len(rows), dtype=torch.float64)
    for part in torch.arange(len(rows)).split(256):
        gap = hidden[near[part]] - hidden[rows[part], None]
        top = gap.square().sum(2).topk(k, largest=False)
        chosen[part], worst[part] = near[part].gather(1, top.indices), top.values.amax(1)
    for part in (worst > limit).nonzero().flatten().split(256):
        distance = torch.cdist(hidden[rows[part]], hidden)
        distance[torch.arange(len(part)), rows[part]] = torch.inf
        chosen[part] = distance.topk(k, largest=False).indices
    return chosen
