"""How soon a network knows CIFAR-10: data/results/photographs_speed.csv.

``make results-photographs.speed`` trains the fast network, and torchvision's ResNet-18 beside it,
on short and long schedules, and writes seconds, floating-point operations and test accuracy.
``ARGS="--data folder:PATH"`` takes JPEG copies.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from experiments.photographs import Photographs, photographs
from experiments.table import RESULTS, Table, facts
from nclib import device, fast, models, training

KEY = ("source", "arch", "epochs", "n_train", "seed", "device")
TARGETS = (0.84, 0.90, 0.93)
SCHEDULES = {"fast": (3, 8, 16), "resnet18": (4, 8, 16)}  # epochs
# ResNet-18 learns the scales of its normalisation, to which the fast rate of biases does harm.
PLAIN = {"optimizer": None, "lr": 0.5, "weight_decay": 5e-4, "batch_size": 512}


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_speed", KEY, folder)


def flops(model: nn.Module, images: Tensor) -> float:
    """Floating-point operations of training on one of the images ``[N, C, H, W]``, N > 1.

    Forward and backward, as torch counts them: convolutions and products, an addition and a
    multiplication each. What needs no gradient costs none.
    """
    model, labels = deepcopy(model).train(), torch.zeros(len(images), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), labels.to(images.device)).backward()
    return counter.get_total_flops() / len(images)


def run(
    photos: Photographs, rows: Table, arch: str, epochs: int, seed: int = 0, warm: bool = True
) -> dict:
    """Train on one schedule and add its row; the row that is there, where there is one.

    The time does not count what happens once in a process (``warm``: a few steps beforehand), nor
    the test. On a CPU ``cpu_seconds`` is the time of the process alone, on a busy machine too.
    """
    train, test = photos.train, photos.test
    key: dict[str, object] = {"source": photos.source, "arch": arch, "epochs": epochs}
    key |= {"n_train": len(train), "seed": seed} | facts(train.device)
    if (found := tuple(str(key[name]) for name in KEY)) in rows:
        return rows.rows[found]
    plan = fast.recipe(train, epochs=epochs) | (PLAIN if arch == "resnet18" else {})
    plan |= {"cache": False}
    if warm:
        few = train.subset(torch.arange(min(len(train), 4 * plan["batch_size"])))
        training.fit(models.build(arch, few), few, **plan | {"epochs": 1}, progress=False)
    model = models.build(arch, train, seed=seed)
    cost = flops(model, train.images[:8]) * len(train) * epochs
    clock = time.process_time()
    with device.Timer(train.device) as timer:
        done = training.fit(model, train, **plan, seed=seed)
    clock = time.process_time() - clock
    half = device.has_fast_bfloat16(train.device)
    with torch.autocast(train.device.type, torch.bfloat16, enabled=half):
        accuracy = training.accuracy(model, test)
        votes = fast.vote(model, test.images).argmax(1) == test.labels
    row = key | {
        "seconds": timer.seconds,
        "cpu_seconds": clock,
        "tflop": cost / 1e12,
        "train_loss": done.history["loss"][-1],
        "accuracy": accuracy,
        "vote_accuracy": float(votes.cpu().double().mean()),
    }
    rows.append(row)
    print(f"{arch}, {epochs} epochs: {row}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--archs", nargs="+", default=list(SCHEDULES))
    parser.add_argument("--epochs", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    photos, rows = photographs(options.data, device.pick()), table()
    for seed in options.seeds:
        for arch in options.archs:
            for epochs in options.epochs or SCHEDULES[arch]:
                run(photos, rows, arch, epochs, seed, warm=photos.train.device.type != "cpu")


if __name__ == "__main__":
    main()
