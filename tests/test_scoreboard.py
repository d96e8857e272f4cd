"""The engine of the scoreboard: resumable, each row whole, one training for many cells."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nclib.scoreboard import COLUMNS, GRIDS, Cell, Store, cells_of, engine, run
from nclib.scoreboard.command import main
from nclib.scoreboard.grids import KINDS

CELLS = [Cell("toy", p, 0.1, s, m) for s in (0, 1) for p in ("a", "b") for m in ("none", "random")]


def toy(cell):
    return cell._asdict() | {"kind": KINDS[cell.method], "accuracy": 0.5 + cell.seed / 10}


def no_training(*key):
    return key


def test_a_grid_is_the_product_of_its_row_and_keeps_shared_trainings_side_by_side():
    cells = cells_of("quick")
    assert len(cells) == 2 * 2 * 3 and len(set(cells)) == len(cells)
    places = [cell[:4] for cell in cells]
    assert sum(a != b for a, b in zip(places, places[1:], strict=False)) == len(set(places)) - 1
    assert all(c.method in KINDS for grid in GRIDS for c in cells_of(grid))
    with pytest.raises(ValueError, match="grid: got 'huge'"):
        cells_of("huge")


def test_the_clean_training_of_each_data_set_and_seed_comes_before_what_builds_on_it():
    clean, rest = engine.shared(c for c in cells_of("digits") if c.seed == 2)
    assert clean == [("digits", "clean", 0.0, 2)]
    assert ("digits", "clean_label", 0.05, 2) in rest and not set(clean) & set(rest)
    assert len(rest) == 10  # one for each poison and rate, whatever the number of methods


def test_every_cell_becomes_one_row_and_a_second_run_has_nothing_to_do(tmp_path):
    trained, worked = [], []

    def train(*key):
        trained.append(key)

    def work(cell):
        worked.append(cell)
        return toy(cell)

    store = Store(tmp_path / "board.csv")
    assert run(CELLS, store, work=work, train=train, progress=False) == {}
    assert len(worked) == len(CELLS) == len(store.rows)
    assert len(trained) == len(set(trained)) == 2 + 4  # a clean one per seed, a, b per seed
    again = Store(tmp_path / "board.csv")
    assert again.rows == store.rows and list(again.rows) == sorted(CELLS)
    run(CELLS, again, work=work, train=train, progress=False)
    assert len(worked) == len(CELLS)


def test_a_cell_that_raises_costs_its_own_row_only(tmp_path):
    def work(cell):
        if cell == CELLS[3]:
            raise RuntimeError("this one breaks")
        return toy(cell)

    store = Store(tmp_path / "board.csv")
    failed = run(CELLS, store, work=work, train=no_training, progress=False)
    assert list(failed) == [CELLS[3]] and "this one breaks" in failed[CELLS[3]]
    assert len(store.rows) == len(CELLS) - 1


def test_a_row_that_fails_to_be_one_costs_itself_only(tmp_path):
    store = Store(tmp_path / "board.csv")
    failed = run(
        CELLS,
        store,
        work=lambda cell: {} if cell == CELLS[0] else toy(cell) | {"auroc": np.float32(0.5)},
        train=no_training,
        progress=False,
    )
    assert list(failed) == [CELLS[0]] and "needs a key" in failed[CELLS[0]]
    assert {row["auroc"] for row in Store(store.path).rows.values()} == {"0.5"}
    with pytest.raises(ValueError, match=r"row: got the columns \['acuracy'\]"):
        store.append(toy(CELLS[0]) | {"acuracy": 1})


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_scoreboard import CELLS, Store, no_training, run, toy
last = 10**9 if sys.argv[3] == "freed" else 3000
limits = iter([10**9, 3000, 3000, 3000, *[last] * 99])
def work(cell):
    resource.setrlimit(resource.RLIMIT_FSIZE, (next(limits), resource.RLIM_INFINITY))
    return toy(cell)
failed = run(CELLS, Store(sys.argv[1]), work=work, train=no_training, progress=False)
print(len(failed), *set(failed.values()))
"""


