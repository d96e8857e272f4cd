"""The checks of lesson 15 reject typical mistakes, each for its own reason."""

import pytest
import torch
from scipy import stats

from nclib.course import verdict
from nclib.course.exercises.lesson15 import handed_over, opened
from nclib.data import ImageSet


def keep_doubles(count, suspects, kinds):
    aside = sorted(row.at for row in suspects if row.key in kinds)
    return sorted(set(range(count)) - set(aside)), aside


def every_kind(count, suspects, kinds):
    aside = sorted({row.at for row in suspects})
    return sorted(set(range(count)) - set(aside)), aside


def unsorted(count, suspects, kinds):
    aside = list({row.at: 0 for row in suspects if row.key in kinds})
    return [i for i in range(count) if i not in aside], aside


def normal(hits, runs):
    share = hits / runs
    half = 1.96 * (share * (1 - share) / runs) ** 0.5
    return share - half, share + half


def one_sided(hits, runs):
    low = 0.0 if hits == 0 else stats.beta.ppf(0.05, hits, runs - hits + 1)
    return low, 1.0 if hits == runs else stats.beta.ppf(0.95, hits + 1, runs - hits)


def of_one_beta(hits, runs):
    return stats.beta.ppf(0.025, hits, runs - hits), stats.beta.ppf(0.975, hits, runs - hits)


def in_place(images, labels, target, generator):
    labels[:5] = target
    images[:5] += 0.1
    return images.clamp(0, 1), labels, lambda x: x


def too_many(images, labels, target, generator):
    return images.clone(), torch.full_like(labels, target), lambda x: 1 - x


def no_trigger(images, labels, target, generator):
    labels = labels.clone()
    labels[torch.where(labels != target)[0][:5]] = target
    return images.clone(), labels, lambda x: x


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("15.quarantine", keep_doubles, "twice"),
        ("15.quarantine", every_kind, "for the kinds"),
        ("15.quarantine", unsorted, "not sorted"),
        ("15.quarantine", lambda n, s, k: [1, 2, 3], "two things"),
        ("15.interval", normal, "under the upper end"),
        ("15.interval", one_sided, "2.5% on either side"),
        ("15.interval", of_one_beta, "NaN"),
        ("15.worth", lambda prior, power, alarms: power, "that is the power"),
        ("15.worth", lambda prior, power, alarms: 1 - alarms, "how often it is right"),
        (
            "15.worth",
            lambda prior, power, alarms: prior * power / (prior * power + alarms),
            "1 - prior of all",
        ),
        ("15.worth", lambda prior, power, alarms: prior * power, "share of the accused"),
        ("15.poison", in_place, "clone it first"),
        ("15.poison", too_many, "a tenth is allowed"),
        ("15.poison", no_trigger, "changes nothing at test time"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


def test_every_third_set_is_clean_and_what_is_handed_over_does_not_tell():
    images = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train = ImageSet(images, torch.arange(300) % 10, tuple("abcdefghij"), "toy")
    kinds = [opened(train, case) for case in range(6)]
    assert [bool(bad.is_poisoned.any()) for bad in kinds] == [False, True, True] * 2
    assert [bad.trigger is not None for bad in kinds] == [False, True, False] * 2
    assert kinds[1].attack != kinds[4].attack and kinds[1].target != kinds[4].target
    given = handed_over(train, 1)
    assert type(given) is ImageSet and torch.equal(given.labels, kinds[1].labels)
