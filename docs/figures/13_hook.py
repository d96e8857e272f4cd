"""Draw the hook of lesson 13: a poisoned sign as it is, under noise, and washed."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from experiments import purification as experiment
from nclib import data
from nclib.course import results
from nclib.defenses import purification as pure
from nclib.defenses import squeezing
from nclib.plots import style

SHOWN = {
    "none": "with the wave",
    "noise like the energy's": "under noise",
    "diffusion": "washed",
}

train, _ = data.load("signs", n_train=800, n_test=10, device="cpu")
bad = experiment.poisoned(train, "wave", 0)
which = int(torch.where(bad.is_poisoned & (train.labels == 3))[0][0])  # a stop sign
image = bad.images[which : which + 1]
diffusion = pure.purifier("diffusion", "signs", train.images)
noise = torch.Generator().manual_seed(0)
washes = {
    "none": lambda x: x,
    "noise like the energy's": lambda x: squeezing.noise(x, experiment.LIKE_ENERGY, noise),
    "diffusion": lambda x: pure.purify(x, diffusion, t=experiment.T, progress=False),
}
rows = results("purification")
rows = rows[rows.attack == "wave"].groupby("defence").success.mean()

style.apply()
figure, axes = plt.subplots(1, 3, figsize=(6.6, 3.2))
for ax, (name, words) in zip(axes, SHOWN.items(), strict=True):
    ax.imshow(washes[name](image)[0].permute(1, 2, 0).clamp(0, 1))
    ax.set_axis_off()
    ax.set_title(words)
    said = f"the attack works\non {rows[name]:.0%} of the images"
    ax.text(0.5, -0.04, said, transform=ax.transAxes, ha="center", va="top", size=11)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
