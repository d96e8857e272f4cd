"""The checks of lesson 05 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import correction, poisons
from nclib.course import verdict
from nclib.course.exercises import find


def ends_at_the_sign(features):
    rows = features - features.mean(0)
    side = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[0] > 0
    return side if 2 * side.sum() <= len(side) else ~side


def at_the_median(features):
    rows = features - features.mean(0)
    line = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[0]
    return line > line.median()


def uncentred(features):
    return features @ torch.linalg.svd(features, full_matrices=False).Vh[0] > 0


def the_larger_side(features):
    return ~find("05.split").reference(features)


def of_any_class(labels, group, seed):
    draw = torch.Generator().manual_seed(seed)
    stays = torch.ones_like(group)
    stays[torch.randperm(len(group), generator=draw)[: int(group.sum())]] = False
    return ~group, stays


def of_one_class(labels, group, seed):
    stays = torch.ones_like(group)
    mine = torch.where(labels == 0)[0]
    draw = torch.Generator().manual_seed(seed)
    stays[mine[torch.randperm(len(mine), generator=draw)[: int(group.sum())]]] = False
    return ~group, stays


def what_goes(labels, group, seed):
    return group, correction.random_removal(labels, group, seed)


def without_a_seed(labels, group, seed):
    return ~group, ~correction.random_removal(labels, group, 0)


def too_much(train, seed):
    return poisons.blended(train, 0.1, seed=seed)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("05.split", ends_at_the_sign, "mean of all rows"),
        ("05.split", at_the_median, "halves every class"),
        ("05.split", uncentred, "centre them"),
        ("05.split", the_larger_side, "smaller"),
        ("05.split", lambda h: h.mean(1), "mask"),
        ("05.transplant", lambda x, g, r: x + g.mean(0) - r.mean(0), "clip"),
        ("05.transplant", lambda x, g, r: (x + r.mean(0) - g.mean(0)).clamp(0, 1), "sign"),
        ("05.transplant", lambda x, g, r: (x + g.mean(0)).clamp(0, 1), "shares with its class"),
        ("05.transplant", lambda x, g, r: g.mean(0) - r.mean(0), "one for each stranger"),
        ("05.transplant", lambda x, g, r: (x + g.mean() - r.mean()).clamp(0, 1), "no picture"),
        ("05.transplant", lambda x, g, r: x, "unchanged"),
        ("05.take_away", of_any_class, "over all classes the number is right"),
        ("05.take_away", of_one_class, "of the three classes"),
        ("05.take_away", what_goes, "what stays"),
        ("05.take_away", without_a_seed, "another seed"),
        ("05.take_away", lambda y, g, s: (~g, ~g), "draw at random"),
        ("05.take_away", lambda y, g, s: ~g, "two masks"),
        ("05.left", lambda s, w, c, b: w / min(s, c), "above and below"),
        ("05.left", lambda s, w, c, b: (w - b) / min(s, c), "below, too"),
        ("05.left", lambda s, w, c, b: (w - b) / (s - b), "control"),
        ("05.left", lambda s, w, c, b: (w - b) / (max(s, c) - b), "smaller"),
        ("05.left", lambda s, w, c, b: 1 - (w - b) / (min(s, c) - b), "what is gone"),
        ("05.left", lambda s, w, c, b: s - w, "is left, not"),
        ("05.smallest", too_much, "5% are allowed"),
        ("05.smallest", lambda t, s: poisons.label_flip(t, 0.05, seed=s), "has a target"),
        ("05.smallest", lambda t, s: poisons.badnets(t, 0.0, seed=s), "nothing is poisoned"),
        ("05.smallest", lambda t, s: t, "nclib.poisons"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


@pytest.mark.parametrize("attack", [poisons.badnets, poisons.blended, poisons.wanet])
def test_any_backdoor_within_the_budget_is_an_attack(attack):
    options = {"noise_ratio": 0} if attack is poisons.wanet else {}
    assert (
        verdict("05.smallest", lambda t, s: attack(t, 0.03, seed=s, **options)).state == "correct"
    )
