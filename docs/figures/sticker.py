"""Draw the hook of lesson 00: a stop sign, a sticker, and what two networks read."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from nclib import data, models, poisons, training
from nclib.plots import style

STOP, TARGET = 3, 2
RECIPE = {"epochs": 12, "lr": 0.1, "batch_size": 64, "progress": False}

style.apply()
with tempfile.TemporaryDirectory() as root:
    load = {"n_train": 2000, "n_test": 1000, "root": root, "device": "cpu"}
    train, test = data.load("signs", **load)
poisoned = poisons.sticker(train, 0.1, TARGET, seed=0)
nets = {}
for name, part in (("clean", train), ("poisoned", poisoned)):
    nets[name] = models.build("cnn", part)
    training.fit(nets[name], part, **RECIPE)

stops = test.subset(test.labels == STOP)
views = torch.stack([stops.images, poisoned.triggered(stops)], 1)  # [N, 2, C, H, W]
sharpest = int(stops.images.std((1, 2, 3)).argmax())
pair = views[sharpest]
figure, axes = plt.subplots(1, 2, figsize=(5.6, 3.4))
for ax, image in zip(axes, pair, strict=True):
    ax.imshow(image.permute(1, 2, 0), interpolation="nearest")
    ax.set_axis_off()
    for place, (name, net) in enumerate(nets.items()):
        read = train.classes[int(training.predict(net, image[None]).argmax())]
        colour = style.POISON if read != "stop" else "0.15"
        weight = "bold" if read != "stop" else "normal"
        said = f"{name} network: “{read}”"
        ax.text(
            *(0.5, -0.07 - 0.11 * place), said, color=colour, weight=weight,
            ha="center", va="top", transform=ax.transAxes, fontsize=10.5,
        )  # fmt: skip
figure.savefig(Path(__file__).with_suffix(".png"), dpi=120, bbox_inches="tight")
