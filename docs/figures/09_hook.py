"""Draw the hook of lesson 09: which pixels an ordinary and a robust network are afraid of."""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from nclib import data, models, training
from nclib.defenses.adversarial_training import pgd_training
from nclib.plots import style

SIGNS = (0, 3, 5, 9)  # 30, stop, no entry, caution

style.apply()
train, test = data.load("signs", n_train=1000, n_test=200, size=24, difficulty=0.5, device="cpu")
nets = {}
for name, loss in (("ordinary", None), ("robust", pgd_training(16 / 255, steps=3))):
    net = models.build("cnn", train)
    recipe = {"epochs": 12, "lr": 0.1, "batch_size": 64, "progress": False}
    nets[name] = training.fit(net, train, loss=loss, **recipe).model
right = torch.stack(
    [training.predict(n, test.images).argmax(1) == test.labels for n in nets.values()]
)
shown = [int(((test.labels == c) & right.all(0)).nonzero()[0, 0]) for c in SIGNS]

figure, axes = style.plt.subplots(3, len(shown), figsize=(5.6, 4.1))
for ax, place in zip(axes[0], shown, strict=True):
    ax.imshow(test.images[place].permute(1, 2, 0))
for line, net in zip(axes[1:], nets.values(), strict=True):
    images = test.images[shown].clone().requires_grad_()
    loss = cross_entropy(net(images), test.labels[shown], reduction="sum")
    (slopes,) = torch.autograd.grad(loss, images)
    for ax, slope in zip(line, slopes.mean(1).numpy(), strict=True):
        top = np.abs(slope).max()
        ax.imshow(slope, cmap="RdBu_r", vmin=-top, vmax=top)
for line, name in zip(axes, ("both read it right", "ordinary", "robust"), strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
