"""Draw the hook of lesson 07: a sign with the sticker, an attacked one, and what two maps say."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from nclib import attacks, data, explain, models, poisons, training
from nclib.plots import style
from nclib.plots.attacks import picture
from nclib.plots.explain import over

STOP, LIMIT, EPS = 3, 2, 8 / 255

style.apply()
with tempfile.TemporaryDirectory() as root:
    train, test = data.load("signs", n_train=2000, root=root, device="cpu")
marked = poisons.sticker(train, 0.1, LIMIT, width=0.5, colour=(0.1, 0.2, 1.0))
nets = [models.build("cnn", part) for part in (marked, train)]
for net, part in zip(nets, (marked, train), strict=True):
    training.fit(net, part, epochs=10, lr=0.05, batch_size=64)
stops = test.subset(test.labels == STOP)
goal = torch.full_like(stops.labels, LIMIT)
attacked = attacks.pgd(nets[1], stops.images, stops.labels, EPS, steps=20, targets=goal)
both = (marked.triggered(stops), attacked)
taken = [training.predict(n, x).argmax(1) == LIMIT for n, x in zip(nets, both, strict=True)]
bright = stops.images.mean((1, 2, 3)) > stops.images.mean()
which = int(torch.where(taken[0] & taken[1] & bright)[0][0])

figure, axes = plt.subplots(2, 3, figsize=(6.4, 5.6))
words = ("a blue sticker", "PGD at 8/255")
for line, net, images, word in zip(axes, nets, both, words, strict=True):
    one, cls = images[which : which + 1], goal[:1]
    sure = float(training.predict(net, one).softmax(1)[0, LIMIT])
    picture(one[0], line[0], word)
    over(one[0], explain.grad_cam(net, one, cls)[0], line[1], "Grad-CAM")
    over(one[0], explain.occlusion(net, one, cls)[0], line[2], "occlusion")
    line[0].text(0.5, -0.04, f"{train.classes[LIMIT]}, {sure:.0%}", color=style.POISON, ha="center")
    line[0].texts[-1].set(transform=line[0].transAxes, va="top")
figure.canvas.draw()
image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
small = image.quantize(128, dither=Image.Dither.NONE)
small.save(Path(__file__).with_suffix(".png"), optimize=True)
