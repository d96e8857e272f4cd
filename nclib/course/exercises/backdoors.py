"""Exercises whose answer is an attack: a backdoor that changes only so much of a training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nclib.course.exercises import exercise, expect
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet


def backdoor(name: str, most: float, *, reference: Any, hints: Sequence[str]) -> None:
    """Declare ``name``: ``attack(train, seed)`` -> ``PoisonedSet``, a share ``most`` changed."""

    @exercise(name, reference=reference, hints=hints)
    def _(answer: Any) -> None:
        draw = torch.Generator().manual_seed(1)
        images, labels = torch.rand(400, 3, 12, 12, generator=draw), torch.arange(10).repeat(40)
        clean = ImageSet(images, labels, tuple("abcdefghij"), "noise")
        found = answer(clean, 3)
        expect(
            isinstance(found, PoisonedSet),
            f"a poisoned set is expected, not {type(found).__name__}: begin with one of "
            "nclib.poisons",
        )
        expect(len(found) == len(clean), "the set keeps its size: change images, and add none")
        altered = (found.images.cpu() != images).flatten(1).any(1) | (found.labels.cpu() != labels)
        share = float(altered.double().mean())
        expect(share > 0, "nothing is poisoned")
        told = f"{share:.1%} of the images or labels are changed; {most:.0%} are allowed"
        expect(share <= most + 1e-3, told)
        aim = "a backdoor has a target: the class that its trigger calls"
        expect(found.target is not None, aim)
        expect(found.trigger is not None, "a backdoor has a trigger, to be used at test time")
        assert found.trigger is not None
        moved = (found.trigger(images[:8]) - images[:8]).abs().max()
        expect(float(moved) > 0, "the trigger changes nothing")
