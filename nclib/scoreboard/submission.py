"""A score of one's own beside the known detectors."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nclib import detection
from nclib.scoreboard import methods
from nclib.scoreboard.cases import prepare
from nclib.scoreboard.summary import title

Score = Callable[[Tensor, Tensor], Tensor]
SIDES = (("flip", 0.2), ("clean_label", 0.05))  # opposite ends of what a detector can see
SEEDS = (0, 1, 2)
RIVALS: dict[str, Score] = {
    "robust_distance": detection.robust_distance,
    "whitened_margin": detection.whitened_margin,
    "spectral": detection.spectral,
    "activation_clustering": detection.activation_clustering,
    "random": lambda features, labels: detection.random_score(labels),
}


def together(score: Score, *, name: str = "mine", progress: bool = True) -> pd.DataFrame:
    """Flips and a clean-label backdoor on the digits: for each seed the *worse* AUROC of the two.

    A row per detector (``score``, and the known ones of ``RIVALS``, measured on the same cases) and
    seed: "method", "seed", one column per poison, "worse". Who is at chance on one of them cannot
    make up for it on the other. Raises ``ValueError`` for a taken name, and for scores of another
    shape or not finite.
    """
    if name in RIVALS:
        raise ValueError(f"name: {name!r} is a known detector; choose another one")
    rows = []
    places = [(*side, seed) for seed in SEEDS for side in SIDES]
    for poison, rate, seed in tqdm(places, desc=name, disable=not progress):
        case = prepare("digits", poison, rate, seed, whole=False)
        for who, one in (RIVALS | {name: score}).items():
            found = methods.ranking(methods.joint(checked(one), case), case)["auroc"]
            row = {"method": who, "seed": seed, "column": title(poison, rate), "auroc": found}
            rows.append(row)
    table = pd.DataFrame(rows).pivot_table("auroc", ["method", "seed"], "column")
    return table.assign(worse=table.min(axis=1)).reset_index()


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
