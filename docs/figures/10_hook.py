"""Draw the hook of lesson 10 with the lesson's own cells: one attack, computed in three ways."""

from pathlib import Path

import nbformat
import numpy as np

from nclib import attacks
from nclib.plots import style

ROOT = Path(__file__).resolve().parents[2]
lesson: dict = {}
for cell in nbformat.read(ROOT / "notebooks/10_gradient_masking.ipynb", 4).cells:
    if cell.cell_type == "code" and "google.colab" not in cell.source:
        exec(cell.source, lesson)
    if "hardened = {" in cell.source:
        break

accuracy, climb, student = lesson["accuracy"], lesson["climb"], lesson["student"]
x, y, eps = lesson["x"], lesson["y"], lesson["EPS"]
nets = {"distilled": student, "trained on attacks": lesson["hardened"]["PGD training"]}
ways = {
    "PGD": lambda net: accuracy(net, climb(net, x, y, eps, attacks.cross_entropy)),
    "PGD, computed in float64": lesson["in_float64"],
    "PGD on the margin": lambda net: accuracy(net, climb(net, x, y, eps, attacks.margin)),
}
style.apply()
figure, ax = style.plt.subplots(figsize=(6.4, 2.8))
colours = (style.CLEAN, style.NEUTRAL, style.POISON)
for i, ((name, way), colour) in enumerate(zip(ways.items(), colours, strict=True)):
    heights = [way(net) for net in nets.values()]
    bars = ax.bar(np.arange(2) + 0.26 * (i - 1), heights, 0.24, color=colour, label=name)
    ax.bar_label(bars, fmt="%.2f", fontsize=9)
ax.set_xticks(range(2), nets)
ax.set_ylim(0, 1.05)
ax.legend(fontsize=8, ncols=3, loc="upper center")
style.label(ax, "The same attack, computed in three ways", "", "accuracy that is left")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
