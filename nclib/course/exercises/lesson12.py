"""Exercises and predictions of lesson 12: buying, bounds and radii, intervals, votes of parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.stats import beta, binom, norm
from torch import Tensor, nn
from torch.nn.functional import conv2d

from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor, usual
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
        "the paper's form is sigma / 2 times the difference of two quantiles, that of the share "
        "and that of the runner-up; with 1 - share for the runner-up it comes to sigma times one": (
            exact / 2
        ),
        "with 1 - share for the runner-up the difference is twice the quantile: halve it": 2
        * exact,
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


def _buy(price: np.ndarray, value: np.ndarray, budget: float) -> float:
    order = np.argsort(-value / price)
    spent = np.minimum(np.cumsum(price[order]), budget)
    return float((np.diff(spent, prepend=0) * value[order] / price[order]).sum())


def _by(key: np.ndarray, price: np.ndarray, value: np.ndarray, budget: float) -> float:
    """What the budget buys in the order of ``key``, smallest first."""
    order = np.argsort(key, kind="stable")
    spent = np.minimum(np.cumsum(price[order]), budget)
    return float((np.diff(spent, prepend=0) * value[order] / price[order]).sum())


@exercise(
    "12.buy",
    reference=_buy,
    hints=(
        "Which cell gives the most value for a unit of price? Buy that one first.",
        "np.argsort(-value / price) is the order. np.cumsum(price[order]) is what has been spent.",
        "Cut that at the budget; np.diff(..., prepend=0) is what goes into each cell, and the last "
        "one is bought in part.",
    ),
)
def _(answer: Any) -> None:
    dice = np.random.default_rng(0)
    for count, budget in ((6, 0.3), (40, 0.1), (40, 0.7)):
        price, value = dice.dirichlet(np.ones(count)), dice.dirichlet(np.ones(count))
        before = price.copy(), value.copy()
        found = float(tensor(answer(price, value, budget), "the value"))
        same = np.array_equal(before[0], price) and np.array_equal(before[1], value)
        expect(same, "the prices or values you were given have changed")
        ones = np.ones((1, count))  # an independent fact: a linear program over what is spent
        bounds = [(0, p) for p in price]
        best = -linprog(-value / price, ones, budget, bounds=bounds).fun
        order = np.argsort(-value / price)
        whole = np.cumsum(price[order]) <= budget
        mistakes = {
            "you buy the most valuable cells first, whatever they cost": _by(
                -value, price, value, budget
            ),
            "you buy the cheapest cells first, whatever they are worth": _by(
                price, price, value, budget
            ),
            "you rank by the difference; what counts is the value for each unit of the price": _by(
                price - value, price, value, budget
            ),
            "you begin with the worst bargain: turn the order around": _by(
                value / price, price, value, budget
            ),
            "a rest of the budget is left: the last cell may be bought in part": float(
                value[order][whole].sum()
            ),
            "the last cell is bought whole, and the budget does not reach for it": float(
                value[order][: int(whole.sum()) + 1].sum()
            ),
        }
        for word, wrong in mistakes.items():
            expect(abs(found - wrong) > 1e-6 or abs(wrong - best) < 1e-9, word)
        expect(found < best + 1e-6, f"{found:.4f} is more than the budget can buy, {best:.4f}")
        expect(found > best - 1e-6, f"{found:.4f} is less than the budget can buy, {best:.4f}")


def _two_sided(first: float, second: float, sigma: float) -> float:
    return float(max(0.0, sigma / 2 * (norm.ppf(first) - norm.ppf(second))))


@exercise(
    "12.two_sided",
    reference=_two_sided,
    hints=(
        "After a shift of length d the first class keeps Phi(Phi^-1(first) - d / sigma) at worst.",
        "The second rises to Phi(Phi^-1(second) + d / sigma) at most. When do the two meet?",
        "sigma / 2 * (norm.ppf(first) - norm.ppf(second)), and 0 where that is negative.",
    ),
)
def _(answer: Any) -> None:
    for first, second, sigma in ((0.6, 0.1, 0.4), (0.45, 0.2, 1.0), (0.9, 0.1, 0.25)):
        found = float(tensor(answer(first, second, sigma), "the radius"))
        left, right = float(norm.ppf(first)), float(norm.ppf(second))
        mistakes = {
            "halve it: the two classes meet in the middle": sigma * (left - right),
            "that forgets the second class": max(0.0, sigma * left),
            "the quantile is norm.ppf, not norm.cdf": sigma
            / 2
            * (norm.cdf(first) - norm.cdf(second)),
            "the shares themselves are subtracted: take their quantiles first": (
                sigma / 2 * (first - second)
            ),
            "the quantile of the difference is not the difference of the quantiles": (
                sigma / 2 * float(norm.ppf(first - second))
            ),
            "multiply by sigma": (left - right) / 2,
        }
        right_one = _two_sided(first, second, sigma)
        for word, wrong in mistakes.items():
            expect(abs(found - wrong) > 1e-6 or abs(wrong - right_one) < 1e-9, word)
        kept, risen = norm.cdf(left - found / sigma), norm.cdf(right + found / sigma)
        expect(
            abs(kept - risen) < 1e-6,
            f"after a shift of {found:.4f} the first class has {kept:.4f} at worst and the second "
            f"{risen:.4f} at most; at the radius they are equal",
        )
    none = float(tensor(answer(0.2, 0.3, 0.5), "the radius"))
    expect(abs(none) < 1e-9, f"where the second is larger the radius is 0, not {none:.3f}")


def _interval_bounds(layers: nn.Sequential, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    for layer in layers:
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            low, high = layer(low), layer(high)
            continue
        middle, half = layer((low + high) / 2), (high - low) / 2
        if isinstance(layer, nn.Linear):
            half = half @ layer.weight.abs().T
        else:
            half = conv2d(half, layer.weight.abs(), None, layer.stride, layer.padding)
        low, high = middle - half, middle + half
    return low, high


def _corners(low: Tensor, high: Tensor) -> Tensor:
    """All corners ``[2^D, D]`` of the box from ``low`` ``[D]`` to ``high``."""
    return torch.cartesian_prod(*torch.stack([low, high], 1))


@exercise(
    "12.interval_bounds",
    reference=_interval_bounds,
    hints=(
        "ReLU and Flatten keep the order, so they take low to low and high to high.",
        "A linear or convolution layer takes the middle of the box to the middle of the new box; "
        "the half width goes through the absolute weights, without the bias.",
        "half @ layer.weight.abs().T; or conv2d(half, layer.weight.abs(), None, layer.stride, "
        "layer.padding). Then low, high = middle - half, middle + half.",
    ),
)
def _(answer: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, line = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Linear(8, 3)
        low = torch.rand(2, 1, 3, 3)
        high = low + torch.rand(2, 1, 3, 3)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), line)
    with torch.no_grad():
        for layers, what in ((nn.Sequential(conv), "a convolution"), (net, "the whole network")):
            pair = answer(layers, low.clone(), high.clone())
            fine = isinstance(pair, (tuple, list)) and len(pair) == 2
            expect(fine, "return two things: the lower and the upper bounds")
            found = [tensor(one, "the bounds").float() for one in pair]
            least, most = _exact_box(conv, line if layers is net else None, low, high)
            shapes = f"the bounds of {what} should have the shape {tuple(least.shape)}"
            expect(all(one.shape == least.shape for one in found), shapes)
            middle, half = conv((low + high) / 2), (high - low) / 2
            biased = conv2d(half, conv.weight.abs(), conv.bias, conv.stride, conv.padding)
            mistakes = {
                "low and high change places where a weight is negative: the half width goes "
                "through the absolute weights": torch.maximum(conv(low), conv(high)),
                "the half width goes through the absolute weights without the bias": (
                    middle + biased
                ),
                "the half width goes through the absolute weights; with their signs it shrinks": (
                    middle + conv2d(half, conv.weight, None, conv.stride, conv.padding)
                ),
            }
            if layers is not net:
                usual(found[1], mistakes)
            expect(
                bool((found[0] <= found[1]).all()), f"for {what} a lower bound is above an upper"
            )
            corner = f"some corner of the box lies outside of the bounds of {what}"
            inside = (found[0] <= least + 1e-5).all() and (found[1] >= most - 1e-5).all()
            expect(bool(inside), corner)
            close(found[0], least, f"the lower bound of {what}", atol=1e-4)
            close(found[1], most, f"the upper bound of {what}", atol=1e-4)


def _exact_box(
    conv: nn.Module, line: nn.Module | None, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """The smallest box, layer for layer, by trying all corners: an independent fact."""
    said = [
        conv(_corners(a.flatten(), b.flatten()).reshape(-1, 1, 3, 3))
        for a, b in zip(low, high, strict=True)
    ]
    least, most = (torch.stack([getattr(one, f)(0) for one in said]) for f in ("amin", "amax"))
    if line is None:
        return least, most
    hidden = zip(least.relu().flatten(1), most.relu().flatten(1), strict=True)
    said = [line(_corners(a, b)) for a, b in hidden]
    return torch.stack([one.amin(0) for one in said]), torch.stack([one.amax(0) for one in said])


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


prediction(
    "12.worst",
    "A class has 0.9 of the votes. The image moves by one sigma. What share is left at the least?",
    near=(float(norm.cdf(norm.ppf(0.9) - 1)), 0.01),
    usual={
        (
            0.85,
            None,
        ): "that is what the attacker gets by moving without thinking; he may also choose "
        "where the other tenth lies",
        (
            0.78,
            0.82,
        ): "he does not win a second tenth, but what lies in his region after the shift: "
        "more than three times as much",
        (0.49, 0.51): "one half is the share at the radius, and the radius is 1.28 sigma here",
        (None, 0.45): "the cloud moves by one sigma only; most of the old one is still in it",
    },
)

prediction(
    "12.most",
    "All of 1000 draws agree, alpha is 0.001. How large is the radius, in units of sigma?",
    near=(2.463, 0.005),
    usual={
        (
            3.0,
            3.15,
        ): "Phi^-1(1 - alpha) forgets the number of draws: the share itself is bounded first",
        3.199: "that is the figure for 10,000 draws; here there are 1000",
        3.811: "that is the paper's figure, for 100,000 draws; here there are 1000",
        1.2316: "half of it: the paper's sigma / 2 stands before a difference of two quantiles",
        (10, None): "a thousand agreeing draws do not make the share 1; they bound it by 0.993",
    },
    unit="sigma",
)

prediction(
    "12.proved",
    "Share of test images that intervals certify at 2/255, for an ordinary network.",
    below=0.05,
    usual={
        (0.3, 1): "that is what an attack leaves; that one attack fails is no proof that all do",
        (0.05, 0.3): "each layer takes its box for a box again, although the corners never occur "
        "together; a few layers are enough to lose all",
    },
)
