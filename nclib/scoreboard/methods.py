"""What can be done about poison: each method takes a case and returns a model and what it knew.

Detectors and the random control are told how many samples are poisoned, which nobody is in
practice, and remove as many, or half as many again (``_x1.5``, the papers' cut): their rows compare
rankings. Those that decide get nothing but the set. Whoever needs clean images gets those that no
one is measured on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nclib import correction, data, detection, training
from nclib.correction import isolation, pruning, reversal
from nclib.defenses import adversarial_training, partition, squeezing
from nclib.detection import consistency
from nclib.doors import finite
from nclib.scoreboard.cases import Case
from nclib.scoreboard.grids import ADVERSARIAL_EPS, FALSE_ALARM, Cell

ISOLATED = 0.01  # the share that ABL unlearns
PARTS, BITS = 10, 1

Method = Callable[[Cell, Case], dict[str, Any]]


def apply(cell: Cell, case: Case) -> dict[str, Any]:
    """``{"model": ..., "removed": mask or absent, "auroc": ... or absent}`` of the cell's method.

    Raises ``ValueError`` for a method that the board does not know.
    """
    name, generous, _ = cell.method.partition("_x1.5")
    if name in SCORES:
        return cut(SCORES[name](cell, case), cell, case, 1.5 if generous else 1.0)
    if cell.method not in METHODS:
        allowed = ", ".join([*METHODS, *SCORES])
        raise ValueError(f"method: got {cell.method!r}; allowed are {allowed}")
    return METHODS[cell.method](cell, case)


def joint(score: Callable[..., Tensor], case: Case) -> Tensor:
    """The mean over the early layers of a score, each on a robust z scale: ``[N]``."""
    return detection.combine(detection.by_layer(score, case.early, case.train.labels), "mean")


def early(score: Callable[..., Tensor]) -> Callable[[Cell, Case], Tensor]:
    """The ranking of a score of features, as ``apply`` calls it."""
    return lambda _, case: joint(score, case)


def ranking(score: Tensor, case: Case) -> dict[str, float]:
    """AUROC and TPR at 1 and 5% FPR where there is something to find; covers count for neither."""
    bad, clean = case.train.harmful.cpu(), ~case.train.is_poisoned.cpu()
    if not bad.any():
        return {}
    asked = bad | clean
    score, bad = score.cpu()[asked], bad[asked]
    rates = {f"tpr_{p}": detection.tpr_at_fpr(score, bad, p / 100) for p in (1, 5)}
    return {"auroc": detection.auroc(score, bad)} | rates


def after(model: nn.Module, case: Case) -> dict[str, float]:
    """Accuracy of ``model`` and, for a backdoor, its success."""
    return correction.outcome(model, case.test, case.train)


def cut(score: Tensor, cell: Cell, case: Case, factor: float) -> dict[str, Any]:
    """Remove the highest scores, ``factor`` times as many as there are, and train anew."""
    rate = float(case.train.harmful.double().mean()) or FALSE_ALARM
    removed = detection.known_rate(score, rate, factor=factor)
    kept = case.train.subset((~removed).to(case.train.device))
    model = case.retrain(kept, cell.seed)
    return {"model": model, "removed": removed} | ranking(score, case)


def isolated(cell: Cell, case: Case) -> Tensor:
    """ABL's first stage, on a fresh model for a quarter of the epochs."""
    fresh = case.build(case.train, cell.seed + 10)
    epochs = max(1, case.epochs // 4)
    plan = {"epochs": epochs, "seed": cell.seed + 10, "cache": False, "progress": False}
    return isolation.isolated(fresh, case.train, **plan)


def unlearned(cell: Cell, case: Case) -> dict[str, Any]:
    """ABL: the victim unlearns the share that was learned too easily."""
    removed = detection.known_rate(isolated(cell, case), ISOLATED, factor=1)
    model = isolation.unlearned(case.model, case.train, removed, seed=cell.seed)
    return {"model": model, "removed": removed}


def transplanted(cell: Cell, case: Case) -> dict[str, Any]:
    """Remove what the transplant test says, which is told nothing, and note its verdict."""
    options = case.plan(case.train) | {"seed": cell.seed}
    verdict = correction.transplant(case.train, build=case.build, **options)
    model = case.model
    if verdict.mask.any():
        kept = case.train.subset((~verdict.mask).to(case.train.device))
        model = case.retrain(kept, cell.seed)
    return {"model": model, "removed": verdict.mask} | judged(verdict, case)


def judged(verdict: correction.Verdict, case: Case) -> dict[str, Any]:
    """The verdict's columns: its call, whether it names what is there, whom it accuses wrongly."""
    train, accused = case.train, set(verdict.classes)
    false = train.labels != train.clean_labels
    guilty = set() if train.target is None else {train.target}
    wanted = "backdoor" if guilty else "wrong labels" if false.any() else "clean"
    right = accused == guilty and verdict.call == wanted
    return {"call": verdict.call, "right": int(right), "accused": len(accused - guilty)}


def cleansed(cell: Cell, case: Case) -> dict[str, Any]:
    """Neural Cleanse: patches reversed on the clean images, the accused classes' unlearned."""
    found = reversal.reverse(case.model, case.spare)
    plan = {"cache": False, "progress": False, "seed": cell.seed}
    model = reversal.neural_cleanse(case.model, case.spare, found, **plan)
    guilty = set() if case.train.trigger is None else {case.train.target}
    accused = set(found.classes)
    call = "backdoor" if accused else "clean"
    return {
        "model": model,
        "call": call,
        "right": int(accused == guilty),
        "accused": len(accused - guilty),
    }


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
    """A repair of the victim itself with the clean images, 5% of the training set."""

    def repaired(cell: Cell, case: Case) -> dict[str, Any]:
        options = {"cache": False, "progress": False, "seed": cell.seed}
        return {"model": method(case.model, case.spare, **options).model}

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


SCORES: dict[str, Callable[[Cell, Case], Tensor]] = {
    "random": lambda cell, case: detection.random_score(case.train.labels, cell.seed),
    **{name: early(score) for name, score in detection.SCORES.items()},
    "strip": lambda cell, case: consistency.strip(
        case.model, case.train.images, case.spare.images, seed=cell.seed
    ),
    "scale_up": lambda _, case: consistency.scale_up(case.model, case.train.images),
    "ibd_psc": lambda _, case: consistency.ibd_psc(case.model, case.train.images, case.spare),
    "abl_isolation": isolated,
    "asset": lambda cell, case: isolation.asset(case.model, case.train, case.spare, seed=cell.seed),
}
METHODS: dict[str, Method] = {
    "none": lambda _, case: {"model": case.model},
    "oracle": oracle,
    "clean_only": lambda cell, case: {"model": case.retrain(case.spare, cell.seed)},
    "transplant": transplanted,
    "consensus": consensus,
    "relabel": relabel,
    "fine_tune": repair(correction.fine_tune),
    "fine_pruning": repair(pruning.fine_pruning),
    "neural_cleanse": cleansed,
    "abl": unlearned,
    "etf_head": repair(correction.etf_head),
    "random_head": repair(partial(correction.etf_head, kind="random")),
    "squeezing": squeezed,
    "partition": voted,
    "adversarial": adversarial,
}
