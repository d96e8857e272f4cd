"""The board as heat maps and tables: means over seeds with 95% Student t intervals."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from nclib import places
from nclib.plots import scoreboard as draw
from nclib.poisons.metrics import interval
from nclib.scoreboard.grids import ADVERSARIAL_EPS, EARLY, KINDS, POISONS, SIZES, Size
from nclib.scoreboard.store import RESULTS, ROOT

BEGIN, END = "<!-- scoreboard: written by nclib.scoreboard report -->\n", "<!-- /scoreboard -->"
CELL = ["dataset", "poison", "rate", "method"]
METRICS = {
    "auroc": "AUROC: how well the score ranks poison above clean samples",
    "accuracy": "Accuracy on clean test images, after the method",
    "asr": "Attack success rate after the method (lower is better)",
}


def read(path: str | Path = RESULTS) -> pd.DataFrame:
    """The rows of the board. Raises ``ValueError`` where there is no such file, or no row in it."""
    if not Path(path).exists():
        raise ValueError(f"path: {path} is not there; run a grid first")
    rows = pd.read_csv(path)
    if rows.empty:
        raise ValueError(f"path: {path} has no rows yet; run a grid first")
    return rows


def summary(rows: pd.DataFrame, by: list[str] = CELL) -> pd.DataFrame:
    """Mean and 95% t interval over the seeds of each metric: long, one row per cell and metric.

    Columns: those of ``by``, "metric", "mean", "low", "high", "seeds". Where ``by`` leaves cells
    together, they are averaged within a seed first. One seed gives a mean without an interval.
    """
    found = []
    for metric in METRICS:
        known = rows.dropna(subset=[metric])
        for key, group in known.groupby(by, sort=False):
            values = group.groupby("seed")[metric].mean().to_numpy()
            mean, low, high = (
                interval(values) if len(values) > 1 else (values[0], float("nan"), float("nan"))
            )
            place = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            found.append(
                place
                | {"metric": metric, "mean": mean, "low": low, "high": high, "seeds": len(values)}
            )
    return pd.DataFrame(found, columns=[*by, "metric", "mean", "low", "high", "seeds"])


def matrix(table: pd.DataFrame, dataset: str, metric: str, value: str = "mean") -> pd.DataFrame:
    """Methods x poisons of one metric; in the order of ``KINDS`` and ``POISONS``."""
    part = table[(table.dataset == dataset) & (table.metric == metric)].copy()
    part["column"] = [title(p, r) for p, r in zip(part.poison, part.rate, strict=True)]
    wide = part.pivot(index="method", columns="column", values=value)
    wide = wide.reindex([m for m in KINDS if m in wide.index])
    known = [title(poison, rate) for poison, rates in POISONS for rate in rates]
    return wide[[*(c for c in known if c in wide), *(c for c in wide if c not in known)]]


def title(poison: str, rate: float) -> str:
    """The name of a column: "badnets 5%"."""
    return f"{poison.replace('_', '-')} {100 * rate:g}%" if rate else poison


def write(results: str | Path = RESULTS, root: str | Path = ROOT) -> list[Path]:
    """Draw the heat maps, write ``docs/scoreboard.md`` and the README's table; return the paths."""
    rows, root = read(results), Path(root)
    table, written = summary(rows), []
    for dataset in rows.dataset.unique():
        path = root / "docs" / "figures" / f"scoreboard_{dataset}.png"
        figure = draw.board({m: matrix(table, dataset, m) for m in METRICS}, dataset)
        with places.whole(path) as draft:
            figure.savefig(draft)
        plt.close(figure)
        written.append(path)
    page = root / "docs" / "scoreboard.md"
    with places.whole(page) as draft:
        draft.write_text(document(rows, table), encoding="utf-8")
    readme = root / "README.md"
    if readme.exists() and BEGIN in readme.read_text(encoding="utf-8"):
        before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
        text = before + BEGIN + short(rows) + END + rest.split(END, 1)[1]
        with places.whole(readme) as draft:
            draft.write_text(text, encoding="utf-8")
        written.append(readme)
    return [*written, page]


