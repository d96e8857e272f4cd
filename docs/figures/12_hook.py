"""Draw the hook of lesson 12: attacks on a smoothed network, and the floor under all of them."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

from nclib import attacks, data, models, training
from nclib.defenses.smoothing import Smooth, gaussian
from nclib.plots import style

SIGMA, EPS = 0.25, (0.0, 0.15, 0.3, 0.45, 0.6)


class Noisy(nn.Module):
    """The network under fresh noise at every pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.draw = network, torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images + SIGMA * torch.randn(images.shape, generator=self.draw))


train, test = data.load("signs", n_train=1500, n_test=60, device="cpu")
model = models.build("cnn", train)
training.fit(model, train, epochs=12, lr=0.05, augment=gaussian(SIGMA), progress=False)
smooth = Smooth(model, train.num_classes, SIGMA)
floor = smooth.certify(test.images, n=1000, progress=False).accuracy(test.labels, EPS).tolist()


def left(steps: int, samples: int) -> list[float]:
    """Accuracy of the vote (it never abstains) under an attack, over the length of the change."""
    shares = []
    for eps in EPS:
        moved = test.images
        if eps and steps:
            seen = attacks.eot(Noisy(model), samples) if samples else model
            moved = attacks.pgd(seen, moved, test.labels, eps, steps=steps, norm="L2")
        elif eps:
            noise = torch.randn(moved.shape, generator=torch.Generator().manual_seed(1))
            moved = moved + eps * noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
        shares.append(
            float((smooth.predict(moved, n=200, alpha=0.999) == test.labels).float().mean())
        )
    return shares


style.apply()
figure, ax = plt.subplots(figsize=(6.4, 3.4))
tried = {
    "random noise": (0, 0),
    "one step": (1, 1),
    "10 steps": (10, 1),
    "20 steps, noise averaged": (20, 4),
}
place = 1.0  # of the name before, which is higher
for shade, (name, setting) in zip((0.3, 0.5, 0.75, 1), tried.items(), strict=True):
    curve = left(*setting)
    ax.plot(EPS, curve, "o-", color=style.POISON, alpha=shade, ms=4)
    place = min(place - 0.06, curve[-1])
    ax.text(EPS[-1] + 0.015, place, name, va="center", size=9)
    print(name, curve)
print("certified", floor)
ax.plot(EPS, floor, "--", color=style.CLEAN, lw=2)
ax.fill_between(EPS, 0, floor, color=style.CLEAN, alpha=0.12)
ax.text(0.02, 0.12, "no attack, known or unknown,\ngets below this", color=style.CLEAN, size=9)
ax.set(ylim=(0, 1), xlim=(0, 0.86))
style.label(
    ax, "Four attackers, each better than the last", "length of the change (L2)", "accuracy"
)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
