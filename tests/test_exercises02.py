"""The checks of lesson 02 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib.course import verdict


def flip_to_any(labels, rate, k, generator):
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    found = labels.clone()
    found[chosen] = torch.randint(0, k, (len(chosen),), generator=generator)
    return found


def flip_in_place(labels, rate, k, generator):
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    labels[chosen] = (labels[chosen] + 1) % k
    return labels


def flip_to_the_next(labels, rate, k, generator):
    return flip_in_place(labels.clone(), rate, k, generator)


def flip_the_first(labels, rate, k, generator):
    count = round(rate * len(labels))
    found = labels.clone()
    found[:count] = (found[:count] + torch.randint(1, k, (count,), generator=generator)) % k
    return found


def flip_each_with_chance(labels, rate, k, generator):
    chosen = torch.rand(len(labels), generator=generator) < rate + 0.02
    return torch.where(chosen, (labels + 1) % k, labels)


def flip_by_the_global_generator(labels, rate, k, generator):
    chosen = torch.randperm(len(labels))[: round(rate * len(labels))]
    found = labels.clone()
    found[chosen] = (found[chosen] + torch.randint(1, k, (len(chosen),))) % k
    return found


def flip_beyond(labels, rate, k, generator):
    return labels + 1


def square(where, value=1.0):
    def stamp(images):
        found = images.clone()
        found[(slice(None), slice(None), *where)] = value
        return found

    return stamp


def in_place(images):
    images[:, :, -4:-1, -4:-1] = 1
    return images


def first_only(images):
    found = images.clone()
    found[0, :, -4:-1, -4:-1] = 1
    return found


INSIDE, EDGE = slice(-4, -1), slice(-3, None)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("02.flip", flip_to_any, "own class"),
        ("02.flip", flip_in_place, "clone"),
        ("02.flip", flip_to_the_next, "other classes"),
        ("02.flip", flip_the_first, "side by side"),
        ("02.flip", flip_each_with_chance, "300 should"),
        ("02.flip", flip_beyond, "outside"),
        ("02.flip", flip_by_the_global_generator, "generator"),
        ("02.trigger", in_place, "clone"),
        ("02.trigger", first_only, "of 4"),
        ("02.trigger", square((EDGE, EDGE)), "edge"),
        ("02.trigger", square((slice(-3, -1), INSIDE)), "9 should"),
        ("02.trigger", square((INSIDE, INSIDE), 0.95), "stamped"),
        ("02.trigger", square((slice(1, 4), slice(1, 4))), "stamped"),
        ("02.lowers_accuracy", "backdoor", "trigger"),
        ("02.lowers_accuracy", "both", "spoil"),
        ("02.factor", 0.2, "share of the guests"),
        ("02.factor", 1.0, "pull the mean"),
        ("02.factor", 0.5, "too low"),
        ("02.factor", 0.9, "too high"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message
