"""What every score needs: checked float64 features, class statistics, a shrunk inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from nclib.doors import array, classes, finite


def prepare(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Features ``[N, D]`` as float64 on the CPU, labels ``[N]`` on the CPU, and K.

    Both may be numpy's. Raises ``ValueError`` for other shapes, NaN or infinite values, fewer than
    two classes, and a class among 0..K-1 that has fewer than two samples.
    """
    features, labels = array(features, "features"), classes(labels)
    if features.ndim != 2 or not features.is_floating_point():
        got = f"{features.dtype} {tuple(features.shape)}"
        raise ValueError(f"features: got {got}; floats [N, D] are needed")
    if labels.ndim != 1:
        raise ValueError(f"labels: got {tuple(labels.shape)}; [N] is needed")
    if len(labels) != len(features):
        raise ValueError(f"labels: got {len(labels)} for {len(features)} rows of features")
    finite(features, "features")
    labels = labels.cpu()
    if len(labels) and labels.min() < 0:
        raise ValueError(f"labels: got {int(labels.min())}; 0..K-1 is allowed")
    counts = labels.bincount()
    if len(counts) < 2:
        raise ValueError(f"labels: {len(counts)} class(es); at least 2 are needed")
    if counts.min() < 2:
        few = (counts < 2).nonzero().flatten().tolist()
        raise ValueError(f"labels: classes {few} have fewer than 2 samples; every class needs 2")
    return features.detach().cpu().double(), labels, len(counts)


def class_means(hidden: Tensor, labels: Tensor, count: int) -> Tensor:
    """Mean of each class: ``[K, D]``."""
    sums = hidden.new_zeros(count, hidden.shape[1]).index_add_(0, labels, hidden)
    return sums / labels.bincount(minlength=count)[:, None]


def whitener(deviation: Tensor, shrink: float | None = None, rows: Tensor | None = None) -> Tensor:
    """R ``[D, D]`` with R R^T = inverse of the shrunk covariance of centred rows ``[N, D]``.

    Sigma is moved towards (tr Sigma / D) I: by ``shrink`` in [0, 1], or by the optimal share of
    Ledoit and Wolf 2004 for None. So |d R|^2 is a Mahalanobis distance, also where N < D. Where
    the ``rows`` that deviate are collapsed to the last bit, what is left is rounding and has no
    shape: R is then 1e6 over their largest number, the same in all directions. Raises
    ``ValueError`` for another ``shrink``.
    """
    if shrink is not None and not 0 <= shrink <= 1:
        raise ValueError(f"shrink: got {shrink}; 0 to 1, or None, is allowed")
    count, dim = deviation.shape
    size = deviation.abs().max()
    whole = size.new_zeros(()) if rows is None else rows.abs().max()
    if size <= 1e-14 * whole or size == 0:
        return torch.eye(dim, dtype=torch.float64) * (1e6 / whole if whole > 0 else 1)
    deviation = deviation / size  # fourth powers of any scale
    covariance = deviation.T @ deviation / count
    scale = covariance.diagonal().mean()
    if shrink is None:
        spread = (covariance.square().sum() - dim * scale**2).clamp_min(1e-300)
        noise = deviation.square().sum(1).square().sum() / count - covariance.square().sum()
        shrink = float((noise / count / spread).clamp(0, 1))
    shrink = max(shrink, 1e-6)  # never singular
    covariance = (1 - shrink) * covariance + shrink * scale * torch.eye(dim, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)
    floor = values.max() * torch.finfo(torch.float64).eps * dim
    return vectors / values.clamp_min(floor).sqrt() / size


def discriminant(rows: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Fisher's direction ``[D]`` from the rest of rows ``[N, D]`` to the members, and the middle.

    ``member`` is bool ``[N]``; the covariance within both is pooled, and shrunk by ``whitener``.
    """
    inside, outside = rows[member].mean(0), rows[~member].mean(0)
    root = whitener(rows - torch.where(member[:, None], inside, outside))
    return root @ (root.T @ (inside - outside)), (inside + outside) / 2


def main_axes(deviation: Tensor, count: int) -> Tensor:
    """The first ``count`` principal axes of centred rows ``[N, D]``, unit columns ``[D, count]``.

    Zeros where the rank ends. From the smaller of the two Gram matrices: a fraction of an SVD.
    """
    wide = len(deviation) < deviation.shape[1]
    gram = deviation @ deviation.T if wide else deviation.T @ deviation
    axes = torch.linalg.eigh(gram).eigenvectors[:, -count:].flip(1)
    if not wide:
        return axes
    axes = deviation.T @ axes
    lengths = axes.norm(dim=0)
    return torch.where(lengths > 1e-7 * lengths[0], axes / lengths, 0.0)


def robust_z(values: Tensor, floor: Tensor | float = 1e-12) -> Tensor:
    """(x - median) / (1.4826 MAD) of a vector; about standard normal for normal data.

    A MAD of ``floor`` is none: for numbers without a unit 1e-12, for others ``least``.
    """
    centre = values.median()
    spread = 1.4826 * (values - centre).abs().median()
    return (values - centre) / spread.clamp_min(floor + 1e-12 * centre.abs())


def least(values: Tensor) -> Tensor:
    """What counts as nothing beside ``values``: 1e-12, and less where all of them are tiny."""
    return 1e-12 * (1e6 * values.abs().max()).clamp(torch.finfo(values.dtype).tiny, 1)


def per_class(labels: Tensor, count: int) -> tuple[Tensor, ...]:
    """The positions of each class, one index tensor after another."""
    return labels.argsort(stable=True).split(labels.bincount(minlength=count).tolist())
