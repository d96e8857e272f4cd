"""Exercises and predictions of lesson 05: the transplant test in three steps, and its reading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import correction, poisons
from nclib.course.exercises import exercise, expect, mask, prediction, tensor, usual
from nclib.course.exercises.backdoors import backdoor
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet


def _split(features: Tensor) -> Tensor:
    rows = features.double() - features.double().mean(0)
    side = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[0] > 0
    for _ in range(30):
        centres = torch.stack([rows[~side].mean(0), rows[side].mean(0)])
        side = torch.cdist(rows, centres).argmin(1).bool()
    return side if 2 * int(side.sum()) <= len(side) else ~side


def _two_heaps(turned: bool) -> tuple[Tensor, Tensor]:
    """Features ``[48, 6]`` of one class: 40 spread along a line, 8 beyond its end, shuffled."""
    draw = torch.Generator().manual_seed(5)
    line = torch.cat([torch.linspace(-2, 2, 40), 7 + torch.linspace(-0.3, 0.3, 8)])
    axis = torch.nn.functional.normalize(torch.randn(6, generator=draw), dim=0)
    rows = (-1 if turned else 1) * line[:, None] * axis
    rows = rows + 0.05 * torch.randn(48, 6, generator=draw) + 9.0  # far from the origin
    order = torch.randperm(48, generator=draw)
    return rows[order], (torch.arange(48) >= 40)[order]


@exercise(
    "05.split",
    reference=_split,
    hints=(
        "A start: centre the rows and cut where the projection on their leading direction, "
        "torch.linalg.svd(rows, full_matrices=False).Vh[0], changes its sign.",
        "Then twenty times: the mean of each side, and each row to the mean that is nearer.",
        "side = torch.cdist(rows, torch.stack([rows[~side].mean(0), rows[side].mean(0)]))"
        ".argmin(1).bool(); in the end return the smaller of side and ~side.",
    ),
)
def _(answer: Any) -> None:
    for turned in (False, True):
        rows, few = _two_heaps(turned)
        found, centred = mask(answer(rows), 48), rows - rows.mean(0)
        expect(bool(found.any()) and not bool(found.all()), "all rows are on one side: centre them")
        expect(not torch.equal(found, ~few), "that is the larger side; return the smaller one")
        line = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
        for word, wrong in {
            "the sign of the projection cuts at the mean of all rows: go on, each row to the "
            "nearer of the two means, until nothing changes": line > 0,
            "a cut at the median halves every class, whatever is in it": line > line.median(),
        }.items():
            same = torch.equal(found, wrong) or torch.equal(found, ~wrong)
            expect(not same, word)
        expect(
            torch.equal(found, few),
            f"of two heaps of 40 and 8 rows, {int(found[few].sum())} of the 8 and "
            f"{int(found[~few].sum())} of the 40 are marked",
        )


def _transplant(strangers: Tensor, group: Tensor, rest: Tensor) -> Tensor:
    return (strangers + group.mean(0) - rest.mean(0)).clamp(0, 1)


@exercise(
    "05.transplant",
    reference=_transplant,
    hints=(
        "A mean image is images.mean(0), of shape [C, H, W]: it adds to every stranger.",
        "What sets the group apart is its mean image minus that of the rest of the class.",
        "(strangers + group.mean(0) - rest.mean(0)).clamp(0, 1)",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(6)
    strangers, group, rest = (torch.rand(n, 3, 5, 5, generator=draw) for n in (4, 6, 9))
    group[:, :, 3:, 3:] = 1.0
    found = tensor(answer(strangers.clone(), group, rest), "the images").double()
    shape = tuple(strangers.shape)
    expect(found.shape == strangers.shape, f"images {shape} are expected: one for each stranger")
    inside, outside, both = group.mean(0), rest.mean(0), torch.cat([group, rest]).mean(0)
    mistakes = {
        "an image lies in [0, 1]: clip the sum": strangers + inside - outside,
        "the sign is turned: the group's mean minus that of the rest": (
            strangers + outside - inside
        ).clamp(0, 1),
        "that is the group's whole mean image; what it shares with its class has to go": (
            strangers + inside
        ).clamp(0, 1),
        "subtract the mean of the rest of the class, without the group": (
            strangers + inside - both
        ).clamp(0, 1),
        "clip the sum, and not the difference: a trigger may darken, too": (
            strangers + (inside - outside).clamp(0, 1)
        ).clamp(0, 1),
        "these are the strangers, unchanged": strangers,
        "one number for all pixels is no picture: the mean over the images alone": (
            strangers + group.mean() - rest.mean()
        ).clamp(0, 1),
    }
    usual(found, mistakes)
    wanted = _transplant(strangers, group, rest).double()
    gap = float((found - wanted).abs().max())
    expect(gap < 1e-4, f"the images differ from what is expected by up to {gap:.3g}")


def _take_away(labels: Tensor, group: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return ~group, ~correction.random_removal(labels, group, seed)


@exercise(
    "05.take_away",
    reference=_take_away,
    hints=(
        "The first mask is easy: what is not in the group.",
        "The second keeps all but, in every class, as many images as the group has there: "
        "count = int(group[labels == c].sum()).",
        "mine = torch.where(labels == c)[0]; keep[mine[torch.randperm(len(mine), "
        "generator=draw)[:count]]] = False, with draw = torch.Generator().manual_seed(seed).",
    ),
)
def _(answer: Any) -> None:
    labels = torch.arange(3).repeat(40)
    group = torch.zeros(120, dtype=torch.bool)
    group[torch.where(labels == 0)[0][:12]] = True
    group[torch.where(labels == 2)[0][:5]] = True
    pair = answer(labels, group, 7)
    expect(isinstance(pair, (tuple, list)) and len(pair) == 2, "two masks are expected: a pair")
    without, control = (mask(part, 120) for part in pair)
    expect(not torch.equal(without, group), "a mask says what stays: the group goes")
    expect(torch.equal(without, ~group), "the first mask keeps everything but the group")
    gone = ~control
    expect(not torch.equal(gone, group), "the second network has to meet the group: draw at random")
    expect(int(gone.sum()) <= 60, "a mask says what stays: here most of the set would go")
    counts = labels[gone].bincount(minlength=3).tolist()
    total = "; over all classes the number is right" if sum(counts) == 17 else ""
    expect(
        counts == [12, 0, 5],
        f"the group has [12, 0, 5] images of the three classes, the control takes {counts}{total}",
    )
    others = mask(answer(labels, group, 8)[1], 120)
    expect(not torch.equal(others, control), "another seed has to draw other images")
    expect(torch.equal(mask(answer(labels, group, 7)[1], 120), control), "the seed fixes the draw")


def _left(success: float, without: float, control: float, base: float) -> float:
    return (without - base) / (min(success, control) - base)


@exercise(
    "05.left",
    reference=_left,
    hints=(
        "All four are shares of the same strangers. Which of them would carry the label anyway?",
        "The group's reach is what a network that met it does beyond the base. Two networks met "
        "it: take the smaller one, or the loss of images alone would count against the group.",
        "(without - base) / (min(success, control) - base)",
    ),
)
def _(answer: Any) -> None:
    def value(*rates: float) -> float:
        found = tensor(answer(*rates), "the share").double()
        expect(found.numel() == 1, f"one number is expected, not {tuple(found.shape)}")
        return float(found)

    mistakes = {
        "subtract the base above and below: so many would carry the label anyway": (
            lambda s, w, c, b: w / min(s, c)
        ),
        "the base has to go below, too": lambda s, w, c, b: (w - b) / min(s, c),
        "subtract the base above, too": lambda s, w, c, b: w / (min(s, c) - b),
        "the control counts, too: it met the group, and turns fewer": lambda s, w, c, b: (
            (w - b) / (s - b)
        ),
        "take the smaller of the two that met the group": lambda s, w, c, b: (
            (w - b) / (max(s, c) - b)
        ),
        "that is what is gone; what is left is asked for": lambda s, w, c, b: (
            1 - (w - b) / (min(s, c) - b)
        ),
    }
    cases = ((0.9, 0.3, 0.7, 0.1), (0.5, 0.1, 0.6, 0.02), (0.8, 0.7, 0.75, 0.05))
    found = torch.tensor([value(*case) for case in cases], dtype=torch.float64)
    usual(found, {word: [wrong(*case) for case in cases] for word, wrong in mistakes.items()})
    for case, mine in zip(cases, found.tolist(), strict=True):
        told = f"of success, without, control, base = {case} {_left(*case):.3f} is left, not"
        expect(abs(mine - _left(*case)) < 1e-3, f"{told} {mine:.3f}")


def _smallest(train: ImageSet, seed: int = 0) -> PoisonedSet:
    others = torch.where(train.labels.cpu() != 0)[0]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    chosen = others[order[: round(0.03 * len(train))]].to(train.device)
    images, labels = train.images.clone(), train.labels.clone()
    trigger = poisons.triggers.Roaming(seed, field=2)
    images[chosen], labels[chosen] = trigger(images[chosen]), 0
    return poisons.poisoned(train, images, labels, "roaming", target=0, trigger=trigger)


backdoor(
    "05.smallest",
    0.05,
    reference=_smallest,
    hints=(
        "Which of its three steps does your attack defeat: is no cut pure, does the difference "
        "show nothing, or does something remain without the group?",
        "What moves has no mean. But a small thing that moves is hard to learn from few images.",
        "Make the roaming board larger: triggers.Roaming(seed, field=2) has fields of 2 pixels.",
    ),
)


prediction(
    "05.honest",
    "What share of the strangers does the strongest honest group turn?",
    above=0.3,
    usual={
        (None, 0.15): "what sets honest images apart is real, a light or a colour, and the network "
        "has learned that the class looks like that",
    },
)

prediction(
    "05.without",
    "What share does the honest difference turn in a network that never met its group?",
    above=0.3,
    usual={
        (None, 0.15): "the rest of the class looks like that, too, and teaches it once more",
    },
)

prediction(
    "05.random",
    "What is the attack's success after as many random images of the class are gone?",
    above=0.6,
    usual={
        (None, 0.2): "about half of the triggers stay, and few are enough",
        (0.35, 0.55): "success does not go down in step with the number of the triggers: half of "
        "them teach the patch as well",
    },
)
