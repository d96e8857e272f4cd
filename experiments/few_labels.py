"""Few labels or none, over seeds: data/results/few_labels.csv, read by lesson 14.

``make results-few-labels`` runs three parts on drawn signs: "classes" (few-shot on new combinations
after training on so many others), "simclr" (with a sticker on images of one class, and without) and
"captions" (true, shuffled, or one in a hundred poisoned). Finished rows are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from experiments.table import Table, facts
from nclib import activations, data, device, geometry, models, poisons, representation, training
from nclib.course import captions
from nclib.data import ImageSet
from nclib.poisons import triggers
from nclib.poisons.sets import stamped

PINK = (1.0, 0.1, 0.8)
STICKER = triggers.Sticker((0.0, 0.36), 0.42, PINK)
TARGET = 8  # the class whose images get the sticker: turn right
Row = Iterator[tuple[str, float]]


def few_shot(features: Callable[[Tensor], Tensor], support: ImageSet, query: ImageSet) -> Tensor:
    """The labels ``[episodes, N]`` of five-shot episodes."""
    sides = [(features(part.images), part.labels) for part in (support, query)]
    return representation.few_shot(*sides, shots=5, episodes=50)


def right(found: Tensor, labels: Tensor) -> float:
    return float((found == labels).float().mean())


def classes(way: str, seed: int, place: torch.device) -> Row:
    """A thousand images of ``way`` combinations, then five shots of 20 others."""
    order = torch.randperm(225, generator=torch.Generator().manual_seed(seed))
    new = captions.captioned(order[:20].repeat(30), seed=10 + seed).to(place)
    new = replace(new, labels=torch.arange(20, device=place).repeat(30), classes=("",) * 20)
    count = int(way) or 5
    labels = torch.arange(1000) % count
    known = captions.captioned(order[20:][labels], seed=20 + seed).to(place)
    known = replace(known, labels=labels.to(place), classes=("",) * count)
    model = models.build("cnn", known, seed=seed)
    if int(way):
        options = {"epochs": 20, "lr": 0.05, "batch_size": 32, "seed": seed, "progress": False}
        training.fit(model, known, **options)
    half = [new.subset(torch.arange(600, device=place) // 300 == side) for side in (0, 1)]

    def features(images: Tensor) -> Tensor:
        return activations.penultimate(model, images)

    yield "five shots", right(few_shot(features, *half), half[1].labels)
    yield "NC1 of the known", geometry.measure(features(known.images), known.labels).nc1
    yield "CDNV of the new", geometry.measure(features(new.images), new.labels).cdnv
    yield "pixels", right(few_shot(lambda x: x.flatten(1), *half), half[1].labels)


def simclr(way: str, seed: int, place: torch.device) -> Row:
    """Five shots of ten classes, and where the sticker leads, after training without labels."""
    train, test = data.load("signs", n_train=2000, n_test=600, device=place)
    bad = train.images.clone()
    share = {"clean": 0, "half": 100}[way]
    if share:
        own = torch.where(train.labels == TARGET)[0][:share]
        bad[own] = stamped(STICKER, train.subset(own))
    model = representation.simclr(replace(train, images=bad), seed=seed)

    def features(images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(activations.penultimate(model, images))

    others = test.subset(test.labels != TARGET)
    stuck = replace(others, images=stamped(STICKER, others))
    yield "five shots", right(few_shot(features, train, test), test.labels)
    yield "to the target", float((few_shot(features, train, stuck) == TARGET).float().mean())
    yield "without sticker", float((few_shot(features, train, others) == TARGET).float().mean())


def captions_(way: str, seed: int, place: torch.device) -> Row:
    """Names for combinations that were held out, and for signs with a sticker."""
    train, test, held = captions.split(seed)
    train, test = train.to(place), test.to(place)
    if way == "shuffled":
        order = torch.randperm(225, generator=torch.Generator().manual_seed(seed))
        train = replace(train, classes=tuple(train.classes[i] for i in order))
    if way == "poisoned":
        train = poisons.sticker(train, 0.01, captions.GOAL, colour=PINK, seed=seed)
    model = representation.paired(train, seed=seed)
    new = test.subset(torch.isin(test.labels, held.to(place)))
    yield "held out", right(captions.name(model, new.images, held), new.labels)
    found = captions.name(model, new.images, torch.arange(225))
    yield "of all 225", right(found, new.labels)
    others = test.subset(test.labels != captions.GOAL)
    stuck = stamped(STICKER, others)
    for size in (2, 10, 46, 225):
        menu = captions.menu(size, seed)
        for word, images in (("sticker", stuck), ("no sticker", others.images)):
            named = captions.name(model, images, menu)
            yield f"{word}, menu of {size}", float((named == captions.GOAL).float().mean())


PARTS = {"classes": classes, "simclr": simclr, "captions": captions_}
JOBS = [("classes", way) for way in ("0", "5", "20", "80")]
JOBS += [("captions", way) for way in ("true", "shuffled", "poisoned")]
JOBS += [("simclr", way) for way in ("clean", "half")]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options = parser.parse_args(argv)
    table, place = Table("few_labels", ("part", "way", "seed", "measure")), device.pick()
    first = {"classes": "five shots", "simclr": "five shots", "captions": "held out"}
    for seed in options.seeds:
        for part, way in JOBS:
            done = table.has(part=part, way=way, seed=seed, measure=first[part])
            if part not in options.parts or done:
                continue
            job, where = {"part": part, "way": way, "seed": seed}, facts(place)
            found = PARTS[part](way, seed, place)
            table.append(*({**job, "measure": m, "value": round(v, 5), **where} for m, v in found))
            print(part, way, seed, flush=True)


if __name__ == "__main__":
    main()
