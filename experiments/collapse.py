"""Neural collapse of cleanly trained networks, beside published figures: data/results/collapse.csv.

``make results-collapse`` runs digits and MNIST (10,000 images) with the small CNN over three seeds,
and ResNet-18 on MNIST and CIFAR-10 where a CUDA device is at hand. Finished rows are kept.
"""

from __future__ import annotations

import argparse

import torch

from experiments.table import Table, facts
from nclib import activations, data, device, geometry, models, training

# data set: training images (None is all), epochs
SMALL = {"digits": (None, 40), "mnist": (10_000, 20)}
LARGE = {"mnist": (None, 60), "cifar10": (None, 200)}

# ResNet-18, cross-entropy, geometry of the classifier rows, std without correction: read from the
# record files of a published study (200 epochs). "etf_error" and the angles are of W there.
PUBLISHED = [
    ("mnist", "SGD", 1, 0.9805, 0.9814, 0.162, 0.142, 0.110, 0.533),
    ("mnist", "SGD", 200, 1.0, 0.9955, 0.0106, 0.0178, 0.0140, 0.0551),
    ("mnist", "Adam", 200, 1.0, 0.9946, 0.0117, 0.0031, 0.0026, 0.0259),
    ("cifar10", "SGD", 200, 1.0, 0.7839, 0.0078, 0.0276, 0.0218, 0.0798),
]
COLUMNS = ("train_accuracy", "test_accuracy", "w_norm", "w_angle", "w_max_angle", "w_etf_error")


def published(table: Table) -> None:
    """The published rows, marked as such."""
    for dataset, optimiser, epochs, *numbers in PUBLISHED:
        key = {"source": f"published ({optimiser})", "dataset": dataset, "arch": "resnet18"}
        table.append(
            key
            | {"n_train": "all", "epochs": epochs, "seed": "-"}
            | dict(zip(COLUMNS, numbers, strict=True))
        )


def measured(
    dataset: str, arch: str, n_train: int | None, epochs: int, seed: int, dev: torch.device
) -> dict:
    """Train one network and measure its training and test features."""
    train, test = data.load(dataset, n_train=n_train, device=dev)
    model = models.build(arch, train, seed=seed)
    run = training.fit(model, train, epochs=epochs, seed=seed, cache=False)
    features = {
        part: activations.penultimate(model, d.images)
        for part, d in (("train", train), ("test", test))
    }
    found = geometry.measure(features["train"], train.labels, model.fc)
    rows = geometry.measure(model.fc.weight, torch.arange(train.num_classes))  # W as if features
    return {
        "train_accuracy": training.accuracy(model, train),
        "test_accuracy": training.accuracy(model, test),
        **found.row(),
        "w_max_angle": rows.nc2_max_angle,
        "w_etf_error": rows.etf_error,
        "test_nc1": geometry.measure(features["test"], test.labels).nc1,
        "seconds": round(run.seconds, 1),
        **facts(dev),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=list(SMALL))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    dev = device.pick()
    table = Table("collapse", ("source", "dataset", "arch", "epochs", "seed"))
    published(table)
    jobs = [(d, "cnn", *SMALL[d]) for d in options.datasets if d in SMALL]
    if dev.type == "cuda":
        jobs += [(d, "resnet18", *size) for d, size in LARGE.items()]
    for dataset, arch, n_train, epochs in jobs:
        for seed in options.seeds:
            key = {
                "source": "measured",
                "dataset": dataset,
                "arch": arch,
                "epochs": epochs,
                "seed": seed,
            }
            if not table.has(**key):
                print(f"{dataset} {arch} seed {seed} on {dev}", flush=True)
                row = measured(dataset, arch, n_train, epochs, seed, dev)
                table.append(key | {"n_train": n_train or "all"} | row)
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
