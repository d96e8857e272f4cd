"""Certification and squeezing beside ART, and beside the published procedure as a plain loop."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from art.defences.preprocessor import FeatureSqueezing, JpegCompression, SpatialSmoothing
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from pairs import WHERE, compare
from torch import Tensor, nn

from nclib import data, models, training
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


def radii_agree(ours, theirs: np.ndarray) -> str:
    gap = np.abs(ours.radii.numpy() - theirs).max()
    return f"radii agree up to {gap:.3f} (other noise)"


def certification() -> None:
    """``certify`` as it is, and with the radius that one asks for (it then draws no more)."""
    train, test = data.load("digits", device=WHERE)
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
        device_type="cpu" if WHERE.type == "cpu" else "gpu",
    )
    batch = 10_000 if WHERE.type == "cuda" else 1000
    for n, count in ((1000, 12), (10_000, 3)):
        images = test.images[:count]
        arrays = images.cpu().numpy()
        ours = partial(smooth.certify, images, N0, n, ALPHA, batch, progress=False)
        name, loop = f"certify, n = {n}", partial(one_by_one, model, images, n)
        for size in (32, 1000):  # 32 is ART's default
            compare(f"{name}, batch {size}", ours, partial(art.certify, arrays, n, size), "art")
        compare(f"{name}, batch 1000", ours, partial(loop, 1000), outcome=radii_agree)
        target = partial(ours, target=0.25)
        share = target().draws.double().mean() / ours().draws.double().mean()
        told = f"takes {share:.0%} of the draws"
        compare(
            f"{name}, target .25", target, partial(loop, 1000), outcome=lambda *_, told=told: told
        )


def squeezers() -> None:
    """On the CPU, where ART's run."""
    for shape in ((1000, 1, 28, 28), (1000, 3, 32, 32)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        arrays = images.numpy()
        median = partial(SpatialSmoothing, channels_first=True)
        peers = {
            "bit depth 1": (
                partial(squeezing.bit_depth, bits=1),
                FeatureSqueezing(clip_values=(0, 1), bit_depth=1),
            ),
            "median 2x2": (squeezing.median, median(2)),
            "JPEG 75": (squeezing.jpeg, JpegCompression((0, 1), 75, channels_first=True)),
        }
        for name, (ours, theirs) in peers.items():
            size = "x".join(map(str, shape))
            compare(
                f"{name}, {size}",
                partial(ours, images),
                partial(theirs, arrays),
                "art",
                outcome=lambda a, b: (
                    f"pixels differ by {np.abs(a.numpy() - b[0]).mean():.1e} on average"
                ),
            )


if __name__ == "__main__":
    certification()
    squeezers()
