"""Interactive controls: live where a kernel runs, and as frames drawn ahead on a saved page."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.display import clear_output, display
from IPython.utils.capture import CapturedIO, capture_output
from matplotlib.figure import Figure

from nclib.course import frames
from nclib.course.session import strict


def interact(draw: Callable[..., object], **controls: object) -> None:
    """Show a control for each argument of ``draw`` and draw again whenever one moves.

    A control is ``(low, high)`` or ``(low, high, step)`` for a slider, a list for a slider over its
    entries, a bool for a checkbox, or any widget with a value. What ``draw`` raises is raised here,
    too; under ``NCLIB_STRICT=1`` each control also visits its two ends. Where a lesson is run to be
    saved (``NCLIB_FRAMES=1``) frames drawn ahead take the place of the control: they move on a page
    without a kernel.
    """
    parts = {name: _control(name, given) for name, given in controls.items()}
    place = widgets.Output()

    def redraw(_: object = None) -> None:
        try:
            figures, drawn = _drawn(draw, {name: part.value for name, part in parts.items()})
        except Exception as error:
            with place:
                clear_output(wait=True)
                print(f"{type(error).__name__}: {error}")
            raise
        with place:
            clear_output(wait=True)
            drawn.show()
            for figure in figures:
                display(figure)

    redraw()
    for part in parts.values():
        part.observe(redraw, names="value")
        for end in _ends(part) if strict() else ():
            part.value = end
    ahead = frames.wanted() and frames.ahead(
        lambda values: _drawn(draw, values)[0],
        {name: _offered(name, part) for name, part in parts.items()},
    )
    display(ahead or widgets.VBox([*parts.values(), place]))


def _drawn(draw: Callable[..., object], values: dict) -> tuple[list[Figure], CapturedIO]:
    """The figures that ``draw`` opens, closed again, and what it prints or displays."""
    open_before = set(plt.get_fignums())
    with capture_output(stderr=False) as drawn:
        draw(**values)
    figures = [plt.figure(n) for n in plt.get_fignums() if n not in open_before]
    for figure in figures:
        plt.close(figure)
    return figures, drawn


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


def _offered(name: str, part: widgets.Widget) -> frames.Control:
    """Every value that a control can take, its words for it, and the one that it shows first."""
    texts, values = [str(part.value)], [part.value]
    if hasattr(part, "_options_values"):
        texts, values = list(part._options_labels), list(part._options_values)
    elif isinstance(part, widgets.Checkbox):
        texts, values = ["no", "yes"], [False, True]
    elif hasattr(part, "max"):
        count = round((part.max - part.min) / part.step) + 1
        values = [min(part.min + i * part.step, part.max) for i in range(count)]
        texts = [f"{value:g}" for value in values]
    start = min(range(len(values)), key=lambda i: values[i] != part.value)
    return frames.Control(part.description or name, texts, values, start)


def _ends(part: widgets.Widget) -> tuple:
    """The two outermost values of a control, the one it shows last."""
    if isinstance(part, widgets.SelectionSlider):
        return part._options_values[-1], part.value
    if isinstance(part, widgets.Checkbox):
        return not part.value, part.value
    return (part.max, part.value) if hasattr(part, "max") else ()
