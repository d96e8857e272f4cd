"""The exercises of the lessons: one file per lesson, one function or one call per exercise.

It looks like this::

    @exercise("01.simplex_etf", hints=("What do the rows add up to?", ...), reference=my_etf)
    def _(answer):
        expect(answer(3).shape == (3, 3), "for 3 classes the shape should be (3, 3)")
        close(answer(3).sum(0), torch.zeros(3), "the sum of the rows")

The function gets what the student wrote and raises ``Wrong("what is wrong")``, or returns nothing.
A student's function that returns nothing, or raises ``NotImplementedError``, was not attempted;
``nclib.course.check`` sees to that, and to any exception the student's code raises. Predictions
stand beside the exercises: they are noted and compared, not checked.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nclib.course import ranges
from nclib.course.ranges import Range

Check = Callable[[object], None]
Kind = TypeVar("Kind")
EXERCISES: dict[str, Exercise] = {}
PREDICTIONS: dict[str, Prediction] = {}


class Wrong(Exception):
    """The answer is wrong; the message says in which way."""


class NotAttempted(Exception):
    """There is no answer yet."""


@dataclass(frozen=True)
class Exercise:
    """What to check, what to hint at (from vague to plain), and the answer to go on with."""

    name: str
    check: Check
    hints: tuple[str, ...]
    reference: object


@dataclass(frozen=True)
class Prediction:
    """What is asked, what the lesson's text says came out, and why each usual guess is wrong."""

    name: str
    question: str
    reading: Range | str
    usual: Mapping[Range | str, str]
    unit: str


def exercise(name: str, *, hints: Sequence[str], reference: object) -> Callable[[Check], Check]:
    """Declare the decorated function as the check of exercise ``name``, written "NN.word".

    Raises ``ValueError`` for a name of another shape and for fewer than two hints.
    """
    _named(name)
    if isinstance(hints, str) or len(hints) < 2:
        raise ValueError(f"hints: got {hints!r}; allowed is a tuple of two or more, vague to plain")

    def declare(check: Check) -> Check:
        EXERCISES[name] = Exercise(name, check, tuple(hints), reference)
        return check

    return declare


def prediction(
    name: str,
    question: str,
    *,
    usual: Mapping[object, str],
    above: float | None = None,
    below: float | None = None,
    near: tuple[float, float] | None = None,
    reading: str | None = None,
    unit: str = "",
) -> None:
    """Declare prediction ``name``: its question, and what the lesson's text says came out.

    That is a range of numbers (``above``, ``below``, ``near``, as of a claim), or a ``reading``: a
    word, or what a sketch does ("rises", "falls", "flat", "peaks", "dips"). ``usual`` tells what
    speaks against each usual wrong guess: a number (5% about it), ``(low, high)`` with None for an
    open end, or a word. Raises ``ValueError`` for anything else.
    """
    _named(name)
    if (reading is None) == (above is below is near is None):
        raise ValueError(f"reading: got {reading!r}; allowed is a word, or a range instead of it")
    if not usual or not all(isinstance(why, str) and why for why in usual.values()):
        raise ValueError(f"usual: got {usual!r}; allowed is {{usual wrong guess: why not}}")
    said = reading if reading is not None else ranges.allowed(above, below, near)
    wrong = {_guess(key): why for key, why in usual.items()}
    PREDICTIONS[name] = Prediction(name, question, said, wrong, unit)


def _guess(key: object) -> Range | str:
    """A guess as it is declared: a word, the range between two ends, or 5% about a number."""
    if isinstance(key, str):
        return key
    if isinstance(key, tuple) and len(key) == 2:
        return ranges.allowed(*key)
    value = ranges.number("usual", key)
    return ranges.allowed(near=(value, 0.05 * abs(value)))


def find(name: str) -> Exercise:
    """The exercise ``name``. Raises ``ValueError`` with the names there are for any other."""
    return _find(name, EXERCISES, "exercises")


def prediction_of(name: str) -> Prediction:
    """The prediction ``name``. Raises ``ValueError`` with the names there are for any other."""
    return _find(name, PREDICTIONS, "predictions")


