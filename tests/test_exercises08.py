"""The checks of lesson 08 reject typical mistakes, each for its own reason."""

import pytest

from nclib.course import verdict


def near(k, n):
    return k[n:, n:]


def gain(margins):
    return margins.clamp(max=1).mean()


def odd(kernels, n):
    return sum(k[:n, :n].mean() + near(k, n).mean() - 2 * k[:n, n:].mean() for k in kernels)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        (
            "08.mmd",
            lambda k, n: k[:n, :n].mean() + k[n:, n:].mean() - k[:n, n:].mean(),
            "counts twice",
        ),
        ("08.mmd", lambda k, n: 2 * (k[:n, :n].mean() - k[:n, n:].mean()), "one of the blocks"),
        ("08.p_value", lambda t, s: (s >= t).float().mean(), "p-value of 0"),
        ("08.p_value", lambda t, s: (1 + (s < t).sum()) / (len(s) + 1), "other tail"),
        ("08.p_value", lambda t, s: (1 + (s >= t).sum()) / len(s), "divide by B + 1"),
        ("08.witness", lambda k, n: near(k, n).mean(1) - k[n:, :n].mean(1), "diagonal"),
        ("08.witness", lambda k, n: (near(k, n).mean(1) - k[n:, :n].mean(1)).abs(), "sign"),
        ("08.witness", lambda k, n: k[n:, :n].mean(1) - near(k, n).mean(1), "odd ones"),
        ("08.witness", lambda k, n: k[:n].mean(1), "per suspect"),
        ("08.stealth", lambda m, ks, n, s: gain(m) + s * odd(ks, n), "sign of the MMD"),
        ("08.stealth", lambda m, ks, n, s: m.mean() - s * odd(ks, n), "wrong enough"),
        ("08.stealth", lambda m, ks, n, s: 20 * gain(m) - s * odd(ks, n), "not the sum"),
        ("08.stealth", lambda m, ks, n, s: gain(m) - odd(ks, n), "strength is missing"),
        ("08.stealth", lambda m, ks, n, s: gain(m) - s * odd(ks[:1], n), "every kernel"),
        ("08.stealth", lambda m, ks, n, s: gain(m) - s * float(odd(ks, n)), "no gradient"),
        ("08.stealth", lambda m, ks, n, s: m.clamp(max=1) - s * odd(ks, n), "one number"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and any(w in message for w in word.split("|")), message
