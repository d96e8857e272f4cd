"""A durable journal: each entry is on the disk whole, or not at all, and whoever wrote it knows.

One SQLite file holds one kind of entries ("monitor", "scoreboard", "certificates") under a header
that says what they belong to. Every call opens the file, does its one transaction in write-ahead
mode and closes it, so that between calls there is one whole file to copy, and threads, forks and
other programs need no care. Integers and floats come back as they were, to the last bit.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = int.from_bytes(b"nclb")  # the "application id" of SQLite's header: this file is ours
FORMAT = 1  # its "user version"
WAIT = 60.0  # seconds that a writer waits for another one
TABLES = """CREATE TABLE journal (kind TEXT NOT NULL, header TEXT NOT NULL);
CREATE TABLE entries (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, entry TEXT NOT NULL)"""
ASIDE = {  # what SQLite writes beside the file, and how it begins (with zeros: not yet in use)
    "-journal": (b"\xd9\xd5\x05\xf9", bytes(8)),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", bytes(8)),
}
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

Entries = dict[str, dict[str, Any]]


class Journal:
    """The entries of one ``kind`` in the file at ``path``, which nothing but ``start`` creates.

    What is there and no journal of this kind is never opened for writing, and raises
    ``ValueError`` under the name ``argument``. A write that fails raises ``OSError``, and then
    nothing of it is in the file.
    """

    def __init__(self, path: str | Path, kind: str, *, argument: str = "path") -> None:
        self.path, self.kind, self.argument = Path(path).absolute(), kind, argument
        self._identify()

    def __bool__(self) -> bool:
        """Whether the journal was started."""
        return self._identify()

    def start(self, header: Mapping[str, object]) -> Entries:
        """Begin with ``header``, or go on where it is that of the file; return the entries.

        Raises ``ValueError`` for a journal that has another header, and says what differs.
        """
        head = text(header)
        if not self._identify() or Path(f"{self.path}-journal").exists():  # killed in ``_create``
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._told(), _connect(self.path, "rwc") as connection, _transaction(connection):
                self._create(connection, head)
        entries = self.read(header)[1]
        with self._told():
            self._write_ahead()
        return entries

    def read(self, header: Mapping[str, object] | None = None) -> tuple[dict[str, Any], Entries]:
        """Header and entries by their keys, in the order in which they came.

        Works in folders that cannot be written too. Raises ``ValueError`` where nothing was
        started, the file is damaged, or its header is not ``header``.
        """
        found = self._read()
        theirs, ours = found[0], found[0] if header is None else json.loads(text(header))
        names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if names:
            details = "; ".join(f"{n}: {theirs.get(n)} there, {ours.get(n)} here" for n in names)
            raise self._refusal(f"belongs to something else ({details}); name another file")
        return found

    def _read(self) -> tuple[dict[str, Any], Entries]:
        if not self._identify():
            raise self._refusal("is not there, or empty")
        with self._told("it cannot be read"):
            try:
                with _connect(self.path, "rw") as connection:
                    return self._all(connection)
            except sqlite3.OperationalError as error:
                if _code(error) in DAMAGE:
                    raise
            with tempfile.TemporaryDirectory() as folder:  # here its side files may be written
                copy = Path(folder) / "copy"
                for end in ("", *ASIDE):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(f"{self.path}{end}", f"{copy}{end}")
                with _connect(copy, "rw") as connection:
                    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # needs no shared memory
                    return self._all(connection)

    def add(
        self,
        entries: Mapping[str, Mapping[str, object]],
        *,
        replace: bool | Collection[str] = False,
    ) -> None:
        """Put all of ``entries`` on the disk before this returns, or none of them.

        Raises ``ValueError`` for a key that is there already, unless ``replace`` (True for all, or
        the keys that may be), and for values that JSON does not have (NaN is one); ``OSError``
        where the disk does not take it.
        """
        rows = [(str(key), text(entry)) for key, entry in entries.items()]
        if not self._identify():
            raise self._refusal("is not there: it was moved or deleted")
        again = entries if replace is True else replace or ()
        with self._told(), _connect(self.path, "rw") as connection, _transaction(connection):
            try:
                for row in rows:
                    verb = "INSERT OR REPLACE" if row[0] in again else "INSERT"
                    connection.execute(f"{verb} INTO entries (key, entry) VALUES (?, ?)", row)
            except sqlite3.IntegrityError:
                keys = ", ".join(key for key, _ in rows)
                message = f"has one of the entries {keys} already, from another writer"
                raise self._refusal(message) from None

    @contextlib.contextmanager
    def taken(self) -> Iterator[Entries]:
        """The entries, while nobody else writes; they leave the journal if the block succeeds."""
        with self._told(), _connect(self.path, "rw") as connection, _transaction(connection):
            yield self._all(connection)[1]
            connection.execute("DELETE FROM entries")

    def _identify(self) -> bool:
        """True for a journal of ours, False for nothing yet; ``ValueError`` for anything else."""
        try:
            if not self.path.exists() or (self.path.is_file() and not self.path.stat().st_size):
                for end, marks in ASIDE.items():  # SQLite would take these for its own
                    with (
                        contextlib.suppress(FileNotFoundError),
                        open(f"{self.path}{end}", "rb") as f,
                    ):
                        if not (f.read(8) or bytes(8)).startswith(marks):
                            raise self._refusal(f"has a neighbour *{end} that is not its own")
                return False
            if not self.path.is_file():
                raise self._refusal("is no file")
            with self.path.open("rb") as file:
                head = file.read(100)
        except OSError as error:
            raise self._refusal(f"cannot be read ({error.strerror})") from None
        mark, version = (int.from_bytes(head[at : at + 4]) for at in (68, 60))
        if not head.startswith(b"SQLite format 3\0") or len(head) < 100 or mark != MARK:
            raise self._refusal("is no journal of this package; it was left as it is")
        if version != FORMAT:
            raise self._refusal(f"is a journal of format {version}; this version reads {FORMAT}")
        return True

    def _create(self, connection: sqlite3.Connection, header: str) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return  # somebody else was faster
        for name, number in {"application_id": MARK, "user_version": FORMAT}.items():
            connection.execute(f"PRAGMA {name}={number}")
        for table in TABLES.split(";"):
            connection.execute(table)
        connection.execute("INSERT INTO journal VALUES (?, ?)", (self.kind, header))

    def _all(self, connection: sqlite3.Connection) -> tuple[dict[str, Any], Entries]:
        try:
            ((kind, header),) = connection.execute("SELECT kind, header FROM journal").fetchall()
            rows = connection.execute("SELECT key, entry FROM entries ORDER BY number").fetchall()
            found = json.loads(header), {key: json.loads(entry) for key, entry in rows}
        except (ValueError, TypeError) as error:  # SQLite's own complaints go on to ``_told``
            raise self._refusal(f"is damaged ({error})") from None
        if kind != self.kind:
            raise self._refusal(f"is a journal of kind {kind!r}; {self.kind!r} is needed")
        return found

    def _write_ahead(self) -> None:
        """Let readers and a writer work side by side, where the file system has what it takes."""
        try:
            with _connect(self.path, "rw") as connection:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                connection.execute("SELECT kind FROM journal")  # the first to need shared memory
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_BUSY:  # somebody else is at it
                return
            mode = str(error)
        if mode != "wal":
            with _connect(self.path, "rw") as connection:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                connection.execute("PRAGMA journal_mode=DELETE")
                Path(f"{self.path}-shm").unlink(missing_ok=True)
            message = "this file system has no write-ahead mode; readers wait for writers instead"
            warnings.warn(f"{self.argument}: {self.path}: {message} ({mode})", stacklevel=4)

    @contextlib.contextmanager
    def _told(self, so: str = "nothing of this entry was written") -> Iterator[None]:
        """SQLite's errors in Python's words."""
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) in DAMAGE:
                raise self._refusal(f"is damaged ({error})") from None
            raise OSError(f"{self.argument}: {self.path}: {error}; {so}") from error

    def _refusal(self, message: str) -> ValueError:
        return ValueError(f"{self.argument}: {self.path} {message}")


def text(value: object) -> str:
    """``value`` as JSON; numbers may be numpy's or torch's. Raises ``ValueError`` for NaN."""

    def plain(part: Any) -> object:
        if getattr(part, "ndim", None) == 0 and hasattr(part, "item"):
            return part.item()
        raise ValueError(f"entry: got {part!r}; texts, finite numbers, lists and dicts are allowed")

    try:
        return json.dumps(value, allow_nan=False, default=plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"entry: {error}; the entry was {value!r}") from None


def _connect(path: Path, mode: str) -> contextlib.closing[sqlite3.Connection]:
    address = f"{path.as_uri()}?mode={mode}"
    return contextlib.closing(
        sqlite3.connect(address, uri=True, timeout=WAIT, isolation_level=None)
    )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end of the block; closing the connection takes back what was not committed."""
    connection.execute("PRAGMA synchronous=FULL")  # a commit returns when the disk has it
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
