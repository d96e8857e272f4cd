"""Exercises of lesson 02: flips, a trigger, what shows, and the mean of the target class."""

from __future__ import annotations

from typing import Any
from torch import Tensor
import torch

from nclib.course.exercises import Wrong, choice, close, exercise, expect, number
from nclib.poisons import triggers


def _flip(
    labels: Tensor, rate: float, num_classes: int, generator: torch.Generator
) -> Tensor:
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    shift = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    flipped = labels.clone()
    flipped[chosen] = (labels[chosen] + shift) % num_classes
    return flipped


@exercise(
    "02.flip",
    reference=_flip,
    hints=(
        "Clone the labels first. torch.randperm(N, generator=generator)[:count] are positions.",
        "torch.randint(1, K, (count,), generator=generator) never is 0. Add it modulo K.",
    ),
)
def _(answer: Any) -> None:
    labels = torch.arange(1000) % 5
    before = labels.clone()
    found, again = (
        torch.as_tensor(answer(labels, 0.3, 5, torch.Generator().manual_seed(0))) for _ in range(2)
    )
    expect(torch.equal(labels, before), "the labels you were given have changed: clone them first")
    expect(found.shape == labels.shape, f"the shape is {tuple(found.shape)}; (1000,) is expected")
    expect(0 <= int(found.min()) <= int(found.max()) < 5, "some labels are outside 0..K-1")
    changed = int((found != labels).sum())
    if 200 <= changed <= 270:
        raise Wrong(f"{changed} labels change instead of 300: some get their own class again")
    expect(changed == 300, f"{changed} labels change; round(0.3 * 1000) = 300 should")
    shift = ((found - labels) % 5).bincount(minlength=5)
    expect(int((shift > 0).sum()) == 5, "not all other classes are reached")
    expect(int(shift[1:].min()) > 45, "the other classes are not equally likely")
    moved = (found != labels).nonzero().squeeze(1)
    expect(bool((moved.diff() > 1).any()), "the changed labels lie side by side: choose at random")
    same = "the same generator gives another choice: pass it to randperm and to randint"
    expect(torch.equal(found, again), same)


@exercise(
    "02.trigger",
    reference=lambda images: triggers.patch(tuple(images.shape[1:]), "square")(images),
    hints=(
        "Clone the images, then assign 1 to a slice of all images and all channels.",
        "One pixel from the edge, three pixels wide: the slice is -4:-1, for rows and columns.",
    ),
)
def _(answer: Any) -> None:
    for shape in ((1, 8, 8), (3, 12, 10)):
        images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) * 0.9
        before = images.clone()
        found = answer(images)
        expect(torch.equal(images, before), "the images you were given have changed: clone them")
        expect(found.shape == images.shape, f"the shape has become {tuple(found.shape)}")
        count = int((found != images).flatten(1).any(1).sum())
        expect(count == 4, f"only {count} of 4 images carry the trigger")
        area = (found[0] != images[0]).any(0)
        expect(int(area.sum()) == 9, f"{int(area.sum())} pixels change per image; 3 x 3 = 9 should")
        expect(not area[-1].any() and not area[:, -1].any(), "leave one pixel free at the edge")
        close(found, triggers.patch(shape, "square")(images), "the stamped image")


choice(
    "02.lowers_accuracy",
    "flips",
    ("flips", "backdoor", "both"),
    why={
        "backdoor": "the backdoor only answers to its trigger, and clean test images carry none",
        "both": "clean test images carry no trigger. What is left for the backdoor to spoil?",
    },
    hints=(
        "Which of the two changes the label of images that look like clean test images?",
        "The relabelled images of the backdoor all carry the patch. The flipped ones do not.",
    ),
)

number(
    "02.factor",
    0.74,
    0.84,
    reference=0.8,
    hints=(
        "The mean of the mixed class is 0.8 times the old mean plus 0.2 times the guests' mean.",
        "Measured from the global mean, the guests cancel (nearly): what is left is 1 - alpha.",
    ),
)
