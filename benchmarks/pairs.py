"""Ours and a peer in turns, in one process: a row of data/results/bench.csv for each pair.

On a CPU it measures the processor time of the process, with one thread each, so that other programs
on the machine count little; elsewhere wall time. Half of the turns begin with the peer.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.table import Table  # noqa: E402
from nclib import device  # noqa: E402

WHERE = device.pick()
RELEASES = {
    "art": "adversarial-robustness-toolbox",
    "sklearn": "scikit-learn",
}  # import name -> name of the release
BELOW = {  # what does the arithmetic of a peer; numpy does some of everybody's
    "art": ("scipy", "scikit-learn", "pillow"),
    "foolbox": ("eagerpy",),
    "hyppo": ("scipy", "scikit-learn", "numba"),
}


def hardware() -> str:
    """The processor or the GPU by its name."""
    if WHERE.type == "cuda":
        return torch.cuda.get_device_name()
    found = None
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def machine() -> str:
    clock = "1 thread, processor time" if WHERE.type == "cpu" else "wall time"
    return f"{hardware()}; {clock}"


def installed(package: str) -> bool:
    """Whether the peer can be imported; a line of the output says so where it cannot."""
    try:
        importlib.import_module(package)
    except ImportError:
        print(f"{package} is not installed: its rows are left out")
        return False
    return True


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    package: str | None = None,
    *,
    outcome: Callable[[object, object], str] = lambda ours, peer: "",
    rounds: int = 5,
    warm: bool = True,
) -> None:
    """Write the row ``name``: medians of both, the median of the ratios ours / peer and its range.

    ``outcome`` says of the last two results whether they are equal. ``package`` is the import name
    of the peer; none stands for code of this file. ``warm`` runs both once, unmeasured.
    """
    torch.set_num_threads(1)
    told = versions(package)  # before the work: what cannot be told must not lose it
    if warm:
        ours(), peer()
    turns = [_turn(ours, peer, peer_first=turn % 2 == 1) for turn in range(rounds)]
    our_s, peer_s = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
    ratios = sorted(mine / theirs for (mine, _), (theirs, _) in turns)
    said = outcome(turns[-1][0][1], turns[-1][1][1])
    write(
        f"{name} / {package or 'plain code'}",
        our_s,
        peer_s,
        ratio=statistics.median(ratios),
        lowest=ratios[0],
        highest=ratios[-1],
        pairs=rounds,
        outcome=said,
        versions=told,
        machine=machine(),
    )


def versions(package: str | None) -> str:
    """What ran: torch, numpy, the peer, and what the peer stands on."""
    names = ["numpy", *([package] if package else []), *BELOW.get(package or "", ())]
    return ", ".join([f"torch {torch.__version__}", *(f"{n} {_version(n)}" for n in names)])


def _version(package: str) -> str:
    """The release, else what the module says of itself: a peer may be a mere folder."""
    try:
        return version(RELEASES.get(package, package))
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def write(name: str, ours: float, peer: float, **rest: object) -> None:
    """Print the row and put it into the table."""
    print(
        f"{name:<52}{ours:9.4f} s {peer:9.4f} s {rest['ratio']:6.2f}  {rest['outcome']}", flush=True
    )
    row = {"comparison": name, "ours_s": ours, "peer_s": peer} | rest
    Table("bench", ("comparison", "machine")).append(row)


def _turn(ours: Callable, peer: Callable, *, peer_first: bool) -> tuple:
    if peer_first:
        return (_timed(peer), _timed(ours))[::-1]
    return _timed(ours), _timed(peer)


def _timed(run: Callable[[], object]) -> tuple[float, object]:
    clock = time.process_time if WHERE.type == "cpu" else time.perf_counter
    device.synchronize(WHERE)
    start = clock()
    result = run()
    device.synchronize(WHERE)
    return clock() - start, result
