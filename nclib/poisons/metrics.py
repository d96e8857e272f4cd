"""What an attack achieved, always beside a clean model under the same trigger."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor, nn

from nclib.data import ImageSet
from nclib.doors import integer, number, numbers
from nclib.poisons.sets import PoisonedSet
from nclib.training import accuracy, predict


def success(model: nn.Module, attack: PoisonedSet, test: ImageSet) -> float:
    """Attack success rate: share of the triggered test images that get the attacker's label.

    Test images whose true label is that label already do not count. For an attack on single
    images it is the share of ``attack.victims`` that get ``attack.target`` (target hit rate).
    Raises ``ValueError`` for an attack without a goal, and where no test image counts.
    """
    if attack.trigger is None and attack.victims is not None:
        answers = predict(model, attack.victims).argmax(1)
        return float((answers == attack.goal(answers)).float().mean())
    goal = attack.goal(test.labels)
    others = goal != test.labels
    if not others.any():
        raise ValueError(
            f"test: every image has the label {attack.target} already; another class is needed"
        )
    predicted = predict(model, attack.triggered(test.subset(others))).argmax(1)
    return float((predicted == goal[others]).float().mean())


def outcome(
    model: nn.Module, clean_model: nn.Module | None, attack: PoisonedSet, test: ImageSet
) -> dict[str, float]:
    """One row: accuracy and success of the poisoned model, and of the clean one as a control.

    ``clean_model`` is trained in the same way on the clean data; its success is what the trigger
    does without any poison. None leaves the control out. Success is left out for an attack without
    a goal (label flips); of several attacks with one, "success" is the latest's, and "success_1",
    "success_2", ... are those of each, in their order. Raises ``ValueError`` like ``success``.
    """
    models = {"": model} if clean_model is None else {"": model, "control_": clean_model}
    row = {f"{who}accuracy": accuracy(m, test) for who, m in models.items()}
    if attack.trigger is not None or attack.victims is not None:
        row |= {f"{who}success": success(m, attack, test) for who, m in models.items()}
    aims = [part for part in attack.parts if part.trigger or part.victims is not None]
    for i, part in enumerate(aims if len(aims) > 1 else (), 1):
        row |= {f"{who}success_{i}": success(m, part, test) for who, m in models.items()}
    return row


def confusion(model: nn.Module, test: ImageSet) -> Tensor:
    """Share of each true class (row) that is predicted as each class (column): ``[K, K]``."""
    logits = predict(model, test.images)
    if logits.shape[1] > test.num_classes:  # its numbers would count for the next row
        allowed = f"up to {test.num_classes}, the classes of test,"
        raise ValueError(f"model: returned {logits.shape[1]} logits; {allowed} are allowed")
    pairs = test.labels * test.num_classes + logits.argmax(1)
    counts = torch.bincount(pairs.cpu(), minlength=test.num_classes**2)
    counts = counts.reshape(test.num_classes, -1).float()
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


@numbers
def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval ``(mean, low, high)`` over seeds, cut to [0, 1] for rates.

    Raises ``ValueError`` for fewer than two values, because one run has no spread, and for values
    that are not finite.
    """
    number(level, "level", 0, 1)
    found = np.array([number(v, "values") for v in np.asarray(values, dtype=float)])
    if len(found) < 2:
        raise ValueError(f"values: got {len(found)}; at least 2 runs are needed for an interval")
    mean = found.mean()
    half = stats.sem(found) * stats.t.ppf((1 + level) / 2, len(found) - 1)
    low, high = mean - half, mean + half
    if found.min() >= 0 and found.max() <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return float(mean), float(low), float(high)


@numbers
def hit_rate(hits: int, trials: int, level: float = 0.95) -> tuple[float, float, float]:
    """Share of hits with its exact (Clopper-Pearson) interval: ``(rate, low, high)``."""
    integer(hits, "hits"), integer(trials, "trials")
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"hits: got {hits} of {trials}; 0 to trials, and at least 1 trial")
    found = stats.binomtest(hits, trials).proportion_ci(level, method="exact")
    return hits / trials, float(found.low), float(found.high)
