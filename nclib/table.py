"""A CSV table, exported from a journal: a row is on the disk before the next one is measured.

The table is what people read and commit; ``TABLE.csv.journal`` beside it holds what has not been
exported yet, and lets one run at a time rewrite the table. A row that is deleted from the table is
gone, and may be measured again.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nclib.journal import Journal
from nclib.places import whole

Row = dict[str, str]


class Table:
    """The rows of the CSV file at ``path``, which is made when the first row arrives.

    ``key(row)`` tells rows apart and orders them. Without ``columns`` they are those of the rows,
    in the order of their first appearance. Opening a table changes nothing on the disk; a file
    with other columns, or with a row that is not whole, raises ``ValueError``.
    """

    def __init__(
        self, path: str | Path, key: Callable[[Row], Any], columns: Sequence[str] = ()
    ) -> None:
        self.path, self.key, self.columns = Path(path).resolve(), key, tuple(columns)
        self._journal = Journal(f"{self.path}.journal", "table")
        self.rows = self._rows()

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def append(self, *rows: dict[str, Any]) -> None:
        """Put all ``rows`` on the disk, or none, before this returns; then write the table.

        A row replaces the one with its key. Raises ``ValueError`` for rows without a key or with
        columns that the table does not have, and ``OSError`` where the disk does not take them.
        """
        texts = [{column: _text(value) for column, value in row.items()} for row in rows]
        new = {}
        for row in texts:
            if self.columns and (extra := sorted(set(row) - set(self.columns))):
                raise ValueError(f"row: got the columns {extra}; allowed are {self.columns}")
            new[self._key(row, "row")] = dict.fromkeys(self.columns, "") | row
        if not self._journal:
            self._journal.start({"columns": self.columns})
        self._journal.add({json.dumps(key): row for key, row in new.items()}, replace=True)
        self.rows.update(new)
        try:
            self.export()
        except OSError as error:  # the rows are safe, and the next export takes them along
            warnings.warn(f"{self.path} is not up to date: {error}", stacklevel=2)

    def export(self) -> None:
        """Write what the journal holds into the table, in the order of the keys, in one move."""
        if not self._journal or not self._journal.read()[1]:
            return
        with self._journal.taken() as entries:
            self.rows = self._rows(entries)
            columns = self.columns or tuple(dict.fromkeys(c for r in self.rows.values() for c in r))
            with whole(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows[key] for key in sorted(self.rows))

    def _rows(self, entries: dict[str, Row] | None = None) -> dict[Any, Row]:
        """Those of the table, and over them those that were not exported yet, by their keys."""
        if entries is None and self._journal:  # first: a row that moves meanwhile is seen twice
            entries = self._journal.read({"columns": self.columns})[1]
        rows = [*self._table(), *(entries or {}).values()]
        return {self._key(row, "path"): row for row in rows}

    def _table(self) -> list[Row]:
        if not self.path.exists() or (self.path.is_file() and not self.path.stat().st_size):
            return []
        try:
            text = self.path.read_text(encoding="utf-8-sig")
            head, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        except (OSError, ValueError, csv.Error) as error:
            raise ValueError(f"path: {self.path} is no table ({error})") from None
        if self.columns and tuple(head) != self.columns:
            raise ValueError(f"path: {self.path} has other columns than {self.columns}")
        self._key(dict.fromkeys(head, "0"), "path")
        for number, line in enumerate(lines, 2):
            if len(line) != len(head):
                found = f"{len(line)} of {len(head)} values in row {number}; mend or delete it"
                raise ValueError(f"path: {self.path} has {found}")
        return [dict(zip(head, line, strict=True)) for line in lines]

    def _key(self, row: Row, argument: str) -> Any:
        try:
            return self.key(row)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{argument}: {self.path} needs a key in {row}: {error!r}") from None


def _text(value: Any) -> str:
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)
