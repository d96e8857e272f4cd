"""Sealed cases: a training set of unknown state, and points for what an investigator hands in.

``sealed(number)`` deals a case of the course. Its commitment, the hash of a secret word, is known
beforehand; the word comes out when a finding has been handed in, and ``draw(word)`` is the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib import activations, correction, data, detection, models, poisons, training
from nclib.data import ImageSet
from nclib.doors import integer, seeded
from nclib.poisons import PoisonedSet, metrics

KINDS = ("flips", "badnets", "blended", "sticker", "sig", "narcissus", "two")
RATES = (0.04, 0.06, 0.08)  # of a backdoor; flips have 2.5 times as many
SIZES: dict[str, dict[str, Any]] = {"signs": {"size": 24, "difficulty": 0.6}, "mnist": {"size": 14}}
IMAGES = {"digits": 650}  # training images of a case; elsewhere 1,000
EPOCHS = 12
PARTS = ("verdict", "class", "samples", "repair", "spared")  # one point each


class Finding(NamedTuple):
    """What the investigator hands in."""

    poisoned: bool
    classes: tuple[int, ...]  # at which backdoors aim; () for clean sets and for flips
    suspects: Tensor  # bool [N]
    cleaned: ImageSet  # what a new model should be trained on


@dataclass(frozen=True, eq=False)
class Case:
    """What the investigator gets: images of 8 bits and labels as the victim had them."""

    name: str
    train: ImageSet
    commitment: str  # of the word that ``draw`` makes the truth from

    @cached_property
    def model(self) -> nn.Module:
        """The victim: the small CNN, trained on ``train`` to the end."""
        return trained(self.train, seed=0)


class Sealed:
    """A case and its envelope, which opens once, for a finding."""

    def __init__(self, name: str, word: str, dataset: str, n_train: int | None) -> None:
        self._word, self._from = word, (dataset, n_train)
        truth, _ = draw(word, *self._from)
        train = ImageSet(truth.images, truth.labels, truth.classes, truth.name)
        self.case, self.opened = Case(name, train, committed(word)), False

    def hand_in(self, finding: Finding) -> dict[str, Any]:
        """The points of ``finding`` and the word. Raises ``ValueError`` for a second finding."""
        if self.opened:
            raise ValueError(f"finding: {self.case.name} is open already; the first one counts")
        truth, test = draw(self._word, *self._from)
        row = grade(self.case, finding, truth, test)
        self.opened = True
        return row | {"word": self._word}


def sealed(number: int, dataset: str = "signs", n_train: int | None = None) -> Sealed:
    """Case ``number`` of the course; ``n_train`` images (None: as many as is usual)."""
    number = integer(number, "number", 0)
    word = hashlib.sha256(f"case {number} of {dataset}".encode()).hexdigest()[:24]
    return Sealed(f"case {number}", word, dataset, n_train)


def committed(word: str) -> str:
    """What is published of a secret word before the case is opened: SHA-256, as 64 hex digits."""
    return hashlib.sha256(f"commitment {word}".encode()).hexdigest()


@lru_cache(maxsize=4)
def draw(
    word: str, dataset: str = "signs", n_train: int | None = None
) -> tuple[PoisonedSet, ImageSet]:
    """The truth behind ``word``: the training set with what was done to it, and test images.

    The images, the state (clean in half of the draws), the attacks, their targets and rates all
    follow from the word. Images are rounded to 8 bits, as files are.
    """
    seed = int.from_bytes(hashlib.sha256(f"draw {word}".encode()).digest()[:4]) % 2**31
    count, dice = n_train or IMAGES.get(dataset, 1000), seeded(seed)
    options = SIZES.get(dataset, {}) | {"n_test": None if dataset == "digits" else 500}
    both, test = data.load(dataset, n_train=2 * count, seed=seed, device="cpu", **options)
    order = torch.randperm(len(both), generator=dice)
    train, other = (both.subset(part) for part in order.chunk(2))

    def roll(sides: int) -> int:
        return int(torch.randint(sides, (), generator=dice))

    truth = poisons.label_flip(train, 0.0)
    if roll(2):
        kinds = [k for k in KINDS if k != "sticker" or train.factors is not None]
        chosen = [kinds[roll(len(kinds))]]
        if chosen == ["two"]:
            order = torch.randperm(len(kinds) - 1, generator=dice)
            chosen = [kinds[i] for i in order[:2]]
        targets = torch.randperm(train.num_classes, generator=dice).tolist()
        for kind, target in zip(chosen, targets, strict=False):
            truth = planted(truth, kind, target, RATES[roll(len(RATES))], other, seed)
    return replace(truth, images=(truth.images * 255).round() / 255), test


def planted(
    train: ImageSet, kind: str, target: int, rate: float, other: ImageSet, seed: int
) -> PoisonedSet:
    """``train`` with one attack more; ``other`` are images that an attacker may train on."""
    options: dict[str, Any]
    if kind == "flips":
        return poisons.label_flip(train, 2.5 * rate, seed=seed)
    if kind == "narcissus":
        options = {"eps": 16 / 255, "warmup": 0, "steps": 60, "seed": seed}
        return poisons.narcissus(train, trained(other, seed=1), rate, target, **options)
    options = {"patch": "square"} if kind == "badnets" else {}
    return getattr(poisons, kind)(train, rate, target, seed=seed, **options)


def state(truth: PoisonedSet) -> str:
    """ "clean", or the names of the attacks."""
    named = [part.attack for part in truth.parts if part.is_poisoned.any()]
    return " + ".join(named) or "clean"


def grade(case: Case, finding: Finding, truth: PoisonedSet, test: ImageSet) -> dict[str, Any]:
    """Points of a finding, each between 0 and 1, their mean "score", and what stands behind them.

    "verdict": poisoned or not. "class": the accused targets and the true ones, shared / all.
    "samples": F1 of the suspects. "repair": a model trained on ``cleaned`` is at most .03 less
    accurate than the case's (with flips .03 more), and each trigger succeeds on at most a tenth, or
    a quarter of before. "spared": 1 minus ten times the share of clean images that are accused
    ("accused"). Raises ``ValueError`` for suspects of another shape.
    """
    bad, suspects = truth.is_poisoned.cpu(), torch.as_tensor(finding.suspects).cpu()
    if suspects.dtype != torch.bool or suspects.shape != bad.shape:
        got = f"{suspects.dtype} {tuple(suspects.shape)}"
        raise ValueError(f"suspects: got {got}; a bool mask {tuple(bad.shape)} is needed")
    aims = [part for part in truth.parts if part.trigger is not None and part.is_poisoned.any()]
    wanted, named = {part.target for part in aims}, {int(c) for c in finding.classes}
    kept = finding.cleaned
    kept = ImageSet(kept.images, kept.labels, kept.classes, kept.name)
    same = len(kept) == len(case.train) and torch.equal(kept.labels, case.train.labels)
    same = same and torch.equal(kept.images, case.train.images)
    after = case.model if same else trained(kept, seed=2)
    before, now = (training.accuracy(model, test) for model in (case.model, after))
    least = before + (0.03 if "label_flip" in state(truth) else -0.03)
    works = [[metrics.success(m, part, test) for part in aims] for m in (case.model, after)]
    stopped = all(new <= max(0.1, old / 4) for old, new in zip(*works, strict=True))
    accused = float((suspects & ~bad).sum() / (~bad).sum())
    points = {
        "verdict": float(bool(finding.poisoned) == bool(bad.any())),
        "class": len(wanted & named) / len(wanted | named) if wanted | named else 1.0,
        "samples": found(suspects, bad),
        "repair": float(now >= least and stopped),
        "spared": max(0.0, 1 - 10 * accused),
    }
    told = {"accused": accused, "accuracy": before, "accuracy_after": now}
    told |= {"success": max(works[0], default=0.0), "success_after": max(works[1], default=0.0)}
    score = sum(points.values()) / len(PARTS)
    return {"case": case.name, "state": state(truth), **points, "score": score, **told}


def found(suspects: Tensor, bad: Tensor) -> float:
    """F1 of the suspects ``[N]``; where nothing is poisoned, 1 for at most 2% suspects, else 0."""
    if not bad.any():
        return float(suspects.double().mean() <= 0.02)
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()))


def examine(
    investigate: Callable[[Case], Finding],
    cases: Iterable[Sealed],
    progress: bool = True,
) -> list[dict[str, Any]]:
    """What each of the cases gives for the finding of ``investigate(case)``."""
    bar = tqdm(list(cases), desc="cases", unit="case", disable=not progress)
    return [one.hand_in(investigate(one.case)) for one in bar]


def trusting(case: Case) -> Finding:
    """Accuses nobody."""
    return Finding(False, (), torch.zeros(len(case.train), dtype=torch.bool), case.train)


def suspicious(case: Case) -> Finding:
    """Always accuses: the tenth that lies farthest out, and the class that has most of it."""
    hidden = activations.penultimate(case.model, case.train.images)
    odd = detection.robust_distance(hidden, case.train.labels)
    suspects = detection.known_rate(odd, 0.1, factor=1)
    most = int(case.train.labels.cpu()[suspects].bincount().argmax())
    return Finding(True, (most,), suspects, correction.remove(case.train, suspects))


def transplanting(case: Case) -> Finding:
    """The transplant test as it comes."""
    told = correction.transplant(case.train, epochs=EPOCHS, lr=0.05)
    poisoned = told.call in ("backdoor", "wrong labels")
    cleaned = correction.remove(case.train, told.mask) if told.mask.any() else case.train
    return Finding(poisoned, told.classes, told.mask, cleaned)


def trained(part: ImageSet, seed: int, stop_after: int | None = None) -> nn.Module:
    """The small CNN on ``part``, as every model of a case is trained; or so many epochs of it."""
    model, stop = models.build("cnn", part, seed=seed), stop_after
    options: dict[str, Any] = {"epochs": EPOCHS, "lr": 0.05, "stop_after": stop, "seed": seed}
    return training.fit(model, part, progress=False, **options).model
