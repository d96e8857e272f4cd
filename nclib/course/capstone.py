"""Blind cases: a model and a training set of unknown state, and points for the investigation.

``blind(seed)`` draws the state; ``reveal(seed)`` tells it; ``grade`` compares. Nothing in the case
itself holds the truth, but the draw is no secret: grade students on seeds of your own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib import correction, data, models, poisons, training
from nclib.data import ImageSet
from nclib.doors import integer, numbers, seeded
from nclib.poisons import PoisonedSet

# what a training set can be, and the share that is poisoned
STATES = (("clean", 0.0), ("flip", 0.2), ("pixel", 0.05), ("pattern", 0.05), ("blended", 0.05))
EPOCHS = {"digits": 12, "mnist": 8}
PARTS = ("verdict", "class", "samples", "repair")  # one point each


@dataclass(frozen=True)
class Blind:
    """What the investigator gets; images and labels as the victim had them."""

    seed: int
    train: ImageSet
    model: nn.Module  # trained on ``train``, to the end


class Finding(NamedTuple):
    """What the investigator hands in."""

    poisoned: bool
    target: int | None  # the class that a backdoor aims at; None for clean sets and for flips
    suspects: Tensor  # bool [N]
    cleaned: ImageSet  # what a new model should be trained on


@numbers
@functools.lru_cache(maxsize=8)
def reveal(seed: int, dataset: str = "digits", n_train: int = 650) -> PoisonedSet:
    """The truth of case ``seed``: its training set with ``attack``, ``target``, ``is_poisoned``.

    The state and the target class are drawn from ``seed``; so are the images and the poison.
    """
    draw = seeded(7919 * integer(seed, "seed", 0) + 13)
    kind, rate = STATES[int(torch.randint(len(STATES), (), generator=draw))]
    train, _ = data.load(dataset, n_train=n_train, n_test=_tests(dataset), seed=seed)
    target = int(torch.randint(train.num_classes, (), generator=draw))
    if kind == "blended":
        return poisons.blended(train, rate, target, seed=seed)
    if kind in ("pixel", "pattern"):
        return poisons.badnets(train, rate, target, patch=kind, seed=seed)
    return poisons.label_flip(train, rate, seed=seed)


def blind(seed: int, dataset: str = "digits", n_train: int = 650) -> Blind:
    """Case ``seed``: the training set without its truth, and the model that came out of it."""
    truth = reveal(seed, dataset, n_train)
    train = ImageSet(truth.images, truth.labels, truth.classes, truth.name)
    return Blind(seed, train, _trained(train, dataset, seed))


def state(truth: PoisonedSet) -> str:
    """ "clean", "flips" or "backdoor"."""
    if not truth.is_poisoned.any():
        return "clean"
    return "backdoor" if truth.trigger is not None else "flips"


def grade(case: Blind, finding: Finding, dataset: str = "digits", n_train: int = 650) -> dict:
    """Points of a finding, each between 0 and 1, and what stands behind them.

    "verdict": poisoned or not. "class": the target of a backdoor, None otherwise. "samples": F1 of
    the suspects; on a clean set 1 where at most 2% are suspected, else 0. "repair": a model trained
    on ``cleaned`` is at most .03 less accurate than the one that came with the case, with flips at
    least .03 more, and a trigger succeeds on at most 10%. Beside the points: "accuracy" and "asr"
    "before" and "after". Raises ``ValueError`` for suspects of another shape.
    """
    truth = reveal(case.seed, dataset, n_train)
    bad, suspects = truth.is_poisoned.cpu(), torch.as_tensor(finding.suspects).cpu()
    if suspects.dtype != torch.bool or suspects.shape != bad.shape:
        got = f"{suspects.dtype} {tuple(suspects.shape)}"
        raise ValueError(f"suspects: got {got}; a bool mask {tuple(bad.shape)} is needed")
    target = truth.target if truth.trigger is not None else None
    _, test = data.load(dataset, n_train=n_train, n_test=_tests(dataset), seed=case.seed)
    kept = finding.cleaned
    kept = ImageSet(kept.images, kept.labels, kept.classes, kept.name)
    after = correction.outcome(_trained(kept, dataset, case.seed + 1), test, truth)
    before = correction.outcome(case.model, test, truth)
    least = before["accuracy"] + (0.03 if state(truth) == "flips" else -0.03)
    points = {
        "verdict": float(finding.poisoned == bool(bad.any())),
        "class": float(finding.target == target),
        "samples": found(suspects, bad),
        "repair": float(after["accuracy"] >= least and after.get("asr", 0) <= 0.1),
    }
    told = {f"{k} before": v for k, v in before.items()} | {
        f"{k} after": v for k, v in after.items()
    }
    return {"seed": case.seed, "state": state(truth), **points, **told}


def found(suspects: Tensor, bad: Tensor) -> float:
    """F1 of the suspects ``[N]``; where nothing is poisoned, 1 for at most 2% suspects, else 0."""
    if not bad.any():
        return float(suspects.double().mean() <= 0.02)
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()))


def examine(
    investigate: Callable[[Blind], Finding],
    seeds: Iterable[int],
    dataset: str = "digits",
    n_train: int = 650,
    progress: bool = True,
) -> list[dict]:
    """``grade`` of ``investigate(blind)`` on each of ``seeds``, with a progress bar."""
    rows = []
    for seed in tqdm(list(seeds), desc="cases", unit="case", disable=not progress):
        case = blind(seed, dataset, n_train)
        rows.append(grade(case, investigate(case), dataset, n_train))
    return rows


def _tests(dataset: str) -> int | None:
    return 1000 if dataset == "mnist" else None


def _trained(train: ImageSet, dataset: str, seed: int) -> nn.Module:
    model = models.build("cnn", train, seed=seed)
    epochs = EPOCHS.get(dataset, 12)
    return training.fit(model, train, epochs=epochs, seed=seed, progress=False).model
