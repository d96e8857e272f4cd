"""Candidate groups of a class: the ways of cutting it in two that its features suggest.

A group of poisoned images is one side of such a cut where it is anything at all. The cuts know
nothing of triggers: each is a two-means, in a view where no ordinary direction of the classes
stands out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nclib.detection.common import class_means, discriminant, per_class, whitener
from nclib.detection.margins import fold_of

COMPONENTS, AXES = 10, 3
PLANE = 50
SMALLEST = 5  # images in a group: the mean of fewer is a picture of one of them


def candidates(features: Mapping[str, Tensor], labels: Tensor) -> list[Tensor]:
    """For each class 0..K-1 its cuts: a list of bool ``[G, n_c]``, true on the smaller side.

    ``features`` is ``{layer: [N, D]}``, of one or several epochs, each whitened by its pooled
    Sigma_W, ``labels`` int64 ``[N]``. On its ten leading components a class is cut by 2-means, by
    2-means along each of the first three, and along the most skewed direction, where a rare group
    shows. Cuts that all but coincide are listed once; each side has five samples at least. G is 0
    for a class too small to be cut. Linear in the samples.
    """
    labels = labels.cpu()
    count = int(labels.max()) + 1
    sizes = labels.bincount(minlength=count)
    found = [[torch.zeros(0, int(n), dtype=torch.bool)] for n in sizes]
    for hidden in features.values():
        hidden = hidden.detach().cpu().double()
        rest = hidden - class_means(hidden, labels, count)[labels]
        rest = rest @ whitener(rest)
        for c, index in enumerate(per_class(labels, count)):
            if len(index) >= 2 * SMALLEST:
                found[c].append(_cuts(rest[index] - rest[index].mean(0)))
    return [_distinct(torch.cat(sides)) for sides in found]


def complete(hidden: Tensor, group: Tensor, *, folds: int = 5, rounds: int = 3) -> Tensor:
    """The group and the rest of a class told apart out of fold: bool ``[n]``.

    ``hidden`` float64 ``[n, D]`` are the features of the class, ``group`` bool ``[n]`` a first
    guess. A linear discriminant with a shrunk covariance, on the ``PLANE`` leading components, is
    fitted on the other ``folds`` and judges each sample; a trigger is one direction, so this finds
    the members that the cut missed and gives back those it took by mistake. Stays as it is where
    the group or the rest has fewer samples than folds.
    """
    hidden = (hidden - hidden.mean(0)) / hidden.std(0).clamp_min(1e-6)
    hidden = hidden @ torch.linalg.eigh(hidden.T @ hidden)[1][:, -PLANE:]
    for _ in range(rounds):
        if min(int(group.sum()), int((~group).sum())) < folds:
            break
        fold, new = fold_of(group.long(), folds), torch.zeros_like(group)
        for f in range(folds):
            rows, member = hidden[fold != f], group[fold != f]
            normal, middle = discriminant(rows, member)
            odds = member.double().mean().logit()  # of the two Gaussians: how large each is
            new[fold == f] = (hidden[fold == f] - middle) @ normal + odds > 0
        if torch.equal(new, group) or min(int(new.sum()), int((~new).sum())) < folds:
            break
        group = new
    return group


def _cuts(rows: Tensor) -> Tensor:
    """The cuts of one view ``[n, D]`` of one class, centred: bool ``[2 + AXES, n]``."""
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    top = min(COMPONENTS, len(values))
    scores = rows @ vectors[:, -top:].flip(1)
    lines = [*scores.T[:AXES], _skewed(scores / values[-top:].flip(0).clamp_min(1e-12).sqrt())]
    sides = torch.stack([_cut_line(line) for line in lines])
    return torch.cat([_two_means(scores, sides[0])[None], sides])


def _skewed(rows: Tensor, rounds: int = 30) -> Tensor:
    """The projection ``[n]`` of white rows ``[n, D]`` whose third moment is largest, over starts.

    The fixed point of w = E[z (w z)^2]: projection pursuit for skewness.
    """
    w = torch.eye(rows.shape[1], dtype=rows.dtype)
    for _ in range(rounds):
        w = (rows @ w.T).square().T @ rows
        w = w / w.norm(dim=1, keepdim=True).clamp_min(1e-12)
    lines = rows @ w.T
    return lines[:, int((lines**3).mean(0).argmax())]


def _cut_line(values: Tensor) -> Tensor:
    """The exact 2-means cut of numbers ``[n]``: true above it."""
    ordered, order = values.sort()
    below = torch.arange(1, len(values), dtype=torch.float64)
    sums = ordered.cumsum(0)
    left, right = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(values) - below)
    spread = below * (len(values) - below) * (right - left).square()  # between the two sides
    side = torch.ones(len(values), dtype=torch.bool)
    side[order[: int(spread.argmax()) + 1]] = False
    return side


def _two_means(rows: Tensor, side: Tensor, rounds: int = 30) -> Tensor:
    """Lloyd's algorithm for two means, from ``side`` ``[n]`` on."""
    for _ in range(rounds):
        if side.all() or not side.any():
            break
        centres = torch.stack([rows[~side].mean(0), rows[side].mean(0)])
        new = torch.cdist(rows, centres).argmin(1).bool()
        if torch.equal(new, side):
            break
        side = new
    return side


def _distinct(sides: Tensor, alike: float = 0.9) -> Tensor:
    """Smaller sides, of ``SMALLEST`` or more; one for all that correlate above ``alike``."""
    sides = torch.where(sides.double().mean(1, keepdim=True) > 0.5, ~sides, sides)
    sides = sides[sides.sum(1) >= SMALLEST]
    rows = sides.double() - sides.double().mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    twin = (rows @ rows.T).abs() > alike
    kept: list[int] = []
    for i in range(len(sides)):
        if not twin[i, kept].any():
            kept.append(i)
    return sides[kept]
