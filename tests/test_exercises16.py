"""The checks of lesson 16 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import detection
from nclib.course import verdict
from nclib.course.exercises import lesson16


def precision(suspects, bad):
    return float((suspects & bad).sum() / suspects.sum().clamp_min(1))


def forgot_the_clean_set(suspects, bad):
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()).clamp_min(1))


def never_clean(bad, labels):
    found = lesson16._conclude(bad, labels)
    return found if found[0] else (True, None, bad)


def no_majority(bad, labels):
    counts = labels[bad].bincount(minlength=10)
    if counts.max() > 0.02 * len(labels):
        return True, int(counts.argmax()), bad & (labels == counts.argmax())
    return lesson16._conclude(bad, labels)


def early(bad, labels):
    found = lesson16._conclude(bad, labels)
    return (True, None, bad) if bad.double().mean() > 0.02 and not found[0] else found


def all_suspects(bad, labels):
    return (*lesson16._conclude(bad, labels)[:2], bad)


def always_a_target(bad, labels):
    target = int(labels[bad].bincount(minlength=10).argmax())
    return True, target, bad & (labels == target)


def no_size(bad, labels):
    counts = labels[bad].bincount(minlength=10)
    if counts.max() > counts.sum() / 2:
        return True, int(counts.argmax()), bad & (labels == counts.argmax())
    return lesson16._conclude(bad, labels)


def positions(support, labels, query):
    means = torch.stack([support[labels == c].mean(0) for c in labels.unique()])
    return torch.cdist(query, means).argmin(1)


def nearest_neighbour(support, labels, query):
    return labels[torch.cdist(query, support).argmin(1)]


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("16.points", precision, "F1"),
        ("16.points", forgot_the_clean_set, "clean set"),
        ("16.points", lambda s, b: 1.0, "no suspects"),
        ("16.conclude", always_a_target, "spread over the classes: the target should be None"),
        ("16.conclude", never_clean, "6% of the set"),
        ("16.conclude", no_majority, "three tenths"),
        ("16.conclude", early, "6% of the set"),
        ("16.conclude", all_suspects, "suspects are expected"),
        ("16.conclude", no_size, "8 of 1000"),
        ("16.conclude", lambda bad, y: (True, 3), "poisoned, target, suspects"),
        ("16.score", lambda h, y: -detection.robust_distance(h, y), "turn the sign"),
        ("16.score", lambda h, y: detection.random_score(y), "0.8 is asked for"),
        ("16.score", detection.whitened_margin, "triggers"),
        ("16.score", lambda h, y: h.norm(), "one score"),
        ("16.prototypes", positions, "not positions"),
        ("16.prototypes", nearest_neighbour, "class *mean*"),
        ("16.transfer", "where they belong", "moves the features"),
        ("16.transfer", "over all new classes", "same place"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message
