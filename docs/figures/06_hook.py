"""Draw the hook of lesson 06: a stop sign and a 7, what is changed, and what is read then."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from nclib import attacks, data, models, training
from nclib.plots import style

ROWS = (("signs", 4000, 3, 2, 8 / 255), ("digits", None, 7, 1, 0.2))

style.apply()
figure, axes = plt.subplots(2, 3, figsize=(6.4, 5.0))
with tempfile.TemporaryDirectory() as root:
    sets = [data.load(name, n_train=n, root=root, device="cpu") for name, n, *_ in ROWS]
for line, (name, n, source, target, eps), (train, test) in zip(axes, ROWS, sets, strict=True):
    train = train if n is None else train.subset(torch.arange(n // 2))
    model = models.build("cnn", train)
    training.fit(model, train, epochs=10, lr=0.05, batch_size=64)
    part = test.subset(test.labels == source)
    goal = torch.full_like(part.labels, target)
    options = {"steps": 20, "random_start": False, "targets": goal}
    changed = attacks.pgd(model, part.images, part.labels, eps, **options)
    before, after = (training.predict(model, i).softmax(1) for i in (part.images, changed))
    # a bright sign that is read with certainty, before and after
    bright = (part.images.mean((1, 2, 3)) > part.images.mean()).float()
    which = int((torch.minimum(before[:, source], after[:, target]) * bright).argmax())
    change = changed[which] - part.images[which]
    loud = 0.5 + change * (15 if name == "signs" else 1)
    shown = (part.images[which], loud, changed[which])
    factor = ", 15 times" if name == "signs" else ""
    words = [(before[which], style.CLEAN), f"the change{factor}", (after[which], style.POISON)]
    for ax, image, said in zip(line, shown, words, strict=True):
        pixels = image.clamp(0, 1).permute(1, 2, 0)
        ax.imshow(pixels.squeeze(-1) if len(image) == 1 else pixels, vmin=0, vmax=1)
        ax.set_axis_off()
        text, colour = said, "0.3"
        if not isinstance(said, str):
            text = f"{train.classes[int(said[0].argmax())]}, {float(said[0].max()):.0%}"
            colour = said[1]
        ax.text(0.5, -0.04, text, transform=ax.transAxes, ha="center", va="top", color=colour)
figure.canvas.draw()
picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
small = picture.quantize(128, dither=Image.Dither.NONE)
small.save(Path(__file__).with_suffix(".png"), optimize=True)
