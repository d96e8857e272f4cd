"""Many cells on many cores, or on many machines: joblib does the work, this orders it.

The parent process alone writes rows, one by one, as they arrive; several parents may fill one
board. Trainings that several cells share are done first, each once; the cells find them in the run
cache. On several machines ``NCLIB_CACHE`` must be a folder that all of them see, or each machine
trains for itself.
"""

from __future__ import annotations

import contextlib
import itertools
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from nclib.scoreboard.grids import Cell
from nclib.scoreboard.store import Store

BACKENDS = ("loky", "dask")  # ray hands nothing over before all is done: a kill would lose it
Work = Callable[[Cell], dict]


def measure(cell: Cell) -> dict[str, object]:
    """``cells.evaluate``, loaded where the work is done: the engine itself needs no torch."""
    from nclib.scoreboard.cells import evaluate

    return evaluate(cell)


def train_victim(*key: Any) -> None:
    """``cases.prepare``, for what it leaves in the run cache."""
    from nclib.scoreboard.cases import prepare

    prepare(*key)


def run(
    cells: Iterable[Cell],
    store: Store,
    *,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    work: Work = measure,
    train: Callable[..., object] = train_victim,
    progress: bool = True,
) -> dict[Cell, str]:
    """Put a row for each cell into ``store`` that it does not have; return what failed, and why.

    ``jobs`` processes here; with ``backend="dask"`` all workers of the cluster at ``scheduler``
    ("tcp://host:8786"). A cell that raises costs its own row only. Whatever ends the run, the
    rows so far are on the disk, and the same call goes on from there; a row that a full disk does
    not take is tried again with those that follow. Raises ``ValueError`` for a backend that is
    unknown, and for dask without a scheduler, and ``OSError`` where the table cannot be written.
    """
    missing = [cell for cell in dict.fromkeys(cells) if cell not in store]
    waves = [list(group) for _, group in itertools.groupby(missing, lambda cell: cell.seed)]
    total = len(missing) + sum(len(stage) for wave in waves for stage in shared(wave))
    failed: dict[Cell, str] = {}
    measured: dict[Cell, dict] = {}  # and not on the disk yet
    bar = tqdm(total=total, desc="scoreboard", unit="step", disable=not progress)
    with bar, _engine(backend, scheduler, jobs) as parallel:
        for wave in waves:
            for stage in shared(wave):
                for _ in parallel(delayed(_quiet)(train, key) for key in stage):
                    bar.update()
            for cell, row, error in parallel(delayed(_guarded)(work, cell) for cell in wave):
                bar.update()
                if row is None:
                    failed[cell] = error or "the work gave no row"
                else:
                    measured[cell] = row
                    _write(store, measured, failed)
    _write(store, measured, failed)
    if not measured:
        store.export()
    return failed | dict.fromkeys(measured, "measured, but the disk did not take the row")


def _write(store: Store, measured: dict[Cell, dict], failed: dict[Cell, str]) -> None:
    """Move what the disk takes out of ``measured``; the rest stays, for the next try."""
    for cell, row in list(measured.items()):
        try:
            store.append(row)
        except OSError as error:
            warnings.warn(f"{len(measured)} rows wait for room: {error}", stacklevel=3)
            return
        except ValueError as error:
            failed[cell] = str(error)
        del measured[cell]


def shared(cells: Iterable[Cell]) -> list[list[tuple]]:
    """The trainings that ``cells`` share, in two stages: the clean ones, which others build on."""
    keys = dict.fromkeys(cell[:4] for cell in cells)
    clean = dict.fromkeys((dataset, "clean", 0.0, seed) for dataset, _, _, seed in keys)
    return [list(clean), [key for key in keys if key not in clean]]


@contextlib.contextmanager
def _engine(backend: str, scheduler: str | None, jobs: int) -> Iterator[Parallel]:
    """joblib's ``Parallel`` on the backend, one task at a time, results as they arrive."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}; allowed are {', '.join(BACKENDS)}")
    options: dict[str, object] = {"n_jobs": jobs}
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            if not scheduler:
                raise ValueError("scheduler: got nothing; dask needs an address, tcp://host:8786")
            from distributed import Client  # the extra "cluster"

            client = stack.enter_context(Client(scheduler))
            options = {"n_jobs": -1, "client": client, "wait_for_workers_timeout": 60}
        stack.enter_context(parallel_config(backend, **options))
        if backend == "dask":  # on a cluster of one core joblib would work here, beside it
            engine = get_active_backend()[0]
            cores = engine.effective_n_jobs
            engine.effective_n_jobs = lambda n_jobs: max(2, cores(n_jobs))
        yield stack.enter_context(Parallel(batch_size=1, return_as="generator_unordered"))


def _guarded(work: Work, cell: Cell) -> tuple[Cell, dict | None, str]:
    """Cell, row, no error; or cell, nothing, and the end of the traceback."""
    try:
        return cell, work(cell), ""
    except Exception:
        return cell, None, traceback.format_exc(limit=-3)


def _quiet(train: Callable[..., object], key: tuple) -> None:
    """Train for the run cache; a failure shows up again, and is told, in each cell."""
    with contextlib.suppress(Exception):
        train(*key)
