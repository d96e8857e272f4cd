"""What an accusation is worth where poison is rare."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from nclib.plots.style import class_colours, label, panels


def worth(
    probability: Callable[[float, float, float], float],
    power: float,
    false_alarms: Sequence[float],
) -> Axes:
    """``probability(prior, power, false_alarms)`` over the prior, a line per false-alarm rate."""
    ax = panels(width=5.4)[1][0]
    priors = np.logspace(-3.5, -0.3, 60)
    for rate, colour in zip(false_alarms, class_colours(len(false_alarms)), strict=True):
        values = [probability(float(prior), power, rate) for prior in priors]
        ax.plot(priors, values, color=colour, label=f"{rate:g} false alarms a clean set")
    ax.set_xscale("log")
    ax.set_ylim(0, 1)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    title = "what an accusation is worth"
    return label(ax, title, "share of sets that are poisoned", "probability that it is poisoned")
