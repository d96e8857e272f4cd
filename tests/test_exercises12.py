"""Lesson 12: typical wrong answers are rejected with a useful word."""

import pytest
from scipy.stats import beta, norm

from nclib.course import verdict


def two_sided(hits, n, alpha):
    return float(beta.ppf(alpha / 2, hits, n - hits + 1)) if hits else 0.0


def upper(hits, n, alpha):
    return float(beta.ppf(1 - alpha, hits + 1, n - hits)) if hits < n else 1.0


def normal_approximation(hits, n, alpha):
    share = hits / n
    return share - norm.ppf(1 - alpha) * (share * (1 - share) / n) ** 0.5


def nan_at_zero(hits, n, alpha):
    return float(beta.ppf(alpha, hits, n - hits + 1))


def no_cut(share, sigma):
    return float(sigma * norm.ppf(share))


def ties_ignored(votes):
    label = int(votes.argmax())
    rivals = votes.clone()
    rivals[label] = -1
    return label, int(votes[label] - rivals.max()) // 2


def not_halved(votes):
    label = int(votes.argmax())
    rivals = votes.clone()
    rivals[:label] += 1
    rivals[label] = -1
    return label, int(votes[label] - rivals.max())


def too_careful(votes):
    return int(votes.argmax()), 0


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("12.lower_bound", lambda hits, n, alpha: hits / n, "below the share"),
        ("12.lower_bound", two_sided, "two-sided"),
        ("12.lower_bound", upper, "below the share"),
        ("12.lower_bound", normal_approximation, "normal approximation"),
        ("12.lower_bound", nan_at_zero, "without any hit"),
        ("12.radius", no_cut, "below one half"),
        ("12.radius", lambda share, sigma: max(0.0, sigma * (share - 0.5)), "plane"),
        ("12.radius", lambda share, sigma: max(0.0, float(norm.ppf(share))), "multiply by sigma"),
        ("12.most", 3.09, "number of draws"),
        ("12.most", 1.0, "too low"),
        ("12.sigma", "larger radii, more images", "loses"),
        ("12.sigma", "smaller radii, more images", "times a number"),
        ("12.certificate", ties_ignored, "change the label"),
        ("12.certificate", not_halved, "change the label"),
        ("12.certificate", too_careful, "too small"),
        ("12.certificate", lambda votes: (int(votes.argmin()), 0), "elect"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message
