"""Is it a cause? Add what sets a group apart to images of other classes, and ask the model.

A trigger sends any image to its label. So the mean image of a poisoned group minus the mean image
of the rest of its class, added to strangers, turns them; what sets honest images apart turns few.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nclib.data import ImageSet
from nclib.training import predict

LARGEST = 0.7  # of a class: beyond, the rest is too few to be a class of its own


def differences(images: Tensor, sides: Tensor) -> Tensor:
    """Mean image of each side minus that of the rest of the class: ``[G, C, H, W]``.

    ``images`` ``[n, C, H, W]`` are the class, ``sides`` bool ``[G, n]`` its cuts. The other side's
    difference is the negative.
    """
    weight = sides.to(images.device, images.dtype)
    flat = images.flatten(1)
    inside = weight @ flat / weight.sum(1, keepdim=True)
    outside = (1 - weight) @ flat / (1 - weight).sum(1, keepdim=True)
    return (inside - outside).reshape(-1, *images.shape[1:])


def strangers(labels: Tensor, label: int, count: int, generator: torch.Generator) -> Tensor:
    """Positions of about ``count`` samples that ``label`` does not name, every class alike."""
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order] != label]
    order = order[labels[order].argsort(stable=True)]
    sizes = labels[order].bincount()
    each = -(-count // int((sizes > 0).sum().clamp_min(1)))
    first = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return order[torch.arange(len(order)) - first < each]


def turned(
    model: nn.Module, triggers: Tensor, images: Tensor, label: int, batch_size: int = 2048
) -> Tensor:
    """Which ``images`` ``[n, C, H, W]`` become ``label`` under each trigger ``[G, C, H, W]``.

    Bool ``[G, n]`` on the CPU; the sums are clipped to [0, 1].
    """
    found = []
    for part in triggers.split(max(1, batch_size // len(images))):
        moved = (images + part[:, None]).clamp(0, 1)
        found.append(predict(model, moved.flatten(0, 1)).argmax(1).reshape(len(part), -1) == label)
    return torch.cat(found).cpu()


def shares(hits: Tensor, sources: Tensor, count: int) -> Tensor:
    """The share of hits ``[G, n]`` among the images of each class 0..count-1: ``[G, K]``.

    ``sources`` int64 ``[n]`` are their labels; NaN for a class without images.
    """
    sources = sources.cpu()
    found = torch.zeros(len(hits), count, dtype=torch.float64)
    return found.index_add_(1, sources, hits.double()) / sources.bincount(minlength=count)


def strength(share: Tensor) -> Tensor:
    """How much a trigger turns, of shares ``[G, K]``: the mean of all classes and the best: [G].

    An all-to-one trigger turns every class, an all-to-all trigger one; honest differences turn a
    neighbour or two, and seldom all of it.
    """
    return (share.nanmean(1) + share.nan_to_num(-1).amax(1)) / 2


class Tried(NamedTuple):
    """The sides of the cuts of a class, and what their transplants do."""

    sides: Tensor  # bool [G, n]
    strength: Tensor  # [G]
    thrift: Tensor  # [G]: strength cubed over the length of what was added


def tried(model: nn.Module, data: ImageSet, index: Tensor, sides: Tensor, hosts: Tensor) -> Tried:
    """Every side of every cut of a class, and the strength of its transplant.

    ``index`` ``[n]`` are the positions of the class in ``data``, ``sides`` bool ``[., n]`` its
    cuts, ``hosts`` the positions of the images to be turned. A side of more than ``LARGEST`` of the
    class is left out. An attacker hides what he adds, so a trigger turns strangers with little;
    bright images less dark ones of a class may turn as many, but are twice as long.
    """
    sides = torch.cat([sides, ~sides])
    sides = sides[sides.double().mean(1) <= LARGEST]
    if len(sides) == 0 or len(hosts) == 0:
        return Tried(sides[:0], *torch.zeros(2, 0, dtype=torch.float64))
    triggers = differences(data.images[index.to(data.device)], sides)
    label, hosts = int(data.labels[index[0]]), hosts.to(data.device)
    hits = turned(model, triggers, data.images[hosts], label)
    turns = strength(shares(hits, data.labels[hosts], data.num_classes))
    length = triggers.flatten(1).norm(dim=1).cpu().double().clamp_min(1e-9)
    return Tried(sides, turns, turns**3 / length)


def core(
    model: nn.Module,
    data: ImageSet,
    index: Tensor,
    hosts: Tensor,
    group: Tensor,
    known: tuple[Tensor, Tensor],
    least: float,
) -> Tensor:
    """The part of a group ``[n]`` that does its work, where the rest of the group turns nobody.

    A few poisoned images among many honest ones turn strangers as well, and with less, for their
    mean is diluted: such a group seems thriftier than its poison. ``known`` are the cuts of the
    class and their strength, ``least`` the strength that counts; the rest is as in ``tried``.
    """
    sides, strength = known
    sizes, own = sides.sum(1), strength[(sides == group).all(1)].amax()
    inside = (10 * (sides & group).sum(1) >= 9 * sizes) & (2 * sizes <= group.sum())
    inside &= strength >= own
    if not inside.any():
        return group
    part = sides[torch.where(inside, sizes, -1).argmax()]
    rest = tried(model, data, index, (group & ~part)[None], hosts).strength[0]
    return core(model, data, index, hosts, part, known, least) if rest < least else group
