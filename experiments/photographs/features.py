"""Features of three networks on 5,000 photographs: data/results/photographs_features.npz.

``make results-photographs.features`` trains the fast network on clean photographs, on photographs
with a patch (BadNets, 5%) and on wrong labels (10%), and keeps what three layers say about 5,000 of
the training images: the 30 directions of largest variance, in float16, with the classifier in the
last of them. The images lie beside it as one JPEG picture a set. ``nclib.course.stored`` reads the
file. ``ARGS="--data folder:PATH"`` takes JPEG copies.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from experiments.photographs import Photographs, clean, photographs, trained
from experiments.table import RESULTS, facts
from nclib import device, places, poisons
from nclib.activations import PENULTIMATE, classifier, features
from nclib.data import ImageSet
from nclib.poisons import metrics
from nclib.poisons.sets import PoisonedSet, poisoned

NAME = "photographs_features.npz"
LAYERS = ("block1", "block2", PENULTIMATE)
IMAGES, KEPT, WIDE = 5000, 30, 50  # images; directions of a layer; images in a row of the picture


def networks(photos: Photographs) -> dict[str, PoisonedSet]:
    """The three training sets."""
    train = photos.train
    none = poisoned(train, train.images, train.labels, "clean")
    flips = poisons.label_flip(train, 0.1, seed=0)
    return {"clean": none, "badnets": poisons.badnets(train, 0.05, seed=0), "label_flip": flips}


def kept(model: nn.Module, part: ImageSet) -> dict[str, np.ndarray]:
    """Each layer in its directions of largest variance, and the logits as a map of the last."""
    stored: dict[str, np.ndarray] = {}
    for layer, rows in features(model, part.images, LAYERS).items():
        rows = rows.cpu().double()
        mean = rows.mean(0)
        _, scale, axes = torch.linalg.svd(rows - mean, full_matrices=False)
        axes = axes[:KEPT]
        stored[layer] = ((rows - mean) @ axes.T).half().numpy()
        share = scale[:KEPT].square().sum() / scale.square().sum()
        stored[f"{layer}/variance"] = share.float().numpy()
        if layer == PENULTIMATE:
            head = classifier(model, part.images)[1]
            weight = head.weight.detach().cpu().double()
            bias = 0 if head.bias is None else head.bias.detach().cpu().double()
            stored["weight"] = (weight @ axes.T).float().numpy()
            stored["bias"] = (weight @ mean + bias).float().numpy()
    return stored


def picture(images: Tensor) -> np.ndarray:
    """The bytes of one JPEG of all images ``[N, C, H, W]``, ``WIDE`` in a row; black at the end."""
    count, channels, height, width = images.shape
    tiles = torch.zeros(-(-count // WIDE) * WIDE, channels, height, width)
    tiles[:count] = images.cpu()
    grid = tiles.reshape(-1, WIDE, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(-1, WIDE * width, channels) * 255).round().byte().numpy()
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=50)
        return np.frombuffer(file.getvalue(), np.uint8)


def run(photos: Photographs, folder: Path = RESULTS) -> None:
    """Write the file; nothing where it is there."""
    if (folder / NAME).exists():
        return
    order = torch.randperm(len(photos.train), generator=torch.Generator().manual_seed(1))
    part = order[:IMAGES].to(photos.train.device)
    stored: dict[str, np.ndarray] = {"classes": np.array(photos.train.classes)}
    stored |= {"labels": photos.train.labels[part].cpu().byte().numpy()}
    stored |= {"images": picture(photos.train.images[part])}
    stored |= {"source": np.array(photos.source), "device": np.array(facts(part.device)["device"])}
    for name, data in networks(photos).items():
        model = clean(photos, 0) if name == "clean" else trained(data, 100)
        seen = data.subset(part)
        found = kept(model, seen) | {"labels": seen.labels.cpu().byte().numpy()}
        found["is_poisoned"] = seen.is_poisoned.cpu().numpy()
        outcome = metrics.outcome(model, None, data, photos.test)
        found |= {k: np.float32(v) for k, v in outcome.items()}
        if seen.altered is not None and seen.altered.any():
            found["images"] = picture(seen.images[seen.altered])
            found["altered"] = seen.altered.cpu().numpy()
        stored |= {f"{name}/{k}": v for k, v in found.items()}
        print(f"{name}: {outcome}", flush=True)
    with places.whole(folder / NAME) as draft:
        np.savez_compressed(draft, **stored)
    print(f"wrote {folder / NAME}: {(folder / NAME).stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    run(photographs(parser.parse_args().data, device.pick()))


if __name__ == "__main__":
    main()
