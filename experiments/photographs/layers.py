"""At which layer does an attack show? The layer test on CIFAR-10: photographs_layers.csv.

``make results-photographs.layers`` draws 100 natural test images against 100 suspects, 100 times,
and asks at ten layers whether the two are from one distribution (LADIS, a permutation test of the
MMD at the 5% level). The suspects: PGD at three sizes, and the controls: more natural images (A/A),
random signs of the same size, natural images of half of the classes. At the smallest size the
published null (wild bootstrap) stands beside the exact one. ``ARGS="--data folder:PATH"`` takes
JPEG copies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.photographs import Photographs, clean, photographs, speed
from experiments.table import RESULTS, Table, facts
from nclib import attacks, data, detection, device, fast, models, training
from nclib.activations import PENULTIMATE, features
from nclib.data import ImageSet

EPS = (0.003, 0.01, 8 / 255)
BLOCKS = {
    "fast": ("whiten", *(f"block{i}.{j}" for i in (1, 2, 3) for j in (3, 6)), PENULTIMATE, "fc"),
    "resnet18": ("conv1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)), "fc"),
}
KEY = ("source", "arch", "n_train", "seed", "suspect", "eps", "null", "layer")


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_layers", KEY, folder)


def network(photos: Photographs, arch: str, seed: int) -> nn.Module:
    """The trained network that is asked; ResNet-18 on a short schedule."""
    if arch == "fast":
        return clean(photos, seed)
    train = photos.few(40) if photos.dry else photos.train
    model = models.build(arch, train, seed=seed)
    plan = fast.recipe(train, epochs=1 if photos.dry else 6) | speed.PLAIN
    training.fit(model, train, **plan, seed=seed, cache=False, progress=False)
    return model


def at_layers(model: nn.Module, arch: str, images: Tensor) -> dict[str, Tensor]:
    """Ten layers, shallow to deep; the fast network's first is the pixels themselves."""
    found = features(model, images, BLOCKS[arch])
    return found if len(found) == 10 else {"pixels": images.flatten(1)} | found


def suspects(
    model: nn.Module, images: ImageSet, seed: int, steps: int
) -> Iterator[tuple[str, float, str, ImageSet | None]]:
    """Name, size, null and images of each kind; None stands for more of the natural ones."""
    coin = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, images.images.shape, generator=coin).to(images.device) * 2 - 1
    yield "A/A", 0.0, "permutation", None
    half = images.labels < images.num_classes // 2
    yield "half of the classes", 0.0, "permutation", images.subset(half)
    for eps in EPS:
        bad = attacks.pgd(model, images.images, images.labels, eps, steps=steps, seed=seed)
        yield "PGD", eps, "permutation", replace(images, images=bad)
        if eps == EPS[0]:
            yield "PGD", eps, "wild", replace(images, images=bad)
        noisy = (images.images + eps * signs).clamp(0, 1)
        yield "noise", eps, "permutation", replace(images, images=noisy)


def run(photos: Photographs, rows: Table, arch: str = "fast", seed: int = 0) -> None:
    """All suspects of one network; nothing where its last row is there."""
    key: dict[str, object] = {"source": photos.source, "arch": arch}
    key |= {"n_train": len(photos.train), "seed": seed}
    if rows.has(**key, suspect="noise", eps=f"{EPS[-1]:.6g}", null="permutation", layer="fc"):
        return
    model, test = network(photos, arch, seed), photos.test
    size = min(1000, len(test) // 2)
    pool = test.subset(data.stratified(test.labels, 2 * size, seed))
    natural, arriving = (pool.subset(half) for half in detection.disjoint_halves(2 * size, seed))
    known = at_layers(model, arch, natural.images)
    options = {"tests": 5 if photos.dry else 100, "n": min(100, size // 4), "permutations": 200}
    for name, eps, null, found in suspects(model, arriving, seed, 1 if photos.dry else 10):
        accuracy = training.accuracy(model, found or arriving)
        other = found and at_layers(model, arch, found.images)
        rates = detection.layer_rates(known, other, null=null, seed=seed, **options)
        place = key | {"suspect": name, "eps": eps, "null": null}
        more = {"accuracy": accuracy} | facts(test.device)
        found_rows = [place | {"layer": k, "rate": v} | more for k, v in rates.items()]
        rows.append(*(r | {"depth": i} for i, r in enumerate(found_rows, 1)))
        print(f"{arch}, seed {seed}, {name} {eps:.4f} ({null}): {[*rates.values()]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--archs", nargs="+", default=["fast"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    photos = photographs(options.data, device.pick())
    for seed in options.seeds:
        for arch in options.archs:
            run(photos, table(), arch, seed)


if __name__ == "__main__":
    main()
