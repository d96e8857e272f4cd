"""The photographs' part of the board: all of CIFAR-10 and the fast network, in scoreboard.csv.

The cells are those of the board's grid "cifar10_whole", of its first seed: five poisons, the
transplant test, its controls and the detectors beside it. On a GPU alone: ``experiments.gpu``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.photographs import Photographs
from nclib import scoreboard

GRID, FIRST = "cifar10_whole", ("none", "transplant", "oracle")
NAME = "scoreboard.csv"
ENOUGH = {"transplant": 120.0}  # seconds that have to be left; for others a training and a half


def cells(poisons: tuple[str, ...], dry: bool = False) -> list[scoreboard.Cell]:
    """Those of the first seed: what decides, of every poison, and after it the rivals."""
    found = [c for c in scoreboard.cells_of(GRID) if c.seed == 0 and c.poison in poisons]
    if dry:
        return [c for c in found if c.poison == poisons[-1] and c.method in ("none", "oracle")]
    return sorted(found, key=lambda cell: cell.method not in FIRST)


def run(
    photos: Photographs, out: Path, poisons: tuple[str, ...], left: Callable[[], float]
) -> None:
    """Put the rows of the poisons into ``out``, while time is ``left``; raise if one failed."""
    store = scoreboard.Store(out / NAME)
    with named(photos.name):
        for cell in cells(poisons, photos.dry):
            if cell not in store and left() > ENOUGH.get(cell.method, 30):
                failed = scoreboard.run([cell], store, progress=False)
                if failed:
                    raise RuntimeError(failed[cell])
                print(*cell, store.rows[cell]["asr"], flush=True)


@contextmanager
def named(name: str) -> Iterator[None]:
    """The board reads its photographs from where ``NCLIB_CIFAR10`` says."""
    before = os.environ.get("NCLIB_CIFAR10")
    os.environ["NCLIB_CIFAR10"] = name
    try:
        yield
    finally:
        os.environ.pop("NCLIB_CIFAR10")
        if before is not None:
            os.environ["NCLIB_CIFAR10"] = before


def take(found: Path, results: Path) -> bool:
    """Put the rows of the folder ``found`` among those of ``results``; whether there are any."""
    if not (found / NAME).exists():
        return False
    rows = scoreboard.Store(found / NAME).rows.values()
    scoreboard.Store(results / NAME).append(*rows)
    return True
