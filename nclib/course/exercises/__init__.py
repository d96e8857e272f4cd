"""The exercises of the lessons: one file per lesson, one function or one call per exercise.

It looks like this::

    @exercise("01.simplex_etf", hints=("What do the rows add up to?", ...), reference=my_etf)
    def _(answer):
        expect(answer(3).shape == (3, 3), "for 3 classes the shape should be (3, 3)")
        close(answer(3).sum(0), torch.zeros(3), "the sum of the rows")

The function gets what the student wrote and raises ``Wrong("what is wrong")``, or returns nothing.
A student's function that returns nothing, or raises ``NotImplementedError``, was not attempted;
``nclib.course.lesson`` sees to that, and to any exception the student's code raises.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Check = Callable[[object], None]
EXERCISES: dict[str, Exercise] = {}


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


def exercise(name: str, *, hints: Sequence[str], reference: object) -> Callable[[Check], Check]:
    """Declare the decorated function as the check of exercise ``name``, written "NN.word".

    Raises ``ValueError`` for a name of another shape and for fewer than two hints.
    """
    lesson, _, word = name.partition(".")
    if not (len(lesson) == 2 and lesson.isdigit() and word.isidentifier()):
        raise ValueError(f"name: got {name!r}; allowed is a lesson and a word, like '01.simplex'")
    if isinstance(hints, str) or len(hints) < 2:
        raise ValueError(f"hints: got {hints!r}; allowed is a tuple of two or more, vague to plain")

    def declare(check: Check) -> Check:
        EXERCISES[name] = Exercise(name, check, tuple(hints), reference)
        return check

    return declare


def find(name: str) -> Exercise:
    """The exercise ``name``. Raises ``ValueError`` with the names there are for any other."""
    module = f"{__name__}.lesson{name[:2]}"
    if name not in EXERCISES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    if name not in EXERCISES:
        known = ", ".join(n for n in sorted(EXERCISES) if n[:2] == name[:2]) or "none"
        raise ValueError(f"name: got {name!r}; the exercises of lesson {name[:2]} are: {known}")
    return EXERCISES[name]


def number(
    name: str, low: float, high: float, *, reference: float, hints: Sequence[str], unit: str = ""
) -> None:
    """A prediction: any number from ``low`` to ``high`` is right."""

    @exercise(name, hints=hints, reference=reference)
    def _(answer: object) -> None:
        try:
            value = math.nan if isinstance(answer, (bool, str)) else float(answer)
        except (TypeError, ValueError):
            value = math.nan
        expect(not math.isnan(value), f"a number is asked for, not {answer!r}")
        of = f" {unit}" if unit else ""
        expect(value >= low, f"{value:g}{of} is too low")
        expect(value <= high, f"{value:g}{of} is too high")


def choice(
    name: str,
    right: str,
    options: Sequence[str],
    *,
    hints: Sequence[str],
    why: Mapping[str, str] | None = None,
) -> None:
    """A prediction: one of ``options``; ``why`` tells what speaks against each wrong one."""

    @exercise(name, hints=hints, reference=right)
    def _(answer: object) -> None:
        said = answer.strip().casefold() if isinstance(answer, str) else answer
        taken = next((o for o in options if o.casefold() == said), None)
        expect(taken is not None, f"choose one of {', '.join(map(repr, options))}, not {answer!r}")
        expect(taken == right, (why or {}).get(taken, "run the experiment and read the numbers"))


def expect(holds: bool, message: str) -> None:
    """Raise ``Wrong(message)`` unless it holds."""
    if not holds:
        raise Wrong(message)


def close(
    found: object, wanted: object, what: str, *, atol: float = 1e-6, rtol: float = 1e-5
) -> None:
    """Raise ``Wrong`` unless ``found`` has the shape and, nearly, the numbers of ``wanted``."""
    try:
        found = torch.as_tensor(found).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} should be numbers, not {type(found).__name__}") from None
    wanted = torch.as_tensor(wanted).detach().cpu().double()
    shapes = f"shape {tuple(wanted.shape)}, not {tuple(found.shape)}"
    expect(found.shape == wanted.shape, f"{what} should have {shapes}")
    expect(bool(found.isfinite().all()), f"{what} should be finite")
    if wanted.ndim == 0:
        message = f"{what} should be {float(wanted):.5g}, not {float(found):.5g}"
    else:
        gap = float((found - wanted).abs().max()) if found.numel() else 0.0
        message = f"{what} differs from what is expected by up to {gap:.3g}"
    expect(torch.allclose(found, wanted, rtol, atol), message)
