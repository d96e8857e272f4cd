"""The journal: whole entries or none, whatever is killed, full, shared or not ours."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from nclib import journal
from nclib.journal import Journal

HEADER = {"model": "a", "layers": ["x"]}


def started(path, kind="monitor"):
    book = Journal(path, kind)
    book.start(HEADER)
    return book


def program(code, *arguments, **options):
    """A child that has ``Journal``, ``HEADER``, ``started`` and its ``arguments`` in sys.argv."""
    head = "import os, resource, sys\nfrom nclib.journal import Journal\n"
    head += f"HEADER = {HEADER!r}\ndef started(path):\n    book = Journal(path, 'monitor')\n"
    head += "    book.start(HEADER)\n    return book\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def folder_of(path):
    """Everything beside ``path``, byte for byte."""
    files = sorted(path.parent.iterdir())
    return {f.name: f.read_bytes() if f.is_file() else None for f in files}


def test_entries_come_back_to_the_last_bit_and_in_their_order(tmp_path):
    book = Journal(tmp_path / "new folder" / "50% of #1?.log", "monitor")
    assert not book and book.start(HEADER) == {} and book
    entry = {"a": np.float32(0.1), "b": np.int64(2**53 + 1), "c": torch.tensor(1 / 3)}
    book.add({"z": entry | {"d": [0.1 + 0.2, np.bool_(True), None], "e": "\udcff ü"}})
    book.add({"b": {"n": 10**30}, "a": {}})
    header, entries = book.read()
    assert header == HEADER and list(entries) == ["z", "b", "a"]
    assert entries["z"]["a"] == float(np.float32(0.1)) and entries["z"]["b"] == 2**53 + 1
    assert entries["z"]["c"] == torch.tensor(1 / 3).item() and entries["b"]["n"] == 10**30
    assert entries["z"]["d"] == [0.1 + 0.2, True, None] and entries["z"]["e"] == "\udcff ü"
    assert Journal(book.path, "monitor").start(HEADER) == entries
    assert list(folder_of(book.path)) == [book.path.name]  # nothing is left beside it


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), torch.ones(2), object()])
def test_what_json_does_not_have_is_refused_and_nothing_of_it_is_written(tmp_path, value):
    book = started(tmp_path / "log")
    with pytest.raises(ValueError, match="entry: "):
        book.add({"a": {"fine": 1}, "b": {"x": value}})
    assert book.read()[1] == {}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(st.lists(st.dictionaries(NAMES, st.dictionaries(st.text(), JSON)), max_size=4))
def test_whatever_json_has_comes_back_and_every_call_is_all_or_nothing(calls):
    with tempfile.TemporaryDirectory() as folder:
        book, expected = started(Path(folder, "log")), {}
        for entries in calls:
            fine = not set(entries) & set(expected)
            with contextlib.nullcontext() if fine else pytest.raises(ValueError):
                book.add(entries)
            expected |= entries if fine else {}
            assert Journal(book.path, "monitor").read()[1] == expected


def other_database(path, wal=False, mark=0):
    with sqlite3.connect(path) as base:
        base.execute(f"PRAGMA application_id={mark}")
        base.execute("CREATE TABLE grades (name, grade)")
        base.execute("INSERT INTO grades VALUES ('Ada', 1)")
    if wal:
        base.execute("PRAGMA journal_mode=WAL")
    base.close()


def newer(path):
    started(path)
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version=2")
    base.close()


FOREIGN = {
    "json": lambda p: p.write_text('{"only": "copy"}'),
    "csv": lambda p: p.write_text("name,grade\nAda,1\nBob,2"),
    "one byte": lambda p: p.write_bytes(b"\n"),
    "database": other_database,
    "database with write-ahead": lambda p: other_database(p, wal=True),
    "database with our mark": lambda p: other_database(p, mark=journal.MARK),
    "half a head": lambda p: p.write_bytes(b"SQLite format 3\0"),
    "a head alone": lambda p: p.write_bytes(FOREIGN_HEAD),
    "folder": lambda p: p.mkdir(),
    "pipe": lambda p: os.mkfifo(p),
    "another kind": lambda p: started(p, "certificates"),
    "a later format": newer,
    "a neighbour": lambda p: Path(f"{p}-journal").write_text("chapter one"),
    "another neighbour": lambda p: (p.touch(), Path(f"{p}-wal").write_text("dear diary")),
}
FOREIGN_HEAD = b"SQLite format 3\0" + bytes(52) + journal.MARK.to_bytes(4) + bytes(28)


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_ours_is_refused_and_stays_byte_for_byte(tmp_path, what):
    path = tmp_path / "typed wrong"
    FOREIGN[what](path)
    before = folder_of(path)
    for call in ("start", "read", "add"):
        with pytest.raises(ValueError, match="log: .*typed wrong"):
            book = Journal(path, "monitor", argument="log")
            book.start(HEADER) if call == "start" else book.read()
    assert folder_of(path) == before


def test_an_empty_file_is_nothing_yet(tmp_path):
    path = tmp_path / "log"
    path.touch()
    assert not Journal(path, "monitor")
    with pytest.raises(ValueError, match="not there, or empty"):
        Journal(path, "monitor").read()
    started(path).add({"a": {}})
    assert list(Journal(path, "monitor").read()[1]) == ["a"]


def test_another_header_is_refused_and_what_differs_is_named(tmp_path):
    path = tmp_path / "log"
    started(path).add({"a": {"n": 1}})
    before = folder_of(path)
    with pytest.raises(ValueError, match=r"\(model: a there, b here; seed: None there, 3 here\)"):
        Journal(path, "monitor").start(HEADER | {"model": "b", "seed": 3})
    assert folder_of(path) == before


def test_a_key_is_taken_once_unless_it_is_replaced_and_a_batch_is_one_whole(tmp_path):
    book = started(tmp_path / "log")
    book.add({"a": {"n": 1}})
    with pytest.raises(ValueError, match="b, a already"):
        book.add({"b": {"n": 2}, "a": {"n": 3}})
    assert book.read()[1] == {"a": {"n": 1}}
    book.add({"b": {"n": 2}, "a": {"n": 3}}, replace=True)
    assert book.read()[1] == {"b": {"n": 2}, "a": {"n": 3}}
    book.path.unlink()
    with pytest.raises(ValueError, match="moved or deleted"):
        book.add({"c": {}})
    assert not book.path.exists()


def test_what_is_taken_leaves_the_journal_only_if_all_went_well(tmp_path):
    book = started(tmp_path / "log")
    book.add({"a": {"n": 1}, "b": {}})
    with pytest.raises(RuntimeError), book.taken() as entries:
        raise RuntimeError("the disk was full")
    assert book.read()[1] == entries == {"a": {"n": 1}, "b": {}}
    with book.taken() as entries:
        rival = program("started(sys.argv[1]).add({'c': {}})", book.path)
        with pytest.raises(subprocess.TimeoutExpired):
            rival.wait(0.5)  # it waits for its turn
    assert rival.wait(60) == 0 and list(book.read()[1]) == ["c"]


WRITER = """
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True), input()
book = started(path)
for i in range(count):
    book.add({f"{name} {i}": {"i": i, "text": name * 300}})
