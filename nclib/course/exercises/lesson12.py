"""Exercises of lesson 12: the Clopper-Pearson bound, the radius, the vote of disjoint parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import beta, binom, norm
from torch import Tensor

from nclib.course.exercises import Wrong, choice, close, exercise, expect, number, tensor
from nclib.defenses import partition, smoothing


@exercise(
    "12.lower_bound",
    hints=(
        "The bound is the smallest share that could still have brought so many hits by luck.",
        "It is a quantile of a beta distribution: scipy.stats.beta.ppf.",
        "beta.ppf(alpha, hits, n - hits + 1), and 0 where there is no hit.",
    ),
    reference=lambda hits, n, alpha: float(smoothing.lower_bound(hits, n, alpha)),
)
def _(answer: Any) -> None:
    for hits, n, alpha in ((7, 10, 0.05), (990, 1000, 0.001), (1000, 1000, 0.001)):
        found = float(tensor(answer(hits, n, alpha), "the bound"))
        expect(found < hits / n, f"the bound {found:.4f} should lie below the share {hits / n}")
        share = hits / n
        spread = float(norm.ppf(1 - alpha)) * (share * (1 - share) / n) ** 0.5
        for word, wrong in {
            "that is a two-sided bound, with alpha / 2; one side is enough, alpha": float(
                smoothing.lower_bound(hits, n, alpha / 2)
            ),
            "that is the normal approximation, which fails where nearly all are hits; alpha should "
            "hold exactly": share - spread,
            "that is Hoeffding's bound: it holds, but it is loose; the exact one is asked for": (
                share - (math.log(1 / alpha) / (2 * n)) ** 0.5
            ),
            "the parameters are hits and n - hits + 1; one more or less moves alpha": float(
                beta.ppf(alpha, hits + 1, n - hits + 1)
            ),
        }.items():
            expect(abs(found - wrong) > 1e-7, word)
        luck = binom.sf(hits - 1, n, found)  # the independent fact that defines the bound
        expect(
            abs(luck - alpha) < max(1e-6, 1e-3 * alpha),
            f"a true share of {found:.5f} would give {hits} hits of {n} or more with probability "
            f"{luck:.3g}; that should be alpha = {alpha}",
        )
        close(found, smoothing.lower_bound(hits, n, alpha), "the bound")
    expect(float(answer(0, 10, 0.05)) == 0, "without any hit the bound is 0")


@exercise(
    "12.radius",
    hints=(
        "A share of one half has radius 0. A share near 1 has a large one.",
        "In one dimension: how far, in sigmas, is the edge that has this share on its left?",
        "sigma * norm.ppf(share) above one half, else 0.",
    ),
    reference=lambda share, sigma: float(smoothing.radius(share, sigma)),
)
def _(answer: Any) -> None:
    found, exact = float(tensor(answer(0.9, 0.4), "the radius")), 0.4 * float(norm.ppf(0.9))
    below = answer(0.2, 0.25)
    none = f"below one half there is no certificate: the radius is 0, not {below}"
    fine = below is not None and math.isfinite(float(tensor(below)))
    expect(fine and abs(float(below)) < 1e-6, none)
    close(answer(0.5, 0.25), 0.0, "the radius at a share of one half")
    for word, wrong in {
        "the paper's form is sigma / 2 times the *difference* of two quantiles, that of the share "
        "and that of the runner-up; with 1 - share for the runner-up it comes to sigma times one": (
            exact / 2
        ),
        "with 1 - share for the runner-up the difference is twice the quantile: halve it": 2 * exact,
        "the radius is measured in sigmas: multiply by sigma": exact / 0.4,
        "sigma itself counts, not its square": exact * 0.4,
        "the quantile is that of the standard normal, norm.ppf, not norm.cdf": (
            0.4 * float(norm.cdf(0.9))
        ),
    }.items():
        expect(abs(found - wrong) > 1e-5, word)
    close(found, 2 * tensor(answer(0.9, 0.2)), "the radius at twice the sigma")
    # A half-space: its share is Phi(distance / sigma), and its radius is the distance.
    for distance, sigma in ((0.3, 0.25), (1.0, 0.5)):
        share = 0.5 * (1 + torch.erf(torch.tensor(distance / sigma / 2**0.5, dtype=torch.float64)))
        far = answer(float(share), sigma)
        close(far, distance, "the radius of a plane at a known distance", atol=1e-5)


number(
    "12.most",
    2.4,
    2.55,
    reference=2.463,
    hints=(
        "All 1000 draws are hits. What is the bound on the share then?",
        "The bound is alpha ** (1/n), a little more than 0.993.",
        "Phi^-1 of that: norm.ppf(0.001 ** (1 / 1000)).",
    ),
    unit="sigma",
    why={
        3.09: "Phi^-1(1 - alpha) forgets the number of draws: the share itself is bounded first",
        3.199: "that is the figure for 10,000 draws; here there are 1000",
        3.811: "that is the paper's figure, for 100,000 draws; here there are 1000",
        1.2316: "half of it: the paper's sigma / 2 stands before a difference of two quantiles",
        0.616: "in sigmas, please, not in units of the pixels",
    },
)

choice(
    "12.sigma",
    "larger radii, fewer images",
    ("larger radii, more images", "larger radii, fewer images", "smaller radii, more images"),
    hints=(
        "The largest possible radius is a number times sigma.",
        "And what does the model still see under twice the noise?",
    ),
    why={
        "larger radii, more images": "under more noise the model loses some of the images",
        "smaller radii, more images": "the radius is sigma times a number",
    },
)


def _certificate(votes: Tensor) -> Any:
    label, tolerated = partition.certificate(votes[None])
    return int(label), int(tolerated)


@exercise(
    "12.certificate",
    hints=(
        "One poison turns one vote: the first class loses one and a rival wins one.",
        "So the gap shrinks by two for each poison. Which rival is the most dangerous one?",
        "A tie goes to the smaller class: a rival with a smaller number needs one vote less.",
    ),
    reference=_certificate,
)
def _(answer: Any) -> None:
    generator = np.random.default_rng(0)
    rows = [
        [5, 1, 0],
        [1, 5, 0],
        [3, 3, 0],
        [0, 3, 3],
        [4, 0, 1],
        *generator.integers(0, 9, (20, 3)),
    ]
    for row in rows:
        row = torch.as_tensor(np.asarray(row))
        told = answer(row.clone())
        pair = isinstance(told, (tuple, list)) or getattr(told, "shape", None) == (2,)
        expect(pair and len(told) == 2, "return two numbers: the label and the poisons tolerated")
        label, tolerated = told
        expect(
            int(label) == int(row.argmax()), f"the votes {row.tolist()} elect {int(row.argmax())}"
        )
        for poisons in range(int(tolerated) + 1):  # the independent fact: try it
            if int(label) != _after(row, int(label), poisons):
                raise Wrong(f"with votes {row.tolist()} already {poisons} poisons change the label")
        more = int(tolerated) + 1
        expect(
            _after(row, int(label), more) != int(label),
            f"with votes {row.tolist()} even {more} poisons change nothing: the bound is too small",
        )


def _after(votes: torch.Tensor, label: int, poisons: int) -> int:
    """The winner after the most dangerous rival has taken so many votes of the first."""
    for rival in range(len(votes)):
        if rival != label:
            changed = votes.clone()
            changed[label] -= poisons
            changed[rival] += poisons
            if int(changed.argmax()) != label:
                return int(changed.argmax())
    return label