@pytest.mark.parametrize("then", ["freed", "full"])
def test_a_full_disk_loses_no_row_that_it_took_and_is_told(tmp_path, then):
    path = tmp_path / "board.csv"
    command = [sys.executable, "-W", "ignore", "-c", FULL, path, Path(__file__).parent, then]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    if then == "freed":  # rows wait in memory for room
        assert out == "0\n" and set(Store(path).rows) == set(CELLS)
    else:
        assert out == "7 measured, but the disk did not take the row\n"
        assert list(Store(path).rows) == CELLS[:1]


PAIR = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_scoreboard import Cell, Store, no_training, run, toy
name, pause = sys.argv[3], float(sys.argv[4])
def work(cell):
    time.sleep(pause)
    return toy(cell)
cells = [Cell(name, "clean", 0.0, s, "none") for s in range(8)]
cells.append(Cell("both", "clean", 0.0, 0, "none"))
print(run(cells, Store(sys.argv[1]), work=work, train=no_training, progress=False))
"""


def test_two_runs_fill_one_board(tmp_path):
    path, here = tmp_path / "board.csv", Path(__file__).parent
    pairs = [("digits", 0.01), ("mnist", 0.05)]
    runs = [
        subprocess.Popen([sys.executable, "-c", PAIR, path, here, name, str(pause)])
        for name, pause in pairs
    ]
    assert [one.wait(120) for one in runs] == [0, 0]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["dataset"] for row in rows]
    assert [names.count(n) for n in ("digits", "mnist", "both")] == [8, 8, 1]
    assert rows == list(Store(path).rows.values())


def test_the_table_on_the_disk_is_where_a_run_starts(tmp_path):
    path, worked = tmp_path / "board.csv", []

    def work(cell):
        worked.append(cell)
        return toy(cell)

    def again():
        worked.clear()
        run(CELLS, Store(path), work=work, train=no_training, progress=False)
        return list(worked)

    assert again() == CELLS and again() == []
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))  # a row is deleted, to be measured again
    assert again() == sorted(CELLS)[2:3] and path.read_text() == text
    path.write_text(text.rstrip("\n"))  # complete, without its line break
    assert again() == [] and len(Store(path).rows) == len(CELLS)


def test_rows_that_no_table_has_yet_are_not_lost(tmp_path, monkeypatch):
    path = tmp_path / "board.csv"
    store = Store(path)
    store.append(toy(CELLS[0]))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.warns(UserWarning, match="not up to date: no room"):
        store.append(toy(CELLS[1]))
    monkeypatch.undo()
    assert path.read_text().count("\n") == 2 and list(Store(path).rows) == CELLS[:2]
    Store(path).export()
    assert path.read_text().count("\n") == 3
    assert sorted(os.listdir(tmp_path)) == ["board.csv", "board.csv.journal"]


HEAD = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("name,grade\nAda,1\nBob,2", "other columns"),
        ("only copy", "other columns"),
        ("\n", "other columns"),
        (HEAD[:20], "other columns"),
        (HEAD + "\n" + toy(CELLS[0])["dataset"], f"1 of {len(COLUMNS)} values in row 2"),
        (HEAD + "\n<<<<<<< mine\n", f"1 of {len(COLUMNS)} values"),
        (HEAD + "\n" + "a," * (len(COLUMNS) - 1) + "b\n", "needs a key"),
        (HEAD + '\n"a', "no table"),
        ("\ud800", "no table"),
    ],
)
def test_what_is_no_board_is_refused_and_stays_byte_for_byte(tmp_path, text, word):
    path = tmp_path / "typed wrong.csv"
    path.write_text(text, errors="surrogatepass")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=word):
        Store(path).append(toy(CELLS[0]))
    with pytest.raises(ValueError):
        main(["run", "quick", "--out", str(path)])
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_folder_is_no_board_and_a_draft_of_somebody_else_stays(tmp_path):
    with pytest.raises(ValueError, match="no table"):
        Store(tmp_path)
    (tmp_path / "board.part").write_text("only copy")
    Store(tmp_path / "board.csv").append(toy(CELLS[0]))
    assert (tmp_path / "board.part").read_text() == "only copy"


@pytest.mark.parametrize(
    ("options", "word"),
    [({"backend": "slurm"}, "backend: got 'slurm'"), ({"backend": "dask"}, "scheduler")],
)
def test_a_bad_engine_is_refused(tmp_path, options, word):
    store = Store(tmp_path / "board.csv")
    with pytest.raises(ValueError, match=word):
        run(CELLS, store, work=toy, train=no_training, progress=False, **options)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_scoreboard import CELLS, Store, no_training, run, toy
def slow(cell):
    time.sleep(0.05)
    return toy(cell)
cells = [cell._replace(rate=i / 1000) for i in range(100) for cell in CELLS]
run(cells, Store(sys.argv[1]), work=slow, train=no_training, progress=False)
"""


