"""The checks of lesson 04 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import detection
from nclib.course import verdict


def right(features, labels, **options):
    return detection.whitened_margin(features, labels, shrink=0.1)


def unwhitened(features, labels):
    h = features.double()
    means = torch.stack([h[labels == c].mean(0) for c in range(3)])
    distance = torch.cdist(h, means).square()
    own = distance.gather(1, labels[:, None]).squeeze(1)
    return own - distance.scatter(1, labels[:, None], torch.inf).amin(1)


def own_left_in(features, labels):
    return right(features, labels).clamp_max(0)


def first_agreement(features, labels):
    agree = []
    for h in features.values():
        means = torch.stack([h[labels == c].mean(0) for c in (0, 1)])
        agree.append(torch.cdist(h, means).argmin(1) == labels)
    agree = torch.stack(agree)
    return torch.where(agree.any(0), agree.double().argmax(0) + 1, len(agree) + 1)


def counts_from_zero(features, labels):
    return detection.ncc_depth(features, labels) - 1


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("04.whitened_margin", lambda h, y: -right(h, y), "sign"),
        ("04.whitened_margin", unwhitened, "not whitened"),
        ("04.whitened_margin", lambda h, y: detection.whitened_margin(h, y, shrink=0.5), "shrink"),
        ("04.whitened_margin", own_left_in, "other"),
        ("04.whitened_margin", lambda h, y: right(h, y).mean(), "one number per sample"),
        ("04.ncc_depth", first_agreement, "a depth should be|for good"),
        ("04.ncc_depth", counts_from_zero, "depth 1"),
        ("04.moment", "after memorisation", "collapse"),
        ("04.margin_on_triggers", "as good", "nearest"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and any(w in message for w in word.split("|")), message
