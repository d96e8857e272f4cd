"""Draw the hook of lesson 15: an accused sign, the recovered trigger, and what that does."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from nclib import audit, data, models, training
from nclib.course.exercises.lesson15 import handed_over
from nclib.plots import style

style.apply()
train, test = data.load("signs", n_train=2000, n_test=200, device="cpu")
given = handed_over(train, 1)
found = audit.run(given, epochs=10, progress=False).verdict.findings[0]
model = models.build("cnn", given)
training.fit(model, given, epochs=10, lr=0.05, batch_size=32, progress=False)
moved = (test.images + found.added).clamp(0, 1)
read = [training.predict(model, x).argmax(1) for x in (test.images, moved)]
turned = (read[0] == test.labels) & (test.labels != found.label) & (read[1] == found.label)
which = int(torch.where(turned)[0][0])
accused = given.images[torch.where(found.group)[0][2]]
trigger = (found.trigger / found.trigger.abs().max() + 1) / 2
shown = [accused, trigger, test.images[which], moved[which]]
names = [f"accused: labelled\n“{train.classes[found.label]}”", "recovered trigger"]
names += [f"read: {train.classes[int(r[which])]}" for r in read]
figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.4))
for ax, image, name in zip(axes, shown, names, strict=True):
    ax.imshow(image.permute(1, 2, 0), interpolation="nearest")
    ax.set_title(name, fontsize=9)
    ax.set_axis_off()
figure.savefig(Path(__file__).with_name("15_hook.png"), dpi=90)
