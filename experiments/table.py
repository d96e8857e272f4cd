"""A results table that survives a kill: each finished row is on disk before the next one starts."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


class Table:
    """The rows of ``data/results/NAME.csv``; ``key`` names the columns that identify a row."""

    def __init__(self, name: str, key: tuple[str, ...], folder: Path = RESULTS) -> None:
        self.path, self.key = folder / f"{name}.csv", key
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def _id(self, row: dict) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in self.key)

    def has(self, **key: object) -> bool:
        """Whether the row with this key is finished."""
        return self._id(key) in map(self._id, self.rows)

    def add(self, row: dict[str, object]) -> None:
        """Add or replace a row and write the whole table, in key order, in one move."""
        self.extend([row])

    def extend(self, rows: Iterable[dict[str, object]]) -> None:
        """``add`` for several rows that are finished together, in one move."""
        texts = [
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in r.items()} for r in rows
        ]
        table = {self._id(row): row for row in [*self.rows, *texts]}
        self.rows = [table[key] for key in sorted(table)]
        columns = list(dict.fromkeys(c for r in self.rows for c in r))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(draft, self.path)


def facts(device: torch.device) -> dict[str, str]:
    """The columns "device" and "torch": where a row was measured, and with which version."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        count = torch.get_num_threads()
        name = f"{device}, {count} thread{'s' if count > 1 else ''}"
    return {"device": name, "torch": torch.__version__.split("+")[0]}
