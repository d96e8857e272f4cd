"""Exercises and predictions of lesson 08: the MMD, its p-value, the witness, the quiet attacker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import detection
from nclib.course.exercises import close, exercise, expect, prediction, tensor, usual
from nclib.detection import two_sample


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
    found, wanted = tensor(answer(k, 12), "the squared MMD").double(), detection.mmd(x, y)
    expect(found.ndim == 0, f"one number is expected, not shape {tuple(found.shape)}")
    within, beyond, across = k[:12, :12].double(), k[12:, 12:].double(), k[:12, 12:].double()
    alone = [(b.sum() - b.trace()) / (len(b) * (len(b) - 1)) for b in (within, beyond)]
    usual(
        found,
        {
            "that is the unbiased estimate, without the diagonals; here the plain means of the "
            "blocks are asked for": sum(alone) - 2 * across.mean(),
            "the block of one with the other counts twice": within.mean()
            + beyond.mean()
            - across.mean(),
            "naturals with naturals and suspects with suspects: one of the blocks counts twice": (
                2 * within.mean() - 2 * across.mean()
            ),
            "suspects with suspects count twice; where are the naturals?": (
                2 * beyond.mean() - 2 * across.mean()
            ),
            "that is the MMD; its square is asked for": wanted**0.5,
            "the sign is the other way round": -wanted,
            "take the mean of each block, not the sum": within.sum()
            + beyond.sum()
            - 2 * across.sum(),
        },
        atol=1e-7,
    )
    same = float(answer(two_sample.kernel(torch.cat([x, x])), 12))
    expect(abs(same) < 1e-6, f"for two equal samples it should be 0, not {same:.3g}")
    close(found, wanted, "the squared MMD", rtol=1e-4)


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
        found = float(tensor(answer(torch.tensor(truth), shuffled), "the p-value"))
        larger, ties = round(100 * wanted) - 1, int(truth == 0.95)
        for word, wrong in {
            "that is the other tail: count the statistics as large as the truth, or larger": (
                1 + 99 - larger + ties
            )
            / 100,
            "that is the other tail: a small p-value should say that the truth is large": (
                (99 - larger) / 99
            ),
            "a tie counts: as large as the truth, or larger, >=": (1 + larger - ties) / 100,
            "a p-value of 0 claims too much: the true split is one of the splits": larger / 99,
            "the true split is one of the B + 1: divide by B + 1, not by B": (1 + larger) / 99,
            "the true split counts in the numerator, too: 1 + count": larger / 100,
        }.items():
            other = abs(wrong - wanted) > 5e-5
            expect(not (other and abs(found - wrong) < 2e-5), word)
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
    k = two_sample.kernel(torch.cat([x, y]))
    found = tensor(answer(k, 12), "the witness").double()
    expect(found.shape == (20,), f"one value per suspect: (20,) is expected, not {found.shape}")
    near, far = k[12:, 12:].double(), k[12:, :12].double().mean(1)
    diagonal = "the diagonal, each suspect with itself, says nothing: leave it out"
    usual(
        found,
        {
            diagonal: near.mean(1) - far,
            f"{diagonal}, and divide by m - 1": (near.sum(1) - near.diagonal()) / 20 - far,
            "the sign is the other way round: the odd ones should come first": far
            - (near.sum(1) - near.diagonal()) / 19,
            "the nearness to the naturals is missing": (near.sum(1) - near.diagonal()) / 19,
            "the nearness to the other suspects is missing": -far,
        },
    )
    expect(bool((found < 0).any()), "suspects that look natural should be negative: keep the sign")
    expect(float(found[:5].min()) > float(found[5:].median()), "the odd ones should come first")
    close(
        found, detection.witness(x, y), "the witness (the diagonal left out)", rtol=1e-4, atol=1e-5
    )


def _stealth(margins: Tensor, kernels: list[Tensor], n: int, strength: float) -> Tensor:
    odd = [k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean() for k in kernels]
    return margins.clamp(max=1).mean() - strength * sum(odd)


def _parts() -> tuple[Tensor, list[Tensor]]:
    """Margins of 20 requests, two of them far beyond 1, and the kernels of two layers."""
    x, y = _samples()
    margins = torch.linspace(-3, 5, len(y))
    return margins, [two_sample.kernel(torch.cat([s * x, y])).float() for s in (1.0, 2.0)]


@exercise(
    "08.stealth",
    reference=_stealth,
    hints=(
        "Two terms: how far the classifier is wrong, and how much the batch stands out.",
        "Margins above 1 count as 1. The squared MMD of every layer is subtracted, times strength.",
        "margins.clamp(max=1).mean() - strength * sum(k[:n, :n].mean() + k[n:, n:].mean() "
        "- 2 * k[:n, n:].mean() for k in kernels)",
    ),
)
def _(answer: Any) -> None:
    margins, kernels = _parts()
    live = [k.clone().requires_grad_() for k in kernels]
    raw = answer(margins.clone(), live, 12, 3.0)
    found = tensor(raw, "the objective").double()
    expect(found.ndim == 0, f"one number for the batch is expected, not shape {tuple(found.shape)}")
    gain = margins.clamp(max=1).mean()
    odd = [_stealth(torch.zeros(1), [k], 12, -1.0) for k in kernels]
    usual(
        found,
        {
            "the sign of the MMD is turned: standing out costs him, so subtract it": gain
            + 3 * sum(odd),
            "an image that is wrong by 1 is wrong enough: margins above 1 "
            "count as 1": margins.mean() - 3 * sum(odd),
            "take the mean of the margins, not the sum": margins.clamp(max=1).sum() - 3 * sum(odd),
            "the strength is missing: it weighs the MMD": gain - sum(odd),
            "only the first layer counts; every kernel of the list does": gain - 3 * odd[0],
            "only the last layer counts; every kernel of the list does": gain - 3 * odd[1],
            "that is the mean over the layers; here their sum is asked for": gain - 1.5 * sum(odd),
            "take the squared MMD, without a root": gain - 3 * sum(o**0.5 for o in odd),
            "margins below 1 are cut off; clamp(max=1) keeps them": margins.clamp(min=1).mean()
            - 3 * sum(odd),
        },
        atol=1e-6,
    )
    wanted = _stealth(margins, kernels, 12, 3.0)
    close(found, wanted, "the objective", rtol=1e-4)
    flows = isinstance(raw, Tensor) and raw.requires_grad
    expect(flows, "no gradient flows through it: leave out float() and .item(), stay with tensors")


prediction(
    "08.depth",
    "What does the share of alarms do from the first layer to the last, for a small PGD attack?",
    usual={
        "flat": "the pixels hardly change, and yet the answer does: something grows on the way",
        "falls": "at the input the change is tiny, and at the output it decides",
    },
    reading="rises",
)
prediction(
    "08.shuffles",
    "How many shuffles does a test of 5 layers need at least, to reject at 5% at all?",
    usual={
        19: "enough for one layer; the smallest p-value, 1/20, times 5 layers is 1/4",
        20: "enough for one layer; the smallest p-value, 1/21, times 5 layers is nearly 1/4",
        100: "nearly: the true split counts as one of the splits, so one less will do",
    },
    near=(99, 0.5),
    unit="shuffles",
)
prediction(
    "08.disturbed",
    "Of the attacked images, those that are still read correctly: how often does the last layer "
    "ring?",
    usual={
        (None, 0.5): "they keep their answer, and not their place: they were pulled, and it shows",
    },
    above=0.5,
    unit="of the tests",
)
prediction(
    "08.tenth",
    "One request in ten is attacked, and windows hold 100. How often does the monitor ring?",
    usual={
        (0.5, None): "ninety natural images drown ten odd ones: the two means hardly differ",
    },
    below=0.5,
    unit="of the windows",
)
prediction(
    "08.unseen",
    "The attacker matches the batch, and rings no more than natural images do. Which share of the "
    "images that were read correctly does he turn?",
    usual={
        (None, 0.15): "features have many directions, and few of them decide the label",
        (0.15, 0.5): "at this budget there is room for both: the answer and the look of the batch",
    },
    above=0.5,
    unit="of them",
)
