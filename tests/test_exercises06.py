"""The checks of lesson 06 reject typical mistakes, each for its own reason."""

import pytest

from nclib.lesson import verdict


def near(k, n):
    return k[n:, n:]


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("06.mmd", lambda k, n: k[:n, :n].mean() + k[n:, n:].mean() - k[:n, n:].mean(), "equal"),
        ("06.mmd", lambda k, n: 2 * (k[:n, :n].mean() - k[:n, n:].mean()), "squared MMD"),
        ("06.p_value", lambda t, s: (s >= t).float().mean(), "p-value of 0"),
        ("06.p_value", lambda t, s: (1 + (s < t).sum()) / (len(s) + 1), "p-value of 2"),
        ("06.p_value", lambda t, s: (1 + (s >= t).sum()) / len(s), "above 1|p-value of 2"),
        ("06.witness", lambda k, n: near(k, n).mean(1) - k[n:, :n].mean(1), "diagonal"),
        ("06.witness", lambda k, n: (near(k, n).mean(1) - k[n:, :n].mean(1)).abs(), "sign"),
        ("06.witness", lambda k, n: k[n:, :n].mean(1) - near(k, n).mean(1), "odd ones"),
        ("06.witness", lambda k, n: k[:n].mean(1), "per suspect"),
        ("06.depth", "falls", "decides"),
        ("06.depth", "stays", "grows"),
        ("06.trigger", "rises", "poisoned"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and any(w in message for w in word.split("|")), message
