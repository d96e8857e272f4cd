"""Draw the contact sheet of the road signs: finer, as the lessons see them, and with a sticker."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from nclib import data, poisons
from nclib.plots import style

PER_CLASS = 5

style.apply()
with tempfile.TemporaryDirectory() as root:
    load = {"n_train": 10, "n_test": 10 * PER_CLASS, "seed": 5, "root": root, "device": "cpu"}
    fine, coarse = (data.load("signs", size=size, **load)[1] for size in (96, 32))
shown = [(coarse.labels == c).nonzero()[:PER_CLASS, 0] for c in range(coarse.num_classes)]
rows = torch.stack(shown, 1)  # [PER_CLASS, classes]
wearing = poisons.sticker(coarse, rate=0.1).triggered(coarse)
sheet = [fine.images[rows[0]], *coarse.images[rows], wearing[rows[-1]]]

figure, axes = plt.subplots(len(sheet), coarse.num_classes, figsize=(10, 7.3))
for line, images in zip(axes, sheet, strict=True):
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image.permute(1, 2, 0), interpolation="nearest")
        ax.set_axis_off()
for ax, name in zip(axes[0], coarse.classes, strict=True):
    ax.set_title(name, fontsize=8.5, pad=4)
figure.get_layout_engine().set(w_pad=0.012, h_pad=0.012, wspace=0, hspace=0)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
