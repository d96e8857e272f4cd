"""Ten road signs that the package draws itself: no download, no licence, known causes.

One idea per file: ``faces`` are the signs as vectors, ``scenes`` what stands behind them, and
``drawing`` turns, lights and blurs both into a small photograph.
"""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor

from nclib import cache
from nclib.data.factors import Factors
from nclib.data.images import ImageSet
from nclib.data.signs import drawing, faces, scenes

VERSION = 2  # of the drawing: raise it with any change to a pixel
COUNTS = {"train": 4000, "test": 1000}
SIZES = (24, 96)
BLOCK = 100  # images that share a stream of random numbers
CLASSES = tuple(kind.name for kind in faces.KINDS)
NAMES = {
    "sign": CLASSES,
    "shape": drawing.SHAPES,
    "colour": drawing.COLOURS,
    "symbol": drawing.SYMBOLS,
    "background": scenes.BACKGROUNDS,
}


def load(
    root: Path,
    n_train: int | None = None,
    n_test: int | None = None,
    size: int | None = None,
    seed: int = 0,
    difficulty: float | None = None,
) -> tuple[ImageSet, ImageSet]:
    """The drawn set as ``(train, test)``, both with their ``factors``; kept below ``root``/cache.

    4,000 and 1,000 images by default, 32 pixels wide, as many of each class as can be; fewer
    images are the first ones of more. ``difficulty`` (1 by default) stretches pose, place, light,
    blur and noise: at 0 a sign is upright, in the middle, evenly lit and sharp. Raises
    ``ValueError`` for a size outside 24..96, a negative seed, a difficulty outside 0..2, or fewer
    images than classes.
    """
    size, difficulty = size or 32, 1.0 if difficulty is None else difficulty
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size: got {size}; {SIZES[0]} to {SIZES[1]} is allowed for signs")
    if not isinstance(difficulty, Real) or not 0 <= difficulty <= 2:
        raise ValueError(f"difficulty: got {difficulty!r}; a number from 0 to 2 is allowed")
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed: got {seed!r}; a whole number from 0 is allowed for signs")
    counts = {
        part: COUNTS[part] if n is None else int(n)
        for part, n in (("train", n_train), ("test", n_test))
    }
    for part, n in counts.items():
        if n < len(CLASSES):
            raise ValueError(
                f"n_{part} for signs: got {n}; {len(CLASSES)} (classes) and more is allowed"
            )
    return tuple(
        _part(root, part, n, int(size), int(seed), float(difficulty)) for part, n in counts.items()
    )


def _part(root: Path, part: str, n: int, size: int, seed: int, difficulty: float) -> ImageSet:
    """One part of the set, from its file where there is one."""
    file = f"signs{VERSION}-{part}-{n}-{size}px-seed{seed}-difficulty{difficulty}.safetensors"
    kept = cache.load(root / "cache" / file)
    if kept is None:
        tensors = draw(n, size, difficulty, (VERSION, seed, list(COUNTS).index(part)))
        with warnings.catch_warnings():  # to draw again is no loss worth a word
            warnings.simplefilter("ignore")
            cache.save(root / "cache" / file, tensors, {})
    else:
        tensors = kept[0]
    images = tensors.pop("images").float().div_(255)
    factors = Factors(**tensors)
    return ImageSet(images, factors.sign.clone(), CLASSES, "signs", factors)


def draw(n: int, size: int, difficulty: float, stream: tuple[int, ...]) -> dict[str, Tensor]:
    """``n`` signs in rounds of one of each class: ``images`` uint8 ``[n, 3, H, W]``, the factors.

    Each block of images has a stream of random numbers of its own, so the first images are the
    same however many follow, and no two streams share a draw.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # many small steps: waiting for a second thread costs more than it does
    try:
        blocks = [_block((*stream, block), size, difficulty) for block in range(-(-n // BLOCK))]
    finally:
        torch.set_num_threads(threads)
    return {name: torch.cat([b[name] for b in blocks])[:n] for name in blocks[0]}


def _block(stream: tuple[int, ...], size: int, difficulty: float) -> dict[str, Tensor]:
    dice = scenes.Dice(*stream)
    rounds = dice(0, 1, BLOCK // len(CLASSES), len(CLASSES))
    images, factors = drawing.draw(dice, rounds.argsort(1).flatten(), size, difficulty)
    return {"images": (images * 255).round().byte(), **factors.tensors()}
