"""Certified accuracy, against evasion and against poisoning: data/results/certified.csv.

``make results-certified`` smooths a small CNN on signs, digits and MNIST at four noise levels
(Cohen et al. 2019), and on signs also a network that never saw noise, bare and behind one step of a
diffusion model (Carlini et al. 2023). On digits and MNIST it votes over parts of the training set,
each served by its nearest neighbour: disjoint ones (Levine and Feizi 2021), and on digits finer
ones that four voters share (Wang et al. 2022). About 40 minutes on one CPU core. Finished rows are
kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from experiments.table import Table, facts
from nclib import attacks, data, device, models, training
from nclib.defenses import partition
from nclib.defenses import purification as pure
from nclib.defenses.smoothing import Smooth, gaussian

SIGMAS = (0.12, 0.25, 0.5, 1.0)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
POISONS = (0, 1, 2, 5, 10, 20)
PARTS = (10, 25, 50, 100)
SPREAD = 4  # of the finite aggregation
SIGMA = 0.25  # in front of a network that never saw noise
UNPREPARED = 60  # images that such a network certifies: each draw goes through the diffusion, too
EPS = 0.5  # of the L2 attack on the smoothed vote

# data set: training images, epochs, certified images at n = 1000 and at n = 10,000
SIZES = {
    "digits": (None, 25, 200, 60),
    "mnist": (5000, 8, 100, 30),
    "signs": (2000, 15, 150, 30),
}
CALM = {"signs": 0.05}  # the learning rate where 0.1 leaps


class Noisy(nn.Module):
    """The model under fresh noise at every pass: what the attacker averages over."""

    def __init__(self, model: nn.Module, sigma: float, seed: int) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, images):
        drawn = torch.randn(images.shape, generator=self.generator)
        return self.model(images + self.sigma * drawn.to(images.device))


class Denoised(nn.Module):
    """The model behind one step of a diffusion model, for noise of deviation ``sigma``."""

    def __init__(self, model: nn.Module, diffusion: pure.Diffusion, sigma: float) -> None:
        super().__init__()
        self.model, self.diffusion, self.noise = model, diffusion, 2 * sigma  # on [-1, 1]
        ratio = 1 / diffusion.alpha_bar - 1
        self.t = int((ratio - self.noise**2).abs().argmin())

    def forward(self, images):
        signed = 2 * images - 1
        level = torch.full((len(images),), self.t, device=images.device)
        scaled = self.diffusion.alpha_bar[self.t].sqrt() * signed
        guess = signed - self.noise * self.diffusion(scaled, level)
        return self.model(((guess + 1) / 2).clamp(0, 1))


def mean(values: Tensor) -> float:
    """The mean, or the share that is true; in float64, which a Mac's GPU does not have."""
    return float(values.cpu().double().mean())


def learned(dataset: str, train: data.ImageSet, sigma: float, seed: int) -> nn.Module:
    """The small CNN, trained on noise of deviation ``sigma``; without, for 0."""
    model = models.build("cnn", train, seed=seed)
    options = {"lr": CALM.get(dataset, 0.1), "seed": seed, "progress": False}
    noise = gaussian(sigma) if sigma else None
    training.fit(model, train, augment=noise, epochs=SIZES[dataset][1], **options)
    return model


def certified(smooth: Smooth, test: data.ImageSet, n: int, seed: int, dev: torch.device) -> dict:
    """What the vote certifies."""
    with device.Timer(dev) as timer:
        found = smooth.certify(test.images, n=n, seed=seed, progress=False)
    curve = found.accuracy(test.labels, RADII).tolist()
    right = found.labels == test.labels.cpu()
    return {
        "images": len(test),
        **{f"certified_{r:g}": share for r, share in zip(RADII, curve, strict=True)},
        "mean_radius": mean(found.radii * right),
        "abstained": mean(found.labels < 0),
        "draws_per_image": mean(found.draws),
        "seconds": round(timer.seconds, 1),
    }


