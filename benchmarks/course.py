"""The whole course on the digits, lesson after lesson, beside its limit of ten minutes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import torch
from pairs import ROOT, hardware, write

LIMIT = 600.0  # seconds on two cores


def main() -> int:
    """Run every lesson with an empty cache; 1 where one failed, and then no row is written."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "execute.py", "run"],
            env={**os.environ, "NCLIB_CACHE": cache},
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        return 1
    write(
        "the whole course / its limit",
        seconds,
        LIMIT,
        ratio=seconds / LIMIT,
        outcome="every lesson ran",
        versions=f"torch {torch.__version__}",
        machine=f"{hardware()}; one lesson at a time, wall time",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
