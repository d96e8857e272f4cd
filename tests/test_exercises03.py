"""The checks of lesson 03 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import poisons
from nclib.course import verdict


def slope_of(images, goal, represent):
    images = images.detach().requires_grad_()
    return torch.autograd.grad((represent(images) - goal).square().sum(), images)[0]


def forward_only(images, base, goal, represent, lr, beta):
    return (images - lr * slope_of(images, goal, represent)).clamp(0, 1)


def uphill(images, base, goal, represent, lr, beta):
    forward = images + lr * slope_of(images, goal, represent)
    return ((forward + lr * beta * base) / (1 + lr * beta)).clamp(0, 1)


def unclamped(images, base, goal, represent, lr, beta):
    forward = images - lr * slope_of(images, goal, represent)
    return (forward + lr * beta * base) / (1 + lr * beta)


def without_lr(images, base, goal, represent, lr, beta):
    forward = images - lr * slope_of(images, goal, represent)
    return ((forward + beta * base) / (1 + beta)).clamp(0, 1)


def in_place(images, base, goal, represent, lr, beta):
    images -= lr * slope_of(images, goal, represent)
    return images


def mean_of_distances(hidden, goal):
    return (hidden - goal).square().sum(1).mean() / goal.square().sum()


def with_a_scale(hidden, goal):
    return (hidden.mean(0) - goal).square().sum()


def not_squared(hidden, goal):
    return (hidden.mean(0) - goal).norm() / goal.norm()


def cosine(a, b):
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def per_tensor(first, second):
    return sum(cosine(a, b) for a, b in zip(first, second, strict=True)) / len(first)


def inner(first, second):
    return float(sum((a * b).sum() for a, b in zip(first, second, strict=True)))


def as_loss(first, second):
    flat = [torch.cat([a.flatten() for a in side]) for side in (first, second)]
    return 1 - cosine(*flat)


def first_tensor(first, second):
    return cosine(first[0], second[0])


def too_many(train, surrogate, seed):
    return poisons.sig(train, 0.1, 3, delta=8 / 255)


def one_victim(train, surrogate, seed):
    options = {"poisons": 5, "eps": 8 / 255, "steps": 2}
    return poisons.bullseye_polytope(train, surrogate, train.images[:1], 3, **options)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("03.collision_step", forward_only, "backward"),
        ("03.collision_step", uphill, "smaller"),
        ("03.collision_step", unclamped, "clamp"),
        ("03.collision_step", without_lr, "not beta alone"),
        ("03.collision_step", in_place, "have changed"),
        ("03.bullseye", mean_of_distances, "distance of the mean"),
        ("03.bullseye", with_a_scale, "scale"),
        ("03.bullseye", not_squared, "yours has the lengths"),
        ("03.alignment", per_tensor, "per tensor"),
        ("03.alignment", inner, "inner product"),
        ("03.alignment", as_loss, "1 - cos"),
        ("03.alignment", first_tensor, "the cosine"),
        ("03.quiet_backdoor", lambda d, m, s: d, "a poisoned set is expected, not ImageSet"),
        ("03.quiet_backdoor", lambda d, m, s: poisons.sig(d, 0.05, 3), "40/255; 8/255 is allowed"),
        ("03.quiet_backdoor", too_many, "10.0% of the images are changed; 5% are allowed"),
        ("03.quiet_backdoor", lambda d, m, s: poisons.blended(d, 0.05, 3), "labels have changed"),
        ("03.quiet_backdoor", one_victim, "a trigger"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message, message


@pytest.mark.parametrize(
    "answer",
    [
        lambda train, surrogate, seed: poisons.sig(train, 0.03, 1, delta=6 / 255),
        lambda train, surrogate, seed: poisons.narcissus(
            train, surrogate, 0.01, 2, eps=8 / 255, warmup=1, steps=2
        ),
    ],
)
def test_any_quiet_backdoor_is_taken(answer):
    assert verdict("03.quiet_backdoor", answer)[0] == "correct"
