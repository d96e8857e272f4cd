"""The house in one go: its lines of code and minutes, and what its commands take.

python benchmarks/house.py [make's target ...]    into data/results/house.csv

The lines are counted (``tools/size.py``), the minutes are the sum of data/results/minutes.csv, and
each target of make runs once, with a clock beside it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

from pairs import ROOT, Table, hardware

sys.path.insert(0, str(ROOT / "tools"))

import readme  # noqa: E402
import size  # noqa: E402

COURSE = 20  # minutes for all lessons, the aim


def counted() -> list[dict[str, object]]:
    """What can be read off: lines of code by storeys, and the minutes of all lessons."""
    rows = [
        {"what": f"code of {pair}", "value": lines, "unit": f"lines; the aim is under {aim:,}"}
        for pair, (lines, aim) in size.totals().items()
    ]
    told = f"minutes; the aim is {COURSE}"
    return [*rows, {"what": "all lessons", "value": sum(readme.minutes().values()), "unit": told}]


def timed(command: Sequence[str]) -> dict[str, object]:
    """Wall time of ``command``, and its processor time beside the load that it met."""
    load, before = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    wall, spent = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    told = f"minutes, {cpu / 60:.1f} of a processor; load {load:.1f} before"
    return {"what": " ".join(command), "value": wall / 60, "unit": told}


def main(targets: Sequence[str]) -> None:
    """Write the rows; a target that fails ends the program without its row."""
    table = Table("house", ("what",))
    table.append(*(row | {"machine": ""} for row in counted()))
    for target in targets:
        table.append(timed(["make", target]) | {"machine": hardware()})


if __name__ == "__main__":
    main(sys.argv[1:])
