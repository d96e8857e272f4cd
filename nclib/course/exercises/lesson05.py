"""Exercises of lesson 05: the core, the second look, the control, a detector of one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import correction
from nclib.course.exercises import choice, exercise, expect, mask
from nclib.course.exercises.detectors import detector


def _core(odd: Tensor, labels: Tensor) -> Tensor:
    return correction.core_of(odd, labels, 0.2)


def _second_look(logits: Tensor, labels: Tensor, doubted: Tensor) -> Tensor:
    own = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    return doubted & (own < 1 / logits.shape[1])


@exercise(
    "05.core",
    reference=_core,
    hints=(
        "Go class by class: index = (labels == c).nonzero().flatten().",
        "keep = round(0.2 * len(index)); odd[index].argsort()[:keep] are the most typical ones.",
        "mask[index[order]] = True puts them back into their places in the whole set.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(5)
    labels = torch.arange(3).repeat_interleave(torch.tensor([13, 20, 37]))
    labels = labels[torch.randperm(70, generator=draw)]
    odd = torch.rand(70, generator=draw).double()
    odd[labels == 1] += 5  # a class that is odd as a whole
    found = mask(answer(odd, labels), 70)
    expect(bool(found.any()), "the mask is empty")
    counts = labels[found].bincount(minlength=3).tolist()
    rounded = {"rounded down": [2, 4, 7], "rounded up": [3, 4, 8]}
    word = next((f", {word}" for word, other in rounded.items() if counts == other), "")
    expect(
        counts == [3, 4, 7],
        f"a fifth of each class is [3, 4, 7] samples (rounded), not {counts}{word}",
    )
    oddest = torch.equal(found, _core(-odd, labels))
    expect(not oddest, "those are the oddest ones; the most *typical* have the lowest values")
    expect(torch.equal(found, _core(odd, labels)), "the most *typical* ones have the lowest values")


@exercise(
    "05.second_look",
    reference=_second_look,
    hints=(
        "softmax(1) turns logits into probabilities; gather picks the one of the label.",
        "own = logits.softmax(1).gather(1, labels[:, None]).squeeze(1); chance is 1 / K.",
        "Only doubted samples can be removed: doubted & (own < 1 / logits.shape[1]).",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(6)
    logits, labels = 3 * torch.randn(200, 4, generator=draw), torch.arange(200) % 4
    doubted = torch.rand(200, generator=draw) < 0.5
    found = mask(answer(logits, labels, doubted), 200)
    expect(not (found & ~doubted).any(), "a sample that nobody doubted must stay")

    def own(values: Tensor) -> Tensor:
        return values.gather(1, labels[:, None]).squeeze(1)

    chances = logits.softmax(1)
    for word, wrong in {
        "compare the label's probability with chance, 1/K, not with the winner's": (
            logits.argmax(1) != labels
        ),
        "it is the other way round: what is *less* likely than chance goes": own(chances) > 1 / 4,
        "those are logits: softmax(1) makes probabilities of them": own(logits) < 1 / 4,
        "chance is 1/K, not 1/2: there are more than two classes": own(chances) < 1 / 2,
        "all that was doubted goes: look a second time, at a softmax over dimension 1": chances[:, 0] >= 0,
        "take the probability of the label, not the largest one": chances.amax(1) < 1 / 4,
        "chance is 1/K with K classes, not 1/N": own(chances) < 1 / 200,
    }.items():
        expect(not torch.equal(found, doubted & wrong), word)
    wanted = _second_look(logits, labels, doubted)
    expect(torch.equal(found, wanted), "remove where the label's probability is below 1/K")


choice(
    "05.control",
    "hardly moves",
    ("hardly moves", "falls to zero"),
    hints=(
        "How many triggered images are left when a random part of the class is removed?",
        "Lesson 02: two triggered images in a hundred were enough.",
    ),
    why={"falls to zero": "most of the triggered images stay, and few are enough"},
)


detector(
    "05.detector",
    0.9,
    hints=(
        "A start: for each class the distance of each feature to the class *median*.",
        "Divide the distances of each class by their median, so that the classes compare.",
        "Or call a score of nclib.detection and change one thing in it.",
    ),
)
