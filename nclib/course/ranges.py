"""Measured numbers, and the range that a sentence allows them."""

from __future__ import annotations

import math
import numbers as kinds
from collections.abc import Iterable
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Above and below are exclusive; ``near`` is ``(value, tolerance)``, its ends included."""

    above: float | None = None
    below: float | None = None
    near: tuple[float, float] | None = None

    def __contains__(self, value: Any) -> bool:
        if self.near is not None:
            return abs(value - self.near[0]) <= self.near[1]
        over = self.above is None or value > self.above
        return over and (self.below is None or value < self.below)

    def __str__(self) -> str:
        if self.near is not None:
            return f"{short(self.near[0])} ± {short(self.near[1])}"
        ends = {"above": self.above, "below": self.below}
        return ", ".join(f"{word} {short(end)}" for word, end in ends.items() if end is not None)


def allowed(above: object = None, below: object = None, near: object = None) -> Range:
    """The range of these ends. Raises ``ValueError`` for none, for two kinds, for an empty one."""
    if (near is None) == (above is None and below is None):
        got = f"above={above!r}, below={below!r}, near={near!r}"
        raise ValueError(f"range: got {got:.120}; allowed is above and below, or near alone")
    if near is not None:
        pair = numbers("near", near)
        if len(pair) != 2 or pair[1] < 0:
            raise ValueError(f"near: got {near!r:.80}; allowed is (value, tolerance)")
        return Range(near=(pair[0], pair[1]))
    low, high = (
        None if end is None else number(n, end)
        for n, end in zip(("above", "below"), (above, below), strict=True)
    )
    if low is not None and high is not None and low >= high:
        raise ValueError(f"range: got above={low:g}, below={high:g}; nothing lies between them")
    return Range(low, high)


def numbers(name: str, value: object) -> list[float]:
    """``value`` (a number, or a row of them; numpy's and torch's too) as floats.

    Raises ``ValueError`` for anything else: truth values, nothing, non-finite numbers, words.
    """
    row = _plain(value)
    many = isinstance(row, Iterable) and not isinstance(row, (str, bytes, dict))
    row = [_plain(one) for one in row] if many else [row]
    if not row or not all(_finite(one) for one in row):
        raise ValueError(f"{name}: got {value!r:.80}; allowed is a finite number, or a row of them")
    return [float(one) for one in row]


def number(name: str, value: object) -> float:
    """One number. Raises ``ValueError`` for anything else."""
    row = numbers(name, value)
    if len(row) != 1:
        raise ValueError(f"{name}: got {len(row)} numbers; allowed is one")
    return row[0]


def mean(row: list[float]) -> float:
    return math.fsum(row) / len(row)


def spread(row: list[float], unit: str = "") -> str:
    """The mean, and behind it the smallest and the largest of several numbers."""
    told = f"{short(mean(row))} {unit}".rstrip()
    ends = f" ({short(min(row))} to {short(max(row))}, {len(row)} values)"
    return told + (ends if len(row) > 1 else "")


def short(value: float) -> str:
    """Three digits, without an exponent where that can be read."""
    size = abs(value)
    if value and not 1e-4 <= size < 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _finite(value: Any) -> bool:
    real = isinstance(value, kinds.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)
