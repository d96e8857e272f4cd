"""The computing time of the course: each lesson with an empty cache, beside the aim of 90 seconds.

The last row is their sum beside twenty minutes. Time is told here and fails nothing anywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from pairs import ROOT, compare, hardware, write

from nclib import data, models, training

LESSON, COURSE = 90.0, 1200.0  # seconds on two idle cores


def main() -> int:
    """Run every lesson, one at a time; 1 where one failed, and then no row is written."""
    took = {path.stem: seconds(path) for path in sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    if None in took.values():
        return 1
    for name, spent in took.items():
        row(f"lesson {name} / the aim of {LESSON:.0f} s", spent, LESSON)
    row("the whole course / the aim of 20 min", sum(took.values()), COURSE)
    probes()
    return 0


def seconds(lesson: Path) -> float | None:
    """Wall time of one lesson from an empty cache; None where it failed."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "execute.py", "run", lesson.name[:2]],
            env={**os.environ, "NCLIB_CACHE": cache},
        )
        return None if done.returncode else time.perf_counter() - start


def row(name: str, spent: float, aim: float) -> None:
    load = f"load {os.getloadavg()[0]:.1f}"
    write(
        name,
        spent,
        aim,
        ratio=spent / aim,
        outcome=f"it ran, {load}",
        versions=f"torch {torch.__version__}",
        machine=f"{hardware()}; one lesson at a time, wall time",
    )


def probes() -> None:
    """What two probes add to a short training."""
    train, _ = data.load("digits")
    plain = {"epochs": 5, "cache": False, "progress": False}
    probed = plain | {"probes": {"loss": lambda model: 0.0}, "probe_at": (0, 5)}
    run = {
        name: lambda options=options: training.fit(models.build("mlp", train), train, **options)
        for name, options in (("plain", plain), ("probed", probed))
    }
    compare("training with two probes / without", run["probed"], run["plain"])


if __name__ == "__main__":
    sys.exit(main())
