"""The time line of a monitored model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nclib.plots.style import NEUTRAL, POISON, class_colours, label, panels


def timeline(windows: Sequence[dict], *, ax: Axes | None = None) -> Axes:
    """Detection rate per layer over the windows of a log; windows with an alarm are shaded.

    A log whose windows all start at the same time is drawn over the window's number, not the hour.
    """
    ax = panels(width=9, height=3.4)[1][0] if ax is None else ax
    tested = [w for w in windows if w["rates"]]
    if not tested:
        raise ValueError("windows: none has a verdict; nothing to draw")
    timed = len({w["start"] for w in windows}) > 1
    place = lambda w: w["start"] / 3600 if timed else w["window"]  # noqa: E731
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


def evasion(curves: Mapping[str, tuple[Sequence[float], np.ndarray, np.ndarray]]) -> Axes:
    """What an attacker turns against how often he rings, one line per way of watching.

    ``curves`` has for each name the strengths [P], the alarm rates [P, seeds] and the shares of
    images turned [P, seeds]; a cross spans the seeds.
    """
    ax = panels(width=6.4, height=4)[1][0]
    for (name, (strengths, rings, turned)), mark in zip(curves.items(), "os^D", strict=False):
        x, y = rings.mean(1), turned.mean(1)
        (line,) = ax.plot(x, y, f"{mark}-", label=name, alpha=0.8)
        look: dict[str, Any] = {"color": line.get_color(), "lw": 0.8, "alpha": 0.5}
        ax.hlines(y, rings.min(1), rings.max(1), **look)
        ax.vlines(x, turned.min(1), turned.max(1), **look)
        for place in zip(strengths, x, y, strict=True):
            word: dict[str, Any] = {"fontsize": 7, "color": line.get_color()}
            ax.annotate(f"{place[0]:g}", place[1:], (4, -9), textcoords="offset points", **word)
    ax.axvline(0.05, ls=":", color=NEUTRAL)
    ax.set(xlim=(-0.05, 1.05), ylim=(0, 1.02))
    ax.legend(fontsize=8, title="the defender watches", title_fontsize=8)
    x = "alarm rate (share of tests that any layer rejects)"
    return label(ax, "To hide costs success", x, "images turned (share of those read correctly)")
