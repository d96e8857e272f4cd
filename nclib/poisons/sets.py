"""A poisoned training set that remembers the truth, and the choice of samples to poison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from nclib.data import ImageSet, check_labels

Trigger = Callable[..., Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class PoisonedSet(ImageSet):
    """An ``ImageSet`` as the victim gets it, and beside it what the attacker knows.

    ``clean_labels`` int64 ``[N]`` before the attack; ``is_poisoned`` bool ``[N]``, true where the
    attacker changed the image or the label; ``attack`` its name; ``target`` the class that the
    attacker wants to see (None: no single class). ``trigger(images) -> images`` is what he applies
    at test time (None: nothing; ``triggered`` does it to a set), ``victims`` ``[T, C, H, W]`` are
    the images he aims at (or None).
    """

    clean_labels: Tensor = field(kw_only=True)
    is_poisoned: Tensor = field(kw_only=True)
    attack: str = "none"
    target: int | None = None
    trigger: Trigger | None = None
    victims: Tensor | None = None

    per_sample: ClassVar[tuple[str, ...]] = (*ImageSet.per_sample, "clean_labels", "is_poisoned")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.clean_labels, len(self), self.num_classes)
        mask = self.is_poisoned
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or len(mask) != len(self):
            raise ValueError(f"is_poisoned: a bool tensor [{len(self)}] is needed")

    @property
    def rate(self) -> float:
        """Share of the samples that are poisoned."""
        return float(self.is_poisoned.float().mean())

    def triggered(self, data: ImageSet) -> Tensor:
        """The images of ``data`` as the attacker shows them. Raises ``ValueError`` without trigger.

        A trigger that sits on a sign is told where the sign is.
        """
        if self.trigger is None:
            raise ValueError(f"attack: {self.attack!r} has no trigger; it aims at single images")
        return stamped(self.trigger, data)

    def goal(self, labels: Tensor) -> Tensor:
        """The label the attacker wants for test images of these true labels, once triggered."""
        if self.trigger is None and self.victims is None:
            raise ValueError(f"attack: {self.attack!r} has no goal; it only does harm")
        if self.target is None:  # all-to-all
            return (labels + 1) % self.num_classes
        return torch.full_like(labels, self.target)


def stamped(trigger: Trigger, data: ImageSet) -> Tensor:
    """The images of ``data`` under a trigger, which gets the factors where it asks for them."""
    factors = (data.factors,) if getattr(trigger, "needs_factors", False) else ()
    return trigger(data.images, *factors)


def poisoned(
    data: ImageSet, images: Tensor, labels: Tensor, attack: str, **truth: Any
) -> PoisonedSet:
    """``data`` with new ``images`` and ``labels``; the mask is read off from what has changed."""
    changed = (images != data.images).flatten(1).any(1) | (labels != data.labels)
    truth = {"clean_labels": data.labels, "is_poisoned": changed, **truth}
    kept = (data.classes, data.name, data.factors)
    return PoisonedSet(images, labels, *kept, attack=attack, **truth)


def check_target(data: ImageSet, target: int) -> None:
    """Refuse a class that ``data`` does not have with a ``ValueError``."""
    if not isinstance(target, int) or not 0 <= target < data.num_classes:
        raise ValueError(f"target: got {target!r}; 0..{data.num_classes - 1} is allowed")


def check_budget(eps: float, name: str = "eps") -> None:
    """Refuse anything but a number in [0, 1] with a ``ValueError``."""
    if not 0 <= eps <= 1:
        raise ValueError(f"{name}: got {eps}; 0 to 1 is allowed (images lie in [0, 1])")


def choose(data: ImageSet, rate: float, allowed: Tensor | None = None, seed: int = 0) -> Tensor:
    """Positions of ``round(rate * N)`` random samples among those that the mask allows, sorted.

    ``rate`` is a share of the whole set, whatever the mask. Raises ``ValueError`` for a rate
    outside [0, 1], for one that rounds to no sample, and for one that the mask cannot fill.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: got {rate}; 0 to 1 is allowed (a share of the training set)")
    count = round(rate * len(data))
    if rate > 0 and count == 0:
        raise ValueError(
            f"rate: {rate} of {len(data)} images rounds to none;"
            f" 0, or {1 / len(data):.2g} and more, is allowed"
        )
    return choose_count(data, count, allowed, seed, "rate")


def choose_count(
    data: ImageSet, count: int, allowed: Tensor | None = None, seed: int = 0, name: str = "poisons"
) -> Tensor:
    """``choose`` by number: positions of ``count`` random samples that the mask allows, sorted."""
    everyone = torch.arange(len(data))
    candidates = everyone if allowed is None else everyone[allowed.cpu()]
    if not 0 <= count <= len(candidates):
        raise ValueError(
            f"{name}: asks for {count} images, but this attack may change 0 to {len(candidates)} "
            f"of {len(data)} (at most {len(candidates) / len(data):.3f} of the set)"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    return candidates[order[:count]].sort().values.to(data.device)
