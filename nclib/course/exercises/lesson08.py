"""Exercises of lesson 08: the MMD, its p-value, the witness, and what depth does."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import torch

from nclib import detection
from nclib.detection import two_sample
from nclib.course.exercises import choice, close, exercise, expect


def _mmd(k: Tensor, n: int) -> float:
    return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())


def _p_value(truth: Tensor, shuffled: Tensor) -> float:
    return (1 + int((shuffled >= truth).sum())) / (len(shuffled) + 1)


def _witness(k: Tensor, n: int) -> Tensor:
    near = k[n:, n:]
    own = (near.sum(1) - near.diagonal()) / (len(near) - 1)
    return own - k[n:, :n].mean(1)


def _samples() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(6)
    x, y = torch.randn(12, 3, generator=draw), torch.randn(20, 3, generator=draw)
    y[:5] += 4
    return x, y


@exercise(
    "08.mmd",
    reference=_mmd,
    hints=(
        "Three blocks of k: naturals with naturals, suspects with suspects, one with the other.",
        "k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()",
    ),
)
def _(answer: Any) -> None:
    x, y = _samples()
    k = two_sample.kernel(torch.cat([x, y]))
    found = float(answer(k, 12))
    wanted = detection.mmd(x, y)
    same = float(answer(two_sample.kernel(torch.cat([x, x])), 12))
    expect(abs(same) < 1e-9, f"for two equal samples it should be 0, not {same:.3g}")
    close(found, wanted, "the squared MMD")


@exercise(
    "08.p_value",
    reference=_p_value,
    hints=(
        "How many shuffled statistics are as large as the true one, or larger?",
        "The true split is one of the possible ones: it counts in numerator and denominator.",
        "(1 + count) / (B + 1)",
    ),
)
def _(answer: Any) -> None:
    shuffled = torch.arange(1, 100) / 100
    for truth, wanted in ((2.0, 0.01), (0.0, 1.0), (0.95, 0.06)):
        found = float(answer(torch.tensor(truth), shuffled))
        expect(found > 0, "a p-value of 0 claims too much: the true split is one of the splits")
        expect(found <= 1, f"{found:.3f} is above 1")
        close(found, wanted, f"the p-value of {truth} among 0.01, 0.02, ..., 0.99", atol=1e-4)


@exercise(
    "08.witness",
    reference=_witness,
    hints=(
        "For each suspect: its mean kernel with the other suspects minus that with the naturals.",
        "Its kernel with itself, the diagonal, says nothing. Leave it out and divide by m - 1.",
        "near = k[n:, n:]; (near.sum(1) - near.diagonal()) / (len(near) - 1) - k[n:, :n].mean(1)",
    ),
)
def _(answer: Any) -> None:
    x, y = _samples()
    found = torch.as_tensor(answer(two_sample.kernel(torch.cat([x, y])), 12)).double()
    expect(found.shape == (20,), f"one value per suspect: (20,) is expected, not {found.shape}")
    expect(bool((found < 0).any()), "suspects that look natural should be negative: keep the sign")
    expect(float(found[:5].min()) > float(found[5:].median()), "the odd ones should come first")
    close(found, detection.witness(x, y), "the witness (the diagonal left out)")


choice(
    "08.depth",
    "rises",
    ("rises", "stays", "falls"),
    hints=(
        "The attack was made to change the answer. Where is the answer decided?",
        "Tiny changes of the pixels have to become a large change of the logits on the way.",
    ),
    why={
        "stays": "the pixels hardly change, and yet the answer does: something grows on the way",
        "falls": "at the input the change is tiny, at the output it decides",
    },
)

choice(
    "08.trigger",
    "falls",
    ("rises", "stays", "falls"),
    hints=(
        "This model has never been trained with the patch. What does it do with a detail?",
        "A network that generalises forgets what does not matter for the class.",
    ),
    why={
        "rises": "only a poisoned model carries the patch to its output",
        "stays": "deep layers throw away what does not matter for the class",
    },
)
