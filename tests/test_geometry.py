"""The geometry against a naive float64 definition, closed forms, and the edges of its domain."""

import math

import pytest
import torch
from torch import nn

from nclib import geometry
from nclib.geometry import measure, measure_batches, residual, simplex_etf


def cloud(counts, dim=12, spread=0.3, seed=0, dtype=torch.float32):
    """Gaussian classes of the given sizes around random means."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(len(counts), dim, generator=generator, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return (means[labels] + spread * noise).to(dtype), labels


def naive(features, labels, weight, bias):
    """Every number straight from its definition, with loops and full D x D matrices."""
    h = features.double()
    classes = labels.unique()
    count = len(classes)
    means = torch.stack([h[labels == c].mean(0) for c in classes])
    centre = means.mean(0)
    centred = means - centre
    sigma_w = sum(
        torch.outer(x - means[i], x - means[i])
        for i, c in enumerate(classes)
        for x in h[labels == c]
    ) / len(h)
    sigma_b = centred.T @ centred / count
    within = [(h[labels == c] - means[i]).square().sum(1).mean() for i, c in enumerate(classes)]
    cosines = torch.tensor(
        [
            torch.dot(centred[i], centred[j]) / centred[i].norm() / centred[j].norm()
            for i in range(count)
            for j in range(count)
            if i != j
        ]
    )
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    norms = centred.norm(dim=1)
    nearest = torch.cdist(h, means).argmin(1)
    return {
        "nc1": float(torch.trace(sigma_w @ torch.linalg.pinv(sigma_b, rtol=1e-10))) / count,
        "nc2_norm": float(norms.std(correction=0) / norms.mean()),
        "nc2_angle": float(cosines.std(correction=0)),
        "nc2_max_angle": float((cosines + 1 / (count - 1)).abs().mean()),
        "cdnv": sum(
            float((within[i] + within[j]) / (2 * (means[i] - means[j]).square().sum()))
            for i, j in pairs
        )
        / len(pairs),
        "nc3": float((weight / weight.norm() - centred / centred.norm()).square().sum()),
        "nc4": float((nearest != (h @ weight.T + bias).argmax(1)).double().mean()),
    }


@pytest.mark.parametrize("counts", [[40, 40, 40], [5, 60, 20, 33], [7, 9]])
@pytest.mark.parametrize("dim", [3, 12, 50])
def test_agrees_with_the_naive_definition(counts, dim):
    features, labels = cloud(counts, dim)
    weight, bias = torch.randn(len(counts), dim).double(), torch.randn(len(counts)).double()
    ours = measure(features, labels, (weight, bias)).row()
    for name, value in naive(features, labels, weight, bias).items():
        assert ours[name] == pytest.approx(value, rel=1e-8, abs=1e-12), name


def test_the_float32_pinv_trap_is_avoided():
    """Nearly collapsed float32 features: a D x D pinv in float32 loses every digit of NC1."""
    frame = simplex_etf(10, 128).float()
    labels = torch.arange(10).repeat_interleave(50)
    features = frame[labels] + 1e-3 * torch.randn(
        500, 128, generator=torch.Generator().manual_seed(0)
    )
    exact = naive(features, labels, frame.double(), torch.zeros(10).double())["nc1"]
    assert measure(features, labels).nc1 == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("extra", [-1, 0, 5])
def test_an_exact_etf_is_full_collapse(num_classes, extra):
    frame = simplex_etf(num_classes, num_classes + extra)
    labels = torch.arange(num_classes).repeat(3)
    found = measure(frame[labels], labels, (7 * frame, torch.zeros(num_classes)))
    zero = ("nc1", "nc2_norm", "nc2_angle", "nc2_max_angle", "etf_error", "cdnv", "nc3", "nc4")
    assert all(abs(found.row()[name]) < 1e-7 for name in zero)
    assert found.ncc_accuracy == 1
    cosines = frame @ frame.T
    assert torch.allclose(frame.norm(dim=1), torch.ones(num_classes, dtype=torch.float64))
    off = cosines[~torch.eye(num_classes, dtype=torch.bool)]
    assert torch.allclose(off, torch.full_like(off, -1 / (num_classes - 1)))


def test_nc1_and_cdnv_meet_at_the_etf():
    """At an exact ETF, NC1 = 2 CDNV x (share of the within-class variance inside span(Mc))."""
    num_classes, dim = 10, 30
    frame = simplex_etf(num_classes, dim)
    noise = torch.randn(40, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = torch.cat([noise, -noise])  # no shift of the class means
    labels = torch.arange(num_classes).repeat_interleave(len(noise))
    features = frame[labels] + noise.repeat(num_classes, 1)
    axes = torch.linalg.svd(frame).Vh[: num_classes - 1]
    share = float((noise @ axes.T).square().sum() / noise.square().sum())
    found = measure(features, labels)
    assert found.nc1 == pytest.approx(2 * found.cdnv * share, rel=1e-9)


@pytest.mark.parametrize(("rate", "expected"), [(0.1, 0.239), (0.2, 0.588), (0.4, 2.016)])
def test_closed_form_under_symmetric_flips(rate, expected):
    """Collapsed features, flipped labels: norms shrink by s and NC1 = (K-1)/K (1/s^2 - 1)."""
    count, per_class = 10, 900
    frame = simplex_etf(count)
    truth = torch.arange(count).repeat_interleave(per_class)
    flipped = int(rate * per_class) // 9  # this many go to each of the other classes
    labels = truth.clone().reshape(count, per_class)
    for c in range(count):
        labels[c, : 9 * flipped] = torch.tensor([k for k in range(count) if k != c]).repeat(flipped)
    found = measure(frame[truth], labels.flatten())
    shrink = 1 - rate * count / (count - 1)
    assert found.nc1 == pytest.approx((count - 1) / count * (1 / shrink**2 - 1), rel=1e-9)
    assert found.nc1 == pytest.approx(expected, abs=6e-4)
    assert found.nc2_angle < 1e-7
    assert found.norms.mean() == pytest.approx(shrink, rel=1e-9)


def test_batches_give_the_same_as_all_at_once():
    features, labels = cloud([30, 50, 20, 1], 16)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    features, labels = features[order], labels[order]
    head = nn.Linear(16, 4)
    batches = list(zip(features.split(7), labels.split(7), strict=True))
    whole, parts = measure(features, labels, head), measure_batches(batches, head)
    assert parts.row() == pytest.approx(whole.row(), rel=1e-12)
    assert torch.allclose(parts.within, whole.within)
    with pytest.raises(ValueError, match="iterator"):
        measure_batches(iter(batches), head)


def test_a_data_loader_is_walked_twice():
    features, labels = cloud([30, 50, 20], 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, labels), 16)
    assert measure_batches(loader).row() == pytest.approx(
        measure(features, labels).row(), rel=1e-12
    )


def test_no_cancellation_far_from_the_origin():
    features, labels = cloud([50, 50, 50], 8, dtype=torch.float64)
    near, far = measure(features, labels), measure(features + 1e6, labels)
    assert far.nc1 == pytest.approx(near.nc1, rel=1e-6)
    assert far.cdnv == pytest.approx(near.cdnv, rel=1e-6)


def test_residual_has_mean_nc1_and_takes_a_reference():
    features, labels = cloud([40, 30, 50], 9)
    scores = residual(features, labels)
    assert scores.shape == (120,)
    assert float(scores.mean()) == pytest.approx(measure(features, labels).nc1, rel=1e-9)
    reference = measure(features, labels)
    assert torch.allclose(residual(features[:5], labels[:5], reference), scores[:5], rtol=1e-6)
    with pytest.raises(ValueError, match="reference has classes"):
        residual(
            features[:5], torch.ones(5, dtype=torch.int64), measure(features[:70], labels[:70] * 2)
        )


def test_edges_are_defined():
    features, labels = cloud([1, 1, 30], 6)  # one-sample classes
    assert math.isfinite(measure(features, labels).nc1)
    assert measure(features, labels).within[:2].tolist() == [0, 0]
    absent = labels * 3  # only classes 0, 3 and 6 are there
    head = nn.Linear(6, 10)
    found = measure(features, absent, head, num_classes=10)
    assert found.classes.tolist() == [0, 3, 6]
    assert found.nc1 == pytest.approx(measure(features, labels).nc1)
    two = measure(*cloud([20, 20], 6))
    assert two.nc2_angle == pytest.approx(0, abs=1e-12)
    assert two.nc2_max_angle == pytest.approx(0, abs=1e-12)
    narrow = measure(*cloud([20] * 10, 2))  # D < K - 1: no ETF fits, all numbers are finite
    assert all(math.isfinite(v) for v in narrow.row().values())
    assert narrow.nc2_max_angle > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.full((9, 4), float("nan"))}, "features: NaN"),
        ({"features": torch.zeros(9, 4, 2)}, "features: got"),
        ({"features": torch.ones(9, 4)}, "coincide"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "1 class"),
        ({"labels": torch.zeros(8, dtype=torch.int64)}, "labels: got"),
        ({"labels": torch.arange(9) % 3 - 1}, "labels: run from"),
        ({"num_classes": 2}, "labels: run from"),
        ({"classifier": nn.Linear(5, 3)}, "classifier: weight"),
        ({"classifier": nn.Linear(4, 2)}, "classifier: 2 rows"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"features": torch.randn(9, 4), "labels": torch.arange(9) % 3} | change
    with pytest.raises(ValueError, match=message):
        measure(**arguments)


def test_impossible_frames_are_refused():
    with pytest.raises(ValueError, match="num_classes"):
        simplex_etf(1)
    with pytest.raises(ValueError, match="dim: got 8"):
        simplex_etf(10, 8)


def test_layers_are_measured_one_by_one():
    first, labels = cloud([20, 20, 20], 5, seed=1)
    last, _ = cloud([20, 20, 20], 7, seed=2)
    head = nn.Linear(7, 3)
    found = geometry.by_layer({"a": first, "b": last}, labels, head)
    assert found["a"].row() == measure(first, labels).row()
    assert found["b"].row() == measure(last, labels, head).row()
