"""Certification and squeezing beside their peers, in one run: ``python benchmarks/certify.py``.

Smoothing: ART 1.20's certify, and a faithful copy of the published procedure, one image after
another. Squeezers: ART's preprocessors. The two sides of a pair take turns; the ratio is the median
over the pairs. On a CPU it measures the processor time of one thread, so that other programs on the
machine count little; elsewhere wall time. Needs the test extra.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from art.defences.preprocessor import FeatureSqueezing, JpegCompression, SpatialSmoothing
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nclib import data, device, models, training
from nclib.defenses import squeezing
from nclib.defenses.smoothing import Smooth, gaussian, lower_bound, radius

SIGMA, ALPHA, N0 = 0.25, 0.001, 100


def one_by_one(model: nn.Module, images: Tensor, n: int, batch: int) -> np.ndarray:
    """The published loop: per image, n0 draws to choose, n to bound, ``batch`` at a time."""

    def counts(image: Tensor, number: int) -> Tensor:
        votes = torch.zeros(10, dtype=torch.int64)
        with torch.no_grad():
            while number > 0:
                size = min(batch, number)
                copies = image.repeat(size, 1, 1, 1)
                votes += torch.bincount(
                    model(copies + SIGMA * torch.randn_like(copies)).argmax(1).cpu(), minlength=10
                )
                number -= size
        return votes

    radii = []
    for image in images:
        chosen = int(counts(image, N0).argmax())
        hits = int(counts(image, n)[chosen])
        radii.append(float(radius(lower_bound(hits, n, ALPHA), SIGMA)))
    return np.array(radii)


def pair(name: str, ours: Callable, theirs: Callable, rounds: int, dev: str) -> None:
    """Time both sides in turn, swapping who goes first, and print one line."""
    ours(), theirs()
    mine, yours = [], []
    for i in range(rounds):
        for function, times in ((ours, mine), (theirs, yours))[:: 1 if i % 2 else -1]:
            start = time.process_time()
            with device.Timer(dev) as timer:
                function()
            times.append(time.process_time() - start if dev == "cpu" else timer.seconds)
    ratios = sorted(b / a for a, b in zip(mine, yours, strict=True))
    print(
        f"{name:<46} {statistics.median(mine) * 1e3:9.1f} {statistics.median(yours) * 1e3:9.1f}"
        f"   x{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})",
        flush=True,
    )


def certification(rounds: int, dev: str) -> None:
    train, test = data.load("digits", device=dev)
    model = models.build("cnn", train)
    training.fit(model, train, epochs=20, augment=gaussian(SIGMA), progress=False)
    smooth = Smooth(model, 10, SIGMA)
    art = PyTorchRandomizedSmoothing(
        model,
        nn.CrossEntropyLoss(),
        test.shape,
        10,
        sample_size=N0,
        scale=SIGMA,
        alpha=ALPHA,
        device_type="gpu" if dev == "cuda" else "cpu",
    )
    batch = 10_000 if dev == "cuda" else 1000
    for n, count in ((1000, 12), (10_000, 3)):
        images = test.images[:count]
        arrays = images.cpu().numpy()
        ours = partial(smooth.certify, images, N0, n, ALPHA, batch, progress=False)
        loop = partial(one_by_one, model, images, n)
        gap = np.abs(ours().radii.numpy() - loop(1000)).max()
        print(f"n = {n}, {count} images; the radii agree up to {gap:.3f} (other noise)")
        pair(
            "certify | ART, batch 32 (its default)",
            ours,
            partial(art.certify, arrays, n),
            rounds,
            dev,
        )
        pair("certify | ART, batch 1000", ours, partial(art.certify, arrays, n, 1000), rounds, dev)
        pair("certify | loop, batch 1000 (as published)", ours, partial(loop, 1000), rounds, dev)
        pair("certify | loop, batch 128", ours, partial(loop, 128), rounds, dev)
        target = partial(ours, target=0.25)
        pair("certify(target=.25) | loop, batch 1000", target, partial(loop, 1000), rounds, dev)
        share = target().draws.double().mean() / ours().draws.double().mean()
        print(f"  the target takes {share:.0%} of the draws")


def squeezers(rounds: int) -> None:
    """On the CPU, where ART's run."""
    for shape in ((1000, 1, 28, 28), (1000, 3, 32, 32)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        arrays = images.numpy()
        print(f"{shape[0]} images of {shape[1:]}")
        peers = {
            "bit depth 1": (
                partial(squeezing.bit_depth, bits=1),
                FeatureSqueezing(clip_values=(0, 1), bit_depth=1),
            ),
            "median 2x2": (squeezing.median, SpatialSmoothing(2, channels_first=True)),
            "median 3x3": (
                partial(squeezing.median, size=3),
                SpatialSmoothing(3, channels_first=True),
            ),
            "JPEG 75": (squeezing.jpeg, JpegCompression((0, 1), 75, channels_first=True)),
        }
        for name, (ours, theirs) in peers.items():
            pair(f"{name} | ART", partial(ours, images), partial(theirs, arrays), rounds, "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dev = str(device.pick())
    torch.set_num_threads(1)
    load = f"{os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    print(
        f"device {dev}, {torch.get_num_threads()} threads, load {load}, torch {torch.__version__}"
    )
    print(f"{'pair':<46} {'ours ms':>9} {'peer ms':>9}   ratio, median (smallest..largest)")
    certification(options.rounds, dev)
    squeezers(options.rounds)


if __name__ == "__main__":
    main()
