"""Scores that ask which class a feature belongs to: they find wrong labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nclib.detection.common import class_means, prepare, whitener
from nclib.detection.neighbours import nearest
from nclib.doors import array, finite, integer, numbers, seeded


@numbers
def whitened_margin(features: Tensor, labels: Tensor, *, shrink: float | None = None) -> Tensor:
    """Squared Mahalanobis distance to the own class mean minus that to the nearest other, ``[N]``.

    The covariance is the pooled Sigma_W, shrunk (``shrink`` in [0, 1]; None is Ledoit and Wolf's
    choice). Positive: another class is nearer. The rule of linear discriminant analysis.
    """
    hidden, labels, count = prepare(features, labels)
    means = class_means(hidden, labels, count)
    root = whitener(hidden - means[labels], shrink, hidden)
    return _own_minus_other(torch.cdist(hidden @ root, means @ root).square(), labels)


def cosine_margin(features: Tensor, labels: Tensor) -> Tensor:
    """Cosine to the nearest other class mean minus that to the own, all centred: ``[N]``."""
    hidden, labels, count = prepare(features, labels)
    means = class_means(hidden, labels, count)
    centre, tiny = means.mean(0), torch.finfo(torch.float64).tiny
    directions = normalize(hidden - centre, dim=1, eps=tiny)
    cosines = directions @ normalize(means - centre, dim=1, eps=tiny).T
    return _own_minus_other(-cosines, labels)


def ncc_depth(features: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """The first layer (1..L) from which on the nearest class mean is the label's: ``[N]``.

    ``features`` is ``{layer: [N, D]}`` from shallow to deep; L + 1 means never. A wrong label and a
    trigger agree with the label late. Misses clean-label poison.
    """
    agrees = []
    for layer in _layers(features):
        hidden, known, count = prepare(layer, labels)
        nearest = torch.cdist(hidden, class_means(hidden, known, count)).argmin(1)
        agrees.append(nearest == known)
    return _depth(agrees)


@numbers
def prediction_depth(features: Mapping[str, Tensor], labels: Tensor, *, k: int = 30) -> Tensor:
    """The first layer (1..L) from which on the k nearest neighbours name the label: ``[N]``.

    Baldock, Maennel and Neyshabur 2021 (arXiv 2106.09647), with the label for the network's
    answer: what is memorised agrees late. ``features`` is ``{layer: [N, D]}`` from shallow to deep,
    which may begin with the pixels; L + 1 means never. A tie of votes agrees. Raises ``ValueError``
    like ``deep_knn``.
    """
    return _depth([deep_knn(layer, labels, k=k) <= 0 for layer in _layers(features)])


def _layers(features: Mapping[str, Tensor]) -> list[Tensor]:
    if not isinstance(features, Mapping) or not features:
        raise ValueError("features: a dict {layer: [N, D]}, shallow to deep, is needed")
    return list(features.values())


def _depth(agrees: list[Tensor]) -> Tensor:
    """From which layer on a sample agrees for good; L + 1 for never."""
    tail = torch.stack(agrees[::-1]).double().cumprod(0).sum(0)  # in a row, from the deep end
    return len(agrees) + 1 - tail


@numbers
def deep_knn(features: Tensor, labels: Tensor, *, k: int | None = None) -> Tensor:
    """Share of the k nearest that vote for the strongest other label, minus the own's: ``[N]``.

    Peri et al. 2020 (arXiv 1909.13374): positive exactly where the plurality is another label. The
    sample itself has no vote. ``k=None`` is the size of the smallest class, at most 50.
    """
    hidden, labels, count = prepare(features, labels)
    k = min(50, int(labels.bincount().min())) if k is None else k
    integer(k, "k", 1, len(hidden) - 1)
    near = labels[nearest(hidden, k, labels)]
    votes = hidden.new_zeros(len(hidden), count)
    votes.scatter_add_(1, near, hidden.new_ones(near.shape))
    return _own_minus_other(-votes / k, labels)


@numbers
def confident_learning(
    features: Tensor,
    labels: Tensor,
    *,
    probabilities: Tensor | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """How far another class clears its own threshold, minus how far the label's does: ``[N]``.

    Northcutt et al. 2021 (arXiv 1911.00068): the threshold of class c is the mean p_c over the
    samples labelled c, and the probabilities are out of fold. ``probabilities`` ``[N, K]`` come
    from outside, or None: a Gaussian classifier with one shrunk covariance, fitted on the other
    ``folds``. Raises ``ValueError`` like ``prepare`` and for probabilities that do not fit or are
    none: each in [0, 1], each row with sum 1. Logits are not.
    """
    hidden, labels, count = prepare(features, labels)
    if probabilities is None:
        probabilities = out_of_fold(hidden, labels, folds=folds, seed=seed)
    likely = array(probabilities, "probabilities").detach().cpu().double()
    if tuple(likely.shape) != (len(labels), count):
        got = tuple(likely.shape)
        raise ValueError(f"probabilities: got {got}; [{len(labels)}, {count}] is needed")
    finite(likely, "probabilities")
    low, off = float(likely.min()), float((likely.sum(1) - 1).abs().max())
    if low < 0 or off > 1e-2:  # half precision rounds a row by some thousandths
        raise ValueError(
            f"probabilities: the least is {low:.3g}, a row's sum is off 1 by {off:.3g}; numbers "
            "of [0, 1] whose rows add up to 1 are needed (the softmax of logits)"
        )
    own = likely.gather(1, labels[:, None]).squeeze(1)
    threshold = likely.new_zeros(count).index_add_(0, labels, own) / labels.bincount()
    return _own_minus_other(threshold - likely, labels)


@numbers
def out_of_fold(features: Tensor, labels: Tensor, *, folds: int = 5, seed: int = 0) -> Tensor:
    """Class probabilities ``[N, K]`` from nearest whitened class means of the *other* folds."""
    hidden, labels, count = prepare(features, labels)
    fold = fold_of(labels, folds, seed)
    out = hidden.new_zeros(len(hidden), count)
    for f in range(folds):
        rest = fold != f
        means = class_means(hidden[rest], labels[rest], count)
        root = whitener(hidden[rest] - means[labels[rest]], rows=hidden)
        distance = torch.cdist(hidden[~rest] @ root, means @ root).square()
        out[~rest] = (-distance / 2).softmax(1)
    return out


def fold_of(labels: Tensor, folds: int, seed: int = 0) -> Tensor:
    """A fold 0..folds-1 for each sample, equally many of every class: ``[N]``."""
    smallest = int(labels.bincount().min())
    integer(folds, "folds", 2)
    if folds > smallest:
        raise ValueError(f"folds: got {folds}; 2..{smallest} is allowed (the smallest class)")
    order = torch.randperm(len(labels), generator=seeded(seed))
    order = order[labels[order].argsort(stable=True)]
    return torch.empty_like(labels).index_copy_(0, order, torch.arange(len(labels)) % folds)


def _own_minus_other(cost: Tensor, labels: Tensor) -> Tensor:
    """cost[i, y_i] - min over c != y_i of cost[i, c], for a cost ``[N, K]``."""
    own = cost.gather(1, labels[:, None]).squeeze(1)
    other = cost.scatter(1, labels[:, None], torch.inf).amin(1)
    return own - other
