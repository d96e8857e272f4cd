"""Certified accuracy, against evasion and against poisoning: data/results/certified.csv.

``make results-certified`` smooths a small CNN on digits and MNIST at four noise levels (Cohen et
al. 2019), and votes over disjoint parts of the training set (Levine and Feizi 2021), each part
served by its nearest neighbour. About 20 minutes on one CPU core. Finished rows are kept.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from experiments.table import Table, facts
from nclib import attacks, data, device, models, training
from nclib.defenses import partition
from nclib.defenses.smoothing import Smooth, gaussian

SIGMAS = (0.12, 0.25, 0.5, 1.0)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
POISONS = (0, 1, 2, 5, 10, 20)
PARTS = (10, 25, 50, 100)
EPS = 0.5  # of the L2 attack on the smoothed vote

# data set: training images, epochs, certified images at n = 1000 and at n = 10,000
SIZES = {"digits": (None, 25, 200, 60), "mnist": (5000, 8, 100, 30)}


class Noisy(nn.Module):
    """The model under fresh noise at every pass: what the attacker averages over."""

    def __init__(self, model: nn.Module, sigma: float, seed: int) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, images):
        drawn = torch.randn(images.shape, generator=self.generator)
        return self.model(images + self.sigma * drawn.to(images.device))


def mean(values: Tensor) -> float:
    """The mean, or the share that is true; in float64, which a Mac's GPU does not have."""
    return float(values.cpu().double().mean())


def smoothed(dataset: str, sigma: float, n: int, seed: int, dev: torch.device) -> dict:
    """Train with noise, certify, and attack the vote inside and outside of its radius."""
    n_train, epochs, some, few = SIZES[dataset]
    train, test = data.load(dataset, n_train=n_train, device=dev)
    test = test.subset(data.stratified(test.labels.cpu(), some if n <= 1000 else few, seed))
    model = models.build("cnn", train, seed=seed)
    training.fit(model, train, epochs=epochs, augment=gaussian(sigma), seed=seed, progress=False)
    smooth = Smooth(model, train.num_classes, sigma)
    with device.Timer(dev) as timer:
        found = smooth.certify(test.images, n=n, seed=seed, progress=False)
    curve = found.accuracy(test.labels, RADII).tolist()
    attacker = attacks.eot(Noisy(model, sigma, seed), 8)
    moved = attacks.pgd(attacker, test.images, test.labels, EPS, steps=20, norm="L2", seed=seed)
    voted = smooth.predict(moved, n=1000, seed=seed + 1)
    right = found.labels == test.labels.cpu()
    return {
        "images": len(test),
        "clean_accuracy": training.accuracy(model, test),
        **{f"certified_{r:g}": share for r, share in zip(RADII, curve, strict=True)},
        "mean_radius": mean(found.radii * right),
        "abstained": mean(found.labels < 0),
        f"attacked_{EPS:g}": mean(voted == test.labels.cpu()),
        "draws_per_image": mean(found.draws),
        "seconds": round(timer.seconds, 1),
    }


def nearest(part: data.ImageSet, _: int):
    """The label of the nearest training image: a learner without luck."""
    flat = part.images.flatten(1)
    return lambda images: part.labels[torch.cdist(images.flatten(1), flat).argmin(1)]


def partitioned(dataset: str, k: int, dev: torch.device) -> dict:
    """Vote over k parts and count the poisons that each test image tolerates."""
    train, test = data.load(dataset, n_test=None if dataset == "digits" else 1000, device=dev)
    with device.Timer(dev) as timer:
        base = partition.train(train, k, nearest)
        votes = partition.votes(base, test.images, train.num_classes)
        labels, tolerated = partition.certificate(votes)
    right = labels == test.labels
    shares = {p: mean(right & (tolerated >= p)) for p in POISONS}
    whole = nearest(train, 0)(test.images)
    return {
        "images": len(test),
        "clean_accuracy": mean(whole == test.labels),
        **{f"poisons_{p}": share for p, share in shares.items()},
        "seconds": round(timer.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    dev = device.pick()
    table = Table("certified", ("method", "dataset", "setting", "n", "seed"))
    jobs = [("partition", d, k, "-", "-") for d in options.datasets for k in PARTS]
    jobs += [
        ("smoothing", d, sigma, n, seed)
        for n in (1000, 10_000)
        for seed in options.seeds
        for d in options.datasets
        for sigma in SIGMAS
    ]
    for method, dataset, value, n, seed in jobs:
        setting = f"k={value}" if method == "partition" else f"sigma={value:g}"
        key = {"method": method, "dataset": dataset, "setting": setting, "n": n, "seed": seed}
        if table.has(**key):
            continue
        print(f"{method} {dataset} {setting} n={n} seed={seed} on {dev}", flush=True)
        if method == "partition":
            row = partitioned(dataset, value, dev)
        else:
            row = smoothed(dataset, value, n, seed, dev)
        table.append(key | row | facts(dev))
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