def smoothed(dataset: str, sigma: float, n: int, seed: int, dev: torch.device) -> dict:
    """Train with noise, certify, and attack the vote inside and outside of its radius."""
    n_train, _, some, few = SIZES[dataset]
    train, test = data.load(dataset, n_train=n_train, device=dev)
    test = test.subset(data.stratified(test.labels.cpu(), some if n <= 1000 else few, seed))
    model = learned(dataset, train, sigma, seed)
    smooth = Smooth(model, train.num_classes, sigma)
    attacker = attacks.eot(Noisy(model, sigma, seed), 8)
    moved = attacks.pgd(attacker, test.images, test.labels, EPS, steps=20, norm="L2", seed=seed)
    voted = smooth.predict(moved, n=1000, seed=seed + 1)
    row = {"clean_accuracy": training.accuracy(model, test)}
    row[f"attacked_{EPS:g}"] = mean(voted == test.labels.cpu())
    return row | certified(smooth, test, n, seed, dev)


def unprepared(dataset: str, behind: str, n: int, seed: int, dev: torch.device) -> dict:
    """The same vote of a network that never saw noise, bare or behind a denoising step."""
    train, test = data.load(dataset, n_train=SIZES[dataset][0], device=dev)
    test = test.subset(data.stratified(test.labels.cpu(), UNPREPARED, seed))
    model = learned(dataset, train, 0, seed)
    row = {"clean_accuracy": training.accuracy(model, test)}
    if behind == "denoised":
        diffusion = pure.purifier("diffusion", dataset, train.images)
        model = Denoised(model, diffusion, SIGMA).to(dev).eval()
    return row | certified(Smooth(model, train.num_classes, SIGMA), test, n, seed, dev)


def nearest(part: data.ImageSet, _: int):
    """The label of the nearest training image: a learner without luck."""
    flat = part.images.flatten(1)
    return lambda images: part.labels[torch.cdist(images.flatten(1), flat).argmin(1)]


def partitioned(dataset: str, k: int, spread: int, seed: int, dev: torch.device) -> dict:
    """Vote over k parts (finer ones, for a ``spread``) and count the poisons tolerated."""
    train, test = data.load(dataset, n_test=None if dataset == "digits" else 1000, device=dev)
    with device.Timer(dev) as timer:
        base = partition.train(train, k, nearest, spread=spread, seed=seed)
        said = partition.named(base, test.images, train.num_classes)
        seers = partition.reach(k, spread, seed)
        labels, tolerated = partition.finite_certificate(said, seers, train.num_classes)
    right = labels == test.labels
    shares = {p: mean(right & (tolerated >= p)) for p in POISONS}
    whole = nearest(train, 0)(test.images)
    return {
        "images": len(test),
        "clean_accuracy": mean(whole == test.labels),
        **{f"poisons_{p}": share for p, share in shares.items()},
        "seconds": round(timer.seconds, 1),
    }


def add(
    table: Table,
    method: str,
    dataset: str,
    setting: str,
    n: int | str,
    seed: int,
    make: Callable[[], dict],
    dev: torch.device,
) -> None:
    """Compute the row and keep it, unless it is there."""
    key = {"method": method, "dataset": dataset, "setting": setting, "n": n, "seed": seed}
    if not table.has(**key):
        print(*key.values(), f"on {dev}", flush=True)
        table.append(key | make() | facts(dev))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--draws", nargs="+", type=int, default=[1000, 10_000])
    options = parser.parse_args()
    dev = device.pick()
    table = Table("certified", ("method", "dataset", "setting", "n", "seed"))
    votes = [(d, k, 1) for d in options.datasets if d != "signs" for k in PARTS]
    votes += [("digits", k, SPREAD) for k in PARTS if "digits" in options.datasets]
    for seed in options.seeds:
        for dataset, k, spread in votes:
            setting = f"k={k}" if spread == 1 else f"k={k} spread={spread}"
            make = partial(partitioned, dataset, k, spread, seed, dev)
            add(table, "partition", dataset, setting, "-", seed, make, dev)
        for behind in ("bare", "denoised") if "signs" in options.datasets else ():
            make = partial(unprepared, "signs", behind, 1000, seed, dev)
            add(table, behind, "signs", f"sigma={SIGMA:g}", 1000, seed, make, dev)
        for n in options.draws:
            for dataset in options.datasets:
                for sigma in SIGMAS:
                    make = partial(smoothed, dataset, sigma, n, seed, dev)
                    add(table, "smoothing", dataset, f"sigma={sigma:g}", n, seed, make, dev)
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
