"""How the cost of each score grows with the samples: seconds into data/results/growth.csv.

Ten Gaussian classes in 512 dimensions whose spread falls from axis to axis, a tenth of the labels
wrong. ``deep_knn`` looks at them twice: as they are, and ten times as narrow, because its search
stays within a class that has collapsed. One thread, processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from pairs import Table, machine
from torch import Tensor

from nclib import detection, geometry
from nclib.detection import neighbours

SIZES = (5_000, 20_000, 50_000, 200_000)
DIM, CLASSES = 512, 10


def features(count: int, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rows ``[count, DIM]`` float32, and labels of which a tenth is wrong."""
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, DIM, generator=draw)
    spread = width * torch.linspace(1.5, 0.05, DIM)
    truth = torch.arange(count) % CLASSES
    rows = means[truth] + spread * torch.randn(count, DIM, generator=draw)
    wrong = torch.rand(count, generator=draw) < 0.1
    return rows, torch.where(wrong, (truth + 1) % CLASSES, truth)


def by_depth(rows: Tensor, labels: Tensor) -> Tensor:
    return detection.ncc_depth({"one layer": rows}, labels)


JOBS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "geometry.measure": geometry.measure,
    "ncc_depth, per layer": by_depth,
    **detection.SCORES,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--scores", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--without-faiss", action="store_true")
    chosen = parser.parse_args()
    if chosen.without_faiss:
        sys.modules.update(faiss=None)  # as if it were not installed
    search = "torch" if neighbours._faiss_index(torch.zeros(2, 2)) is None else "faiss"
    torch.set_num_threads(1)
    table = Table("growth", ("score", "features", "samples", "search"))
    for count in chosen.sizes:
        for width in (0.1, 1.0):
            rows, labels = features(count, width)
            kind = "collapsed" if width < 1 else "as they are"
            for name in chosen.scores if width == 1 else {"deep_knn"} & {*chosen.scores}:
                start = time.process_time()
                JOBS[name](rows, labels)
                seconds = time.process_time() - start
                print(f"{name:<24}{kind:<14}{count:>9,}{seconds:10.2f} s", flush=True)
                found = search if name == "deep_knn" else ""
                row = {"score": name, "features": kind, "samples": f"{count:06}", "search": found}
                versions = {"torch": torch.__version__.split("+")[0], "machine": machine()}
                table.append(row | {"seconds": seconds} | versions)


if __name__ == "__main__":
    main()
