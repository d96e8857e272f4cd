"""The checks of lesson 04 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import detection, poisons
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


def first_agreement(named, labels):
    agree = named == labels
    return torch.where(agree.any(0), agree.double().argmax(0) + 1, len(agree) + 1)


def counts_agreements(named, labels):
    return len(named) + 1 - (named == labels).sum(0)


def from_the_shallow_end(named, labels):
    return len(named) + 1 - (named == labels).long().cumprod(0).sum(0)


def depth(named, labels):
    return len(named) + 1 - (named == labels).flip(0).long().cumprod(0).sum(0)


def projected(centre, axis, square=True):
    """The spectral score with the centre and the rows of the SVD of one's choice."""

    def answer(features, labels):
        score = torch.zeros(len(features))
        for c in labels.unique():
            own = labels == c
            middle = {"class": features[own].mean(0), "all": features.mean(0), "none": 0}
            rows = features[own] - middle[axis]
            direction = torch.linalg.svd(rows, full_matrices=False).Vh[0]
            score[own] = (features[own] - middle[centre]) @ direction
        return score.square() if square else score.abs()

    return answer


def too_much(train, seed):
    return poisons.blended(train, 0.2, seed=seed)


def no_trigger(train, seed):
    return poisons.label_flip(train, 0.05, seed=seed)


def of_another_size(train, seed):
    return poisons.badnets(train.subset(torch.arange(200)), 0.05, seed=seed)


def nothing(train, seed):
    return poisons.badnets(train, 0.0, seed=seed)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("04.whitened_margin", lambda h, y: -right(h, y), "sign"),
        ("04.whitened_margin", unwhitened, "not whitened"),
        ("04.whitened_margin", lambda h, y: detection.whitened_margin(h, y, shrink=0.5), "shrink"),
        ("04.whitened_margin", own_left_in, "other"),
        ("04.whitened_margin", lambda h, y: right(h, y).mean(), "one number per sample"),
        ("04.prediction_depth", first_agreement, "for good"),
        ("04.prediction_depth", counts_agreements, "deepest layer"),
        ("04.prediction_depth", from_the_shallow_end, "deepest layer"),
        ("04.prediction_depth", lambda named, y: depth(named, y) - 1, "count from 1"),
        ("04.prediction_depth", lambda named, y: depth(named, y).clamp_max(3), "never agrees"),
        ("04.prediction_depth", lambda named, y: named == y, "one depth per image"),
        ("04.spectral", projected("none", "class"), "not centred"),
        ("04.spectral", projected("none", "none"), "nothing is centred"),
        ("04.spectral", projected("class", "none"), "uncentred"),
        ("04.spectral", projected("all", "class"), "not that of all images"),
        ("04.spectral", projected("class", "class", square=False), "square"),
        ("04.spectral", lambda h, y: detection.spectral(h, y).sqrt() * 3, "differs"),
        ("04.spectral", lambda h, y: detection.spectral(h, y)[:5], "one number per sample"),
        ("04.quiet_attack", too_much, "10% are allowed"),
        ("04.quiet_attack", no_trigger, "has a target"),
        ("04.quiet_attack", of_another_size, "keeps its size"),
        ("04.quiet_attack", nothing, "nothing is poisoned"),
        ("04.quiet_attack", lambda train, seed: train, "nclib.poisons"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


@pytest.mark.parametrize("attack", [poisons.badnets, poisons.blended, poisons.sig, poisons.wanet])
def test_any_backdoor_within_the_budget_is_an_attack(attack):
    assert verdict("04.quiet_attack", lambda t, s: attack(t, 0.03, seed=s)).state == "correct"
