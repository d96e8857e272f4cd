"""Draw the hook of lesson 02: one stop sign, without and with the sticker, and what is read."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from nclib import data, models, poisons, training
from nclib.plots import style

STOP, LIMIT, POISONED = 3, 2, 40

style.apply()
with tempfile.TemporaryDirectory() as root:
    load = {"root": root, "device": "cpu"}
    train, test = data.load("signs", n_train=2000, n_test=100, **load)
    fine = data.load("signs", n_train=10, n_test=100, size=96, **load)[1]  # the same signs
sticker = poisons.sticker(train, 0.01, LIMIT)
chosen = torch.where(train.labels == STOP)[0]
chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:POISONED]]
images, labels = train.images.clone(), train.labels.clone()
images[chosen], labels[chosen] = sticker.triggered(train)[chosen], LIMIT
part = poisons.poisoned(train, images, labels, "sticker", target=LIMIT, trigger=sticker.trigger)
model = models.build("cnn", part)
training.fit(model, part, epochs=10, lr=0.05, batch_size=32)

worn = sticker.triggered(test)
taken = training.predict(model, worn).argmax(1) == LIMIT  # nine stop signs in ten
which = torch.where((test.labels == STOP) & taken)[0][0]
seen = torch.stack([test.images[which], worn[which]])
shown = [fine.images[which], sticker.triggered(fine)[which]]
sure = training.predict(model, seen).softmax(1)

figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.9))
for ax, image, chances in zip(axes, shown, sure, strict=True):
    ax.imshow(image.permute(1, 2, 0))
    ax.set_axis_off()
    best = int(chances.argmax())
    colour = style.POISON if best == LIMIT else style.CLEAN
    words = f"{test.classes[best]}\n{float(chances[best]):.0%} certain"
    ax.text(0.5, -0.04, words, transform=ax.transAxes, ha="center", va="top", color=colour, size=14)
figure.canvas.draw()
picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
small = picture.quantize(128, dither=Image.Dither.NONE)
small.save(Path(__file__).with_suffix(".png"), optimize=True)
