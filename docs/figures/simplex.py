"""Draw the README's moving picture and the hook of lesson 01: road signs close on a simplex.

python docs/figures/simplex.py       writes simplex.gif and three_limits.png beside this file
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

from nclib import activations, data, geometry, models, training
from nclib.data import ImageSet
from nclib.data.signs.faces import KINDS, face
from nclib.plots import collapse, style
from nclib.plots.tour import grand_tour, shadow

HERE = Path(__file__).parent
FRAMES = 96
MOMENTS = [*range(13), *range(14, 61, 2)]  # the frames after them look at the finished network


def features_by_epoch(train: ImageSet, epochs: int, moments: list[int]) -> list[torch.Tensor]:
    """Penultimate features ``[N, D]`` at each of ``moments``."""
    probes = {"features": lambda model: activations.penultimate(model, train.images)}
    options = {"epochs": epochs, "probes": probes, "probe_at": moments}
    model = models.build("cnn", train)
    return list(training.fit(model, train, batch_size=64, **options).history["features"])


def three_limits(train: ImageSet) -> None:
    """Three speed limits before, during and after training, in the plane of their means."""
    limits = dataclasses.replace(train.subset(train.labels < 3), classes=train.classes[:3])
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    titles = ("before training", "after 6 epochs", "after 40 epochs")
    names = [name.split()[-1] for name in limits.classes]
    seen = features_by_epoch(limits, 40, [0, 6, 40])
    for ax, title, hidden in zip(axes, titles, seen, strict=True):
        points, means = collapse.class_axes(hidden, limits.labels, 2)
        points, means = collapse.aligned(points, means, geometry.simplex_etf(3, 2))
        collapse.plane(points, limits.labels, means, title, ax)
        for mean, name in zip(means, names, strict=True):
            place = 0.36 * ax.get_xlim()[1] * mean / mean.norm() + mean
            ax.text(*place, name, ha="center", va="center", fontsize=11, weight="bold")
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    figure.savefig(HERE / "three_limits.png", dpi=80)
    plt.close(figure)


def simplex(train: ImageSet) -> None:
    """Ten classes in the nine dimensions of their means, turning while the network trains."""
    icons = torch.stack([face(k.shape, k.colours[0], k.symbol) for k in KINDS])
    icons[:, :3] /= icons[:, 3:].clamp_min(1e-3)  # a face comes times its opacity
    corners = geometry.simplex_etf(train.num_classes, train.num_classes - 1)
    clouds = []
    for hidden in features_by_epoch(train, MOMENTS[-1], MOMENTS):
        points, means = collapse.class_axes(hidden, train.labels, train.num_classes - 1)
        clouds.append(collapse.aligned(points, means, corners))
    pictures = []
    for i in range(FRAMES):
        points, means = clouds[min(i, len(clouds) - 1)]
        turned = grand_tour(torch.cat([means, points]), FRAMES)[i]
        means, points = turned[: len(means)], turned[len(means) :]
        title = f"epoch {MOMENTS[min(i, len(MOMENTS) - 1)]}"
        ax = shadow(points, train.labels, means, icons.clamp(0, 1), title)
        pictures.append(_picture(ax.figure))
    first, *rest = pictures
    options = {"append_images": rest, "duration": 90, "loop": 0, "optimize": True}
    first.save(HERE / "simplex.gif", save_all=True, **options)


def _picture(figure: plt.Figure) -> Image.Image:
    """The figure as an image of few colours."""
    file = io.BytesIO()
    figure.savefig(file, dpi=80, format="png")
    plt.close(figure)
    return Image.open(file).convert("RGB").quantize(96, dither=Image.Dither.NONE)


if __name__ == "__main__":
    style.apply()
    signs, _ = data.load("signs", n_train=2000)
    three_limits(signs)
    simplex(signs.subset(torch.arange(0, len(signs), 2)))
