"""The engine of the scoreboard: resumable, each row whole, one training for many cells."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nclib.scoreboard import COLUMNS, GRIDS, Cell, Store, cells_of, engine, run
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
    assert {c.method for c in cells_of("quick", ["mine"])} == {"mine"}
    assert all(c.method in KINDS for grid in GRIDS for c in cells_of(grid))
    with pytest.raises(ValueError, match="grid: got 'huge'"):
        cells_of("huge")


def test_the_clean_training_of_each_data_set_and_seed_comes_before_what_builds_on_it():
    clean, rest = engine.shared(c for c in cells_of("digits") if c.seed == 2)
    assert clean == [("digits", "clean", 0.0, 2)]
    assert ("digits", "clean_label", 0.05, 2) in rest and not set(clean) & set(rest)
    assert len(rest) == 7  # one for each poison and rate, whatever the number of methods


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


def test_a_torn_last_row_is_dropped_and_the_others_stay(tmp_path):
    path = tmp_path / "board.csv"
    store = Store(path)
    for cell in CELLS[:3]:
        store.append(toy(cell))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # as if the power went during the third write
    again = Store(path)
    assert list(again.rows) == CELLS[:2]
    again.append(toy(CELLS[2]))
    assert path.read_bytes() == whole
    path.write_text(",".join(COLUMNS)[:20])  # even a torn header
    assert Store(path).rows == {}


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        Store(tmp_path / "other.csv")


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
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_bytes().count(b"\n") > 5):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    lines = path.read_bytes().count(b"\n")
    assert path.read_bytes().endswith(b"\n") and 5 < lines < 800
    store = Store(path)
    assert len(store.rows) == lines - 1  # all but the header
    assert run(list(store.rows), store, work=None, train=no_training, progress=False) == {}


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
        deadline = time.monotonic() + 60
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(note.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_dask_cluster_of_processes_finishes_the_grid_although_a_worker_dies(tmp_path):
    distributed = pytest.importorskip("distributed")
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
            client.wait_for_workers(2, timeout=60)
        place = {"backend": "dask", "scheduler": address}
        failed = run(CELLS, store, work=work, train=train, progress=False, **place)
    assert failed == {} and set(store.rows) == set(CELLS)
    assert store.path.read_bytes().count(b"\n") == 1 + len(CELLS)  # none twice
    pids = {int(row["seconds"]) for row in store.rows.values()}
    assert os.getpid() not in pids  # the cluster did all of it, with one worker at the end
    assert pids - {int(marker.read_text())}
