"""GTSRB, photographs of 43 kinds of German road signs: the real counterpart of the drawn ones.

torchvision fetches and lists the files; ``data.load`` reads those that it needs.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "gtsrb"
LIMITS = tuple(f"speed limit {n}" for n in (20, 30, 50, 60, 70, 80))
CLASSES = (
    *LIMITS,
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "priority at the next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "caution",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right",
    "turn left",
    "straight on",
    "straight on or right",
    "straight on or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)


def fetch(root: str | Path) -> None:
    """Download both parts into ``root``/gtsrb."""
    from torchvision.datasets import GTSRB  # slow to load

    for split in ("train", "test"):
        GTSRB(root, split, download=True)


def listing(root: Path) -> tuple[list[tuple[Path, int]], ...]:
    """The files of the training and of the test part with their labels; no image is opened.

    Raises ``ValueError`` for a tree that is not whole.
    """
    from torchvision.datasets import GTSRB

    try:
        whole = [GTSRB(root, split)._samples for split in ("train", "test")]
        found = len({label for _, label in whole[0]})
        if found != len(CLASSES):
            raise ValueError(f"{found} classes of {len(CLASSES)}")
    except Exception as error:  # torchvision raises whatever the broken tree provokes
        place = root / FOLDER
        raise ValueError(
            f"gtsrb: the files in {place} cannot be read ({str(error) or type(error).__name__}). "
            f"Delete {place} and load 'gtsrb' again to download a fresh copy."
        ) from error
    return tuple([(Path(path), label) for path, label in part] for part in whole)
