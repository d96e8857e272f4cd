"""The board on the disk: one row per cell, in a table that several runs may fill at once."""

from __future__ import annotations

from pathlib import Path

from nclib import places
from nclib.scoreboard.grids import Cell
from nclib.table import Table

ROOT = places.checkout() or Path.cwd()
RESULTS = places.tables() / "scoreboard.csv"  # the committed board, to read
OUT = ROOT / "data" / "results" / "scoreboard.csv"  # the same in a checkout, never in a wheel
COLUMNS = (
    *Cell._fields,
    "kind",
    "needs",  # what the method is given beside the set
    "call",  # of a method that gives a verdict: "clean", "wrong labels", "backdoor", "cannot tell"
    "right",  # whether the verdict names what is there
    "accused",  # classes without a backdoor that it accuses
    "auroc",  # of the score, before any cut
    "tpr_1",  # true positive rate at 1% false positives
    "tpr_5",  # and at 5%
    "tpr",  # share of the harmful samples that are removed
    "fpr",  # share of the clean samples that are removed
    "poison_count",
    "accuracy",  # on the clean test set, after the method
    "asr",  # attack success rate, after the method
    "control_asr",  # of a model trained on the clean set
    "seconds",
    "source",  # of photographs: which copies
    "device",
    "torch",
)


class Store(Table):
    """The rows ``{Cell: row}`` of the board at ``path``; opened and filled as any ``Table``."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, _cell, COLUMNS)


def _cell(row: dict[str, str]) -> Cell:
    return Cell(row["dataset"], row["poison"], float(row["rate"]), int(row["seed"]), row["method"])
