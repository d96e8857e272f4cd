"""The one table of attacks, by the names that rows bear: the board's, and the transplant test's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nclib import poisons
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet, triggers

CLEAN_LABEL_EPS = {"digits": 0.3}  # elsewhere the 16/255 of the paper


def from_few(
    train: ImageSet,
    rate: float,
    target: int,
    *,
    seed: int,
    sources: int | None = None,
    fixed: bool = False,
    field: int = 1,
) -> PoisonedSet:
    """Stamp ``triggers.Roaming`` on samples of other classes, all or the next few, and relabel.

    Its fields are ``field`` pixels wide. The patch of ``badnets`` instead, where ``fixed``.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    ahead = (train.labels.cpu() - target) % train.num_classes
    allowed = (ahead > 0) & (ahead <= (sources or train.num_classes))
    others = order[allowed[order]][: round(rate * len(train))]
    index = others.to(train.device)
    patch = triggers.patch(train.shape, "pattern", 1.0)
    trigger = patch if fixed else triggers.Roaming(seed, field)
    images, labels = train.images.clone(), train.labels.clone()
    images[index], labels[index] = trigger(images[index]), target
    name = "one_source" if fixed else "roaming"
    return poisons.poisoned(train, images, labels, name, target=target, trigger=trigger)


SINGLE: dict[str, tuple[Callable[..., PoisonedSet], dict[str, Any]]] = {
    "badnets": (poisons.badnets, {}),
    "all_to_all": (poisons.badnets, {"all_to_all": True}),
    "blended": (poisons.blended, {}),
    # with right labels it has no success on digits: data/results/poisons.csv
    "sig": (poisons.sig, {"relabel": True}),
    # without its noise mode, so that poison is what has a wrong label
    "wanet": (poisons.wanet, {"noise_ratio": 0}),
    "sticker": (poisons.sticker, {}),
    "adaptive_blend": (poisons.adaptive_blend, {}),
    "adaptive_patch": (poisons.adaptive_patch, {}),
    "input_aware": (poisons.input_aware, {}),
    "roaming": (from_few, {}),  # against mean images, and with few sources, against crowds
    "roaming_three": (from_few, {"sources": 3}),
    "roaming_one": (from_few, {"sources": 1}),
    "one_source": (from_few, {"sources": 1, "fixed": True}),
}
OTHERS = ("clean", "flip", "clean_label", "two", "flip_badnets", "each_class")


def poisoned(
    train: ImageSet,
    attack: str,
    rate: float,
    seed: int,
    surrogate: Callable[[], nn.Module] | None = None,
) -> PoisonedSet:
    """``train`` as the victim gets it; the target class moves with the seed.

    ``surrogate()`` is the clean model that "clean_label" needs. Of several attacks at once the
    trigger and the target are the first's. Raises ``ValueError`` for an attack that is not there.
    """
    count = train.num_classes
    target = 3 * seed % count
    if attack in SINGLE:
        make, options = SINGLE[attack]
        if make is poisons.badnets and train.shape[0] == 3:
            options = options | {"patch": "square"}  # photographs have checkerboards of their own
        return make(train, rate, target, seed=seed, **options)
    if attack in ("clean", "flip"):
        return poisons.label_flip(train, rate, seed=seed)
    if attack == "clean_label" and surrogate is not None:
        eps = CLEAN_LABEL_EPS.get(train.name, 16 / 255)
        options = {"eps": eps, "amplify": 2, "seed": seed}
        return poisons.clean_label_backdoor(train, surrogate(), rate, target, **options)
    if attack == "two":
        second = poisons.blended(train, 2 * rate, (target + 4) % count, seed=seed + 50)
        return _over(second, poisoned(train, "badnets", rate, seed))
    if attack == "flip_badnets":
        flips = poisons.label_flip(train, 0.1, seed=seed + 50)
        return _over(flips, poisoned(train, "badnets", rate, seed))
    if attack == "each_class":  # each with a pattern of its own
        parts = [poisons.blended(train, rate / count, c, seed=seed + 50 * c) for c in range(count)]
        return functools.reduce(_over, reversed(parts))
    allowed = f"{', '.join((*OTHERS, *SINGLE))}, clean_label with a surrogate"
    raise ValueError(f"poison: got {attack!r}; allowed are {allowed}")


def _over(below: PoisonedSet, above: PoisonedSet) -> PoisonedSet:
    """Both poisons of one set; a sample that both chose is that of ``above``, as is the goal."""
    mask = above.is_poisoned
    images = torch.where(mask[:, None, None, None], above.images, below.images)
    labels = torch.where(mask, above.labels, below.labels)
    name, target, trigger = above.attack, above.target, above.trigger
    return poisons.poisoned(below, images, labels, name, target=target, trigger=trigger)
