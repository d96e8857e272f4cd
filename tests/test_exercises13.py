"""The checks of lesson 13 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import detection
from nclib.exercises import lesson13
from nclib.lesson import verdict


def precision(suspects, bad):
    return float((suspects & bad).sum() / suspects.sum().clamp_min(1))


def forgot_the_clean_set(suspects, bad):
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()).clamp_min(1))


def never_clean(bad, labels):
    found = lesson13._conclude(bad, labels)
    return found if found[0] else (True, None, bad)


def no_majority(bad, labels):
    counts = labels[bad].bincount(minlength=10)
    if counts.max() > 0.02 * len(labels):
        return True, int(counts.argmax()), bad & (labels == counts.argmax())
    return lesson13._conclude(bad, labels)


def early(bad, labels):
    found = lesson13._conclude(bad, labels)
    return (True, None, bad) if bad.double().mean() > 0.02 and not found[0] else found


def all_suspects(bad, labels):
    return (*lesson13._conclude(bad, labels)[:2], bad)


def always_a_target(bad, labels):
    target = int(labels[bad].bincount(minlength=10).argmax())
    return True, target, bad & (labels == target)


def no_size(bad, labels):
    counts = labels[bad].bincount(minlength=10)
    if counts.max() > counts.sum() / 2:
        return True, int(counts.argmax()), bad & (labels == counts.argmax())
    return lesson13._conclude(bad, labels)


def positions(support, labels, query):
    means = torch.stack([support[labels == c].mean(0) for c in labels.unique()])
    return torch.cdist(query, means).argmin(1)


def nearest_neighbour(support, labels, query):
    return labels[torch.cdist(query, support).argmin(1)]


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("13.points", precision, "F1"),
        ("13.points", forgot_the_clean_set, "clean set"),
        ("13.points", lambda s, b: 1.0, "no suspects"),
        ("13.conclude", always_a_target, "spread over the classes: the target should be None"),
        ("13.conclude", never_clean, "6% of the set"),
        ("13.conclude", no_majority, "three tenths"),
        ("13.conclude", early, "6% of the set"),
        ("13.conclude", all_suspects, "suspects are expected"),
        ("13.conclude", no_size, "8 of 1000"),
        ("13.conclude", lambda bad, y: (True, 3), "poisoned, target, suspects"),
        ("13.score", lambda h, y: -detection.robust_distance(h, y), "turn the sign"),
        ("13.score", lambda h, y: detection.random_score(y), "0.8 is asked for"),
        ("13.score", detection.whitened_margin, "triggers"),
        ("13.score", lambda h, y: h.norm(), "one score"),
        ("13.prototypes", positions, "not positions"),
        ("13.prototypes", nearest_neighbour, "class *mean*"),
        ("13.transfer", "where they belong", "moves the features"),
        ("13.transfer", "over all new classes", "same place"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message