"""


def test_writers_that_start_at_once_all_get_their_entries_in(tmp_path):
    names, count = "abcd", 15
    for again in range(3):
        path = tmp_path / f"log {again}"
        rivals = [program(WRITER, path, n, count, stdin=subprocess.PIPE) for n in names]
        assert all(rival.stdout.readline() == "ready\n" for rival in rivals)
        for rival in rivals:
            rival.stdin.write("\n"), rival.stdin.flush()
        assert [rival.wait(120) for rival in rivals] == [0] * len(names)
        found = Journal(path, "monitor").read()[1]
        assert {k: e["i"] for k, e in found.items()} == {
            f"{name} {i}": i for name in names for i in range(count)
        }


FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for i in range(20):
    try:
        book = started(sys.argv[1])
        book.add({f"{i} {part}": {"text": "x" * 400} for part in range(4)})
    except OSError as error:
        print("refused", i, "nothing of this entry was written" in str(error))
    else:
        print("in", i)
"""


def test_a_full_disk_takes_an_entry_whole_or_not_at_all_and_says_so(tmp_path):
    seen = set()
    for limit in (100, 5000, 20_000, 33_000, 36_000, 45_000):
        path = tmp_path / f"log {limit}"
        child = program(FULL, path, limit, stderr=subprocess.DEVNULL)
        lines = [line.split() for line in child.communicate(timeout=600)[0].splitlines()]
        assert child.returncode == 0 and len(lines) == 20
        accepted = [f"{i} {part}" for word, i, *_ in lines if word == "in" for part in range(4)]
        assert all(told == ["True"] for word, _, *told in lines if word == "refused")
        seen |= {word for word, *_ in lines}
        if accepted:
            assert list(Journal(path, "monitor").read()[1]) == accepted
        book = started(path)  # and with room again it goes on
        book.add({"after": {}})
        assert list(book.read()[1]) == [*accepted, "after"]
    assert seen == {"in", "refused"}


KILLED = """
book = started(sys.argv[1])
done = len(book.read()[1])
while True:
    book.add({f"{done} {part}": {"text": "x" * 3000 * part} for part in range(3)})
    done += 3
    print(done, flush=True)
"""


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_at_any_moment_loses_nothing_that_was_said_to_be_in(tmp_path, times):
    path, before, draw = tmp_path / "log", 0, random.Random(0)
    for _ in range(times):
        child = program(KILLED, path)
        said = [int(child.stdout.readline()) for _ in range(draw.randint(0, 4))]
        try:
            child.wait(draw.uniform(0, 0.1 if said else 0.4))  # the child itself never ends
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
        said = [before, *said, *map(int, child.communicate()[0].split("\n")[:-1])]
        assert child.returncode == -signal.SIGKILL
        found = list(Journal(path, "monitor").read()[1]) if path.exists() and before else []
        found = found or (list(started(path).read()[1]))
        assert len(found) in (said[-1], said[-1] + 3)  # one more may be in, and nobody was told
        assert found == [f"{i} {part}" for i in range(0, len(found), 3) for part in range(3)]
        before = len(found)
    assert before > times


