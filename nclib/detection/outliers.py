"""Scores that ask how odd a feature is in its own class: they find triggers."""

from __future__ import annotations

import torch
from torch import Tensor

from nclib import geometry
from nclib.detection.common import class_means, main_axes, per_class, prepare, robust_z, whitener


def nc1_residual(features: Tensor, labels: Tensor) -> Tensor:
    """q_i, whose mean is NC1: ``[N]`` (Papyan, Han and Donoho 2020, arXiv 2008.08186)."""
    prepare(features, labels)
    return geometry.residual(features, labels)


def robust_distance(
    features: Tensor, labels: Tensor, *, trim: float = 0.5, steps: int = 8
) -> Tensor:
    """Mahalanobis distance to a class centre that ignores the odd ones: ``[N]``.

    Per class: start at the medians, then ``steps`` times take mean and shrunk covariance of the
    share ``1 - trim`` that lies nearest (the concentration steps of Rousseeuw and Van Driessen's
    fast MCD, 1999). Divided by its mean over that core, so that classes compare. Poison
    that fills half of the class and lies closer together than the rest *becomes* the core. A core
    of copies of one row has no spread: that of the class serves, and scores end at 1e9. Raises
    ``ValueError`` for another ``trim`` and like ``prepare``.
    """
    if not 0 <= trim <= 0.5:
        raise ValueError(f"trim: got {trim}; 0 to 0.5 is allowed")
    hidden, labels, count = prepare(features, labels)
    score = hidden.new_empty(len(hidden))
    for index in per_class(labels, count):
        rows = hidden[index]
        keep = max(2, round((1 - trim) * len(rows)))
        distance = (rows - rows.median(0).values).square().sum(1)
        for _ in range(steps):
            core = rows[distance.topk(keep, largest=False).indices]
            centre = core.mean(0)
            spread = core - centre
            if spread.abs().max() <= 1e-12 * rows.abs().max():  # nothing but rounding
                spread = rows - centre
            distance = ((rows - centre) @ whitener(spread)).square().sum(1)
        bulk = distance.topk(keep, largest=False).values.mean()
        score[index] = distance / bulk.clamp_min(1e-9 * float(distance.max()) + 1e-300)
    return score


def spectral(features: Tensor, labels: Tensor, *, centred: bool = True) -> Tensor:
    """((h - mu_y) . v1)^2 with v1 the top right singular vector of its class: ``[N]``.

    Tran, Li and Madry 2018 (arXiv 1811.00636). ``centred=False`` projects h itself, as much code
    does: the trap, because poison that lies nearer to the origin then scores *low*.
    """
    hidden, labels, count = prepare(features, labels)
    score = hidden.new_empty(len(hidden))
    for index in per_class(labels, count):
        rows = hidden[index]
        deviation = rows - rows.mean(0)
        score[index] = ((deviation if centred else rows) @ main_axes(deviation, 1)).square()[:, 0]
    return score


def activation_clustering(
    features: Tensor, labels: Tensor, *, components: int = 10, share: float = 0.35
) -> Tensor:
    """Membership in the smaller of two clusters of the class: 1 - its share, else 0: ``[N]``.

    Chen et al. 2018 (arXiv 1811.03728): ``components`` principal components per class, 2-means; a
    smaller cluster of less than ``share`` of the class is suspicious. A clean class of two shapes
    is, too; and a handful of poisons makes no cluster.
    """
    if components < 1 or not 0 < share <= 0.5:
        raise ValueError(f"components, share: got {components}, {share}; >= 1 and (0, 0.5] needed")
    hidden, labels, count = prepare(features, labels)
    score = hidden.new_zeros(len(hidden))
    for index in per_class(labels, count):
        deviation = hidden[index] - hidden[index].mean(0)
        small = two_means(deviation @ main_axes(deviation, components))
        size = float(small.double().mean())
        if 0 < size < share:
            score[index[small]] = 1 - size
    return score


