"""Certificates on disk, an entry each: a run that was killed goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nclib.journal import Journal

Certified = tuple[int, int, float, int]  # index, label, radius, draws


class Log:
    """The certified images in the journal at ``path``, of the run that ``header`` describes.

    Raises ``ValueError`` for a file that is no such journal, or that of another run.
    """

    def __init__(self, path: str | Path, header: Mapping[str, object]) -> None:
        self._journal = Journal(path, "certificates")
        entries = self._journal.start(header)
        self.rows: list[Certified] = [
            (int(index), e["label"], e["radius"], e["draws"]) for index, e in entries.items()
        ]

    def append(self, *rows: Certified) -> None:
        """Put all rows on the disk before this returns, or none; two runs may do the same image."""
        names = ("label", "radius", "draws")
        entries = {str(index): dict(zip(names, row, strict=True)) for index, *row in rows}
        if entries:
            self._journal.add(entries, replace=True)
            self.rows += rows

    def passing(self, rows: Iterable[Certified]) -> Iterator[Certified]:
        """``rows`` as they come, those of each second in one write, also if an error ends them."""
        waiting: list[Certified] = []
        written = -1.0
        try:
            for row in rows:
                waiting.append(row)
                if time.monotonic() - written > 1:
                    self.append(*waiting)
                    waiting, written = [], time.monotonic()
                yield row
        finally:
            self.append(*waiting)
