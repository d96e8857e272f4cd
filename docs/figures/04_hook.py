"""Draw the hook of lesson 04: one detector on raw pixels, on an untrained and a trained network."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from torch.nn.functional import adaptive_avg_pool2d

from nclib import activations, data, detection, models, poisons, training
from nclib.plots import style

SEEDS = (0, 1, 2)
BARS = ("raw pixels", "untrained network", "trained network")


def found(name: str, size: int | None, epochs: int, seed: int) -> list[float]:
    """AUROC of the robust distance for a patch, among the images with the target's label."""
    part = poisons.badnets(data.load(name, n_train=size)[0], 0.05, target=0, seed=seed)
    network = models.build("cnn", part, seed=seed)
    before = activations.penultimate(network, part.images)
    training.fit(network, part, epochs=epochs, lr=0.05, seed=seed, progress=False)
    after = activations.penultimate(network, part.images)
    pixels = adaptive_avg_pool2d(part.images, 8).flatten(1)
    own = (part.labels == part.target).cpu()
    scores = [detection.robust_distance(h, part.labels) for h in (pixels, before, after)]
    return [detection.auroc(score[own], part.is_poisoned.cpu()[own]) for score in scores]


style.apply()
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True)
for ax, title, setting in zip(
    axes, ("digits", "road signs"), (("digits", None, 12), ("signs", 2000, 12)), strict=True
):
    each = np.array([found(*setting, seed) for seed in SEEDS])
    bars = ax.bar(BARS, each.mean(0), color=[style.NEUTRAL, style.NEUTRAL, style.POISON])
    ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=5)
    for x, values in enumerate(each.T):
        ax.plot([x] * len(values), values, "k.", ms=4)
    ax.axhline(0.5, color="0.4", ls=":", lw=1)
    ax.set_ylim(0, 1.18)
    ax.tick_params(axis="x", labelsize=8)
    style.label(ax, f"A patch on 5% of the {title}", "", "AUROC" if ax is axes[0] else "")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