@pytest.fixture(scope="module")
def torn():
    """The files of a journal whose writer was killed before the log ahead was folded in."""
    with tempfile.TemporaryDirectory() as folder:
        book = started(Path(folder, "log"))
        book.add({"first": {}})
        reader = sqlite3.connect(book.path)  # while it is open, nobody folds the log in
        reader.execute("SELECT * FROM entries").fetchall()
        for i in range(8):
            book.add({str(i): {"text": "x" * i * 700}})
        files = {end: Path(f"{book.path}{end}").read_bytes() for end in ("", "-wal")}
        reader.close()
    return files


KEYS = ["first", *map(str, range(8))]


def test_every_prefix_of_the_log_ahead_is_a_prefix_of_the_entries(tmp_path, torn):
    lengths, size = [], len(torn["-wal"])
    for cut in [*range(0, size, 3001), *range(32, size, 4120), size]:
        path = tmp_path / f"log {cut}"
        path.write_bytes(torn[""])
        Path(f"{path}-wal").write_bytes(torn["-wal"][:cut])
        book = started(path)
        found = list(book.read()[1])
        assert found == KEYS[: len(found)]
        lengths.append(len(found))
        book.add({"next": {}})
        assert list(book.read()[1]) == [*found, "next"]
    assert set(lengths) == set(range(1, 10))


def test_damage_is_told_and_never_a_crash(tmp_path, torn):
    draw, told = random.Random(0), 0
    for i in range(150):
        end = draw.choice(["", "", "-wal"])
        files = {end: bytearray(data) for end, data in torn.items()}
        for _ in range(draw.choice([1, 30])):
            files[end][draw.randrange(100, len(files[end]))] = draw.randrange(256)
        if draw.random() < 0.2:
            del files[end][draw.randrange(100, len(files[end])) :]
        path = tmp_path / f"log {i}"
        for name, data in files.items():
            Path(f"{path}{name}").write_bytes(data)
        try:
            header, entries = Journal(path, "monitor").read()
        except (ValueError, OSError) as error:
            told += 1
            assert str(path) in str(error)
        else:
            assert isinstance(header, dict) and all(isinstance(e, dict) for e in entries.values())
    assert 10 < told < 140


READ_ONLY = """
os.setuid(65534) if os.getuid() == 0 else None
try:
    open(sys.argv[1] + ".x", "w"), print("the folder can be written")
except PermissionError:
    print(*Journal(sys.argv[1], "monitor").read()[1])
    for call in (lambda b: b.start(HEADER), lambda b: b.add({"x": {}})):
        try:
            call(Journal(sys.argv[1], "monitor")), print("written")
        except OSError as error:
            print("told:", error)
"""


@pytest.mark.parametrize("ahead", [False, True])
def test_a_folder_that_cannot_be_written_can_be_read(torn, ahead):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(torn[""])
        if ahead:
            Path(f"{path}-wal").write_bytes(torn["-wal"])
        for file in path.parent.iterdir():
            file.chmod(0o444)
        before = folder_of(path)
        os.chmod(folder, 0o555)
        out = program(READ_ONLY, path).communicate(timeout=600)[0].splitlines()
        assert out[0].split() == (KEYS if ahead else KEYS[:1])
        assert len(out) == 3 and all(line.startswith(f"told: path: {path}") for line in out[1:])
        os.chmod(folder, 0o755)
        assert folder_of(path) == before


def test_without_shared_memory_it_says_so_and_works(tmp_path, monkeypatch):
    started(tmp_path / "moved").add({"a": {}})  # made elsewhere, in write-ahead mode
    connect = sqlite3.connect

    def plain(address, **options):
        return connect(f"{address}&vfs=unix-dotfile", **options)

    monkeypatch.setattr(sqlite3, "connect", plain)
    for name, keys in {"new": [], "moved": ["a"]}.items():
        with pytest.warns(UserWarning, match="no write-ahead mode"):
            book = started(tmp_path / name)
        book.add({"b": {}})
        assert list(book.read()[1]) == [*keys, "b"]


def test_a_start_without_room_for_shared_memory_works_too(tmp_path):
    code = "resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, resource.RLIM_INFINITY))\n"
    code += "book = started(sys.argv[1])\nbook.add({'a': {}})\nprint(*book.read()[1])"
    child = program(code, tmp_path / "log", stderr=subprocess.PIPE)
    out, told = child.communicate(timeout=600)
    assert out == "a\n" and "no write-ahead mode" in told and os.listdir(tmp_path) == ["log"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert started(tmp_path / "log").read()[1] == {"a": {}}
