"""The checks of lesson 01 reject typical mistakes, each for its own reason."""

import math

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


def nc1_ratio_of_traces(features, labels):
    found = measure(features, labels)
    centred = found.means - found.global_mean
    within = (found.within * found.counts).sum() / found.counts.sum()
    return float(within / centred.square().sum(1).mean()) / len(found.means)


def nc1_as_it_comes(features, labels):
    h = features
    means = torch.stack([h[labels == c].mean(0) for c in labels.unique()])
    within, centred = h - means[labels], means - means.mean(0)
    sigma_w, sigma_b = within.T @ within / len(h), centred.T @ centred / len(means)
    return float(torch.trace(sigma_w @ torch.linalg.pinv(sigma_b, rtol=1e-10))) / len(means)


def in_place(labels):
    labels[labels == 0] = 1
    labels[labels == 2] = 3
    return labels


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
        ("01.nc1", nc1_ratio_of_traces, "ratio of two traces"),
        ("01.nc1", nc1_as_it_comes, "float64"),
        ("01.lowest_loss", lambda k, r: math.exp(-r), "nothing can be told apart"),
        ("01.lowest_loss", lambda k, r: math.log(1 + (k - 1) * math.exp(-r)), "K / (K - 1)"),
        ("01.lowest_loss", lambda k, r: math.log(k) * math.exp(-r), "has the loss"),
        ("01.traceless", lambda labels: labels, "0% of the labels"),
        ("01.traceless", in_place, "stay as they were"),
        ("01.traceless", lambda labels: labels + 1, "from 0 to 9"),
        ("01.nearest_class_mean", by_inner_product, "inner product"),
        ("01.nearest_class_mean", farthest, "of 40"),
        ("01.nearest_class_mean", distances, "shape"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message


def test_the_lie_of_two_names_and_one_of_ten_pass():
    """Any tidy exchange will do: two classes, or all of them one on; by numpy, too."""
    for answer in (lambda y: (y + 1) % 10, lambda y: (y.numpy() + 1) % 10, lambda y: 9 - y):
        assert verdict("01.traceless", answer).state == "correct"
