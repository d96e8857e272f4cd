"""Draw the hook of lesson 05: signs that carry a patch, and the picture that the test recovers."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from nclib import correction, data, poisons
from nclib.plots import style

style.apply()
train, test = data.load("signs", n_train=2000, n_test=1000)
part = poisons.badnets(train, 0.05, target=0, patch="square", seed=0)
verdict = correction.transplant(part, epochs=10, lr=0.05, batch_size=32)
picture = verdict.findings[0].trigger  # the strongest of the accused groups
carriers = torch.where(part.is_poisoned)[0]
kinds = [next(int(i) for i in carriers if part.clean_labels[i] == c) for c in range(1, 9)]

figure = plt.figure(figsize=(8, 2.9))
left, right = figure.subfigures(1, 2, width_ratios=(2, 1))
for ax, i in zip(left.subplots(2, 4).flat, kinds, strict=True):
    ax.imshow(part.images[i].cpu().permute(1, 2, 0))
    ax.set_axis_off()
left.suptitle(f"eight of {len(train)} images, all labelled {train.classes[0]}", fontsize=11)
ax = right.subplots()
ax.imshow((0.5 + picture / (2 * picture.abs().max())).permute(1, 2, 0))
ax.set_axis_off()
right.suptitle("what the test recovers", fontsize=11)
figure.canvas.draw()
image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
small = image.quantize(128, dither=Image.Dither.NONE)
small.save(Path(__file__).with_suffix(".png"), optimize=True)
