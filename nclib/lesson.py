"""What every lesson uses: the start, checks with hints and solutions, sliders, result tables."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
import torch
from tqdm import TqdmExperimentalWarning

import nclib
from nclib import device
from nclib.exercises import find

Answer = TypeVar("Answer")


def start(number: str) -> None:
    """Say which lesson runs on what: the versions and the device. Safe to call again."""
    warnings.filterwarnings("ignore", category=TqdmExperimentalWarning)
    print(
        f"lesson {number} | nclib {nclib.__version__} | torch {torch.__version__} | {device.pick()}"
    )


def check(name: str, answer: Answer) -> Answer:
    """Judge the answer to exercise ``name`` and say what is right, wrong or still to do.

    Returns the answer where it is right and the reference otherwise, so that the lesson goes on.
    With ``NCLIB_STRICT=1`` anything but a right answer raises ``AssertionError``.
    """
    exercise = find(name)
    verdict, word = exercise.judge(answer)
    print(f"{name}: {verdict}" + (f" - {word}" if word else ""))
    if verdict == "right":
        return answer
    if os.environ.get("NCLIB_STRICT") == "1":
        raise AssertionError(f"{name}: {verdict} - {word}")
    print("The lesson goes on with the reference answer.")
    return exercise.reference


def hint(name: str, level: int = 1) -> None:
    """Print a hint for exercise ``name``; a higher ``level`` tells more."""
    hints = find(name).hints
    if not 1 <= level <= len(hints):
        raise ValueError(f"level: got {level}; {name} has hints 1 to {len(hints)}")
    print(f"Hint {level} of {len(hints)}: {hints[level - 1]}")


def solution(name: str) -> None:
    """Print the solution of exercise ``name`` as the teacher's notebook has it."""
    find(name)
    print(json.loads((files("nclib.exercises") / "solutions.json").read_text())[name])


def interact(draw: Callable[..., object], **controls: tuple | list) -> widgets.Widget:
    """Sliders that call ``draw(**values)`` and show the figure it leaves.

    A control is ``(low, high, step)`` for a slider, or a list of values to choose from. It starts
    at the low end, or at the first value. Draw the static figure in a cell before: a page without
    a kernel shows only that. ``draw`` is tried at both ends first, so an error in it surfaces in
    the cell and not inside the widget.
    """
    made = {name: _control(name, spec) for name, spec in controls.items()}
    for end in (0, -1):
        draw(**{name: _ends(spec)[end] for name, spec in controls.items()})
        plt.close("all")

    def show(**values) -> None:
        draw(**values)
        plt.show()

    return widgets.VBox([*made.values(), widgets.interactive_output(show, made)])


def _ends(spec: tuple | list) -> tuple | list:
    return spec[:2] if isinstance(spec, tuple) else spec


def _control(name: str, spec: tuple | list) -> widgets.Widget:
    look = {"description": name.replace("_", " "), "continuous_update": False}
    look["style"] = {"description_width": "initial"}
    if isinstance(spec, list):
        return widgets.SelectionSlider(options=spec, value=spec[0], **look)
    if len(spec) != 3:
        raise ValueError(f"{name}: got {spec}; (low, high, step) or a list of values is allowed")
    low, high, step = spec
    whole = all(isinstance(value, int) for value in spec)
    kind = widgets.IntSlider if whole else widgets.FloatSlider
    return kind(value=low, min=low, max=high, step=step, **look)


def results(name: str) -> pd.DataFrame:
    """The committed table ``data/results/NAME.csv``, from the checkout or the installed package."""
    packed = Path(nclib.__file__).parent / "results" / f"{name}.csv"
    checkout = Path(nclib.__file__).parents[1] / "data" / "results" / f"{name}.csv"
    for path in (checkout, packed):
        if path.exists():
            return pd.read_csv(path)
    raise ValueError(f"name: there is no results table {name!r}")
