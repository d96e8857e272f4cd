"""The time line of a monitored model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from nclib.plots.style import POISON, class_colours, label, panels


def timeline(windows: Sequence[dict], *, unit: float = 3600.0, ax: Axes | None = None) -> Axes:
    """Detection rate per layer over the windows of a log; windows with an alarm are shaded.

    ``unit`` seconds make one step of the x axis (hours by default); a log whose windows all start
    at the same time is drawn over the window's number.
    """
    ax = panels(width=9, height=3.4)[1][0] if ax is None else ax
    tested = [w for w in windows if w["rates"]]
    if not tested:
        raise ValueError("windows: none has a verdict; nothing to draw")
    timed = len({w["start"] for w in windows}) > 1
    place = lambda w: w["start"] / unit if timed else w["window"]  # noqa: E731
    x = [place(w) for w in tested]
    names = [n for n in tested[0]["rates"] if n != "any layer"]
    for name, colour in zip(names, class_colours(len(names)), strict=True):
        ax.plot(x, [w["rates"][name] for w in tested], "o-", ms=3, lw=1, color=colour, label=name)
    ax.plot(x, [w["rates"]["any layer"] for w in tested], "k--", lw=1.5, label="any layer")
    half = 0.5 * (float(np.median(np.diff(x))) if len(x) > 1 else 1.0)
    alarms = [place(w) for w in windows if w["alarm"]]  # also those that could not be tested
    for i, t in enumerate(alarms):
        ax.axvspan(t - half, t + half, color=POISON, alpha=0.2, lw=0, label=None if i else "alarm")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(ncols=2, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    title = "Share of two-sample tests that reject, per window"
    return label(ax, title, "time (hours)" if timed else "window", "detection rate")
