"""Lesson 06: right answers pass, typical wrong ones are rejected with a useful word."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from nclib import attacks
from nclib.course import verdict


def gradient_of(model, images, labels):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(model(x), labels, reduction="sum"), x)[0]


def down(model, images, labels, eps):
    return (images - eps * gradient_of(model, images, labels).sign()).clamp(0, 1)


def unsigned(model, images, labels, eps):
    return (images + eps * gradient_of(model, images, labels)).clamp(0, 1)


def unclamped(model, images, labels, eps):
    return images + eps * gradient_of(model, images, labels).sign()


def half(model, images, labels, eps):
    return (images + eps / 2 * gradient_of(model, images, labels).sign()).clamp(0, 1)


def coin(model, images, labels, eps):
    signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign()
    return (images + eps * signs).clamp(0, 1)


def in_place(model, images, labels, eps):
    change = eps * gradient_of(model, images, labels).sign()
    return images.add_(change).clamp(0, 1)


def backward(model, images, labels, eps):
    x = images.clone().requires_grad_()
    cross_entropy(model(x), labels).backward()
    return (images + eps * x.grad.sign()).clamp(0, 1)


def mean_loss(model, images, labels, eps):
    x = images.clone().requires_grad_()
    gradient = torch.autograd.grad(cross_entropy(model(x), labels), x)[0]
    return (images + eps * gradient.sign()).clamp(0, 1)


def doubled(model, images, labels, eps):
    return (images + 2 * eps * gradient_of(model, images, labels).sign()).clamp(0, 1)


def delta_form(x, images, gradient, alpha, eps):
    delta = (x + alpha * gradient.sign() - images).clamp(-eps, eps)
    return (images + delta).clamp(0, 1)


def along(h, a, b):
    return ((h - a) * (b - a)).sum(1)


def squared(a, b):
    return (b - a).square().sum(1)


def loud(surrogates, images, labels, eps):
    return attacks.transfer(surrogates[0], images, labels, 2 * eps, surrogate=surrogates, steps=5)


def downhill(surrogates, images, labels, eps):
    return down(surrogates[0], images, labels, eps)


WRONG = {
    "06.fgsm": {
        "down": down,
        "a pixel moves by": unsigned,
        "clamp": unclamped,
        "not every pixel": half,
        "another corner": coin,
        "changes its input": in_place,
        "weights": backward,
        "is allowed": doubled,
        "shape": lambda model, images, labels, eps: images[0],
    },
    "06.pgd_step": {
        "around images": lambda x, i, g, a, e: (x + a * g.sign()).clamp(x - e, x + e).clamp(0, 1),
        "leaves": lambda x, i, g, a, e: (x + a * g.sign()).clamp(i - e, i + e),
        "down": lambda x, i, g, a, e: (x - a * g.sign()).clamp(i - e, i + e).clamp(0, 1),
        "taken from x": lambda x, i, g, a, e: (i + a * g.sign()).clamp(i - e, i + e).clamp(0, 1),
        "only its sign": lambda x, i, g, a, e: (x + a * g).clamp(i - e, i + e).clamp(0, 1),
        "shape": lambda x, i, g, a, e: x.mean(),
        "changes the clean": lambda x, i, g, a, e: i.add_(a * g.sign()).clamp_(0, 1),
    },
    "06.margin": {
        "never below 0": lambda z, y: z.max(1).values - z.gather(1, y[:, None])[:, 0],
        "other way": lambda z, y: (
            z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -1e9).max(1).values
        ),
        "not with 0": lambda z, y: (
            z.scatter(1, y[:, None], 0.0).max(1).values - z.gather(1, y[:, None])[:, 0]
        ),
        "changes the logits": lambda z, y: z.scatter_(1, y[:, None], -9.0).max(1).values,
        "shape": lambda z, y: z - z.gather(1, y[:, None]),
    },
    "06.way": {
        "squared length of the edge: at its end": lambda h, a, b: (
            along(h, a, b) / squared(a, b).sqrt()
        ),
        "no unit": along,
        "in any direction": lambda h, a, b: (h - a).norm(dim=1) / (b - a).norm(dim=1),
        "a cosine": lambda h, a, b: torch.cosine_similarity(h - a, b - a),
        "subtract the start": lambda h, a, b: (h * (b - a)).sum(1) / squared(a, b),
        "from the end": lambda h, a, b: along(h, b, a) / squared(a, b),
        "do not cut": lambda h, a, b: (along(h, a, b) / squared(a, b)).clamp(0, 1),
        "one share per image": lambda h, a, b: along(h, a, b).mean(),
        "whose share is known": lambda h, a, b: along(h, a, b) / squared(a, b) + 0.1,
    },
    "06.stranger": {
        "is allowed": loud,
        "does not rise": downhill,
        "own networks are not fooled": lambda nets, x, y, eps: x.clone(),
        "changes its input": lambda nets, x, y, eps: x.add_(eps).clamp(0, 1),
        "stay in": lambda nets, x, y, eps: x + eps * gradient_of(nets[0], x, y).sign(),
        "like those that came": lambda nets, x, y, eps: x[:1],
    },
}


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for name, group in WRONG.items() for word in group]
)
def test_wrong_answers_get_their_word(name, word):
    state, said = verdict(name, WRONG[name][word])
    assert state == "wrong"
    assert word in said


def test_other_right_forms_pass():
    assert verdict("06.fgsm", mean_loss)[0] == "correct"
    assert verdict("06.pgd_step", delta_form)[0] == "correct"
    fgsm_on_one = lambda nets, x, y, eps: attacks.fgsm(nets[0], x, y, eps)  # noqa: E731
    assert verdict("06.stranger", fgsm_on_one)[0] == "correct"
