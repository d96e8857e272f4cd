"""A poisoned training set that remembers the truth, and the choice of samples to poison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from nclib.data import ImageSet, check_labels
from nclib.doors import integer, number, seeded

Trigger = Callable[..., Tensor]


class Step(NamedTuple):
    """What one of several attackers knows; the fields are those of ``PoisonedSet``."""

    attack: str
    target: int | None = None
    trigger: Trigger | None = None
    victims: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PoisonedSet(ImageSet):
    """An ``ImageSet`` as the victim gets it, and beside it what the attacker knows.

    ``clean_labels`` int64 ``[N]`` before the attack; ``is_poisoned`` bool ``[N]``, true where the
    attacker changed the image or the label; ``attack`` its name; ``target`` the class that the
    attacker wants to see (None: no single class). ``trigger(images) -> images`` is what he applies
    at test time (None: nothing; ``triggered`` does it to a set), ``victims`` ``[T, C, H, W]`` are
    the images he aims at (or None).

    After several attacks ``is_poisoned`` is true where the sample differs from the clean one,
    ``attack`` names them all, and the goal is that of the latest that has one; ``parts`` has each
    attack by itself.
    """

    clean_labels: Tensor = field(kw_only=True)
    is_poisoned: Tensor = field(kw_only=True)
    attack: str = "none"
    target: int | None = None
    trigger: Trigger | None = None
    victims: Tensor | None = None
    altered: Tensor | None = None  # bool [N]: the image differs from the clean one; None: unknown
    by: Tensor | None = None  # bool [N, A]: which of several attacks changed it; None: one attack
    steps: tuple[Step, ...] = ()  # the A attacks, in their order

    per_sample: ClassVar[tuple[str, ...]] = (
        *(*ImageSet.per_sample, "clean_labels"),
        *("is_poisoned", "altered", "by"),
    )

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

    @property
    def harmful(self) -> Tensor:
        """Bool ``[N]``: those with a false label, no covers; where none has, all poison."""
        false = self.labels != self.clean_labels
        return false if false.any() else self.is_poisoned

    @property
    def parts(self) -> tuple[PoisonedSet, ...]:
        """The set as each attacker sees it, in their order: his samples, his trigger, his target.

        ``success(model, part, test)`` measures each attack by itself.
        """
        if self.by is None:
            return (self,)
        return tuple(
            replace(self, is_poisoned=mask, by=None, steps=(), **step._asdict()).to(self.device)
            for step, mask in zip(self.steps, self.by.unbind(1), strict=True)
        )

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
    data: ImageSet,
    images: Tensor,
    labels: Tensor,
    attack: str,
    *,
    target: int | None = None,
    trigger: Trigger | None = None,
    victims: Tensor | None = None,
) -> PoisonedSet:
    """``data`` with new ``images`` and ``labels``; the mask is read off from what has changed.

    The one door of every attack: where ``data`` is poisoned already, its truth is kept. So two
    backdoors at once, flips and a backdoor, or a trigger per class (``blended(data, rate, c,
    seed=c)`` for each class c) are attacks one after the other; a later one may take a sample of
    an earlier one, and ``metrics.outcome`` has the success of each.
    """
    altered = (images != data.images).flatten(1).any(1)
    mask = altered | (labels != data.labels)
    step = Step(attack, target, trigger, victims)
    kept = (images, labels, data.classes, data.name, data.factors)
    if not isinstance(data, PoisonedSet):
        return PoisonedSet(*kept, *step, altered, clean_labels=data.labels, is_poisoned=mask)
    earlier = data.is_poisoned if data.altered is None else data.altered
    altered = altered | earlier
    wrong = altered | (labels != data.clean_labels)  # a label may have come back
    parts = data.parts
    steps = data.steps or (Step(data.attack, data.target, data.trigger, data.victims),)
    by = torch.stack([*(part.is_poisoned for part in parts), mask], 1) & wrong[:, None]
    steps = (*steps, step)
    goal = next((s for s in reversed(steps) if s.trigger or s.victims is not None), step)
    goal = goal._replace(attack=" + ".join(s.attack for s in steps))
    return PoisonedSet(
        *(*kept, *goal, altered, by, steps), clean_labels=data.clean_labels, is_poisoned=wrong
    )


def check_target(data: ImageSet, target: int) -> None:
    """Refuse a class that ``data`` does not have with a ``ValueError``."""
    integer(target, "target", 0, data.num_classes - 1)


def check_budget(eps: float, name: str = "eps") -> None:
    """Refuse anything but a number in [0, 1] with a ``ValueError``."""
    number(eps, name, 0, 1)


def choose(data: ImageSet, rate: float, allowed: Tensor | None = None, seed: int = 0) -> Tensor:
    """Positions of ``round(rate * N)`` random samples among those that the mask allows, sorted.

    ``rate`` is a share of the whole set, whatever the mask. Raises ``ValueError`` for a rate
    outside [0, 1], for one that rounds to no sample, and for one that the mask cannot fill.
    """
    number(rate, "rate", 0, 1)
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
    integer(count, name)
    candidates = everyone if allowed is None else everyone[allowed.cpu()]
    if not 0 <= count <= len(candidates):
        raise ValueError(
            f"{name}: asks for {count} images, but this attack may change 0 to {len(candidates)} "
            f"of {len(data)} (at most {len(candidates) / len(data):.3f} of the set)"
        )
    order = torch.randperm(len(candidates), generator=seeded(seed))
    return candidates[order[:count]].sort().values.to(data.device)
