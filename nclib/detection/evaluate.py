"""How good a score is, with the truth at hand; and scores of several layers made one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from nclib.detection.common import least, robust_z
from nclib.doors import array, finite, integer, numbers, seeded

Score = Callable[..., Tensor]


def by_layer(
    score: Score, features: Mapping[str, Tensor], labels: Tensor, **options: Any
) -> dict[str, Tensor]:
    """``score`` at each layer of ``{layer: [N, D]}``: ``{layer: [N]}``."""
    return {name: score(hidden, labels, **options) for name, hidden in features.items()}


def combine(scores: Mapping[str, Tensor], rule: str = "max") -> Tensor:
    """One score ``[N]`` from ``{layer: [N]}``; each layer is first put on a robust z scale.

    ``rule`` "max" asks for one suspicious layer, "mean" for the average, "min" for agreement of
    all layers; "rank" averages ranks in [0, 1] instead, where ties share their mean rank. Raises
    ``ValueError`` for another rule, no layer, and scores that are not finite.
    """
    if not scores:
        raise ValueError("scores: got no layer; at least one is needed")
    rows = torch.stack([array(s, "scores").detach().cpu().double() for s in scores.values()])
    finite(rows, "scores")
    if rule == "rank":
        return torch.stack([_ranks(row) - 1 for row in rows]).mean(0) / max(1, rows.shape[1] - 1)
    rows = torch.stack([robust_z(row, least(row)) for row in rows])
    if rule == "mean":
        return rows.mean(0)
    if rule in ("max", "min"):
        return getattr(rows, f"a{rule}")(0)
    raise ValueError(f"rule: got {rule!r}; 'max', 'mean', 'min' or 'rank' is allowed")


def auroc(score: Tensor, bad: Tensor) -> float:
    """Chance that a poisoned sample scores above a clean one, ties half (area under the ROC)."""
    score, bad = _check(score, bad)
    rank = _ranks(score)
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    return float((rank[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good))


@numbers
def tpr_at_fpr(score: Tensor, bad: Tensor, fpr: float) -> float:
    """Share of the poison above the threshold that at most a share ``fpr`` of the clean exceeds.

    The threshold is the clean score that at most floor(``fpr`` n) of the n clean ones exceed;
    nothing is interpolated. Raises ``ValueError`` for an ``fpr`` outside [0, 1).
    """
    score, bad = _check(score, bad)
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr: got {fpr}; 0 <= fpr < 1 is allowed")
    clean = score[~bad].sort(descending=True).values
    threshold = clean[int(fpr * len(clean) + 1e-9)]  # 0.29 * 100 is 28.99...
    return float((score[bad] > threshold).double().mean())


@numbers
def precision_at(score: Tensor, bad: Tensor, budget: int) -> float:
    """Share of poison among the ``budget`` highest scores; ties at the edge count by their mean."""
    score, bad = _check(score, bad)
    integer(budget, "budget", 1, len(score))
    edge = score.topk(budget).values[-1]
    above, tied = score > edge, score == edge
    share = (budget - int(above.sum())) / int(tied.sum())
    return (int(bad[above].sum()) + share * int(bad[tied].sum())) / budget


@numbers
def evaluate(score: Tensor, bad: Tensor, budget: int | None = None) -> dict[str, float]:
    """AUROC, TPR at 1% and 5% FPR, precision at ``budget`` (None: the number of poisons)."""
    budget = int(array(bad, "bad").sum()) if budget is None else budget
    return {
        "auroc": auroc(score, bad),
        "tpr_1": tpr_at_fpr(score, bad, 0.01),
        "tpr_5": tpr_at_fpr(score, bad, 0.05),
        "precision": precision_at(score, bad, budget),
    }


def random_score(labels: Tensor, seed: int = 0) -> Tensor:
    """The control: a score that knows nothing, ``[N]``."""
    return torch.rand(len(labels), dtype=torch.float64, generator=seeded(seed))


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 of a vector ``[N]``, float64; ties share their mean."""
    return torch.from_numpy(rankdata(values))


def _check(score: Tensor, bad: Tensor) -> tuple[Tensor, Tensor]:
    score, bad = array(score, "score").detach().cpu().double(), array(bad, "bad").cpu()
    if score.ndim != 1 or bad.shape != score.shape or bad.dtype != torch.bool:
        raise ValueError(f"bad: got {bad.dtype} {tuple(bad.shape)}; bool {tuple(score.shape)}")
    finite(score, "score")
    if bad.all() or not bad.any():
        raise ValueError("bad: all samples are of one kind; both kinds are needed")
    return score, bad
