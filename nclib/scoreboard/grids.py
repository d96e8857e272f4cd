"""What the board measures: a table of data set x poison x rates, crossed with methods and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """How much of a data set a training sees; None is all images, or the pixels as they are."""

    train: int | None
    test: int | None
    epochs: int
    pixels: int | None = None


# MNIST at 14 x 14: on 1000 images of 28 x 28 the rarest patch and the clean-label trigger fail
SIZES = {
    "digits": Size(None, None, 12),
    "mnist": Size(2000, 1000, 8, 14),
    "cifar10": Size(None, None, 60),
}
CLEAN_LABEL_EPS = {"digits": 0.3}  # elsewhere the 16/255 of the paper
EARLY = 3  # detectors look at the features after so many epochs, before wrong labels are memorised
ADVERSARIAL_EPS = 0.1  # of the adversarial training, in image units

DETECTORS = ("robust_distance", "whitened_margin", "spectral", "activation_clustering")
CONTROLS = ("none", "random", "oracle")
CORRECTORS = ("consensus", "relabel", "fine_tune", "etf_head")
DEFENCES = ("squeezing", "partition", "adversarial")
METHODS = CONTROLS + DETECTORS + CORRECTORS + DEFENCES

KINDS = {name: "control" for name in CONTROLS} | {name: "detector" for name in DETECTORS}
KINDS |= {name: "corrector" for name in CORRECTORS} | {name: "defence" for name in DEFENCES}


class Cell(NamedTuple):
    """One measurement of the board, and the key of its row."""

    dataset: str
    poison: str
    rate: float
    seed: int
    method: str


# name: (data set, [(poison, rates)], methods, seeds)
POISONS = [("clean", [0.0]), ("flip", [0.2]), ("badnets", [0.01, 0.05]), ("blended", [0.1])]
POISONS += [("sig", [0.05]), ("wanet", [0.1]), ("clean_label", [0.05])]
SUBMIT = [("flip", [0.2]), ("badnets", [0.05])]  # what a score of one's own meets
FIVE = (0, 1, 2, 3, 4)
GRIDS = {
    "quick": ("digits", SUBMIT, ("none", "oracle", "robust_distance"), (0, 1)),
    "digits": ("digits", POISONS, METHODS, FIVE),
    "mnist": ("mnist", POISONS, METHODS, FIVE),
    "cifar10": ("cifar10", POISONS, METHODS, FIVE),  # hours without a GPU
    "submit-digits": ("digits", SUBMIT, (), (0, 1, 2)),
    "submit-mnist": ("mnist", SUBMIT, (), (0, 1, 2)),
}


def cells_of(grid: str, methods: Sequence[str] | None = None) -> list[Cell]:
    """The cells of ``GRIDS[grid]``, those of one seed and one training side by side.

    ``methods`` replaces those of the table. Raises ``ValueError`` for an unknown grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"grid: got {grid!r}; allowed are {', '.join(GRIDS)}")
    dataset, poisons, known, seeds = GRIDS[grid]
    return [
        Cell(dataset, poison, rate, seed, method)
        for seed in seeds
        for poison, rates in poisons
        for rate in rates
        for method in (known if methods is None else methods)
    ]
