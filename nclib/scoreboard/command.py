"""Run a grid, or draw the board.

python -m nclib scoreboard run GRID [--jobs N] [--backend dask --scheduler tcp://host:8786]
python -m nclib scoreboard report
"""

from __future__ import annotations

import argparse
import sys

from nclib.scoreboard.engine import BACKENDS, run
from nclib.scoreboard.grids import GRIDS, cells_of
from nclib.scoreboard.store import OUT, RESULTS, ROOT, Store


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where a cell failed."""
    parser = argparse.ArgumentParser(prog="python -m nclib scoreboard", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="measure what is missing of a grid")
    runner.add_argument("grid", choices=GRIDS, nargs="+")
    runner.add_argument("--jobs", type=int, default=1, help="processes; -1 is one per core")
    runner.add_argument("--backend", choices=BACKENDS, default="loky")
    runner.add_argument("--scheduler", help="address of a Dask scheduler")
    runner.add_argument("--out", default=OUT, help="CSV file (default: %(default)s)")
    writer = commands.add_parser("report", help="heat maps, docs/scoreboard.md, README table")
    writer.add_argument("--results", default=RESULTS)
    writer.add_argument("--root", default=ROOT, help="checkout (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.command == "report":
        from nclib.scoreboard import report

        Store(options.results).export()  # what a run that was killed did not come to
        for path in report.write(options.results, options.root):
            print("wrote", path)
        return 0
    cells = [cell for grid in options.grid for cell in cells_of(grid)]
    place = {"jobs": options.jobs, "backend": options.backend, "scheduler": options.scheduler}
    failed = run(cells, Store(options.out), **place)
    for cell, error in failed.items():
        print(*cell, "failed:\n", error, file=sys.stderr)
    print(f"{len(set(cells)) - len(failed)} of {len(set(cells))} cells are in {options.out}")
    return int(bool(failed))
