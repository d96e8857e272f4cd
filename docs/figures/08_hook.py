"""Draw the hook of lesson 08 from the two days that the lesson itself runs."""

from pathlib import Path

import nbformat
import torch

from nclib import training
from nclib.plots import style

ROOT = Path(__file__).resolve().parents[2]
book = nbformat.read(ROOT / "notebooks/08_adversarial_inputs_and_the_monitor.ipynb", 4)
lesson: dict = {}
for cell in book.cells:
    if cell.cell_type == "code" and "google.colab" not in cell.source:
        exec(cell.source, lesson)

arriving, model = lesson["arriving"], lesson["networks"][lesson["SEED"]]
half = arriving.labels[arriving.labels < arriving.num_classes // 2]
special = {h: (x, half if h == 20 else arriving.labels) for h, x in lesson["special"].items()}
special |= {h: (x, arriving.labels) for h, x in lesson["tomorrow"].items()}
misread = []
for h in range(48):
    images, labels = special.get(h, (arriving.images, arriving.labels))
    chosen = torch.randperm(max(60, len(images)), generator=torch.Generator().manual_seed(h))[:60]
    told = training.predict(model, images[chosen].to(arriving.device)).argmax(1)
    misread.append(float((told != labels[chosen]).float().mean()))

style.apply()
figure, axes = style.plt.subplots(2, 1, figsize=(7, 3.2), sharex=True)
rates = [w["rates"]["any layer"] for w in lesson["restarted"].windows]
for ax, values, colour, y in (
    (axes[0], misread, style.CLEAN, "misread"),
    (axes[1], rates, style.POISON, "alarm rate"),
):
    ax.bar(range(48), values, color=colour)
    ax.set(ylim=(0, 1.08), ylabel=y)
    for start in (10, 34):
        ax.axvspan(start - 0.5, start + 1.5, color=style.NEUTRAL, alpha=0.25, lw=0)
axes[0].set_title("Two campaigns, one alarm (20 o'clock: a failed camera)")
axes[1].set_xlabel("hour")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
