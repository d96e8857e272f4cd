"""The geometry of neural collapse, measured exactly.

Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning
training", PNAS 2020 (arXiv 2008.08186). Notation: features h_i (N x D), class means mu_c, global
mean mu_G = the unweighted mean of the mu_c, centred means Mc (rows mu_c - mu_G), residuals
d_i = h_i - mu_{y_i}, classifier rows W and bias b. All sums run on the CPU in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nclib.doors import array, finite, integer, numbers, seeded
from nclib.doors import classes as class_numbers

Batch = tuple[Tensor, Tensor]
Classifier = nn.Linear | tuple[Tensor, Tensor | None] | None


@dataclass(frozen=True)
class Collapse:
    """Every neural-collapse number of one layer. Scalars are floats; the last four are per class.

    A number that needs a classifier is None without one. Classes without samples are left out of
    every number; ``classes`` lists those that are present, in the order of the per-class tensors.
    """

    nc1: float  # tr(Sigma_W pinv(Sigma_B)) / K
    nc2_norm: float  # std / mean of |mu_c - mu_G|
    nc2_angle: float  # std of the cosines between centred means
    nc2_max_angle: float  # mean |cosine + 1/(K-1)|
    etf_error: float  # || Gram(Mc) / |Gram(Mc)|_F - Gram(ETF) ||_F
    cdnv: float  # class-distance normalised variance, mean over pairs
    ncc_accuracy: float  # share of samples nearest to the mean of their own class
    w_norm: float | None  # std / mean of |w_c|
    w_angle: float | None  # std of the cosines between the w_c
    nc3: float | None  # || W/|W|_F - Mc/|Mc|_F ||_F^2
    nc4: float | None  # share of samples where nearest class mean and classifier differ
    classes: Tensor  # [K] int64, the labels present
    counts: Tensor  # [K] int64, samples per class
    means: Tensor  # [K, D] float64, class means
    within: Tensor  # [K] float64, mean squared distance to the class mean

    @property
    def global_mean(self) -> Tensor:
        """The unweighted mean of the class means ``[D]``."""
        return self.means.mean(0)

    @property
    def norms(self) -> Tensor:
        """|mu_c - mu_G| per class ``[K]``."""
        return (self.means - self.global_mean).norm(dim=1)

    def row(self) -> dict[str, float]:
        """The scalars alone, those that were measured, for a table or a probe."""
        return {k: v for k, v in vars(self).items() if isinstance(v, float)}


@numbers
def measure(
    features: Tensor, labels: Tensor, classifier: Classifier = None, num_classes: int | None = None
) -> Collapse:
    """Measure every neural-collapse number of ``features`` ``[N, D]`` with ``labels`` ``[N]``.

    ``classifier`` (an ``nn.Linear``, or ``(weight [K, D], bias [K] or None)``) adds NC3 and NC4;
    ``num_classes`` bounds the labels. Raises ``ValueError`` for fewer than two classes, non-finite
    features or class means that all coincide. K = 2, one-sample classes and D < K are defined: with
    D < K - 1 no simplex ETF exists, NC2 cannot reach 0, and NC1 uses the rank that is there.
    """
    return measure_batches([(features, labels)], classifier, num_classes)


def measure_batches(
    batches: Iterable[Batch], classifier: Classifier = None, num_classes: int | None = None
) -> Collapse:
    """``measure`` for data larger than memory: ``batches`` yields ``(features, labels)``.

    The batches are walked twice, once for the means and once for the distances, because a one-pass
    variance cancels. So ``batches`` is a list, a data loader or any other object that can be
    walked again; an iterator, which cannot, is refused with a ``ValueError``.
    """
    if iter(batches) is batches:
        raise ValueError(
            "batches: got an iterator, which can be walked once; pass a list or a loader"
        )
    classes, counts, means, eps = _class_means(batches, num_classes)
    axes, scales = _between_class_axes(means, eps)
    head = _classifier(classifier, means.shape[1])

    residual_sum, nearest_right, nearest_differs, total = 0.0, 0, 0, int(counts.sum())
    within = torch.zeros(len(classes), dtype=torch.float64)
    for features, labels in batches:
        features, labels = _check(features, labels, num_classes)
        hidden, index = _double(features), torch.searchsorted(classes, labels.cpu())
        deviation = hidden - means[index]
        within.index_add_(0, index, deviation.square().sum(1))
        residual_sum += float((deviation @ axes / scales).square().sum())
        nearest = _nearest(hidden, means)
        nearest_right += int((nearest == index).sum())
        if head is not None:
            predicted = (hidden @ head[0].T + head[1]).argmax(1)
            nearest_differs += int((classes[nearest] != predicted).sum())
    within /= counts
    return Collapse(
        nc1=residual_sum / total,
        cdnv=_cdnv(means, within),
        ncc_accuracy=nearest_right / total,
        nc4=None if head is None else nearest_differs / total,
        **_between(means, None if head is None else head[0], classes),
        classes=classes,
        counts=counts,
        means=means,
        within=within,
    )


def by_layer(
    features: Mapping[str, Tensor], labels: Tensor, classifier: Classifier = None
) -> dict[str, Collapse]:
    """``measure`` for each layer of ``{layer: [N, D]}``; the classifier belongs to the last one."""
    last = list(features)[-1]
    return {k: measure(h, labels, classifier if k == last else None) for k, h in features.items()}


def residual(features: Tensor, labels: Tensor, reference: Collapse | None = None) -> Tensor:
    """The per-sample residual q_i ``[N]``, float64: its mean over the samples is NC1.

    q_i = |S^-1 V^T (h_i - mu_{y_i})|^2 with Mc = U S V^T. ``reference`` takes the class means from
    elsewhere, as a ``Collapse`` of other samples. Raises ``ValueError`` like ``measure``, and for
    a label that the reference has not seen.
    """
    top = None if reference is None else int(reference.classes.max()) + 1
    features, labels = _check(features, labels, top)
    if reference is None:
        classes, _, means, eps = _class_means([(features, labels)], None)
    else:
        classes, means, eps = reference.classes, reference.means, torch.finfo(features.dtype).eps
    labels = labels.cpu()
    if not torch.isin(labels, classes).all():
        raise ValueError(f"labels: the reference has classes {classes.tolist()} only")
    axes, scales = _between_class_axes(means, eps)
    deviation = _double(features) - means[torch.searchsorted(classes, labels)]
    return (deviation @ axes / scales).square().sum(1)


def nearest_class(features: Tensor, reference: Collapse) -> Tensor:
    """The label of the nearest class mean of ``reference`` for each sample: ``[N]`` int64."""
    features = array(features, "features")
    if features.ndim != 2 or features.shape[1] != reference.means.shape[1]:
        allowed = f"[N, {reference.means.shape[1]}], as in the reference,"
        raise ValueError(f"features: got {tuple(features.shape)}; {allowed} is needed")
    hidden = _double(finite(features, "features"))
    return reference.classes[_nearest(hidden, reference.means)]


@numbers
def simplex_etf(num_classes: int, dim: int | None = None, seed: int = 0) -> Tensor:
    """The ideal simplex equiangular tight frame: K unit rows ``[K, dim]`` in float64.

    sqrt(K/(K-1)) (I - 11^T/K) turned into ``dim`` dimensions by a random rotation (``dim=None``
    keeps the plain K x K matrix). All cosines are -1/(K-1). Raises ``ValueError`` for K < 2 or
    dim < K - 1, where no such frame exists.
    """
    integer(num_classes, "num_classes", 2)
    if dim is not None and dim < num_classes - 1:
        raise ValueError(f"dim: got {dim}; {num_classes} classes need at least {num_classes - 1}")
    centring = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    frame = (num_classes / (num_classes - 1)) ** 0.5 * centring
    if dim is None:
        return frame
    noise = torch.randn(dim, dim, dtype=torch.float64, generator=seeded(seed))
    basis = torch.linalg.qr(noise).Q[:, : num_classes - 1]
    span = torch.linalg.svd(centring).U[:, : num_classes - 1]  # the frame has rank K - 1
    return frame @ span @ basis.T


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()  # in this order: MPS has no float64


def _check(features: Tensor, labels: Tensor, num_classes: int | None) -> tuple[Tensor, Tensor]:
    """Features and labels as tensors, or a ``ValueError``."""
    features, labels = array(features, "features"), class_numbers(labels)
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features: got {features.dtype} {tuple(features.shape)}; floats [N, D] are needed"
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels: got {tuple(labels.shape)}; [{len(features)}] is needed")
    finite(features, "features")
    top = num_classes if num_classes is not None else float("inf")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < top:
        raise ValueError(
            f"labels: run from {labels.min()} to {labels.max()}; 0..{top} - 1 is allowed"
        )
    return features, labels


def _class_means(
    batches: Iterable[Batch], num_classes: int | None
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Labels present ``[K]``, counts ``[K]``, means ``[K, D]`` and the features' precision."""
    counts, eps = torch.zeros(0, dtype=torch.int64), 0.0
    sums = torch.zeros(0, 0, dtype=torch.float64)
    for features, labels in batches:
        features, labels = _check(features, labels, num_classes)
        hidden, labels = _double(features), labels.cpu()
        seen = labels.bincount(minlength=len(counts))
        counts = torch.cat([counts, counts.new_zeros(len(seen) - len(counts))]) + seen
        sums = sums if len(sums) else hidden.new_zeros(0, hidden.shape[1])
        sums = torch.cat([sums, sums.new_zeros(len(counts) - len(sums), sums.shape[1])])
        sums.index_add_(0, labels, hidden)
        eps = max(eps, torch.finfo(features.dtype).eps)
    classes = counts.nonzero().squeeze(1)
    if len(classes) < 2:
        raise ValueError(f"labels: {len(classes)} class(es) present; at least 2 are needed")
    return classes, counts[classes], sums[classes] / counts[classes, None], eps


