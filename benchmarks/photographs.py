"""Seconds and operations to 84, 90 and 93% of CIFAR-10: ours, ResNet-18, and airbench.

``python benchmarks/photographs.py --data folder:PATH`` runs the schedules that
data/results/photographs_speed.csv lacks. A target is reached by the shortest schedule that ends on
it. airbench's release calls CUDA by name: on another device its rows are left out, and a line says
so; its network and ours cost the same .71 GFLOP an image.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from pairs import WHERE, installed

from experiments.photographs import Photographs, photographs, speed
from experiments.table import Table, facts
from nclib import device

AIRBENCH_TFLOP = 0.7078e-3  # an image: the network of train94 is that of nclib.fast


def airbench(photos: Photographs, rows: Table, epochs: float) -> None:
    """Its train94 on the same images: the row of one schedule, with its own six views."""
    from airbench import CifarLoader, evaluate, train94, warmup94
    from airbench.lib_airbench94 import hyp

    key = {"source": photos.source, "arch": "airbench94", "epochs": epochs, "seed": 0}
    key |= {"n_train": len(photos.train)} | facts(WHERE)
    if rows.has(**{name: key[name] for name in speed.KEY}):
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "test"):
            data = getattr(photos, part)
            images = (data.images * 255).round().byte().permute(0, 2, 3, 1)
            kept = {"images": images, "labels": data.labels, "classes": list(data.classes)}
            torch.save(kept, Path(folder, f"{part}.pt"))
        options = {"aug": hyp["aug"], "altflip": True, "batch_size": hyp["opt"]["batch_size"]}
        warmup94(CifarLoader(folder, **options), verbose=False)
        with device.Timer(WHERE) as timer:
            model = train94(CifarLoader(folder, **options), epochs=epochs, verbose=False)
        test = CifarLoader(folder, train=False)
        found = {
            "accuracy": evaluate(model, test, 0),
            "vote_accuracy": evaluate(model, test, 2),
            "tflop": AIRBENCH_TFLOP * len(photos.train) * epochs,
        }
    rows.append(key | {"seconds": timer.seconds} | found)


def reached(rows: Table, source: str) -> None:
    """Print what each target took, for each network; on a CPU the time of the process alone."""
    here, clock = facts(WHERE)["device"], "cpu_seconds" if WHERE.type == "cpu" else "seconds"
    for arch in ("fast", "resnet18", "airbench94"):
        mine = [r for r in rows.rows.values() if (r["arch"], r["device"]) == (arch, here)]
        mine = [r for r in mine if r["source"] == source]
        for target in speed.TARGETS:
            good = [r for r in mine if float(r["vote_accuracy"]) >= target]
            best = min(good, key=lambda r: float(r["epochs"]), default=None)
            said = "not reached" if mine else "not run"
            if best:
                said = f"{float(best[clock]):.1f} s, {float(best['tflop']):.0f} TFLOP"
            print(f"{arch:<12}{target:.0%}  {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--read", action="store_true", help="run nothing, say what the rows say")
    options = parser.parse_args()
    rows = speed.table()
    if not options.read:
        photos = photographs(options.data, WHERE)
        for arch, schedules in speed.SCHEDULES.items():
            for epochs in schedules:
                speed.run(photos, rows, arch, epochs)
        if WHERE.type != "cuda":
            print("airbench runs on CUDA alone: its rows are left out")
        elif installed("airbench"):
            for epochs in (3.0, 8.0, 9.9):
                airbench(photos, rows, epochs)
    reached(rows, "JPEG copies" if options.data.startswith("folder:") else "original")


if __name__ == "__main__":
    main()
