"""Draw the README's figure: three classes of digits close on the corners of a simplex."""

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from nclib import activations, data, models, training
from nclib.plots import collapse, style

style.apply()
train, _ = data.load("digits")
train = train.subset(train.labels < 3)
train = dataclasses.replace(train, classes=train.classes[:3])
model = models.build("cnn", train)


def features(model):
    return activations.features(model, train.images, ["penultimate"])["penultimate"]


probes = {"features": features}
run = training.fit(model, train, epochs=60, probes=probes, probe_at=[0, 2, 60], cache=False)

angles = torch.tensor([90.0, 210.0, 330.0], dtype=torch.float64).deg2rad()
corners = torch.stack([angles.cos(), angles.sin()], 1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
titles = ("before training", "after 2 epochs", "after 60 epochs")
for ax, title, hidden in zip(axes, titles, run.history["features"], strict=True):
    points, means = collapse.class_axes(hidden, train.labels, 2)
    points, means = collapse.aligned(points, means, corners)
    collapse.plane(points, train.labels, means, title, ax)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110, bbox_inches="tight")
