"""The checks of lesson 01 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib.course import verdict
from nclib.geometry import measure


def plain(k):
    return torch.eye(k, dtype=torch.float64)


def unscaled(k):
    return plain(k) - 1 / k


def nc1_sum_over_classes(features, labels):
    return 10 * measure(features, labels).nc1


def nc1_times_k(features, labels):
    return len(labels.unique()) * measure(features, labels).nc1


def nc1_uncentred(features, labels):
    h = features.double()
    means = torch.stack([h[labels == c].mean(0) for c in labels.unique()])
    within = h - means[labels]
    sigma_b = means.T @ means / len(means)
    sigma_w = within.T @ within / len(h)
    return float(torch.trace(sigma_w @ torch.linalg.pinv(sigma_b))) / len(means)


def nc1_with_a_unit(features, labels):
    return measure(features, labels).within.mean()


def by_inner_product(features, means):
    return (features @ means.T).argmax(1)


def farthest(features, means):
    return torch.cdist(features, means).argmax(1)


def distances(features, means):
    return torch.cdist(features, means)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("01.cosines", (120.0, 109.5), "no cosine"),
        ("01.cosines", (0.5, 1 / 3), "not the cosine for 3"),
        ("01.cosines", (-0.5, -0.5), "not the cosine for 4"),
        ("01.cosines", (float("nan"), -1 / 3), "no cosine"),
        ("01.simplex_etf", lambda k: plain(k) * float("nan"), "finite"),
        ("01.simplex_etf", plain, "sum to zero"),
        ("01.simplex_etf", unscaled, "length"),
        ("01.simplex_etf", lambda k: unscaled(k)[:-1], "shape"),
        ("01.nc1", lambda h, y: float("nan"), "finite"),
        ("01.nc1", nc1_times_k, "K times too large"),
        ("01.nc1", nc1_sum_over_classes, "your value is"),
        ("01.nc1", nc1_uncentred, "shifted"),
        ("01.nc1", nc1_with_a_unit, "scaled"),
        ("01.after_zero", "stays", "zero loss"),
        ("01.after_zero", "rises", "choose one"),
        ("01.train_or_test", "test", "never sees"),
        ("01.nearest_class_mean", by_inner_product, "inner product"),
        ("01.nearest_class_mean", farthest, "of 40"),
        ("01.nearest_class_mean", distances, "shape"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message