def _find(name: str, known: Mapping[str, Kind], what: str) -> Kind:
    if isinstance(name, str) and re.fullmatch(r"\d\.\w+", name):
        raise ValueError(f"name: got {name!r}; write '0{name}'")
    _named(name)
    module = f"{__name__}.lesson{name[:2]}"
    if name not in known:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    if name not in known:
        there = ", ".join(n for n in sorted(known) if n[:2] == name[:2]) or "none"
        raise ValueError(f"name: got {name!r}; the {what} of lesson {name[:2]} are: {there}")
    return known[name]


def _named(name: str) -> None:
    lesson, _, word = name.partition(".") if isinstance(name, str) else ("", "", "")
    if not (len(lesson) == 2 and lesson.isdigit() and word.isidentifier()):
        raise ValueError(f"name: got {name!r}; allowed is a lesson and a word, like '01.simplex'")


def number(
    name: str,
    low: float,
    high: float,
    *,
    reference: float,
    hints: Sequence[str],
    why: Mapping[float, str] | None = None,
) -> None:
    """Declare exercise ``name``, whose answer is a number: any from ``low`` to ``high`` is right.

    ``why`` tells what speaks against each usual wrong one (and what is within 3% of it).
    """

    @exercise(name, hints=hints, reference=reference)
    def _(answer: Any) -> None:
        try:
            value = math.nan if isinstance(answer, (bool, str)) else float(answer)
        except (TypeError, ValueError):
            value = math.nan
        expect(not math.isnan(value), f"a number is asked for, not {answer!r}")
        for usual, reason in (why or {}).items():
            expect(low <= value <= high or not math.isclose(value, usual, rel_tol=0.03), reason)
        expect(value >= low, f"{value:g} is too low")
        expect(value <= high, f"{value:g} is too high")


def expect(holds: bool, message: str) -> None:
    """Raise ``Wrong(message)`` unless it holds."""
    if not holds:
        raise Wrong(message)


def tensor(found: Any, what: str = "the answer") -> Tensor:
    """Numbers in any form (tensor, array, list, list of tensors) as a tensor; else ``Wrong``."""
    try:
        if isinstance(found, Tensor):
            return found.detach().cpu()
        if isinstance(found, (list, tuple)) and any(isinstance(f, Tensor) for f in found):
            return torch.stack([torch.as_tensor(f) for f in found]).detach().cpu()
        return torch.as_tensor(np.asarray(found))  # a Python float keeps its 64 bits
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} should be numbers, not {type(found).__name__}") from None


def mask(found: Any, count: int) -> Tensor:
    """A bool mask ``[count]`` in any form; else ``Wrong``."""
    found = tensor(found, "the mask")
    shape = f"{found.dtype} {tuple(found.shape)}"
    fits = found.shape == (count,) and found.dtype == torch.bool
    expect(fits, f"a bool mask [N], here {(count,)}, is expected, not {shape}")
    return found


def usual(found: Tensor, wrong: Mapping[str, Any], *, atol: float = 1e-5) -> None:
    """Raise ``Wrong`` with the word for the usual mistake that ``found`` is, if it is one."""
    for word, value in wrong.items():
        value = torch.as_tensor(value).detach().cpu().double()
        same = found.shape == value.shape
        if same and torch.allclose(found.double(), value, rtol=1e-4, atol=atol):
            raise Wrong(word)


def close(
    found: object, wanted: object, what: str, *, atol: float = 1e-6, rtol: float = 1e-5
) -> None:
    """Raise ``Wrong`` unless ``found`` has the shape and, nearly, the numbers of ``wanted``."""
    found, wanted = tensor(found, what).double(), tensor(wanted).double()
    shapes = f"shape {tuple(wanted.shape)}, not {tuple(found.shape)}"
    expect(found.shape == wanted.shape, f"{what} should have {shapes}")
    expect(bool(found.isfinite().all()), f"{what} should be finite")
    if wanted.ndim == 0:
        message = f"{what} should be {float(wanted):.5g}, not {float(found):.5g}"
    else:
        gap = float((found - wanted).abs().max()) if found.numel() else 0.0
        message = f"{what} differs from what is expected by up to {gap:.3g}"
    expect(torch.allclose(found, wanted, rtol, atol), message)
