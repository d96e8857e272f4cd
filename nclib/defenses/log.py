"""Certificates on disk, a line each: a run that was killed goes on where it was."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ["index", "label", "radius", "draws", "key"]


class Log:
    """The certified images on disk, one line each; a line that a kill cut short is dropped."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.rows: list[tuple[int, int, float, int]] = []
        if path.exists():
            whole = path.read_text()
            whole = whole[: whole.rfind("\n") + 1]
            found = list(csv.DictReader(whole.splitlines()))
            if any(row["key"] != key for row in found):
                raise ValueError(
                    f"path: {path} holds certificates of another model, images or setting; "
                    "name another file, or delete it"
                )
            self.rows = [
                (int(r["index"]), int(r["label"]), float(r["radius"]), int(r["draws"]))
                for r in found
            ]
            path.write_text(whole)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or not path.read_text():
            path.write_text(",".join(COLUMNS) + "\n")

    def append(self, row: tuple[int, int, float, int]) -> None:
        with self.path.open("a", newline="") as file:
            file.write(",".join(map(repr, row)) + f",{self.key}\n")
