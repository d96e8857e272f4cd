"""Exercises of lesson 05: the core, the second look, the control, a detector of one's own."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import torch

from nclib import correction
from nclib.course.exercises import choice, exercise, expect
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
    found = torch.as_tensor(answer(odd, labels))
    expect(found.shape == (70,) and found.dtype == torch.bool, "a bool mask [N] is expected")
    expect(bool(found.any()), "the mask is empty")
    counts = labels[found].bincount(minlength=3).tolist()
    expect(counts == [3, 4, 7], f"a fifth of each class is [3, 4, 7] samples, not {counts}")
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
    found = torch.as_tensor(answer(logits, labels, doubted))
    expect(found.shape == (200,) and found.dtype == torch.bool, "a bool mask [N] is expected")
    expect(not (found & ~doubted).any(), "a sample that nobody doubted must stay")
    wanted = _second_look(logits, labels, doubted)
    if torch.equal(found, doubted & (logits.argmax(1) != labels)):
        expect(False, "compare the label's probability with chance, 1/K, not with the winner's")
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
