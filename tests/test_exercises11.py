"""Lesson 11: typical wrong answers are rejected with a useful word."""

import pytest
import torch

from nclib.attacks import margin
from nclib.course import verdict
from nclib.course.exercises.lesson11 import _joint_score as score
from nclib.course.exercises.lesson11 import _quiet as quiet


def too_many_levels(images, bits):
    return (images * 2**bits).round() / 2**bits


def cut_off(images, bits):
    return (images * (2**bits - 1)).floor() / (2**bits - 1)


def in_place(images, bits):
    return images.mul_(2**bits - 1).round_().div_(2**bits - 1)


def of_logits(before, squeezed):
    return torch.stack([(s - before).abs().sum(1) for s in squeezed]).amax(0)


def first_only(before, squeezed):
    return (squeezed[0].softmax(1) - before.softmax(1)).abs().sum(1)


def euclidean(before, squeezed):
    return torch.stack([(s.softmax(1) - before.softmax(1)).norm(dim=1) for s in squeezed]).amax(0)


def mean_of_classes(before, squeezed):
    return torch.stack([(s.softmax(1) - before.softmax(1)).abs().mean(1) for s in squeezed]).amax(0)


def cut(logits, labels):
    return margin(logits, labels).clamp(max=3)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("11.bit_depth", too_many_levels, "levels"),
        ("11.bit_depth", cut_off, "brightest level"),
        ("11.bit_depth", in_place, "stay as they were"),
        ("11.bit_depth", lambda images, bits: images, "brightest"),
        ("11.joint_score", of_logits, "softmax first"),
        ("11.joint_score", first_only, "first squeezer"),
        ("11.joint_score", euclidean, "Euclidean"),
        ("11.joint_score", mean_of_classes, "their mean"),
        ("11.straight_through", lambda squeeze, images: squeeze(images), "zero"),
        ("11.straight_through", lambda squeeze, images: images, "value"),
        ("11.straight_through", lambda squeeze, images: squeeze(images).detach(), "no gradient"),
        ("11.wall", 1 / 3, "halfway"),
        ("11.wall", 1 / 14, "three bits"),
        ("11.quiet", lambda z, views, y, lam: -quiet(z, views, y, lam), "differs"),
        ("11.quiet", lambda z, views, y, lam: cut(z, y) + lam * score(z, views), "subtract"),
        ("11.quiet", lambda z, views, y, lam: margin(z, y) - lam * score(z, views), "not cut off"),
        ("11.quiet", lambda z, views, y, lam: cut(z, y) - score(z, views), "no effect"),
        (
            "11.quiet",
            lambda z, views, y, lam: (margin(z, y) - lam * score(z, views)).clamp(max=3),
            "not the whole",
        ),
        (
            "11.quiet",
            lambda z, views, y, lam: (-margin(z, y)).clamp(max=3) - lam * score(z, views),
            "turned",
        ),
        ("11.quiet", lambda z, views, y, lam: quiet(z, views, y, lam).detach(), "detach nothing"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message
