"""Lessons at once on few cores: the same trainings together, and one after the other.

Waiting threads that spin burn the core which a working thread of another lesson needs. So the
package asks OpenMP to let them sleep, before torch loads (``nclib/__init__.py``). The rows compare
that with torch as it comes: ``ratio`` is the wall time of several lessons at once / one after the
other, and at most 1 means that nobody waits for the others in vain.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import torch
from pairs import ROOT, hardware, write

# Training as the lessons do it: small images with many short steps, larger ones with longer steps.
WORK = """{first}
import nclib, torch
from nclib import data, models, training
small, _ = data.load("digits")
draw = torch.Generator().manual_seed(0)
large = data.ImageSet(torch.rand(1500, 3, 32, 32, generator=draw),
                      torch.randint(10, (1500,), generator=draw), tuple("0123456789"), "noise")
for train, epochs in ((small, 4), (large, 1)):
    training.fit(models.build("cnn", train), train, epochs=epochs, cache=False, progress=False)
"""
SPIN, SLEEP = "import torch", "import nclib"  # whoever loads torch first keeps OpenMP's own policy


def main() -> int:
    """Two and four lessons, waiting threads spinning and sleeping; 1 where a training failed."""
    print(f"load {os.getloadavg()[0]:.1f}: on a busy machine the processor time says more")
    for count in (2, 4):
        for policy, first in (("spin", SPIN), ("sleep", SLEEP)):
            load = os.getloadavg()[0]
            after, after_cpu = trained(count, 1, first)
            at_once, cpu = trained(count, count, first)
            write(
                f"{count} lessons at once, waiting threads {policy} / one after the other",
                at_once,
                after,
                ratio=at_once / after,
                outcome=f"processor time {cpu:.0f} s / {after_cpu:.0f} s, load {load:.0f}",
                versions=f"torch {torch.__version__}",
                machine=f"{hardware()}; wall time",
            )
    return 0


def trained(count: int, together: int, first: str) -> tuple[float, float]:
    """Wall time and processor time of ``count`` lessons, ``together`` of them at a time."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", WORK.format(first=first)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(count // together):
        lessons = [subprocess.Popen(command, env=clean, cwd=ROOT) for _ in range(together)]
        if any([lesson.wait() for lesson in lessons]):
            raise RuntimeError("a training failed")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


if __name__ == "__main__":
    sys.exit(main())