def _between_class_axes(means: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """V and S of the thin SVD Mc = U S V^T, without the directions that are only rounding.

    Then |S^-1 V^T d|^2 = d^T pinv(Sigma_B) d / K, without a D x D matrix.
    """
    centred = means - means.mean(0)
    _, scales, axes = torch.linalg.svd(centred, full_matrices=False)
    noise = eps * means.norm(dim=1).max() * max(means.shape) ** 0.5
    keep = int((scales[: len(means) - 1] > noise).sum())
    if keep == 0:
        raise ValueError("features: all class means coincide, so there is no geometry to measure")
    return axes[:keep].T, scales[:keep]


def _nearest(hidden: Tensor, means: Tensor) -> Tensor:
    """Position of the nearest mean: argmin |h - mu_c|^2 = argmax h.mu_c - |mu_c|^2 / 2, centred."""
    centre = means.mean(0)
    means = means - centre
    return ((hidden - centre) @ means.T - means.square().sum(1) / 2).argmax(1)


def _classifier(classifier: Classifier, dim: int) -> tuple[Tensor, Tensor] | None:
    if classifier is None:
        return None
    if isinstance(classifier, nn.Linear):
        classifier = classifier.weight, classifier.bias
    weight, bias = classifier
    weight = finite(array(weight, "classifier"), "classifier")
    bias = weight.new_zeros(len(weight)) if bias is None else array(bias, "classifier")
    finite(bias, "classifier")
    if weight.ndim != 2 or weight.shape[1] != dim:
        raise ValueError(
            f"classifier: weight {tuple(weight.shape)} does not fit features of {dim} dimensions"
        )
    return _double(weight), _double(bias)


def _cosines(rows: Tensor) -> Tensor:
    """The K (K-1) off-diagonal cosines between rows; a zero row counts as orthogonal to all."""
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return (unit @ unit.T)[~torch.eye(len(rows), dtype=torch.bool)]


def _between(means: Tensor, weight: Tensor | None, classes: Tensor) -> dict[str, Any]:
    """The numbers that need the class means (and the classifier) only: NC2, NC3, the ETF error."""
    count, centred = len(means), means - means.mean(0)
    norms, cosines = centred.norm(dim=1), _cosines(centred)
    gram = centred @ centred.T
    ideal = simplex_etf(count) @ simplex_etf(count).T
    numbers: dict[str, Any] = {
        "nc2_norm": float(norms.std(correction=0) / norms.mean()),
        "nc2_angle": float(cosines.std(correction=0)),
        "nc2_max_angle": float((cosines + 1 / (count - 1)).abs().mean()),
        "etf_error": float((gram / gram.norm() - ideal / ideal.norm()).norm()),
        **dict.fromkeys(("w_norm", "w_angle", "nc3")),
    }
    if weight is not None:
        if int(classes.max()) >= len(weight):
            raise ValueError(
                f"classifier: {len(weight)} rows, but labels reach {int(classes.max())}"
            )
        rows = weight[classes]
        lengths = rows.norm(dim=1)
        numbers["w_norm"] = float(lengths.std(correction=0) / lengths.mean())
        numbers["w_angle"] = float(_cosines(rows).std(correction=0))
        numbers["nc3"] = float((rows / rows.norm() - centred / centred.norm()).square().sum())
    return numbers


def _cdnv(means: Tensor, within: Tensor) -> float:
    """Galanti, Gyorgy and Hutter 2022: mean over pairs of (v_a + v_b) / (2 |mu_a - mu_b|^2)."""
    first, second = torch.triu_indices(len(means), len(means), offset=1)
    squared = (means[first] - means[second]).square().sum(1)
    return float(((within[first] + within[second]) / (2 * squared)).mean())
