"""Lesson 10: right answers pass, typical wrong ones are rejected with a useful word."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from nclib.attacks import margin
from nclib.course import verdict
from nclib.course.exercises import find


def climb(objective, factor=2.5, sign=1, clip=True, steps_taken=None, budget=1.0):
    def attack(model, images, labels, eps, steps=20):
        x = images
        for _ in range(steps_taken or steps):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(model(x), labels).sum(), x)
            change = x + sign * factor * eps / steps * gradient.sign() - images
            x = images + change.clamp(-budget * eps, budget * eps)
            x = x.clamp(0, 1) if clip else x
        return x.detach()

    return attack


def in_place(model, images, labels, eps, steps=20):
    return images.copy_(climb(margin)(model, images, labels, eps, steps))


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
    ("10.margin_pgd", climb(lambda z, y: cross_entropy(z, y, reduction="none")), "do not move"),
    ("10.margin_pgd", climb(margin, sign=-1), "climb"),
    ("10.margin_pgd", climb(margin, clip=False), "leaves"),
    ("10.margin_pgd", climb(margin, budget=2.0), "is allowed"),
    ("10.margin_pgd", climb(margin, steps_taken=5), "all steps"),
    ("10.margin_pgd", climb(margin, factor=20, steps_taken=1), "asked 1 times"),
    ("10.margin_pgd", in_place, "changes its input"),
    ("10.margin_pgd", lambda model, x, y, eps, steps=20: x[0], "shape"),
    ("10.with_temperature", "stays", "believe"),
    ("10.with_temperature", "falls", "softmax"),
    ("10.factor", 1, "too low"),
    ("10.factor", 100**2, "too high"),
    ("10.left", 0.9, "too high"),
    ("10.flagged", "both", "symptom"),
    ("10.flagged", "adversarial training", "uphill"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_wrong_answers_get_their_word(name, answer, word):
    state, said = verdict(name, answer)
    assert state == "wrong"
    assert word in said


@pytest.mark.parametrize("name", sorted({name for name, *_ in WRONG}))
def test_references_pass_and_stubs_are_not_attempted(name):
    assert verdict(name, find(name).reference) == ("correct", "")
    assert verdict(name, None)[0] == "not attempted"
    assert verdict(name, "no such answer")[0] == "wrong"


def test_the_plain_loop_passes():
    assert verdict("10.margin_pgd", climb(margin)).state == "correct"
