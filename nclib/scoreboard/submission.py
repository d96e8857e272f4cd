"""A score of one's own on the board."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nclib import detection, places
from nclib.scoreboard import methods, report
from nclib.scoreboard.cells import prepare
from nclib.scoreboard.grids import GRIDS, cells_of

Score = Callable[[Tensor, Tensor], Tensor]
RIVALS: dict[str, Score] = {
    "robust_distance": detection.robust_distance,
    "whitened_margin": detection.whitened_margin,
    "spectral": detection.spectral,
    "activation_clustering": detection.activation_clustering,
    "random": lambda features, labels: detection.random_score(labels),
}


def submit(
    score: Score,
    *,
    name: str = "mine",
    dataset: str = "digits",
    retrain: bool = False,
    whole: bool = False,
    board: pd.DataFrame | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run ``score(features [N, D], labels [N]) -> [N]`` through a grid, and rank it on the board.

    The grid is ``submit-DATASET``: flips and a patch, three seeds; ``whole`` takes every poison of
    the board and five seeds (minutes, the first time). The score sees each layer but the first of
    the early model. The table has a row per detector, best mean AUROC first: "place", "method",
    "yours", "mean", "low", "high" (95% t interval over the seeds), one column per poison
    ("flip 20%"); with ``retrain`` also the accuracy and ASR after the cut. ``board`` has the rows
    to compare with (None: the committed ones). Raises ``ValueError`` for a data set without a grid,
    for a taken name, and for scores of another shape or not finite.
    """
    board = places.results("scoreboard") if board is None else board
    if f"submit-{dataset}" not in GRIDS:
        known = ", ".join(g.removeprefix("submit-") for g in GRIDS if g.startswith("submit-"))
        raise ValueError(f"dataset: got {dataset!r}; allowed are {known}")
    grid = dataset if whole else f"submit-{dataset}"
    rows = measured(score, name, grid, board, retrain, progress)
    return rank(rows, name)


def together(score: Score, *, name: str = "mine", progress: bool = True) -> pd.DataFrame:
    """Flips and a clean-label backdoor on the digits: for each seed the *worse* AUROC of the two.

    A row per detector (``score``, and the known ones of ``RIVALS``, measured on the same cases) and
    seed: "method", "seed", one column per poison, "worse". Who is at chance on one of them cannot
    make up for it on the other. Raises ``ValueError`` for a taken name and like ``submit``.
    """
    if name in RIVALS:
        raise ValueError(f"name: {name!r} is on the board already; choose another one")
    rows = []
    for cell in tqdm(cells_of("together-digits", [name]), desc=name, disable=not progress):
        case = prepare(*cell[:4], whole=False)
        for who, one in (RIVALS | {name: score}).items():
            found = methods.ranking(methods.joint(checked(one), case), case)["auroc"]
            title = report.title(cell.poison, cell.rate)
            rows.append({"method": who, "seed": cell.seed, "column": title, "auroc": found})
    table = pd.DataFrame(rows).pivot_table("auroc", ["method", "seed"], "column")
    return table.assign(worse=table.min(axis=1)).reset_index()


def measured(
    score: Score, name: str, grid: str, board: pd.DataFrame, retrain: bool, progress: bool
) -> pd.DataFrame:
    """The rows of ``score`` on a grid, and those of the board's detectors on the same cells."""
    if name in set(board.method):
        raise ValueError(f"name: {name!r} is on the board already; choose another one")
    cells = [cell for cell in cells_of(grid, [name]) if cell.rate]  # a clean set has no ranking
    rows = []
    for cell in tqdm(cells, desc=name, unit="cell", disable=not progress):
        case = prepare(*cell[:4], whole=retrain)  # the score needs early features alone
        joint = methods.joint(checked(score), case)
        row = cell._asdict() | methods.ranking(joint, case)
        if retrain:
            row |= methods.after(methods.cut(joint, cell, case)["model"], case)
        rows.append(row)
    placed = board.set_index(["dataset", "poison", "rate", "seed"])
    same = placed[placed.index.isin([cell[:4] for cell in cells])].reset_index()
    same = same[same.method.isin([*detection.SCORES, "random"])]
    return pd.concat([same, pd.DataFrame(rows)], ignore_index=True)


def checked(score: Score) -> Score:
    """``score``, but refusing what is not one finite number per sample with a ``ValueError``."""

    def careful(features: Tensor, labels: Tensor) -> Tensor:
        features, labels = features.cpu().clone(), labels.cpu().clone()  # float64 is allowed there
        found = torch.as_tensor(score(features, labels)).detach().cpu().double()
        if found.shape != labels.shape or not found.isfinite().all():
            got = f"{tuple(found.shape)}" if found.isfinite().all() else "NaN or infinite values"
            raise ValueError(f"score: returned {got}; finite {tuple(labels.shape)} is needed")
        return found

    return careful


def rank(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """One line per method of ``rows``, the best mean AUROC first, ``name`` marked."""
    if "accuracy" not in rows:
        rows = rows.assign(accuracy=float("nan"), asr=float("nan"))
    table = report.summary(rows, ["method"])
    table = table[table.metric == "auroc"].sort_values("mean", ascending=False)
    titles = [report.title(*place) for place in zip(rows.poison, rows.rate, strict=True)]
    each = rows.groupby(["method", pd.Series(titles, rows.index)]).auroc.mean().unstack()
    table = table.join(each, on="method").drop(columns="metric").reset_index(drop=True)
    table.insert(0, "place", range(1, len(table) + 1))
    table.insert(2, "yours", table.method == name)
    if rows[rows.method == name].accuracy.notna().any():
        after = rows.groupby("method")[["accuracy", "asr"]].mean()
        table = table.join(after, on="method")
    return table
