"""What can be done about poison: each method takes a case and returns a model and what it knew.

Detectors and the random control remove 1.5 times the number of poisons, which nobody has in
practice: their rows compare the ranking. ``consensus`` and ``relabel`` decide by themselves. The
correctors that fine-tune get 5% clean images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nclib import correction, data, detection, training
from nclib.defenses import adversarial_training, partition, squeezing
from nclib.doors import finite
from nclib.scoreboard.grids import ADVERSARIAL_EPS, Cell

if TYPE_CHECKING:  # cells imports this file
    from nclib.scoreboard.cells import Case

FALSE_ALARM = 0.05  # a clean set is cut as if so much of it were poisoned
PARTS, BITS = 10, 1

Method = Callable[[Cell, "Case"], dict[str, Any]]


def apply(cell: Cell, case: Case) -> dict[str, Any]:
    """``{"model": ..., "removed": mask or absent, "auroc": ... or absent}`` of the cell's method.

    Raises ``ValueError`` for a method that the board does not know.
    """
    if cell.method == "random":
        return cut(detection.random_score(case.train.labels, cell.seed), cell, case)
    if cell.method in detection.SCORES:
        return cut(joint(detection.SCORES[cell.method], case), cell, case)
    known: dict[str, Method] = {
        "none": lambda cell, case: {"model": case.model},
        "oracle": oracle,
        "consensus": consensus,
        "relabel": relabel,
        "fine_tune": repair(correction.fine_tune),
        "etf_head": repair(correction.etf_head),
        "squeezing": squeezed,
        "partition": voted,
        "adversarial": adversarial,
    }
    if cell.method not in known:
        allowed = ", ".join([*known, "random", *detection.SCORES])
        raise ValueError(f"method: got {cell.method!r}; allowed are {allowed}")
    return known[cell.method](cell, case)


def joint(score: Callable[..., Tensor], case: Case) -> Tensor:
    """The mean over the early layers of a score, each on a robust z scale: ``[N]``."""
    return detection.combine(detection.by_layer(score, case.early, case.train.labels), "mean")


def ranking(score: Tensor, case: Case) -> dict[str, float]:
    """AUROC and TPR at 5% FPR where there is something to find."""
    bad = case.train.is_poisoned.cpu()
    if not bad.any():
        return {}
    return {"auroc": detection.auroc(score, bad), "tpr_5": detection.tpr_at_fpr(score, bad, 0.05)}


def after(model: nn.Module, case: Case) -> dict[str, float]:
    """Accuracy of ``model`` and, for a backdoor, its success."""
    return correction.outcome(model, case.test, case.train)


def cut(score: Tensor, cell: Cell, case: Case) -> dict[str, Any]:
    """Remove the highest scores, as many as the known rate says, and train anew."""
    removed = detection.known_rate(score, cell.rate or FALSE_ALARM)
    kept = correction.remove(case.train, removed)
    model = case.retrain(kept, cell.seed)
    return {"model": model, "removed": removed} | ranking(score, case)


def oracle(cell: Cell, case: Case) -> dict[str, Any]:
    """Remove exactly the poison."""
    removed = case.train.is_poisoned.cpu()
    return {
        "model": case.retrain(correction.remove(case.train, removed), cell.seed),
        "removed": removed,
    }


def consensus(cell: Cell, case: Case) -> dict[str, Any]:
    """Remove what ``correction.consensus`` says, which is told nothing."""
    removed = correction.consensus(case.train, epochs=case.epochs, seed=cell.seed).bad
    kept = correction.remove(case.train, removed)
    return {"model": case.retrain(kept, cell.seed), "removed": removed}


def relabel(cell: Cell, case: Case) -> dict[str, Any]:
    """Give each sample the label that out-of-fold neighbours agree on, or drop it."""
    return {
        "model": case.retrain(correction.relabel(case.train, case.early, seed=cell.seed), cell.seed)
    }


def repair(method: Callable[..., training.Run]) -> Method:
    """A repair of the victim itself with clean images, 5% of the training set, from the test."""

    def repaired(cell: Cell, case: Case) -> dict[str, Any]:
        clean = data.stratified(case.test.labels, len(case.train) // 20, cell.seed)
        options = {"cache": False, "progress": False, "seed": cell.seed}
        return {"model": method(case.model, case.test.subset(clean), **options).model}

    return repaired


def squeezed(cell: Cell, case: Case) -> dict[str, Any]:
    """Train and test on images of one bit a pixel."""
    squeezer = partial(squeezing.bit_depth, bits=BITS)
    coarse = replace(case.train, images=squeezer(case.train.images))
    return {"model": squeezing.Squeezed(case.retrain(coarse, cell.seed), squeezer)}


class Vote(nn.Module):
    """The models of the disjoint parts, one vote each."""

    def __init__(self, members: list[nn.Module], num_classes: int) -> None:
        super().__init__()
        self.members, self.num_classes = nn.ModuleList(members), num_classes

    def forward(self, images: Tensor) -> Tensor:
        ballots = torch.stack(
            [finite(member(images), "logits").argmax(1) for member in self.members]
        )
        return one_hot(ballots, self.num_classes).sum(0).float()


def voted(cell: Cell, case: Case) -> dict[str, Any]:
    """Deep partition aggregation: ten models on ten disjoint parts vote."""
    members = partition.train(
        data.ImageSet(*(getattr(case.train, k) for k in ("images", "labels", "classes", "name"))),
        PARTS,
        lambda part, number: case.retrain(part, number, batch_size=32),
    )
    return {"model": Vote([m for m in members if m is not None], case.train.num_classes)}


def adversarial(cell: Cell, case: Case) -> dict[str, Any]:
    """Train on single-step attacks of ``ADVERSARIAL_EPS`` (Wong et al. 2020)."""
    loss = adversarial_training.fast_training(ADVERSARIAL_EPS, seed=cell.seed)
    return {"model": case.retrain(case.train, cell.seed, loss=loss)}
