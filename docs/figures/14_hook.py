"""Draw the hook of lesson 14: signs of combinations that were held out, and their captions."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from nclib import representation
from nclib.course import captions
from nclib.data.signs import faces
from nclib.plots import style

style.apply()
train, test, held = captions.split(0)
model = representation.paired(train)
new = test.subset(torch.isin(test.labels, held))
real = {(k.shape, colour, k.symbol) for k in faces.KINDS for colour in k.colours}
kinds = captions.COMBINATIONS.tolist()
names = [(captions.SHAPES[a], captions.COLOURS[b], captions.SYMBOLS[c]) for a, b, c in kinds]
new = new.subset(torch.tensor([names[int(c)] not in real for c in new.labels]))
named = captions.name(model, new.images, held)
good = torch.where((named == new.labels) & (new.factors.light > 0.9))[0]
first = [int(good[0])]  # three that are right, each of another shape, and one that is wrong
for i in good.tolist():
    if len(first) < 3 and new.factors.shape[i] not in new.factors.shape[first]:
        first.append(i)
shown = [*first, int(torch.where(named != new.labels)[0][0])]
figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.3))
for ax, i in zip(axes, shown, strict=True):
    ax.imshow(new.images[i].permute(1, 2, 0), interpolation="nearest")
    said = captions.CAPTIONS[int(named[i])].replace(" that", "\nthat").replace(" with", "\nwith")
    right = bool(named[i] == new.labels[i])
    ax.set_xlabel(f"“{said}”", fontsize=9, color=style.CLEAN if right else style.POISON)
    ax.set_xticks([])
    ax.set_yticks([])
figure.savefig(Path(__file__).with_name("14_hook.png"), dpi=90)
