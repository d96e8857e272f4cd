"""What a verdict rests on: one group and its shares, the trainings, and what both steps measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn

from nclib import activations, models, training
from nclib.correction.opinions import Build
from nclib.data import ImageSet
from nclib.detection.crowds import breadth
from nclib.detection.groups import SMALLEST, complete
from nclib.detection.transplant import LARGEST

MEASURE = 360  # strangers that measure a chosen group


@dataclass(frozen=True, eq=False)
class Finding:
    """One group of a class, and what became of its transplant: four shares of turned strangers.

    Where no transplant showed anything, but the group came from all other classes, ``variety`` says
    how evenly, and ``control`` and ``keeps_control`` are NaN.
    """

    label: int
    group: Tensor  # bool [N], CPU
    added: Tensor  # [C, H, W], CPU: what was transplanted, group minus rest of the class
    trigger: Tensor  # [C, H, W], CPU: group minus what it looks like to the model without it
    source: int | None  # the shares are those of this class; None: the mean over all classes
    success: float  # turned by the model of everything
    without: float  # by a model that never met the group
    control: float  # by a model that never met as many random images of the class
    base: float  # by the model that never met the group, where nothing is added
    keeps: float  # share of the group that the model without it gives its label
    keeps_control: float  # share of the random images that the model without them gives it
    sure: float  # how probable the model without it finds what it takes it for; of strangers: 1
    kinds: float  # as how many classes, effectively, it sees what keeps its label no more
    kin: float  # where they are one: the share that varies as that class does; else NaN
    call: str  # "backdoor", "unclear" or "honest"
    variety: float | None = None  # of the classes that the model without it takes it for; 1: all


class View(NamedTuple):
    """What a model that was trained on everything shows of its training set."""

    victim: nn.Module
    features: dict[str, Tensor]  # {"layer@epoch": [N, D]}
    cuts: list[Tensor]  # of each class: bool [G, n_c]


def kinds(seen: Tensor, label: int) -> float:
    """The effective number of classes in ``seen`` int64 ``[n]``, of what is not ``label``."""
    return float(breadth(seen[seen != label].bincount(minlength=1)[None].double()))


def chance(keeps: float, count: int, others: float, drawn: int) -> float:
    """How often chance leaves a group so few of its labels beside random images (Fisher 1935).

    ``keeps`` is the share of the ``count`` images of the group that keep theirs, ``others`` that of
    the ``drawn`` random ones.
    """
    kept, known = round(keeps * count), round(others * drawn)
    table = [[kept, count - kept], [known, drawn - known]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


class Lab:
    """Trains on parts of the data, each time from a fresh start, and counts."""

    def __init__(
        self, data: ImageSet, build: Build | None, seed: int, options: dict[str, Any]
    ) -> None:
        self.data, self.seed, self.trainings = data, seed, 0
        self.build = build or (lambda part, seed: models.build("cnn", part, seed=seed))
        usual = min(128, max(8, len(data) // 10))  # small sets need steps, too
        self.options = {"batch_size": usual, "cache": False, "progress": False} | options
        self.epochs = options["epochs"]

    def fit(self, keep: Tensor, **options: Any) -> training.Run:
        """A fresh model, trained on the samples of the mask ``[N]``."""
        part, seed = self.data.subset(keep.to(self.data.device)), self.seed + self.trainings
        self.trainings += 1
        return training.fit(self.build(part, seed), part, seed=seed, **self.options, **options)

    def victim(self, keep: Tensor, early: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """The same, and what it makes of the samples: ``{"layer@epoch": [n, D]}``."""
        images = self.data.images[keep.to(self.data.device)]
        epochs = (early, self.epochs)
        look = {"layer": lambda model: activations.features(model, images)}
        run = self.fit(keep, probes=look, probe_at=epochs)
        layers = [name for name in run.history if name.startswith("layer/")]
        return run.model, {
            f"{name.removeprefix('layer/')}@{epoch}": run.history[name][i]
            for i, epoch in enumerate(sorted(set(epochs)))
            for name in layers
        }

    def without(self, keep: Tensor, groups: list[Tensor]) -> nn.Module:
        """A model that never met the groups, which are positions."""
        left = keep.clone()
        left[torch.cat(groups)] = False
        return self.fit(left).model


def draws(seed: int) -> torch.Generator:
    """A stream apart from that of ``seed``, with which the poison itself may have been drawn.

    With one stream for both, the random images were once exactly the poisoned ones.
    """
    return torch.Generator().manual_seed(seed + 1_000_003)


def first_epoch(features: dict[str, Tensor]) -> int:
    """The first epoch at which features were taken."""
    return min(int(name.rsplit("@", 1)[1]) for name in features)


def joint(features: dict[str, Tensor], epoch: int) -> Tensor:
    """All layers of an epoch side by side: float64 ``[n, D]``, CPU."""
    return torch.cat([h.cpu().double() for k, h in features.items() if k.endswith(f"@{epoch}")], 1)


def completed(hidden: Tensor, group: Tensor) -> Tensor:
    """The group with what its cut missed and without what it took by mistake; never too large."""
    full = complete(hidden, group)
    return full if SMALLEST <= int(full.sum()) <= LARGEST * len(full) else group


def recovered(data: ImageSet, group: Tensor, without: nn.Module) -> Tensor:
    """The group's mean image minus those of the classes that ``without`` takes it for."""
    inside = group.to(data.device)
    flat, labels = data.images.flatten(1), data.labels
    seen = training.predict(without, data.images[inside]).argmax(1)
    weight = (seen.bincount(minlength=data.num_classes) / len(seen))[labels] * ~inside
    sizes = labels[~inside].bincount(minlength=data.num_classes).clamp_min(1)
    weight = weight / sizes[labels]
    picture = flat[inside].mean(0) - weight @ flat / weight.sum().clamp_min(1e-9)
    return picture.reshape(data.shape).cpu()
