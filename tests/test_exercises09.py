"""Lesson 09: right answers pass, typical wrong ones are rejected with a useful word."""

import pytest
from torch.nn.functional import cross_entropy, kl_div

from nclib import attacks
from nclib.course import verdict
from nclib.course.exercises.lesson09 import _along as walk
from nclib.course.exercises.lesson09 import _worst_margin as right


def margins(w, b, x, y):
    z = x @ w.T + b
    return z.gather(1, y[:, None]) - z


def with_norm(norm):
    def answer(w, b, x, y, eps):
        lead = margins(w, b, x, y) - eps * norm(w[y][:, None] - w[None])
        return lead.scatter(1, y[:, None], float("inf")).min(1).values

    return answer


def own_norm(w, b, x, y, eps):
    lead = margins(w, b, x, y) - eps * w[y].abs().sum(1, keepdim=True)
    return lead.scatter(1, y[:, None], float("inf")).min(1).values


def with_label(w, b, x, y, eps):
    lead = margins(w, b, x, y) - eps * (w[y][:, None] - w[None]).abs().sum(2)
    return lead.clamp_min(-9).min(1).values.clamp_max(0)


def hostile(model, x, y, eps, steps):
    return attacks.pgd(model, x, y, eps, steps=steps)


def divergence(a, b):
    return kl_div(b.log_softmax(1), a.log_softmax(1), reduction="batchmean", log_target=True)


def downhill(model, x, y, eps, steps=3):
    return cross_entropy(model(attacks.pgd(model, x, 1 - y, eps, steps=steps)), y)


def straight_line(m, x, y, moved, shares):
    start, end = walk(m, x, y, moved, (0, 1))
    return [start + share * (end - start) for share in shares]


def in_place(m, x, y, moved, shares):
    losses = []
    for share in shares:
        x += share * (moved - x)
        losses.append(float(cross_entropy(m(x), y)))
    return losses


WRONG = [
    ("09.worst_margin", lambda w, b, x, y, eps: -attacks.margin(x @ w.T + b, y), "attacker"),
    ("09.worst_margin", with_norm(lambda d: d.norm(dim=2)), "L2 norm"),
    ("09.worst_margin", with_norm(lambda d: d.abs().amax(2)), "largest entry"),
    ("09.worst_margin", with_norm(lambda d: -d.abs().sum(2)), "attacker does better"),
    ("09.worst_margin", own_norm, "one row, w_y"),
    ("09.worst_margin", with_label, "label itself"),
    ("09.worst_margin", lambda *a: -right(*a), "sign"),
    ("09.worst_margin", lambda w, b, x, y, eps: margins(w, b, x, y), "shape"),
    ("09.adversarial_loss", lambda m, x, y, e, steps=3: cross_entropy(m(x), y), "clean images"),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: cross_entropy(m(hostile(m, x, y, e, steps)), y).item(),
        "a tensor",
    ),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: cross_entropy(m(hostile(m, x, y, e, steps)), y).detach(),
        "no gradient",
    ),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: cross_entropy(
            m(hostile(m, x, y, e, steps)), y, reduction="none"
        ),
        "a scalar",
    ),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: cross_entropy(m(hostile(m, x, y, e, 1)), y),
        "pass steps on",
    ),
    ("09.adversarial_loss", downhill, "uphill"),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: (
            (cross_entropy(m(hostile(m, x, y, e, steps)), y) + cross_entropy(m(x), y)) / 2
        ),
        "half and half",
    ),
    (
        "09.adversarial_loss",
        lambda m, x, y, e, steps=3: cross_entropy(m(hostile(m, x, y, e / 2, steps)), y),
        "closed form",
    ),
    (
        "09.trades_loss",
        lambda c, h, y, beta: cross_entropy(c, y) + beta * divergence(h, c),
        "other way round",
    ),
    (
        "09.trades_loss",
        lambda c, h, y, beta: cross_entropy(h, y) + beta * divergence(c, h),
        "of the clean",
    ),
    ("09.trades_loss", lambda c, h, y, beta: cross_entropy(c, y) + divergence(c, h), "beta"),
    (
        "09.trades_loss",
        lambda c, h, y, beta: cross_entropy(c, y) + beta * len(c) * divergence(c, h),
        "N times",
    ),
    (
        "09.trades_loss",
        lambda c, h, y, beta: cross_entropy(c, y) + beta * divergence(c, h) / c.shape[1],
        "K times",
    ),
    (
        "09.trades_loss",
        lambda c, h, y, beta: cross_entropy(c, y) - beta * divergence(c, h),
        "add it",
    ),
    ("09.trades_loss", lambda c, h, y, beta: beta * divergence(c, h), "missing"),
    ("09.along", lambda m, x, y, moved, shares: walk(m, moved, y, x, shares), "other way round"),
    ("09.along", lambda m, x, y, moved, shares: walk(m, x, y, x, shares), "do not move"),
    (
        "09.along",
        lambda m, x, y, moved, shares: walk(m, x, y, moved, [1] * 4),
        "a share of the way",
    ),
    (
        "09.along",
        lambda m, x, y, moved, shares: [len(x) * v for v in walk(m, x, y, moved, shares)],
        "take the mean",
    ),
    ("09.along", straight_line, "not the loss"),
    ("09.along", in_place, "stay as they were"),
    ("09.along", lambda m, x, y, moved, shares: walk(m, x, y, moved, shares)[:2], "per share"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_wrong_answers_get_their_word(name, answer, word):
    state, said = verdict(name, answer)
    assert state == "wrong"
    assert word in said
