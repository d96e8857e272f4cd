"""Neural collapse on CIFAR-10, by epoch and by layer: data/results/photographs_collapse.csv.

``make results-photographs.collapse`` trains the fast network without augmentation, at the weight
decay of Papyan, Han and Donoho and at the course's, until it makes no error on its training images.
``ARGS="--data folder:PATH"`` takes JPEG copies; ``--images 50000`` the whole set. A row is on disk
as soon as it is measured, and a finished run is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from experiments.photographs import Photographs, photographs
from experiments.table import RESULTS, Table, facts
from nclib import device, fast, geometry, models, training
from nclib.activations import PENULTIMATE, classifier, features, layer_names
from nclib.data import ImageSet

DECAYS = (5e-4, 1e-2)  # Papyan, Han and Donoho's; the course's
KEY = ("source", "arch", "n_train", "weight_decay", "seed", "epochs", "epoch", "part", "layer")


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_collapse", KEY, folder)


def moments(epochs: int) -> list[int]:
    """The epochs to measure after: before training, then ever further apart, and the last."""
    return sorted({0, epochs, *(e for e in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64) if e < epochs)})


def layers(model: nn.Module, part: str, images: ImageSet) -> Iterable[dict]:
    """NC1 to NC4 of every layer on these images, with the accuracy on them: a row for each."""
    found = features(model, images.images, [*layer_names(model), PENULTIMATE])
    _, last = classifier(model, images.images)
    right = last(found[PENULTIMATE]).argmax(1) == images.labels
    accuracy = {"accuracy": float(right.cpu().double().mean())}
    for layer, numbers in geometry.by_layer(found, images.labels, last).items():
        yield {"part": part, "layer": layer} | accuracy | numbers.row()


def run(
    photos: Photographs,
    rows: Table,
    *,
    arch: str = "fast",
    n_train: int = 5000,
    weight_decay: float = DECAYS[0],
    seed: int = 0,
    epochs: int = 32,
    lr: float = 0.1,
    batch_size: int = 128,
) -> None:
    """Train one network and measure it on the way; nothing where its last rows are there."""
    train = photos.few(n_train, seed)
    key: dict[str, object] = {"source": photos.source, "arch": arch, "n_train": len(train)}
    key |= {"weight_decay": weight_decay, "seed": seed, "epochs": epochs}
    if rows.has(**key, epoch=epochs, part="test", layer=PENULTIMATE):
        return
    print(", ".join(f"{name} {value}" for name, value in key.items()), flush=True)
    settings = {"lr": lr, "batch_size": batch_size} | facts(train.device)
    clock, at = time.process_time(), iter(moments(epochs))

    def probe(model: nn.Module) -> float:
        place = key | {"epoch": next(at)}
        found = [
            place | row | settings | {"cpu_seconds": round(time.process_time() - clock)}
            for part, images in (("train", train), ("test", photos.test))
            for row in layers(model, part, images)
        ]
        rows.append(*found)
        last = [row for row in found if row["layer"] == PENULTIMATE]
        shown = ", ".join(f"{r['part']} {r['accuracy']:.4f}, NC1 {r['nc1']:.3g}" for r in last)
        print(f"  epoch {place['epoch']}: {shown}", flush=True)
        return last[0]["nc1"]

    training.fit(
        models.build(arch, train, seed=seed),
        train,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        loss=fast.recipe(train, smoothing=0)["loss"],  # the plain cross-entropy
        probes={"nc1": probe},
        probe_at=moments(epochs),
        seed=seed,
        cache=False,
        progress=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--arch", default="fast")
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--decays", nargs="+", type=float, default=DECAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    photos = photographs(options.data, device.pick())
    rows = table()
    for seed in options.seeds:
        for decay in options.decays:
            plan = {"arch": options.arch, "n_train": options.images, "epochs": options.epochs}
            run(photos, rows, **plan, weight_decay=decay, seed=seed)
    print(f"wrote {rows.path}")


if __name__ == "__main__":
    main()
