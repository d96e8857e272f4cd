"""Exercises as a student meets them: a check with hints, a hint, a solution.

``check`` writes no file, asks no network and keeps no record: the verdict is for the reader alone.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple

from nclib.course import exercises
from nclib.course.exercises import NotAttempted, Wrong
from nclib.course.session import DoesNotHold, strict

_shown: Counter[str] = Counter()  # exercise -> hints that were given since it was last right


class Verdict(NamedTuple):
    """ "correct", "not attempted" or "wrong", and what to say about it."""

    state: str
    message: str = ""


class NotCorrect(DoesNotHold):
    """Raised under ``NCLIB_STRICT=1`` for any verdict but "correct"."""


def check(name: str, answer: object) -> object:
    """Print the verdict on ``answer`` and return it if it is right, else the reference solution.

    So a lesson goes on in any case: ``simplex_etf = check("01.simplex_etf", simplex_etf)``. A wrong
    answer gets the next hint. With ``NCLIB_STRICT=1`` anything but right raises ``NotCorrect``.
    Raises ``ValueError`` for a name that no exercise has.
    """
    state, message = verdict(name, answer)
    print(f"{name}: {state}" + (f": {message}" if message else ""))
    if state == "correct":
        _shown.pop(name, None)
        return answer
    if strict():
        raise NotCorrect(f"{name}: {state}: {message}")
    if state == "wrong":
        hint(name)
    else:
        print(f'hint("{name}") helps to begin.')
    print("Until then the lesson goes on with the reference.")
    return exercises.find(name).reference


def verdict(name: str, answer: object) -> Verdict:
    """What ``check`` thinks of ``answer``, without printing."""
    exercise = exercises.find(name)
    try:
        if blank(answer):
            raise NotAttempted("there is no answer yet")
        exercise.check(_watched(answer) if callable(answer) else answer)
    except NotAttempted as none:
        return Verdict("not attempted", str(none))
    except Wrong as wrong:
        return Verdict("wrong", str(wrong))
    except Exception as error:
        return Verdict("wrong", f"it raised {type(error).__name__}: {error}")
    return Verdict("correct")


def hint(name: str, level: int | None = None) -> None:
    """Print the next hint, or that of ``level``: 1 is vague, the last one is plain.

    Raises ``ValueError`` for a level beyond the last.
    """
    hints = exercises.find(name).hints
    if level is None:
        _shown[name] = level = min(_shown[name] + 1, len(hints))
    if level not in range(1, len(hints) + 1):
        raise ValueError(f"level: got {level!r}; {name} has hints 1 to {len(hints)}")
    print(f"Hint {level} of {len(hints)}: {hints[level - 1]}")
    if level == len(hints):
        print(f'solution("{name}") shows how the lesson does it.')


def solution(name: str) -> None:
    """Print the solution, as it stands in the lesson's own notebook."""
    exercises.find(name)
    told = json.loads((files(exercises) / "solutions.json").read_text(encoding="utf-8"))
    if name not in told:
        raise ValueError(f"name: got {name!r}; no notebook has its solution, or not yet")
    print(told[name])


def blank(answer: Any) -> bool:
    """None, Ellipsis, or a container that still holds one."""
    parts = answer.values() if isinstance(answer, dict) else answer
    inside = isinstance(answer, (tuple, list, dict)) and any(map(blank, parts))
    return answer is None or answer is ... or inside


def _watched(function: Callable) -> Callable:
    """``function``, but raising ``NotAttempted`` where it returns nothing."""
    answers = 0

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal answers
        try:
            result = function(*args, **kwargs)
        except NotImplementedError:
            raise NotAttempted("the function is not written yet") from None
        if result is None or result is ...:
            if answers:
                raise Wrong("the function returns nothing for some inputs")
            raise NotAttempted("the function returns nothing")
        answers += 1
        return result

    return watched
