"""Exercises of lesson 02: flips, a trigger, what shows, and the mean of the target class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib.course.exercises import Wrong, choice, close, exercise, expect, number, tensor
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
    found, again, all_of_them = (
        tensor(answer(labels, rate, 5, torch.Generator().manual_seed(0)), "the labels")
        for rate in (0.3, 0.3, 1.0)
    )
    expect(torch.equal(labels, before), "the labels you were given have changed: clone them first")
    expect(found.shape == labels.shape, f"the shape is {tuple(found.shape)}; (1000,) is expected")
    expect(0 <= int(found.min()) <= int(found.max()) < 5, "some labels are outside 0..K-1")
    changed, most = (int((a != labels).sum()) for a in (found, all_of_them))
    if changed < 290 and 560 <= most <= 700:  # 1 - 1/e of all
        raise Wrong(f"{changed} labels change instead of 300: some are drawn twice; use randperm")
    if 200 <= changed <= 270:
        raise Wrong(f"{changed} labels change instead of 300: some get their own class again")
    expect(changed == 300, f"{changed} labels change; round(0.3 * 1000) = 300 should")
    expect(most == 1000, f"at a rate of 1 only {most} of 1000 labels change")
    shift = ((found - labels) % 5).long().bincount(minlength=5)
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
        found = tensor(answer(images), "the images").to(images.dtype)
        expect(torch.equal(images, before), "the images you were given have changed: clone them")
        expect(found.shape == images.shape, f"the shape has become {tuple(found.shape)}")
        count = int((found != images).flatten(1).any(1).sum())
        expect(count == 4, f"only {count} of 4 images carry the trigger")
        area = (found[0] != images[0]).any(0)
        rows, columns = (sorted(set(axis.tolist())) for axis in area.nonzero().T)
        square = rows == columns == [4, 5, 6] and shape[1] > 8
        expect(not square, "in larger images the square stands inside: count from the end, -4:-1")
        expect(int(area.sum()) == 9, f"{int(area.sum())} pixels change per image; 3 x 3 = 9 should")
        expect(not area[-1].any() and not area[:, -1].any(), "leave one pixel free at the edge")
        expect(bool(area[-4:-1, -4:-1].all()), "the stamped square stands in another corner")
        expect(bool((found != images)[:, :, area].all()), "stamp every channel")
        expect(bool((found[:, :, area] == 1).all()), "the stamped pixels should be 1, full ink")
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
    why={
        0.2: "that is the share of the guests, alpha; what is left of the old mean?",
        1.0: "the guests pull the mean of the class towards the centre",
    },
)
