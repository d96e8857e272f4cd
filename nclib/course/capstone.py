"""Sealed cases: a training set of unknown state, and points for what an investigator hands in.

``sealed(number)`` deals a case of the course. Its commitment, the hash of a secret word, is known
beforehand; the word comes out when a finding has been handed in, and ``draw(word)`` is the truth.

The poison is any of the course that does something to a network trained from scratch on 1,000 signs
of 24 pixels. Two kinds do not, and are not drawn: an all-to-all backdoor (success .22 with a fifth
of the images, .03 on a clean network, two draws) and the hardened clean-label backdoor (.07, .16
and .28 with 8% of the images, .00 to .04 on a clean network).
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
from nclib.scoreboard.attacks import from_few

# The kinds of poison by their names in ``poisons``, and how many times the rolled rate each takes
KINDS = {"label_flip": 2.5, "badnets": 1, "blended": 1, "sticker": 1, "wanet": 2, "input_aware": 1}
KINDS |= {"adaptive_blend": 1, "adaptive_patch": 1, "roaming": 1, "one_source": 0.75}
KINDS |= {"each_class": 2}
AIMED = ("feature_collision", "bullseye_polytope", "gradient_matching")  # at one test image
RIGHT = ("sig", "narcissus", *AIMED)  # labels stay, so there are no more than the class has
KINDS |= dict.fromkeys(RIGHT, 1)
COVERED = ("adaptive_blend", "adaptive_patch", "input_aware")  # a part of it has right labels
OPTIONS: dict[str, dict[str, Any]] = {
    "badnets": {"patch": "square"},
    "wanet": {"s": 1.0, "noise_ratio": 0},
    "one_source": {"sources": 1, "fixed": True},
    "sig": {"delta": 60 / 255},
    "narcissus": {"eps": 16 / 255, "warmup": 0, "steps": 60},
    "feature_collision": {"steps": 60},
    "bullseye_polytope": {"eps": 0.2, "lr": 0.01, "steps": 100},
    "gradient_matching": {"steps": 60, "restarts": 1},
}
WEAK = {"digits": ("sig", "narcissus")}  # success .01 and .14 there; .00 and .11 on a clean network
RATES = (0.04, 0.06, 0.08)
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

    truth: PoisonedSet = poisons.label_flip(train, 0.0)
    chosen: list[str] = []
    if roll(2):
        idle = WEAK.get(dataset, ()) + (("sticker",) if train.factors is None else ())
        kinds = [kind for kind in KINDS if kind not in idle]
        several = 1 + (roll(5) == 0)
        chosen = [kinds[i] for i in torch.randperm(len(kinds), generator=dice)[:several]]
    targets = torch.randperm(train.num_classes, generator=dice)
    for kind, target in zip(chosen, targets.tolist(), strict=False):
        rate = KINDS[kind] * RATES[roll(len(RATES))]
        truth = planted(truth, kind, target, rate, other, test, seed)
    images = (truth.images * 255).round() / 255
    return replace(truth, images=images, attack=" + ".join(chosen) or "clean"), test


def planted(
    train: PoisonedSet,
    kind: str,
    target: int,
    rate: float,
    other: ImageSet,
    test: ImageSet,
    seed: int,
) -> PoisonedSet:
    """``train`` with one attack more, by somebody who may train on ``other``.

    Who aims at one image knows ``train`` and the victim's recipe, and takes that image of ``test``
    which is nearest to being called ``target``.
    """
    options = OPTIONS.get(kind, {}) | {"seed": seed}
    if kind == "roaming":
        options |= {"field": max(1, train.shape[-1] // 12)}
    if kind == "label_flip":
        return poisons.label_flip(train, rate, **options)
    if kind == "each_class":
        for c in range(train.num_classes):
            train = poisons.blended(train, rate / train.num_classes, c, seed=seed + c)
        return train
    make: Callable[..., PoisonedSet] = getattr(poisons, kind, from_few)
    if kind not in RIGHT:
        return make(train, rate, target, **options)
    rate = min(rate, float((train.labels == target).double().mean()))
    if kind == "sig":
        return make(train, rate, target, **options)
    if kind in AIMED:
        net = trained(train, seed=0)
        victim = test.images[nearest(net, test, target)][None]
        count = {"poisons": round(rate * len(train))}
        options |= {"rate": rate} if kind == "gradient_matching" else count
        return make(train, net, victim, target, **options)
    return make(train, trained(other, seed=1), rate, target, **options)


def nearest(net: nn.Module, test: ImageSet, target: int) -> int:
    """Which image of another class, rightly named by ``net``, is nearest to ``target``."""
    logits = training.predict(net, test.images)
    right = (logits.argmax(1) == test.labels) & (test.labels != target)
    lead = logits.gather(1, test.labels[:, None]).squeeze(1) - logits[:, target]
    return int(lead.masked_fill(~right, torch.inf).argmin())


def family(state: str) -> str:
    """What the poison of a case is made of: wrong labels, strangers, or images of the class."""
    if state == "clean" or "+" in state:
        return "two at once" if "+" in state else state
    if state == "label_flip":
        return "wrong labels"
    return "right labels" if state in RIGHT else "strangers"


def grade(case: Case, finding: Finding, truth: PoisonedSet, test: ImageSet) -> dict[str, Any]:
    """Points of a finding, each between 0 and 1, their mean "score", and what stands behind them.

    "verdict": poisoned or not. "class": the accused targets and the true ones, shared / all.
    "samples": F1 of the suspects; covers, whose labels are right, count neither way. "repair": a
    model trained on ``cleaned`` is at most .03 less accurate than the case's (with flips .03 more),
    and each attack succeeds on at most a tenth, or a quarter of before, or .05 more than on a model
    trained without all poison ("success_never"); the success of an attack on one image is 0 or 1.
    "spared": 1 minus ten times the share of clean images that are accused ("accused"). Raises
    ``ValueError`` for suspects of another shape.
    """
    bad, suspects = truth.is_poisoned.cpu(), torch.as_tensor(finding.suspects).cpu()
    if suspects.dtype != torch.bool or suspects.shape != bad.shape:
        got = f"{suspects.dtype} {tuple(suspects.shape)}"
        raise ValueError(f"suspects: got {got}; a bool mask {tuple(bad.shape)} is needed")
    aims = [part for part in truth.parts if part.trigger or part.victims is not None]
    wanted, accused = {part.target for part in aims}, {int(c) for c in finding.classes}
    kept = finding.cleaned
    kept = ImageSet(kept.images, kept.labels, kept.classes, kept.name)
    same = len(kept) == len(case.train) and torch.equal(kept.labels, case.train.labels)
    same = same and torch.equal(kept.images, case.train.images)
    models = [case.model, case.model if same else trained(kept, seed=2)]
    before, now = (training.accuracy(model, test) for model in models)
    least = before + (0.03 if "label_flip" in truth.attack else -0.03)
    if aims:
        models.append(trained(correction.remove(case.train, bad), seed=2))
    works = [[success(model, part, test) for part in aims] for model in models]
    each = zip(*works, strict=True)
    stopped = all(new <= max(0.1, old / 4, never + 0.05) for old, new, never in each)
    wronged, told = float((suspects & ~bad).sum() / (~bad).sum()), ~covers(truth)
    points = {
        "verdict": float(bool(finding.poisoned) == bool(bad.any())),
        "class": len(wanted & accused) / len(wanted | accused) if wanted | accused else 1.0,
        "samples": found(suspects[told], bad[told]),
        "repair": float(now >= least and stopped),
        "spared": max(0.0, 1 - 10 * wronged),
    }
    behind = {"accused": wronged, "accuracy": before, "accuracy_after": now}
    names = ("success", "success_after", "success_never")
    behind |= {name: max(row, default=0.0) for name, row in zip(names, works, strict=False)}
    named = {"case": case.name, "state": truth.attack, "family": family(truth.attack)}
    return named | points | {"score": sum(points.values()) / len(PARTS)} | behind


def success(model: nn.Module, part: PoisonedSet, test: ImageSet) -> float:
    """``metrics.success``; of a trigger on images of one class, the one above, on that class."""
    if part.attack == "one_source" and part.target is not None:
        test = test.subset(test.labels == (part.target + 1) % test.num_classes)
    return metrics.success(model, part, test)


def covers(truth: PoisonedSet) -> Tensor:
    """Bool ``[N]``: changed by an attack that covers itself with rightly labelled images."""
    masks = [part.is_poisoned for part in truth.parts if part.attack in COVERED]
    right = (truth.labels == truth.clean_labels).cpu()
    return right & torch.stack([m.cpu() for m in masks]).any(0) if masks else ~right & right


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
