"""The victims of the board: a poisoned set, the model that was trained on it, what is spared."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nclib import activations, data, device, fast, models, training
from nclib.poisons import PoisonedSet
from nclib.scoreboard.attacks import poisoned
from nclib.scoreboard.grids import EARLY, SIZES, SPARE


@dataclass(frozen=True)
class Case:
    """A victim: its training set with the truth, its test set, its model, its early features."""

    train: PoisonedSet
    test: data.ImageSet
    spare: data.ImageSet  # clean images that are neither trained nor measured on
    model: nn.Module  # trained to the end, where the case is whole
    early: dict[str, Tensor]  # {layer: [N, D]} after EARLY epochs, without the first layer
    epochs: int
    arch: str

    def plan(self, train: data.ImageSet) -> dict[str, Any]:
        """The keywords of ``training.fit`` for training on ``train`` as the victim was trained."""
        return plan(self.arch, train, self.epochs)

    def build(self, train: data.ImageSet, seed: int) -> nn.Module:
        """A fresh model of the victim's kind."""
        return models.build(self.arch, train, seed=seed)

    def retrain(self, kept: data.ImageSet, seed: int, **options: Any) -> nn.Module:
        """A fresh model trained on ``kept`` as the victim was, from another start."""
        options = self.plan(kept) | {"seed": seed + 10, "cache": False, "progress": False} | options
        return training.fit(self.build(kept, seed + 10), kept, **options).model


def plan(arch: str, train: data.ImageSet, epochs: int) -> dict[str, Any]:
    """The keywords of ``training.fit`` for a network of this kind."""
    return fast.recipe(train, epochs=epochs) if arch == "fast" else {"epochs": epochs}


@functools.lru_cache(maxsize=4)
def prepare(dataset: str, poison: str, rate: float, seed: int, *, whole: bool = True) -> Case:
    """The case of a cell, trained once for all of them: the run cache has it afterwards.

    Not ``whole``: the training ends with the early features, and the model is that of then.
    """
    n_train, n_test, epochs, pixels, arch, name = SIZES[dataset]
    place = device.pick()
    train, test = data.load(
        origin(name or dataset),
        n_train=n_train,
        n_test=n_test,
        size=pixels,
        seed=seed,
        device=place,
    )
    train, test = replace(train, name=dataset), replace(test, name=dataset)
    if arch == "fast":  # a folder comes class by class, and the network whitens by the first images
        draw = torch.Generator().manual_seed(seed)
        train = train.subset(torch.randperm(len(train), generator=draw))
    given = torch.zeros(len(test), dtype=torch.bool)
    given[data.stratified(test.labels, round(SPARE * len(train)), seed)] = True
    spare, test = test.subset(given.to(test.device)), test.subset(~given.to(test.device))
    train = poisoned(train, poison, rate, seed, lambda: prepare(dataset, "clean", 0.0, seed).model)
    run = training.fit(
        models.build(arch, train, seed=seed),
        train,
        **plan(arch, train, epochs),
        stop_after=None if whole else EARLY,
        seed=seed,
        probes={"layer": lambda model: activations.features(model, train.images)},
        probe_at=(EARLY,),
        progress=False,
    )
    early = {k.removeprefix("layer/"): v[0] for k, v in run.history.items() if "layer/" in k}
    early.pop(next(iter(early)))  # the first layer sees edges only
    return Case(train, test, spare, run.model, early, epochs, arch)


def origin(dataset: str) -> str:
    """What ``data.load`` reads: for "cifar10" what ``NCLIB_CIFAR10`` names, JPEG copies, say."""
    return os.environ.get("NCLIB_CIFAR10", dataset) if dataset == "cifar10" else dataset
