"""The exercises of the lessons, one file per lesson: what is checked, the hints, the reference.

An exercise is a plain function that takes the student's answer and raises ``Wrong`` with a useful
word when it is not right. The decorator adds the hints and the reference answer:

    @exercise(reference=geometry.simplex_etf, hints=("Start from the identity.", "Then ..."))
    def simplex_etf(answer):
        frame = answer(10)
        if frame.shape != (10, 10):
            raise Wrong(f"the matrix has shape {tuple(frame.shape)}; (10, 10) is expected")

``find("01.simplex_etf")`` looks it up in ``lesson01``. ``lesson.check`` runs it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass


class Wrong(Exception):
    """The answer is not right; the message says what to look at."""


class NotAttempted(Exception):
    """The stub is still as it was."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: ``test(answer)`` raises ``Wrong``; ``reference`` is a right answer."""

    test: Callable[[object], None]
    reference: object
    hints: tuple[str, ...]

    def judge(self, answer: object) -> tuple[str, str]:
        """The verdict "right", "wrong" or "not attempted", and a word to the student."""
        try:
            self.test(_watched(answer))
        except NotAttempted:
            return "not attempted", "write your answer in the cell above, then run it again"
        except Wrong as wrong:
            return "wrong", str(wrong)
        except Exception as error:
            return "wrong", f"your code raised {type(error).__name__}: {error}"
        return "right", ""


def exercise(reference: object, hints: tuple[str, ...]) -> Callable[[Callable], Exercise]:
    """Turn a function that tests an answer into an ``Exercise``."""
    return lambda test: Exercise(test, reference, tuple(hints))


def choice(right: str, words: dict[str, str], hints: tuple[str, ...]) -> Exercise:
    """A prediction among named options; ``words`` has a word for each wrong one."""

    def test(answer: object) -> None:
        if answer not in (right, *words):
            raise Wrong(f"choose one of {sorted([right, *words])}")
        if answer != right:
            raise Wrong(words[answer])

    return Exercise(test, right, tuple(hints))


def number(low: float, high: float, reference: float, word: str, hints: tuple) -> Exercise:
    """A prediction that is right between ``low`` and ``high``."""

    def test(answer: object) -> None:
        if not isinstance(answer, (int, float)):
            raise Wrong(f"a number is expected, not {type(answer).__name__}")
        if not low <= answer <= high:
            raise Wrong(word)

    return Exercise(test, reference, tuple(hints))


def find(name: str) -> Exercise:
    """The exercise of that name, "01.simplex_etf" say. Raises ``ValueError`` for no such name."""
    lesson, _, short = name.partition(".")
    try:
        found = getattr(importlib.import_module(f"nclib.exercises.lesson{lesson}"), short, None)
    except ModuleNotFoundError:
        found = None
    if not isinstance(found, Exercise):
        raise ValueError(f"name: there is no exercise {name!r}; names look like '01.simplex_etf'")
    return found


def _is_stub(value: object) -> bool:
    empty = value is None or value is ...
    return empty or (isinstance(value, (tuple, list)) and any(v is None or v is ... for v in value))


def _watched(answer: object) -> object:
    """The answer, or a function around it that notices when nothing was written yet."""
    if _is_stub(answer):
        raise NotAttempted
    if not callable(answer):
        return answer

    @functools.wraps(answer)
    def call(*args, **kwargs):
        try:
            result = answer(*args, **kwargs)
        except NotImplementedError:
            raise NotAttempted from None
        if _is_stub(result):
            raise NotAttempted
        return result

    return call
