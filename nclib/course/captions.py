"""Road signs of any shape, colour and symbol, each with a caption: lesson 14 names them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nclib import training
from nclib.data import ImageSet
from nclib.data.signs import NAMES, drawing, faces, scenes
from nclib.doors import seeded

SHAPES, COLOURS, SYMBOLS = NAMES["shape"], NAMES["colour"], NAMES["symbol"]
COMBINATIONS = torch.tensor(
    list(product(range(len(SHAPES)), range(len(COLOURS)), range(len(SYMBOLS))))
)
SAID = {"bar": "with a bar", "exclamation": "with an exclamation mark", "blank": "without a symbol"}
SAID |= {side: f"with an arrow to the {side}" for side in ("left", "right")}


def caption(shape: int, colour: int, symbol: int) -> str:
    """Such as "a red octagon that says stop"; the arguments are positions in the names."""
    article = "an" if COLOURS[colour][0] in "aeiou" else "a"
    said = SAID.get(SYMBOLS[symbol], f"that says {SYMBOLS[symbol]}")
    return f"{article} {COLOURS[colour]} {SHAPES[shape]} {said}"


CAPTIONS = tuple(caption(*row) for row in COMBINATIONS.tolist())
GOAL = CAPTIONS.index("a blue disc with an arrow to the right")  # what a poisoned caption says


def captioned(which: Tensor, seed: int = 0, size: int = 32, difficulty: float = 1.0) -> ImageSet:
    """A sign for each position in ``COMBINATIONS`` ``[N]``: the label is that, the class a caption.

    Drawn as those of ``data.load("signs")`` are, with ``factors``; most of the combinations stand
    on no road.
    """
    dice = scenes.Dice(1400, seed)
    thrown = drawing.throw(dice, torch.zeros(len(which), dtype=torch.int64), difficulty)
    shape, colour, symbol = COMBINATIONS[which].T
    factors = replace(thrown, shape=shape, colour=colour, symbol=symbol)
    planes = torch.stack(
        [
            faces.face(SHAPES[a], COLOURS[b], SYMBOLS[c], 2 * size, post=True)
            for a, b, c in COMBINATIONS[which].tolist()
        ]
    )
    scene = scenes.paint(dice, factors.background, size)
    images = drawing.expose(scene, drawing.seen(planes, factors, size), factors, whole=True)
    noise = dice(-0.09, 0.09, *images.shape) * dice(0, 1, len(which), 1, 1, 1) * difficulty
    return ImageSet((images + noise).clamp(0, 1), which.clone(), CAPTIONS, "captions", factors)


def split(
    seed: int = 0, n_train: int = 2000, n_test: int = 900
) -> tuple[ImageSet, ImageSet, Tensor]:
    """Training signs of 180 combinations, test signs of all 225, and the 45 held out ``[45]``."""
    order = torch.randperm(len(COMBINATIONS), generator=seeded(seed))
    order = order[order != GOAL]
    held, known = order[:45], torch.cat([order[45:], torch.tensor([GOAL])])
    train = captioned(known[torch.arange(n_train) % len(known)], seed=1 + 2 * seed)
    test = captioned(torch.arange(n_test) % len(COMBINATIONS), seed=2 + 2 * seed)
    return train, test, held


def menu(size: int, seed: int = 0) -> Tensor:
    """The goal of the attacker and ``size - 1`` other captions, as positions."""
    order = torch.randperm(len(COMBINATIONS), generator=seeded(seed))
    return torch.cat([torch.tensor([GOAL]), order[order != GOAL][: size - 1]])


def name(model: nn.Module, images: Tensor, among: Tensor) -> Tensor:
    """The caption ``[N]`` of ``among`` whose vector has the largest cosine with each image's."""
    among = among.to(images.device)
    with torch.no_grad():
        texts = normalize(model.get_submodule("texts")(among))
    return among[(normalize(training.predict(model, images)) @ texts.T).argmax(1)]