HEAD = """# The scoreboard

Written by `python -m nclib scoreboard report` from `data/results/scoreboard.csv`. Each cell is the
mean over the seeds and, in brackets, the 95% Student t interval of that mean, cut to 0 and 1. A
seed changes the images, the poison, its target class and the start of every training. The network
is the small CNN.

- *Controls.* `none` leaves the set as it is. `random` removes as many samples as a detector does.
  `oracle` removes exactly the poison.
- *Detectors* score the features after {early} epochs, at all layers but the first; the mean of the
  robust z scores counts. They remove 1.5 times the number of poisons, **which nobody knows in
  practice**: the rows compare rankings. A clean set is cut as if 5% of it were poisoned.
- *Correctors.* `consensus` and `relabel` decide for themselves how much to change. `fine_tune` and
  `etf_head` get 5% clean images, taken from the test set.
- *Defences.* `squeezing`: one bit a pixel. `partition`: a vote of ten models on disjoint parts.
  `adversarial`: single-step adversarial training (Wong et al. 2020) with eps {eps}.
- *Poisons.* `sig` is the variant with relabelled samples, and `wanet` has no noise mode.
  `clean-label` hardens the bases with an eps of .3 on digits and of 16/255 elsewhere, and doubles
  the trigger at test time.

To measure a cell again: delete its row, then `python -m nclib scoreboard run digits` (or `mnist`).
"""


def document(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The page of the readers' site."""
    parts = [HEAD.format(early=EARLY, eps=ADVERSARIAL_EPS)]
    for dataset in rows.dataset.unique():
        size = SIZES.get(dataset, Size(None, None, 0))
        shape = f" of {size.pixels} x {size.pixels} pixels" if size.pixels else ""
        parts.append(
            f"## {dataset}\n\n{size.train or 'All'} training images{shape}, "
            f"{size.epochs or '?'} epochs, {_seeds(rows[rows.dataset == dataset])} seeds."
            f"{_failures(table, dataset)}\n"
        )
        parts.append(
            f"![Heat maps of the board on {dataset}: AUROC, accuracy and attack success, methods "
            f"by poisons; the tables below hold the same numbers]"
            f"(figures/scoreboard_{dataset}.png)\n"
        )
        for metric, meaning in METRICS.items():
            parts.append(f"### {dataset}: {meaning}\n\n{_markdown(table, dataset, metric)}")
    return "\n".join(parts)


def _failures(table: pd.DataFrame, dataset: str) -> str:
    """A sentence on the attacks that fail by themselves, or nothing."""
    none = table[(table.dataset == dataset) & (table.method == "none") & (table.metric == "asr")]
    weak = [title(r["poison"], r["rate"]) for r in none.to_dict("records") if r["mean"] < 0.1]
    if not weak:
        return ""
    names = " and ".join([", ".join(weak[:-1]), weak[-1]] if weak[1:] else weak)
    return f" Without any method the success of {names} is below .1: those columns compare nothing."


def _seeds(rows: pd.DataFrame) -> str:
    counts = rows.groupby(CELL).seed.nunique()
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _markdown(table: pd.DataFrame, dataset: str, metric: str) -> str:
    mean, low, high = (matrix(table, dataset, metric, k) for k in ("mean", "low", "high"))
    lines = _header(mean.columns)
    for method in mean.index:
        cells = [
            _cell(mean.at[method, c], low.at[method, c], high.at[method, c]) for c in mean.columns
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _header(columns: Collection[str]) -> list[str]:
    return ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]


def _cell(mean: Any, low: Any, high: Any) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.2f}" if pd.isna(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def short(rows: pd.DataFrame, dataset: str = "digits") -> str:
    """The README's table: per method accuracy on clean data and under flips, ASR over triggers."""
    rows = rows[rows.dataset == dataset]
    seeds = rows.groupby(["poison", "rate"]).seed.transform("nunique")
    rows = rows[seeds == seeds.max()]  # a mean over backdoors needs all of them at every seed
    backdoors = rows.dropna(subset=["asr"])
    columns = {
        "accuracy, clean set": (rows[rows.poison == "clean"], "accuracy"),
        "accuracy, 20% flips": (rows[rows.poison == "flip"], "accuracy"),
        f"attack success, {backdoors.groupby(['poison', 'rate']).ngroups} backdoors": (
            backdoors,
            "asr",
        ),
    }
    found = {
        name: summary(part, ["method"]).query("metric == @metric").set_index("method")
        for name, (part, metric) in columns.items()
    }
    lines = _header(columns)
    for method in [m for m in KINDS if m in set(rows.method)]:
        cells = [
            _cell(*part.loc[method, ["mean", "low", "high"]]) if method in part.index else ""
            for part in found.values()
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