def test_a_kill_loses_no_finished_row_and_leaves_no_half_one(tmp_path):
    path = tmp_path / "board.csv"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)])
    deadline = time.monotonic() + 600
    while not (path.exists() and path.read_bytes().count(b"\n") > 5):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    lines = path.read_bytes().count(b"\n")
    assert path.read_bytes().endswith(b"\n") and 5 < lines < 800
    store = Store(path)
    assert len(store.rows) in (lines - 1, lines)  # all but the header; the last may be on its way
    assert run(list(store.rows), store, work=None, train=no_training, progress=False) == {}


DIES = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_scoreboard import CELLS, Store, no_training, run, toy
def work(cell):
    if cell == CELLS[3] and not os.path.exists(sys.argv[3]):
        open(sys.argv[3], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return toy(cell)
print(run(CELLS, Store(sys.argv[1]), jobs=2, work=work, train=no_training, progress=False))
"""


def test_a_worker_that_is_killed_costs_no_row_that_is_in(tmp_path):
    path, marker = tmp_path / "board.csv", tmp_path / "killed"
    command = [sys.executable, "-c", DIES, path, Path(__file__).parent, marker]
    first = subprocess.run(command, capture_output=True, text=True)
    assert marker.exists() and first.returncode and "TerminatedWorker" in first.stderr
    before = Store(path).rows
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.stdout == "{}\n", second.stderr
    assert list(Store(path).rows) == sorted(CELLS) and before.items() <= Store(path).rows.items()


@contextlib.contextmanager
def dask_cluster(folder, workers=2):
    """A scheduler and ``workers`` one-thread workers, each a process of its own, on loopback."""
    note, dask = folder / "scheduler.json", [sys.executable, "-m", "distributed.cli."]
    local = ["--host", "127.0.0.1", "--scheduler-file", str(note)]
    single = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    commands = [["dask_scheduler", "--port", "0", "--no-dashboard"]]
    commands += [["dask_worker", *single]] * workers
    processes = [
        subprocess.Popen([*dask[:-1], dask[-1] + command[0], *local, *command[1:]], **quiet)
        for command in commands
    ]
    try:
        deadline = time.monotonic() + 600
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(note.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_dask_cluster_of_processes_finishes_the_grid_although_a_worker_dies(tmp_path):
    distributed = pytest.importorskip("distributed", reason="make test installs it")
    marker = tmp_path / "killed"

    def work(cell):  # a closure: it travels by value, the workers do not see this file
        if cell == CELLS[1] and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return cell._asdict() | {"seconds": os.getpid()}

    def train(*key):
        return None

    store = Store(tmp_path / "board.csv")
    with dask_cluster(tmp_path) as address:
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=600)
        place = {"backend": "dask", "scheduler": address}
        failed = run(CELLS, store, work=work, train=train, progress=False, **place)
    assert failed == {} and set(store.rows) == set(CELLS)
    assert store.path.read_bytes().count(b"\n") == 1 + len(CELLS)  # none twice
    pids = {int(row["seconds"]) for row in store.rows.values()}
    assert os.getpid() not in pids  # the cluster did all of it, with one worker at the end
    assert pids - {int(marker.read_text())}
