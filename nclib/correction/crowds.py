"""The last step of the verdict: a group that comes from all other classes, whatever it wears."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from nclib import training
from nclib.correction.evidence import (
    MEASURE,
    Finding,
    Lab,
    View,
    completed,
    draws,
    first_epoch,
    joint,
    kinds,
    recovered,
)
from nclib.data import ImageSet
from nclib.detection.common import per_class
from nclib.detection.crowds import resembled, variety
from nclib.detection.transplant import LARGEST, differences, strangers, turned

# A group that looks like so many of the other classes, to the eye and to a model that never met
# it, which gives so little of it its label and is so sure of the others, is no part of its class.
# Set on digits, seeds 0 to 4, and signs, seed 0, before any other was looked at: all poison kept
# .30 at most, at .77 and .66 at least; no honest group that kept less than .33 had more than .55.
# With fewer classes than FIVE nobody can come from many.
CROWD, STAYS, SURE_CROWD, FIVE = 0.75, 0.33, 0.6, 5
OUTLYING = 3  # and it is so much larger than the share of wrong labels in the median class
TRAININGS = 6  # beside the victim's, of the whole verdict
GRID = 8  # pixels a side, of the image as the eye sees it from afar


def crowds(
    lab: Lab,
    view: View,
    asked: set[int],
    gone: Tensor,
    wrong: Tensor,
    permute: bool,
) -> list[Finding]:
    """Groups that look like all other classes, and to a model that never met them, still do.

    ``view`` is that of the whole set; ``asked`` are the classes, without what is ``gone``.

    A crowd may come in two guises: a small chessboard that roams looks different, after pooling,
    where its first pixel is a black field of a large one and where it is a white field. So each
    class that is accused is asked again, for what is left of its cuts, while ``TRAININGS`` allow.
    """
    data, labels, count = lab.data, lab.data.labels.cpu(), lab.data.num_classes
    victim, features, cuts = view
    sizes = labels.bincount(minlength=count)
    if count < FIVE:
        return []
    draw, first = draws(lab.seed), f"@{first_epoch(features)}"
    small = adaptive_avg_pool2d(data.images, GRID).flatten(1)
    seen = [small, *(h for k, h in features.items() if k.endswith(first))]
    looks = [resembled(h, labels) for h in seen]
    hidden, classes = joint(features, lab.epochs), per_class(labels, count)
    usual = labels[wrong].bincount(minlength=count) / sizes.clamp_min(1)
    least = (OUTLYING * float(usual.median()) * sizes).clamp_min(2 * (count - 1))

    def widest(c: int) -> dict[int, Tensor]:
        """The group of a class, of what is not ``gone``, that comes most evenly from all others."""
        place = classes[c]
        sides = torch.cat([cuts[c], ~cuts[c]]) & ~gone[place]
        sides = sides[(sides.double().mean(1) <= LARGEST) & (sides.sum(1) >= least[c])]
        if not len(sides):
            return {}
        others = sizes.clone().index_fill_(0, torch.tensor(c), 0)
        score = torch.stack([variety(sides, x[place], others) for x in looks]).amax(0)
        best = sides[score.argmax()]
        group = best if permute else completed(hidden[place], best) & ~gone[place]
        order = torch.randperm(len(place), generator=draw) if permute else slice(None)
        return {c: place[group[order]]} if score.max() >= CROWD else {}

    found: list[Finding] = []
    groups = {c: group for k in asked for c, group in widest(k).items()}
    while groups and lab.trainings <= TRAININGS:
        without = lab.without(~gone, list(groups.values()))
        new = [_crowd(data, c, group, victim, without) for c, group in groups.items()]
        lost = torch.zeros(count)  # where labels are wrong at random, every class has its crowd
        for f in new:
            lost[f.label] = (1 - f.keeps) * f.group.sum()
        least = torch.maximum(least, OUTLYING * float((lost / sizes.clamp_min(1)).median()) * sizes)
        new = [replace(f, call="honest") if lost[f.label] < least[f.label] else f for f in new]
        found, groups = found + new, {}
        for f in (f for f in new if f.call == "backdoor"):
            gone = gone | f.group
            groups |= widest(f.label)
    return found


def _crowd(
    data: ImageSet, label: int, group: Tensor, victim: nn.Module, without: nn.Module
) -> Finding:
    """What a model without the group takes it for, and what its transplant does, if anything."""
    labels, mask = data.labels.cpu(), torch.zeros(len(data), dtype=torch.bool)
    mask[group] = True
    others = labels.bincount(minlength=data.num_classes).index_fill_(0, torch.tensor(label), 0)
    hosts = strangers(labels, label, MEASURE, draws(label)).to(data.device)
    images = data.images[hosts]
    likely, usual = (
        training.predict(without, x).softmax(1).cpu()
        for x in (data.images[group.to(data.device)], images)
    )
    seen = likely.argmax(1)
    lost = seen != label
    width = float(variety(lost[None], seen, others))
    sure = float(likely[lost].amax(1).mean() / usual.amax(1).mean()) if lost.any() else 0.0
    keeps = float((~lost).double().mean())
    guilty = width >= CROWD and keeps <= STAYS and sure >= SURE_CROWD
    of_class = labels == label
    added = differences(data.images[of_class.to(data.device)], mask[of_class][None])
    shares = [float(turned(m, added, images, label).double().mean()) for m in (victim, without)]
    base = float(turned(without, 0 * added, images, label).double().mean())
    rest = (
        shares[0],
        shares[1],
        torch.nan,
        base,
        keeps,
        torch.nan,
        sure,
        kinds(seen, label),
        torch.nan,
    )
    call = "backdoor" if guilty else "honest"
    pictures = added[0].cpu(), recovered(data, mask, without)
    return Finding(label, mask, *pictures, None, *rest, call, width)
