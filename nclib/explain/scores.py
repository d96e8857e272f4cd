"""What a map is worth: pixels put back, a place that is known, a network that knows nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from nclib.data import check_images
from nclib.doors import integer, seed32


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that are not finite or do not fit the images."""
    wanted = (len(images), *images.shape[-2:])
    if not isinstance(maps, Tensor) or maps.shape != wanted or not maps.isfinite().all():
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps: got {got}; a tensor {wanted} of finite numbers is needed")


def top(maps: Tensor, count: int) -> Tensor:
    """The ``count`` highest pixels of each map: bool ``[N, H, W]``."""
    order = maps.flatten(1).topk(count, dim=1).indices
    return (
        torch.zeros_like(maps.flatten(1), dtype=torch.bool)
        .scatter_(1, order, True)
        .reshape(maps.shape)
    )


def restored(images: Tensor, originals: Tensor, maps: Tensor, count: int) -> Tensor:
    """``images`` with the ``count`` highest pixels of each map as they were in ``originals``.

    All ``[N, C, H, W]`` in [0, 1], ``maps`` ``[N, H, W]``. Raises ``ValueError`` for shapes that do
    not fit and a count beyond the pixels.
    """
    for value, name in ((images, "images"), (originals, "originals")):
        check_images(value, name)
    check_maps(maps, images)
    count = integer(count, "count", 0, maps[0].numel())
    return torch.where(top(maps, count).unsqueeze(1), originals, images)


def hit_rate(maps: Tensor, places: Tensor) -> Tensor:
    """The share of each place ``[N, H, W]`` (bool) among as many highest pixels of the map: [N].

    Where the place has k pixels the k highest of the map are asked; 1 is the place itself, and
    a random map gets the place's share of the image. Raises ``ValueError`` for shapes that do not
    fit and an empty place.
    """
    check_maps(maps, places)
    sizes = places.flatten(1).sum(1).tolist()
    if not all(sizes):
        raise ValueError("places: one has no pixel; each needs one or more")
    hits = [
        float((top(one[None], int(size))[0] & place).sum()) / size
        for one, place, size in zip(maps, places, sizes, strict=True)
    ]
    return torch.tensor(hits)


def randomised(model: nn.Module, layers: int, seed: int = 0) -> nn.Module:
    """A copy whose ``layers`` last layers with weights are drawn anew, the classifier first.

    The cascade of Adebayo et al. 2018 (arXiv 1810.03292): a map that says the same about this
    network does not speak about what was learned. Raises ``ValueError`` for more layers than there
    are.
    """
    copied = copy.deepcopy(model)
    parts: list[Any] = [m for m in copied.modules() if hasattr(m, "reset_parameters")]
    heavy = [i for i, part in enumerate(parts) if isinstance(part, nn.Linear | nn.Conv2d)]
    layers = integer(layers, "layers", 0, len(heavy))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed32(2**32 + integer(seed, "seed", 0)))  # not a stream of models.build
        for part in parts[heavy[-layers] :] if layers else ():
            part.reset_parameters()
    return copied.eval()


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of the maps' absolute values, image by image: [N].

    Both ``[N, H, W]``; equal values share their mean rank, and a flat map has 0. Raises
    ``ValueError`` for shapes that do not fit.
    """
    for maps in (first, second):
        check_maps(maps, first.unsqueeze(1))
    ranks = [rankdata(maps.flatten(1).abs().cpu(), axis=1) for maps in (first, second)]
    a, b = (torch.from_numpy(r - r.mean(1, keepdims=True)) for r in ranks)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)).float()
