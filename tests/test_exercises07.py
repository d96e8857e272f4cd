"""The checks of lesson 07 reject typical mistakes, each for its own reason."""

import pytest
import torch
from torch import nn

from nclib import explain
from nclib.course import verdict


def slope(model, images, classes):
    x = images.clone().requires_grad_()
    picked = model(x).gather(1, classes[:, None]).sum()
    return torch.autograd.grad(picked, x)[0]


def along(model, images, classes, baseline, steps, ask=slope):
    way = images - baseline
    return sum(ask(model, baseline + (k + 0.5) / steps * way, classes) for k in range(steps))


def integrated(model, images, classes, baseline, steps):
    return (images - baseline) * along(model, images, classes, baseline, steps) / steps


def at_the_end(model, images, classes, baseline, steps):
    return (images - baseline) * slope(model, images, classes)


def no_way(*args):
    return along(*args) / args[-1]


def times_image(model, images, *rest):
    return images * along(model, images, *rest) / rest[-1]


def no_mean(model, images, classes, baseline, steps):
    return (images - baseline) * along(model, images, classes, baseline, steps)


def from_black(model, images, classes, baseline, steps):
    return integrated(model, images, classes, 0.0, steps)


def all_logits(model, images, classes, baseline, steps):
    def ask(model, images, classes):
        x = images.clone().requires_grad_()
        return torch.autograd.grad(model(x).sum(), x)[0]

    return (images - baseline) * along(model, images, classes, baseline, steps, ask) / steps


def of_chances(model, images, classes, baseline, steps):
    soft = nn.Sequential(model, nn.Softmax(1))
    return integrated(soft, images, classes, baseline, steps)


def left_ends(model, images, classes, baseline, steps):
    way = images - baseline
    slopes = sum(slope(model, baseline + k / steps * way, classes) for k in range(steps))
    return way * slopes / steps


def in_place(model, images, classes, baseline, steps):
    return images.sub_(baseline) * slope(model, images, classes)


def table(on):
    return torch.cat([on, torch.ones(len(on), 1)], 1)


def line(on, scores, weights, root=torch.sqrt, columns=table):
    rows = root(weights)[:, None]
    return torch.linalg.lstsq(rows * columns(on), rows * scores[:, None]).solution[:, 0]


def lost(game, count, orders, generator):
    full = torch.ones(count, dtype=torch.bool)
    return [game(full) - game(full & (torch.arange(count) != k)) for k in range(count)]


def alone(game, count, orders, generator):
    none = torch.zeros(count, dtype=torch.bool)
    return [game(none | (torch.arange(count) == k)) - game(none) for k in range(count)]


def walk(game, count, orders, generator, start=None, share=None, draw=True):
    values = torch.zeros(count)
    for _ in range(orders):
        on = torch.zeros(count, dtype=torch.bool)
        before = game(on) if start is None else start
        order = torch.randperm(count, generator=generator) if draw else torch.arange(count)
        for k in order.tolist():
            on[k] = True
            after = game(on)
            values[k] += (after - before) / (share or orders)
            before = after
    return values


WRONG = [
    ("07.integrated", at_the_end, "average it over the way"),
    ("07.integrated", no_way, "multiplied by the way"),
    ("07.integrated", times_image, "not by the image"),
    ("07.integrated", no_mean, "divide by the number of steps"),
    ("07.integrated", from_black, "not at 0"),
    ("07.integrated", all_logits, "each image's class"),
    ("07.integrated", of_chances, "without a softmax"),
    ("07.integrated", left_ends, "the sum of each map"),
    ("07.integrated", in_place, "changes its input"),
    ("07.integrated", lambda m, x, c, b, s: integrated(m, x, c, b, s).sum(1), "each pixel value"),
    ("07.surrogate", lambda on, s, w: line(on, s, w), "leave the intercept out"),
    ("07.surrogate", lambda on, s, w: line(on, s, torch.ones(60))[:-1], "do not count yet"),
    ("07.surrogate", lambda on, s, w: line(on, s, w, lambda v: v)[:-1], "weigh twice"),
    ("07.surrogate", lambda on, s, w: line(on, s, w, columns=lambda t: t), "an intercept"),
    ("07.surrogate", lambda on, s, w: line(on, s, w)[:-1].mean(), "one slope for each square"),
    ("07.surrogate", lambda on, s, w: -line(on, s, w)[:-1], "on scores that are a line"),
    ("07.shapley", lost, "counted twice"),
    ("07.shapley", alone, "worth alone"),
    ("07.shapley", lambda *a: walk(*a, share=1), "divide by their number"),
    ("07.shapley", lambda *a: walk(*a, start=0.0), "subtract its value without any"),
    ("07.shapley", lambda *a: walk(*a, draw=False), "draw a new one"),
    ("07.shapley", lambda *a: walk(*a)[:3], "one value for each square"),
    ("07.better_map", lambda m, x, c: torch.ones(3, 12, 12), "points nowhere"),
    ("07.better_map", lambda m, x, c: x, "one map per image"),
    ("07.better_map", lambda m, x, c: x[:, 0] / 0, "finite"),
    ("07.better_map", lambda m, x, c: x.mul_(2)[:, 0], "changes its input"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


def normal_equations(on, scores, weights):
    x, w = table(on).double(), weights.double()
    inner = x.T @ (w[:, None] * x)
    return torch.linalg.solve(inner, x.T @ (w * scores.double()))[:-1]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("07.surrogate", normal_equations),
        ("07.surrogate", lambda on, s, w: line(on, s, w)[:-1].tolist()),
        ("07.shapley", walk),
        ("07.integrated", integrated),
        ("07.better_map", explain.gradient),
        ("07.better_map", explain.grad_cam),
    ],
)
def test_other_right_answers_pass(name, answer):
    assert verdict(name, answer) == ("correct", "")
