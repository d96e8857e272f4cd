"""The checks of lesson 05 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import correction, detection
from nclib.course import verdict


def fifth_of_all(odd, labels):
    mask = torch.zeros(len(odd), dtype=torch.bool)
    mask[odd.argsort()[: len(odd) // 5]] = True
    return mask


def own(logits, labels):
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("05.core", fifth_of_all, "of each class"),
        ("05.core", lambda odd, y: correction.core_of(-odd, y, 0.2), "lowest"),
        ("05.core", lambda odd, y: odd.argsort()[:14], "mask"),
        ("05.core", lambda odd, y: torch.zeros(len(y), dtype=torch.bool), "empty"),
        ("05.second_look", lambda z, y, d: own(z, y) < 0.25, "nobody doubted"),
        ("05.second_look", lambda z, y, d: d & (z.argmax(1) != y), "chance"),
        ("05.second_look", lambda z, y, d: d & (own(z, y) < 0.5), "not 1/2"),
        ("05.second_look", lambda z, y, d: own(z, y), "mask"),
        ("05.control", "falls to zero", "few are enough"),
        ("05.detector", lambda h, y: -detection.robust_distance(h, y), "turn the sign"),
        ("05.detector", lambda h, y: detection.random_score(y), "0.9 is asked for"),
        ("05.detector", detection.whitened_margin, "triggers"),
        ("05.detector", lambda h, y: h.norm(dim=1).mean(), "one score"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message
