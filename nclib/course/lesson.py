"""What a lesson needs besides the subject: a start, checks with hints, and interactive controls.

``check`` writes no file, asks no network and keeps no record: the verdict is for the reader alone.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable
from importlib.resources import files
from types import FunctionType
from typing import NamedTuple

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from IPython.display import clear_output, display
from IPython.utils.capture import capture_output

import nclib
from nclib import device
from nclib.course import exercises
from nclib.course.exercises import NotAttempted, Wrong
from nclib.places import results as results  # a lesson finds it here


def start(number: str) -> None:
    """Print the versions and the device that lesson ``number`` ("01") will run on."""
    if not (len(number) == 2 and number.isdigit()):
        raise ValueError(f"number: got {number!r}; allowed is two digits, like '01'")
    versions = f"nclib {nclib.__version__}, Python {platform.python_version()}"
    print(f"lesson {number}: {versions}, torch {torch.__version__}, device {device.pick()}")


class Verdict(NamedTuple):
    """ "correct", "not attempted" or "wrong", and what to say about it."""

    state: str
    message: str = ""


class NotCorrect(AssertionError):
    """Raised under ``NCLIB_STRICT=1`` for any verdict but "correct"."""


def check(name: str, answer: object) -> object:
    """Print the verdict on ``answer`` and return it if it is right, else the reference solution.

    So a lesson goes on in any case: ``simplex_etf = check("01.simplex_etf", simplex_etf)``. With
    ``NCLIB_STRICT=1`` anything but right raises ``NotCorrect``. Raises ``ValueError`` for a name
    that no exercise has.
    """
    state, message = verdict(name, answer)
    print(f"{name}: {state}" + (f": {message}" if message else ""))
    if state == "correct":
        return answer
    if strict():
        raise NotCorrect(f"{name}: {state}: {message}")
    print(f'Stuck? lesson.hint("{name}"). Until then the lesson goes on with the reference.')
    return exercises.find(name).reference


def verdict(name: str, answer: object) -> Verdict:
    """What ``check`` thinks of ``answer``, without printing."""
    exercise = exercises.find(name)
    try:
        if _blank(answer):
            raise NotAttempted("there is no answer yet")
        exercise.check(_watched(answer) if isinstance(answer, FunctionType) else answer)
    except NotAttempted as none:
        return Verdict("not attempted", str(none))
    except Wrong as wrong:
        return Verdict("wrong", str(wrong))
    except Exception as error:
        return Verdict("wrong", f"it raised {type(error).__name__}: {error}")
    return Verdict("correct")


def hint(name: str, level: int = 1) -> None:
    """Print a hint: level 1 is vague, the last one is plain. Raises ``ValueError`` beyond it."""
    hints = exercises.find(name).hints
    if level not in range(1, len(hints) + 1):
        raise ValueError(f"level: got {level!r}; {name} has hints 1 to {len(hints)}")
    print(f"Hint {level} of {len(hints)}: {hints[level - 1]}")


def solution(name: str) -> None:
    """Print the solution, as it stands in the lesson's own notebook."""
    exercises.find(name)
    told = json.loads((files(exercises) / "solutions.json").read_text(encoding="utf-8"))
    if name not in told:
        raise ValueError(f"name: got {name!r}; no notebook has its solution, or not yet")
    print(told[name])


def strict() -> bool:
    """Whether the tests are running the lesson: ``NCLIB_STRICT=1``."""
    return os.environ.get("NCLIB_STRICT", "0") not in ("", "0")


def _blank(answer: object) -> bool:
    """None, Ellipsis, or a container that still holds one."""
    parts = answer.values() if isinstance(answer, dict) else answer
    inside = isinstance(answer, (tuple, list, dict)) and any(map(_blank, parts))
    return answer is None or answer is ... or inside


def _watched(function: FunctionType) -> Callable:
    """``function``, but raising ``NotAttempted`` where it returns nothing."""
    answers = 0

    @functools.wraps(function)
    def watched(*args, **kwargs):
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


def interact(draw: Callable[..., object], **controls: object) -> None:
    """Show a control for each argument of ``draw`` and draw again whenever one moves.

    A control is ``(low, high)`` or ``(low, high, step)`` for a slider, a list for a slider over its
    entries, a bool for a checkbox, or any widget with a value. Draw the figure once without it
    first: a saved page has no kernel to move a slider. What ``draw`` raises is raised here, too;
    under ``NCLIB_STRICT=1`` each control also visits its two ends.
    """
    parts = {name: _control(name, given) for name, given in controls.items()}
    place = widgets.Output()

    def redraw(_: object = None) -> None:
        try:
            with capture_output(stderr=False) as drawn:
                open_before = set(plt.get_fignums())
                draw(**{name: part.value for name, part in parts.items()})
                for figure in [plt.figure(n) for n in plt.get_fignums() if n not in open_before]:
                    display(figure)
                    plt.close(figure)
        except Exception as error:
            with place:
                clear_output(wait=True)
                print(f"{type(error).__name__}: {error}")
            raise
        with place:
            clear_output(wait=True)
            drawn.show()

    redraw()
    for part in parts.values():
        part.observe(redraw, names="value")
        for end in _ends(part) if strict() else ():
            part.value = end
    display(widgets.VBox([*parts.values(), place]))


def _control(name: str, given: object) -> widgets.Widget:
    """The widget for one argument of ``draw``."""
    style = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    if isinstance(given, widgets.Widget):
        return given
    if isinstance(given, bool):
        return widgets.Checkbox(value=given, **style)
    if isinstance(given, list) and given:
        return widgets.SelectionSlider(options=given, continuous_update=False, **style)
    if isinstance(given, tuple) and len(given) in (2, 3) and given[0] < given[1]:
        whole = all(isinstance(number, int) for number in given)
        slider, step = (widgets.IntSlider, 1) if whole else (widgets.FloatSlider, 0.1)
        low, high, step = (*given, step)[:3]
        return slider(low, min=low, max=high, step=step, continuous_update=False, **style)
    raise ValueError(
        f"{name}: got {given!r}; allowed is (low, high, step), a list, a bool, a widget"
    )


def _ends(part: widgets.Widget) -> tuple:
    """The two outermost values of a control, the one it shows last."""
    if isinstance(part, widgets.SelectionSlider):
        return part._options_values[-1], part.value
    if isinstance(part, widgets.Checkbox):
        return not part.value, part.value
    return (part.max, part.value) if hasattr(part, "max") else ()
