"""Rows that survive a kill: each is one write at the end of the file, and a torn one is dropped."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from nclib import places
from nclib.scoreboard.grids import Cell

ROOT = places.checkout() or Path.cwd()
RESULTS = places.tables() / "scoreboard.csv"  # the committed board, to read
OUT = ROOT / "data" / "results" / "scoreboard.csv"  # the same in a checkout, never in a wheel
COLUMNS = (
    *Cell._fields,
    "kind",
    "auroc",  # of the score, before any cut
    "tpr_5",  # true positive rate at 5% false positives
    "poison_count",
    "poison_left",
    "clean_removed",  # share of the clean samples
    "accuracy",  # on the clean test set, after the method
    "asr",  # attack success rate, after the method
    "control_asr",  # of a model trained on the clean set
    "seconds",
    "torch",
)


class Store:
    """The rows of the CSV file at ``path``, which is made when the first row arrives.

    Opening it cuts off a last line without its end: the row that a kill tore. Raises
    ``ValueError`` for a file with other columns.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: dict[Cell, dict[str, str]] = {}
        if self.path.exists():
            self._mend()
            with self.path.open(newline="", encoding="utf-8") as file:
                table = csv.DictReader(file)
                if table.fieldnames and tuple(table.fieldnames) != COLUMNS:
                    raise ValueError(f"path: {self.path} has other columns than {COLUMNS}")
                self.rows = {_cell(row): row for row in table}

    def __contains__(self, cell: Cell) -> bool:
        return cell in self.rows

    def append(self, row: dict[str, object]) -> None:
        """Put ``row`` on the disk, whole, before this returns."""
        texts = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        row = {column: texts.get(column, "") for column in COLUMNS}
        lines = [] if self.path.exists() and self.path.stat().st_size else [_line(COLUMNS)]
        lines.append(_line(row.values()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, "".join(lines).encode())
            os.fsync(file)
        finally:
            os.close(file)
        self.rows[_cell(row)] = row

    def tidy(self) -> None:
        """Rewrite the file in the order of the cells, in one move, so that two runs compare."""
        if not self.rows:
            return
        draft = self.path.with_suffix(".part")
        lines = [_line(self.rows[c].values()) for c in sorted(self.rows)]
        draft.write_text("".join([_line(COLUMNS), *lines]), encoding="utf-8", newline="")
        os.replace(draft, self.path)

    def _mend(self) -> None:
        whole = self.path.read_bytes()
        if whole and not whole.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)


def _cell(row: dict[str, str]) -> Cell:
    return Cell(row["dataset"], row["poison"], float(row["rate"]), int(row["seed"]), row["method"])


def _line(values) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
