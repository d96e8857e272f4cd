"""Draw the hook of lesson 11: a printed sign, and what three squeezers leave of the accuracy."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from nclib import attacks, data, models, training
from nclib.defenses.squeezing import Squeezed, bit_depth
from nclib.plots import style

EPS = 0.08

style.apply()
train, test = data.load("signs", n_train=1000, n_test=400, size=24, difficulty=0.5, device="cpu")
train, test = (replace(part, images=bit_depth(part.images, 1)) for part in (train, test))
test = test.subset(torch.arange(100))
net = models.build("cnn", train)
training.fit(net, train, epochs=12, lr=0.1, batch_size=64, seed=0, progress=False)


def left(bits: int | None) -> float:
    """Accuracy under an attacker who knows the squeezer."""
    front = net if bits is None else Squeezed(net, partial(bit_depth, bits=bits))
    seen = net if bits is None else attacks.bpda(net, partial(bit_depth, bits=bits))
    moved = attacks.margin_pgd(seen, test.images, test.labels, EPS, EPS / 4, steps=15)
    return training.accuracy(front, test, moved)


figure, (sign, ax) = style.plt.subplots(1, 2, figsize=(6.4, 2.6), width_ratios=(1, 1.5))
sign.imshow(test.images[1].permute(1, 2, 0))
sign.set_axis_off()
sign.set_title("a sign in eight colours")
names = ("no squeezer", "3 bits\n(8 levels)", "2 bits\n(4 levels)")
bars = ax.bar(
    names, [left(bits) for bits in (None, 3, 2)], color=(style.NEUTRAL, style.POISON, style.CLEAN)
)
ax.bar_label(bars, fmt="{:.0%}", padding=3)
ax.set_ylim(0, 1.15)
style.label(ax, f"signs read under attack, eps {EPS}", "", "share")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
