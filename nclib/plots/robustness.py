"""Figures of defences under attack: accuracy and its price, vanishing gradients, the checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nclib.plots.style import (
    CLEAN,
    NEUTRAL,
    POISON,
    band,
    class_colours,
    label,
    panels,
    picture,
    plt,
)


def over(
    x: Sequence[float],
    series: Mapping[str, Sequence[Sequence[float]]],
    title: str,
    *,
    y: str = "accuracy (share of images)",
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """One line per name, the mean over the runs (rows); the band is their span."""
    ax = panels(width=5.4, height=3.5)[1][0] if ax is None else ax
    for name, runs in series.items():
        band(ax, x, runs, name)
    if log:
        ax.set_xscale("log")
    ax.set_xticks(x, [f"{value:.3g}" for value in x])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return label(ax, f"{y.split(' (')[0]} by {title}", title, y)


def vanishing(margins: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Figure:
    """Left: logit margins per network. Right: share of images whose logit gradient is exactly 0."""
    figure, axes = panels(2, width=4.8, height=3.3)
    top = max(float(m.abs().max()) for m in margins.values())
    edges = [*-np.geomspace(top, 1, 30), 0, *np.geomspace(1, top, 30)]
    colours = dict(zip(margins, (CLEAN, POISON), strict=False))
    for name, values in margins.items():
        axes[0].hist(values.cpu().numpy(), edges, alpha=0.6, label=name, color=colours[name])
    axes[0].set_xscale("symlog", linthresh=1, linscale=0.1)
    axes[0].set_xticks([-1000, -100, -10, 0, 10], ["-1000", "-100", "-10", "0", "10"])
    axes[0].legend(fontsize=8)
    label(axes[0], "How far from a wrong answer", "logit margin (below 0: right)", "images")
    shares = [float((values == 0).float().mean()) for values in slopes.values()]
    axes[1].bar(list(slopes), shares, color=[colours[name] for name in slopes])
    axes[1].set_ylim(0, 1)
    label(axes[1], "Logit gradient exactly 0", "network", "share of images")
    return figure


def slopes(values: Tensor, title: str) -> Axes:
    """Histogram of gradient sizes on a log scale; exact zeros at the far left."""
    _, (ax,) = panels(width=5.4, height=3)
    size = values.detach().cpu().numpy()
    edges = np.geomspace(1e-9, 1, 28).tolist()
    zero = int((size < edges[0]).sum())
    ax.hist(size[size >= edges[0]], edges, color=CLEAN, label="above 0")
    ax.bar(1e-10, zero, width=1.2e-10, color=POISON, label="0 (or below 1e-9)")
    ax.set_xscale("log")
    ax.set_xticks([1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1], ["0", "1e-8", "1e-6", "1e-4", "0.01", "1"])
    ax.set_ylim(0, len(size))
    ax.legend(fontsize=8)
    return label(ax, title, "largest entry of the logit gradient", "images")


def checklist(reports: Mapping[str, pd.DataFrame]) -> Axes:
    """The symptoms of gradient masking per network: the share, marked where it is a warning."""
    first = next(iter(reports.values()))
    shares = np.array([report.share for report in reports.values()]).T
    flags = np.array([report.flag for report in reports.values()]).T
    shown = np.char.mod("%.2f", shares.round(2) + 0.0)  # + 0: no "-0.00"
    words = np.where(flags, "warning ", "") + shown.astype(object)
    _, (ax,) = panels(width=3.4 + 1.5 * len(reports), height=3.2)
    sns.heatmap(
        np.where(flags, 1.0, 0.0),
        annot=words.astype(str),
        fmt="",
        cmap=sns.color_palette(["#f2f2f2", "#f5c9a6"], as_cmap=False),
        cbar=False,
        linewidths=1,
        xticklabels=list(reports),
        yticklabels=list(first.check),
        vmin=0,
        vmax=1,
        annot_kws={"fontsize": 9, "color": "black"},
        ax=ax,
    )
    ax.tick_params(axis="y", rotation=0, labelsize=8)
    ax.tick_params(axis="x", rotation=0, labelsize=8)
    return label(ax, "Symptoms of masked gradients (share of images)", "network", "")


def joint(points: Mapping[str, np.ndarray], x: str, y: str, title: str) -> Axes:
    """One dot per network ``{name: [seeds, 2]}``, a colour per name."""
    _, (ax,) = panels(width=6.6, height=3.8)
    for (name, pairs), colour in zip(points.items(), class_colours(len(points)), strict=True):
        ax.scatter(pairs[:, 0], pairs[:, 1], color=colour, s=45, label=name)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, x, y)


def overfitting(histories: Mapping[str, Mapping[str, list]]) -> Figure:
    """Per way of training: accuracy over the epochs on clean, FGSM and PGD images."""
    figure, axes = panels(len(histories), width=3.9, height=3.3, sharey=True)
    for (name, history), ax in zip(histories.items(), axes, strict=True):
        for column, colour in (("clean", NEUTRAL), ("FGSM", CLEAN), ("PGD", POISON)):
            values = history[f"test/{column}"]
            ax.plot(history["probe_epoch"], values, marker=".", color=colour, label=column)
        label(ax, name, "epoch", "accuracy of the test images" if ax is axes[0] else "")
        ax.set(ylim=(-0.02, 1.02), xticks=history["probe_epoch"])
    axes[0].legend(fontsize=8)
    return figure


def bars(shares: Mapping[str, Mapping[str, Sequence[float]]], y: str, title: str) -> Axes:
    """Grouped bars ``{group: {name: values of the seeds}}``; the whisker spans the seeds."""
    rows = [
        (group, name, value)
        for group, named in shares.items()
        for name, values in named.items()
        for value in values
    ]
    table = pd.DataFrame(rows, columns=["group", "name", "value"])
    _, (ax,) = panels(width=6.4, height=3.4)
    palette = [CLEAN, POISON, NEUTRAL][: table.name.nunique()]
    look = {"errorbar": ("pi", 100), "palette": palette, "ax": ax}
    sns.barplot(table, x="group", y="value", hue="name", **look)
    ax.legend(fontsize=8, title="", loc="upper left", bbox_to_anchor=(1, 1))
    return label(ax, title, "", y)


def gradients(images: Tensor, rows: Mapping[str, Tensor], title: str) -> Figure:
    """Images above, the gradient of each network below, mean over colours, on its own scale."""
    shape = (1 + len(rows), len(images))
    figure, axes = plt.subplots(*shape, figsize=(1.4 * shape[1], 1.4 * shape[0]), squeeze=False)
    for line, (name, row) in zip(axes, {"image": images, **rows}.items(), strict=True):
        for ax, one in zip(line, row, strict=True):
            if name == "image":
                picture(one, ax)
            else:
                slope = one.detach().cpu().mean(0, keepdim=True)
                top = float(slope.abs().max()) or 1
                picture(slope, ax, cmap="RdBu_r", vmin=-top, vmax=top)
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    figure.suptitle(title, fontsize=10)
    return figure
