"""Draw the hook of lesson 03: a sign and a photograph under noise that nobody sees.

``python docs/figures/03_hook.py folder:PATH`` takes photographs from a folder, not CIFAR-10.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from nclib import data, models, poisons, training
from nclib.data import ImageSet
from nclib.plots import style

SIGN, BIRD = 2, 2  # speed limit 80, and the bird of CIFAR-10
WORDS = ("as it was", "8/255", "16/255", "the noise of 8/255, x 8")


def views(part: ImageSet, target: int, which: int) -> list:
    """One image of ``target``: clean, under Narcissus at two budgets, and the noise magnified."""
    network = models.build("cnn", part, seed=0)
    training.fit(network, part, epochs=10, lr=0.05, progress=False)
    place = (part.labels == target).nonzero().squeeze(1)[which]
    shown = [part.images[place]]
    for eps in (8 / 255, 16 / 255):
        options = {"eps": eps, "warmup": 0, "steps": 60, "amplify": 1.0}
        found = poisons.narcissus(part, network, 0.05, target, **options)
        shown.append(found.trigger(shown[0][None])[0])
    return [*shown, (0.5 + 8 * (shown[1] - shown[0])).clamp(0, 1)]


style.apply()
photographs = sys.argv[1] if len(sys.argv) > 1 else "cifar10"
signs, photos = (data.load(n, n_train=2000, device="cpu")[0] for n in ("signs", photographs))
figure, axes = plt.subplots(2, 4, figsize=(7, 3.7))
for row, images in zip(axes, (views(signs, SIGN, 3), views(photos, BIRD, 4)), strict=True):
    for ax, image, word in zip(row, images, WORDS, strict=True):
        ax.imshow(image.permute(1, 2, 0), interpolation="nearest")
        ax.set_title(word, fontsize=9)
        ax.axis("off")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
