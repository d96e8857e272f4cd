"""What the board measures: a table of data set x poison x rates, crossed with methods and seeds."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """How much of a data set a training sees; None is all images, or the pixels as they are."""

    train: int | None
    test: int | None
    epochs: int
    pixels: int | None = None
    arch: str = "cnn"
    name: str = ""  # of the data set, where one has several sizes


# MNIST at 14 x 14: on 1000 images of 28 x 28 the rarest patch and the clean-label trigger fail
SIZES = {
    "digits": Size(None, None, 12),
    "signs": Size(4000, 1000, 12),
    "mnist": Size(2000, 1000, 8, 14),
    "cifar10": Size(5000, 2000, 12),
    "mnist_whole": Size(None, None, 4, name="mnist"),
    "cifar10_whole": Size(None, None, 8, arch="fast", name="cifar10"),
}
SPARE = 0.05  # of the training set: so many clean images, that no one is measured on, are given out
EARLY = 3  # detectors look at the features after so many epochs, before wrong labels are memorised
FALSE_ALARM = 0.05  # a clean set is cut as if so much of it were poisoned
ADVERSARIAL_EPS = 0.1  # of the adversarial training, in image units

CONTROLS = ("none", "random", "oracle", "clean_only")
FEATURES = ("robust_distance", "whitened_margin", "spectral", "activation_clustering", "scan")
ASKED = ("strip", "scale_up", "ibd_psc", "abl_isolation", "asset")  # these see images, no features
DETECTORS = FEATURES + ASKED
GENEROUS = tuple(f"{name}_x1.5" for name in DETECTORS)  # the papers' cut: half as many again
DECIDERS = ("transplant", "consensus", "relabel")
REPAIRS = ("fine_tune", "fine_pruning", "neural_cleanse", "abl", "etf_head", "random_head")
DEFENCES = ("squeezing", "partition", "adversarial")
METHODS = CONTROLS + DECIDERS + DETECTORS + GENEROUS + REPAIRS + DEFENCES

# what a method is given beside the poisoned set: the number of poisons, or clean images
COUNT, IMAGES = "count", "clean images"
NEEDS = dict.fromkeys(("random", *DETECTORS, *GENEROUS, "abl"), COUNT)
NEEDS |= dict.fromkeys(("clean_only", *REPAIRS), IMAGES)
NEEDS |= dict.fromkeys(("strip", "ibd_psc", "asset"), f"{COUNT}, {IMAGES}")
NEEDS |= dict.fromkeys(("strip_x1.5", "ibd_psc_x1.5", "asset_x1.5"), f"{COUNT}, {IMAGES}")
NEEDS |= {"abl": COUNT, "oracle": "the truth"}

KINDS = {name: "control" for name in CONTROLS} | {name: "decider" for name in DECIDERS}
KINDS |= {name: "detector" for name in DETECTORS + GENEROUS}
KINDS |= {name: "repair" for name in REPAIRS} | {name: "defence" for name in DEFENCES}


class Cell(NamedTuple):
    """One measurement of the board, and the key of its row."""

    dataset: str
    poison: str
    rate: float
    seed: int
    method: str


POISONS = [("clean", [0.0]), ("flip", [0.2]), ("badnets", [0.01, 0.05]), ("blended", [0.1])]
POISONS += [("sig", [0.05]), ("wanet", [0.1]), ("clean_label", [0.05])]
POISONS += [("adaptive_blend", [0.1]), ("adaptive_patch", [0.1]), ("input_aware", [0.1])]
ON_SIGNS = [*POISONS, ("sticker", [0.05])]
WHOLE = [("clean", [0.0]), ("badnets", [0.01]), ("blended", [0.1]), ("wanet", [0.1])]
WHOLE += [("adaptive_blend", [0.1])]
FEW = ("none", "transplant", "oracle", "activation_clustering", "spectral", "strip", "scale_up")
FIVE = (0, 1, 2, 3, 4)
GRIDS = {  # name: (data set, [(poison, rates)], methods, seeds)
    "quick": (
        "digits",
        [("flip", [0.2]), ("badnets", [0.05])],
        ("none", "oracle", "robust_distance"),
        (0, 1),
    ),
    "digits": ("digits", POISONS, METHODS, FIVE),
    "signs": ("signs", ON_SIGNS, METHODS, FIVE[:3]),
    "mnist": ("mnist", POISONS, METHODS, FIVE[:3]),
    "cifar10": ("cifar10", POISONS, METHODS, FIVE[:3]),  # hours without a GPU
    "mnist_whole": ("mnist_whole", WHOLE, FEW, FIVE[:3]),
    "cifar10_whole": ("cifar10_whole", WHOLE, (*FEW, "ibd_psc"), FIVE[:3]),  # needs a GPU
}


def cells_of(grid: str) -> list[Cell]:
    """The cells of ``GRIDS[grid]``, those of one seed and one training side by side.

    Raises ``ValueError`` for an unknown grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"grid: got {grid!r}; allowed are {', '.join(GRIDS)}")
    dataset, poisons, methods, seeds = GRIDS[grid]
    return [
        Cell(dataset, poison, rate, seed, method)
        for seed in seeds
        for poison, rates in poisons
        for rate in rates
        for method in methods
    ]
