"""The checks of lesson 08 reject typical mistakes, each for its own reason."""

import pytest

from nclib.course import verdict


def near(k, n):
    return k[n:, n:]


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
        ("08.depth", "falls", "decides"),
        ("08.depth", "stays", "grows"),
        ("08.trigger", "rises", "poisoned"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and any(w in message for w in word.split("|")), message