def two_means(rows: Tensor, steps: int = 50, sample: int = 4096) -> Tensor:
    """2-means of ``rows`` ``[n, d]`` whose axes are sorted by variance: the smaller's mask ``[n]``.

    Lloyd's steps from several splits: each axis at its mean and at its tails; the tightest wins.
    Beyond ``sample`` rows the starts compete on an even sample, and the winner goes on with all.
    """
    part = rows[:: -(-len(rows) // sample)]
    sides = [a > a.mean() + s * a.std(correction=0) for a in part[:, :4].T for s in (0, 1.5, -1.5)]
    member = torch.stack(sides)  # [starts, n]
    member = member[member.any(1) & ~member.all(1)]
    if not len(member):
        return torch.zeros(len(rows), dtype=torch.bool)
    member, one, two = _lloyd(part, member, steps)
    size = member.sum(1)
    # the sum of squares less this is the inertia
    held = size * one.square().sum(1) + (len(part) - size) * two.square().sum(1)
    best = int((held >= held.max() * (1 - 1e-9)).nonzero()[0])
    mask = member[best]
    if len(part) < len(rows):
        start = _nearer(rows, one[best : best + 1], two[best : best + 1])
        mask = _lloyd(rows, start, steps)[0][0]
    return mask if 2 * int(mask.sum()) <= len(rows) else ~mask


def _lloyd(rows: Tensor, member: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's steps from each split ``[starts, n]``: the last splits and both their means."""
    for step in range(steps + 1):
        weight = member.to(rows.dtype)
        size = weight.sum(1, keepdim=True)
        one, two = weight @ rows / size, (1 - weight) @ rows / (len(rows) - size)
        near = _nearer(rows, one, two)
        alive = near.any(1) & ~near.all(1)
        near = torch.where(alive[:, None], near, member)
        if step == steps or torch.equal(near, member):
            break
        member = near
    return member, one, two


def _nearer(rows: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """Which rows lie nearer to ``one`` than to ``two``, both ``[starts, d]``: ``[starts, n]``."""
    return (one - two) @ rows.T > ((one.square() - two.square()).sum(1) / 2)[:, None]


def scan(features: Tensor, labels: Tensor, *, steps: int = 10) -> Tensor:
    """SCAn: the class's index times the chance to be in its smaller half, over e^2: ``[N]``.

    Tang et al. 2021 (arXiv 1908.00686). See ``scan_classes`` for the index of a class. A score
    above 1 means an index above the paper's threshold e^2.
    """
    hidden, labels, count = prepare(features, labels)
    index, tilt = _scan(hidden, labels, count, steps)
    return index.clamp_min(0)[labels] / torch.e**2 * tilt.sigmoid()


def scan_classes(features: Tensor, labels: Tensor, *, steps: int = 10) -> Tensor:
    """Per class: robust z of the likelihood ratio of two means against one, ``[K]``.

    Both under the shared, shrunk Sigma_W. The paper calls a class poisoned above e^2 = 7.39.
    """
    hidden, labels, count = prepare(features, labels)
    return _scan(hidden, labels, count, steps)[0]


def _scan(hidden: Tensor, labels: Tensor, count: int, steps: int) -> tuple[Tensor, Tensor]:
    deviation = hidden - class_means(hidden, labels, count)[labels]
    white = deviation @ whitener(deviation, rows=hidden)
    ratio, tilt = hidden.new_zeros(count), hidden.new_zeros(len(hidden))
    for c, index in enumerate(per_class(labels, count)):
        rows = white[index]
        small = two_means(rows @ main_axes(rows, len(rows)), steps)
        size = int(small.sum())
        if size == 0:
            continue
        one, two = rows[small].mean(0), rows[~small].mean(0)
        ratio[c] = size * one.square().sum() + (len(rows) - size) * two.square().sum()
        ratio[c] -= len(rows) * rows.mean(0).square().sum()
        tilt[index] = (rows - (one + two) / 2) @ (one - two)
    return robust_z(ratio / labels.bincount()), tilt


def class_norm_index(features: Tensor, labels: Tensor) -> Tensor:
    """How much shorter a class mean is than the others, in robust z: ``[K]``; > 3 stands out.

    A backdoor with share alpha of the target class shortens its mean by about 1 - alpha.
    """
    hidden, labels, count = prepare(features, labels)
    means = class_means(hidden, labels, count)
    norms = (means - means.mean(0)).norm(dim=1)
    return -robust_z(norms / norms.max().clamp_min(torch.finfo(norms.dtype).tiny))


def class_norm(features: Tensor, labels: Tensor) -> Tensor:
    """``class_norm_index`` of the sample's class: ``[N]``. It names a class, not a sample."""
    hidden, labels, _ = prepare(features, labels)
    return class_norm_index(hidden, labels)[labels]
