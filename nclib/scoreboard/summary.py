"""The rows of the board in numbers: means over seeds with 95% t intervals, and who stops what."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nclib.poisons.metrics import interval
from nclib.scoreboard.grids import KINDS, ON_SIGNS
from nclib.scoreboard.store import RESULTS

CELL = ["dataset", "poison", "rate", "method"]
STOPPED, COST, SUCCEEDS = 0.05, 0.01, 0.5  # success after, accuracy lost, success undefended
METRICS = {
    "auroc": "AUROC: how well the score ranks poison above clean samples",
    "tpr_1": "Share of the poison found at 1% false positives",
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


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95% t interval over the seeds of each metric: long, one row per cell and metric.

    Columns: those of ``CELL``, "metric", "mean", "low", "high", "seeds". One seed gives a mean
    without an interval.
    """
    found = []
    for metric in (m for m in METRICS if m in rows):
        for key, group in rows.dropna(subset=[metric]).groupby(CELL, sort=False):
            values = group[metric].to_numpy()
            mean, low, high = (
                interval(values) if len(values) > 1 else (values[0], float("nan"), float("nan"))
            )
            found.append((*key, metric, mean, low, high, len(values)))
    return pd.DataFrame(found, columns=[*CELL, "metric", "mean", "low", "high", "seeds"])


def matrix(table: pd.DataFrame, dataset: str, metric: str, value: str = "mean") -> pd.DataFrame:
    """Methods x poisons of one metric; in the order of ``KINDS`` and ``ON_SIGNS``."""
    part = table[(table.dataset == dataset) & (table.metric == metric)].copy()
    part["column"] = [title(p, r) for p, r in zip(part.poison, part.rate, strict=True)]
    wide = part.pivot(index="method", columns="column", values=value)
    wide = wide.reindex([m for m in KINDS if m in wide.index])
    known = [title(poison, rate) for poison, rates in ON_SIGNS for rate in rates]
    return wide[[*(c for c in known if c in wide), *(c for c in wide if c not in known)]]


def title(poison: str, rate: float) -> str:
    """The name of a column: "badnets 5%"."""
    return f"{poison.replace('_', '-')} {100 * rate:g}%" if rate else poison


def stopped(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """What each method does to the attacks that succeed, and to a clean set; one row per method.

    Columns: "needs", "attacks" (that it was tried on), "stopped", "worst" (the largest success
    after it), "cost" (the most accuracy it loses under an attack), "clean_removed" and "accused"
    (of a clean set: the share removed, classes accused in the mean), "seconds" (median).
    """
    rows = rows[rows.dataset == dataset]
    place = ["poison", "rate"]
    before = rows[rows.method == "none"].groupby(place)[["accuracy", "asr"]].mean()
    before = before[before.asr >= SUCCEEDS]
    found = []
    for method, part in rows.groupby("method", sort=False):
        after = part.groupby(place)[["accuracy", "asr"]].mean()
        after = after[after.index.isin(before.index)]
        cost = before.accuracy.reindex(after.index) - after.accuracy
        clean = part[part.poison == "clean"]
        found.append(
            {
                "method": method,
                "needs": part.needs.iloc[0],
                "attacks": len(after),
                "stopped": int(((after.asr <= STOPPED) & (cost <= COST)).sum()),
                "worst": after.asr.max(),
                "cost": cost.max(),
                "clean_removed": clean.fpr.mean(),
                "accused": clean.accused.mean(),
                "seconds": part.seconds.median(),
            }
        )
    table = pd.DataFrame(found).set_index("method")
    return table.reindex([method for method in KINDS if method in table.index])
