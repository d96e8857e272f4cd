"""One cell of the board: the poisoned set, the victim, what is done about it, and the row."""

from __future__ import annotations

import functools
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nclib import activations, data, models, poisons, training
from nclib.poisons import PoisonedSet
from nclib.scoreboard import methods
from nclib.scoreboard.grids import CLEAN_LABEL_EPS, EARLY, KINDS, SIZES, Cell


@dataclass(frozen=True)
class Case:
    """A victim: its training set with the truth, its test set, its model, its early features."""

    train: PoisonedSet
    test: data.ImageSet
    model: nn.Module  # trained to the end, where the case is whole
    early: dict[str, Tensor]  # {layer: [N, D]} after EARLY epochs, without the first layer
    epochs: int

    def retrain(self, kept: data.ImageSet, seed: int, **options: Any) -> nn.Module:
        """A fresh model trained on ``kept`` as the victim was, from another start."""
        model = models.build("cnn", kept, seed=seed + 10)
        options = {"epochs": self.epochs, "seed": seed + 10, "cache": False} | options
        return training.fit(model, kept, progress=False, **options).model


def evaluate(cell: Cell) -> dict[str, object]:
    """The row of ``cell``; what is shared with other cells comes from the run cache.

    Raises ``KeyboardInterrupt`` where ctrl-C stopped a training, so that no row is half true.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training stopped")
        try:
            case = prepare(*cell[:4])
            found = methods.apply(cell, case)
        except UserWarning as stopped:
            raise KeyboardInterrupt(str(stopped)) from None
        model = found.pop("model")
        bad = case.train.is_poisoned.cpu()
        row = cell._asdict() | {
            "kind": KINDS.get(cell.method, "detector"),
            "poison_count": int(bad.sum()),
        }
        mask = found.pop("removed", None)
        if mask is not None:
            row["poison_left"] = int((bad & ~mask).sum())
            row["clean_removed"] = float((mask & ~bad).sum() / (~bad).sum())
        row |= found | _outcome(model, cell, case)
    return row | {"seconds": round(time.perf_counter() - start, 2), "torch": _torch()}


def _outcome(model: nn.Module, cell: Cell, case: Case) -> dict[str, float]:
    """Accuracy, success of the attack, and what its trigger does to a clean model."""
    row = methods.after(model, case)
    if case.train.trigger is not None:
        clean = prepare(cell.dataset, "clean", 0.0, cell.seed).model
        row["control_asr"] = methods.after(clean, case)["asr"]
    return row


@functools.lru_cache(maxsize=4)
def prepare(dataset: str, poison: str, rate: float, seed: int, *, whole: bool = True) -> Case:
    """The case of a cell, trained once for all of them: the run cache has it afterwards.

    Not ``whole``: the training ends with the early features, and the model is that of then.
    """
    n_train, n_test, epochs, size = SIZES[dataset]
    train, test = data.load(dataset, n_train=n_train, n_test=n_test, size=size, seed=seed)
    train = poisoned(train, poison, rate, seed)
    run = training.fit(
        models.build("cnn", train, seed=seed),
        train,
        epochs=epochs,
        stop_after=None if whole else EARLY,
        seed=seed,
        probes={"layer": lambda model: activations.features(model, train.images)},
        probe_at=(EARLY,),
        progress=False,
    )
    early = {k.removeprefix("layer/"): v[0] for k, v in run.history.items() if "layer/" in k}
    early.pop(next(iter(early)))  # the first layer sees edges only
    return Case(train, test, run.model, early, epochs)


def poisoned(train: data.ImageSet, poison: str, rate: float, seed: int) -> PoisonedSet:
    """The training set as the victim gets it; the target class moves with the seed.

    Raises ``ValueError`` for a poison that the board does not know.
    """
    target = 3 * seed % train.num_classes
    if poison in ("clean", "flip"):
        return poisons.label_flip(train, rate, seed=seed)
    if poison == "wanet":  # without its noise mode, so that poison is what has a wrong label
        return poisons.wanet(train, rate, target, noise_ratio=0, seed=seed)
    if poison == "clean_label":
        surrogate = prepare(train.name, "clean", 0.0, seed).model
        eps = CLEAN_LABEL_EPS.get(train.name, 16 / 255)
        return poisons.clean_label_backdoor(
            train, surrogate, rate, target, eps=eps, amplify=2, seed=seed
        )
    if poison == "sig":  # with right labels it has no success on digits: data/results/poisons.csv
        return poisons.sig(train, rate, target, relabel=True, seed=seed)
    if poison not in ("badnets", "blended"):
        known = "clean, flip, badnets, blended, sig, wanet, clean_label"
        raise ValueError(f"poison: got {poison!r}; allowed are {known}")
    return getattr(poisons, poison)(train, rate, target, seed=seed)


def _torch() -> str:
    return torch.__version__.split("+")[0]
