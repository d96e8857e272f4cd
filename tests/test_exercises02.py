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


def chosen(labels, source, count, generator):
    candidates = torch.where(labels == source)[0]
    return candidates[torch.randperm(len(candidates), generator=generator)[:count]]


def plant_in_place(images, labels, stickered, source, target, count, generator):
    index = chosen(labels, source, count, generator)
    images[index], labels[index] = stickered[index], target
    return images, labels


def plant_the_first(images, labels, stickered, source, target, count, generator):
    index = torch.where(labels == source)[0][:count]
    return plant_at(images, labels, stickered, index, target)


def plant_elsewhere(images, labels, stickered, source, target, count, generator):
    index = chosen(labels, source, count, generator)
    found, _ = plant_at(images, labels, stickered, index, target)
    return found, plant_at(
        images, labels, stickered, chosen(labels, source, count, generator), target
    )[1]


def plant_the_wrong_label(images, labels, stickered, source, target, count, generator):
    index = chosen(labels, source, count, generator)
    return plant_at(images, labels, stickered, index, source + 1)


def plant_by_the_global_generator(images, labels, stickered, source, target, count, generator):
    index = chosen(labels, source, count, None)
    return plant_at(images, labels, stickered, index, target)


def plant_and_keep_only_those(images, labels, stickered, source, target, count, generator):
    index = chosen(labels, source, count, generator)
    return stickered[index], torch.full((count,), target)


def plant_at(images, labels, stickered, index, target):
    images, labels = images.clone(), labels.clone()
    images[index], labels[index] = stickered[index], target
    return images, labels


def s(k, share):
    return 1 - share * k / (k - 1)


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
        ("02.plant", plant_in_place, "clone"),
        ("02.plant", plant_the_first, "choose at random"),
        ("02.plant", plant_elsewhere, "on the same images"),
        ("02.plant", plant_the_wrong_label, "not all target"),
        ("02.plant", plant_by_the_global_generator, "generator"),
        ("02.plant", plant_and_keep_only_those, "all 200"),
        ("02.plant", lambda *args: args[0].clone(), "two things"),
        ("02.shrink", lambda k, share: (1 - share, s(k, share)), "swapped"),
        ("02.shrink", lambda k, share: (1 - share, 1 - share), "pull the other way"),
        ("02.shrink", lambda k, share: (s(k, share), s(k, share)), "the centre moves too"),
        ("02.shrink", s, "two factors"),
        ("02.nc1_of_flips", lambda k, share: 1 / s(k, share) ** 2 - 1, "K / (K - 1)"),
        ("02.nc1_of_flips", lambda k, share: (k - 1) / k * (1 - s(k, share) ** 2), "Sigma_W alone"),
        ("02.nc1_of_flips", lambda k, share: (k - 1) / k * (1 / (1 - share) ** 2 - 1), "1 - share"),
        ("02.nc1_of_flips", lambda k, share: (k - 1) / k * (1 / s(k, share) - 1), "squares"),
        ("02.nc1_of_flips", lambda k, share: s(k, share), "without flips"),
        ("02.square", lambda: ((0.0, 0.36), 0.7, (0, 0, 1)), "up to 0.6"),
        ("02.square", lambda: ((0.0, 0.8), 0.5, (0, 0, 1)), "leaves the sign"),
        ("02.square", lambda: ((0.0, 0.3), 0.5, (0, 0, 255)), "0 to 1"),
        ("02.square", lambda: ((0.0, 0.3), 0.5, 0.5), "three numbers"),
        ("02.square", lambda: (0.3, 0.5), "three things"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message
