"""Lesson 10: right answers pass, typical wrong ones are rejected with a useful word."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from nclib.course import verdict


def climb(climbed=None, factor=2.5, sign=1, clip=True, steps_taken=None, budget=1.0, wide=True):
    def attack(model, images, labels, eps, objective, steps=20):
        x, objective = images, climbed or objective
        for _ in range(steps_taken or steps):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(model(x), labels).sum(), x)
            change = x + sign * factor * eps / steps * gradient.sign() - images
            x = images + change.clamp(-budget * eps, budget * eps)
            x = x.clamp(0, 1) if clip else x
        return x.detach() if wide else x.detach().float()

    return attack


def shaken(model, images, labels, eps, objective, steps=20):
    start = (images + 0.05 * eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    found = climb()(model, start, labels, eps, objective, steps)
    return images + (found - images).clamp(-eps, eps)


def in_place(model, images, labels, eps, objective, steps=20):
    return images.copy_(climb()(model, images, labels, eps, objective, steps))


WRONG = [
    ("10.soft_cross_entropy", lambda z, t, T: cross_entropy(z, t), "no effect"),
    ("10.soft_cross_entropy", lambda z, t, T: cross_entropy(z * T, t), "divide the logits"),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: -(t * (z / T).log_softmax(1)).sum(),
        "mean over the images",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: -(t * (z / T).log_softmax(1)).mean(),
        "sum over the classes",
    ),
    ("10.soft_cross_entropy", lambda z, t, T: -cross_entropy(z / T, t), "sign"),
    ("10.soft_cross_entropy", lambda z, t, T: T * T * cross_entropy(z / T, t), "T squared"),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: -(t * (z / T).softmax(1).log()).sum(1).mean(),
        "log_softmax",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: cross_entropy(z / T, t, reduction="none"),
        "one number",
    ),
    ("10.logit_gradient", lambda z, y: torch.eye(4)[y] - z.softmax(1), "sign"),
    ("10.logit_gradient", lambda z, y: (z.softmax(1) - torch.eye(4)[y]) / len(z), "divide by N"),
    ("10.logit_gradient", lambda z, y: z.softmax(1), "missing"),
    ("10.logit_gradient", lambda z, y: z.softmax(0) - torch.eye(4)[y], "sum to 0"),
    ("10.logit_gradient", lambda z, y: z - torch.eye(4)[y], "sum to 0"),
    ("10.logit_gradient", lambda z, y: (z.softmax(1) - torch.eye(4)[y])[0], "shape"),
    ("10.climb", climb(lambda z, y: cross_entropy(z, y, reduction="none")), "do not move"),
    ("10.climb", climb(sign=-1), "climb"),
    ("10.climb", climb(clip=False), "leaves"),
    ("10.climb", climb(budget=2.0), "is allowed"),
    ("10.climb", climb(steps_taken=5), "all steps"),
    ("10.climb", climb(factor=20, steps_taken=1), "asked 1 times"),
    ("10.climb", in_place, "changes its input"),
    ("10.climb", lambda model, x, y, eps, objective: x[0], "shape"),
    ("10.climb", climb(wide=False), "keep the type"),
    ("10.climb", shaken, "stay where it is"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_wrong_answers_get_their_word(name, answer, word):
    state, said = verdict(name, answer)
    assert state == "wrong"
    assert word in said


def test_the_plain_loop_passes():
    assert verdict("10.climb", climb()).state == "correct"
