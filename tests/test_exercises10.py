"""Lesson 10: typical wrong answers are rejected with a useful word."""

import pytest
import torch

from nclib.lesson import verdict


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


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("10.bit_depth", too_many_levels, "levels"),
        ("10.bit_depth", cut_off, "brightest level"),
        ("10.bit_depth", in_place, "stay as they were"),
        ("10.bit_depth", lambda images, bits: images, "brightest"),
        ("10.joint_score", of_logits, "certain answer"),
        ("10.joint_score", first_only, "joint score"),
        ("10.joint_score", euclidean, "certain answer"),
        ("10.joint_score", mean_of_classes, "certain answer"),
        ("10.straight_through", lambda squeeze, images: squeeze(images), "zero"),
        ("10.straight_through", lambda squeeze, images: images, "value"),
        ("10.straight_through", lambda squeeze, images: squeeze(images).detach(), "no gradient"),
        ("10.wall", 1 / 3, "too high"),
        ("10.wall", 1 / 14, "too low"),
        ("10.trigger", "both go", "full ink"),
        ("10.trigger", "both stay", "middle grey"),
        ("10.trigger", "the patch goes, the blend stays", "far from"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message
