"""Exercises of lesson 12: the Clopper-Pearson bound, the radius, the vote of disjoint parts."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import numpy as np
import torch
from scipy.stats import binom

from nclib.defenses import partition, smoothing
from nclib.course.exercises import Wrong, choice, close, exercise, expect, number


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
        found = float(answer(hits, n, alpha))
        expect(found < hits / n, f"the bound {found:.4f} should lie below the share {hits / n}")
        luck = binom.sf(hits - 1, n, found)  # the independent fact that defines the bound
        expect(
            abs(luck - alpha) < 1e-6,
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
    close(answer(0.5, 0.25), 0.0, "the radius at a share of one half")
    close(answer(0.2, 0.25), 0.0, "the radius below one half (there is none)")
    close(answer(0.9, 0.5), 2 * answer(0.9, 0.25), "the radius at twice the sigma")
    # A half-space: its share is Phi(distance / sigma), and its radius is the distance.
    for distance, sigma in ((0.3, 0.25), (1.0, 0.5)):
        share = 0.5 * (1 + torch.erf(torch.tensor(distance / sigma / 2**0.5, dtype=torch.float64)))
        close(answer(float(share), sigma), distance, "the radius of a plane at a known distance")


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
        label, tolerated = answer(row.clone())
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
