"""Train the networks of the playground and write them for the browser: ``make playground``.

On road signs and on digits three small networks each: one of the clean set, one of a set in which
a sticker was planted, one trained under noise. They are written as they are measured, with weights
of eight bits, into docs/playground/weights.js, which ``load`` reads back. A minute of one core.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from nclib import attacks, data, models, poisons, training
from nclib.data import ImageSet
from nclib.defenses.smoothing import Smooth, gaussian
from nclib.poisons import PoisonedSet

FILE = Path(__file__).resolve().parents[1] / "docs" / "playground" / "weights.js"
HEAD = "const DATA = "
LIMIT = 400_000  # bytes of the file
KINDS = ("clean", "poisoned", "noisy")
SEED = 0
SHOWN = {"signs": 3, "digits": 4}  # test images of each class on the page: the first ones
CLOUD, REACH = 20, 2.0  # training images of each class behind the corners; the edge of that map
LEAP = 3  # places on the circle from the corner of a class to that of the next; 10 classes
CERTIFIED, DRAWS, ALPHA = 100, 1000, 0.001
SIGMA = {"signs": 0.25, "digits": 0.25}
EPS = {"signs": 8 / 255, "digits": 0.15}
STEPS = 20
WIDTHS = {"signs": (16, 32, 32, 64), "digits": (16, 32, 32)}
STRIDES = {"signs": (2, 2, 2, 1), "digits": (1, 2, 1)}
EPOCHS = {"signs": 15, "digits": 60}
POSE = ("homography", "light", "tint", "slope", "blur")  # what a sticker on a sign has to know


class Exported(nn.Module):
    """What the browser computes: convolutions with a bias, each with ReLU, the mean, ``fc``.

    ``maps`` are one linear map for each layer, from its pooled features to the simplex.
    """

    def __init__(self, channels: int, widths: list[int], strides: list[int], classes: int) -> None:
        super().__init__()
        self.normalise = models.Normalise(torch.zeros(channels), torch.ones(channels))
        pairs = zip([channels, *widths[:-1]], widths, strides, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, s, padding=1) for i, o, s in pairs)
        self.fc = nn.Linear(widths[-1], classes)
        self.maps = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def pooled(self, images: Tensor) -> list[Tensor]:
        """The mean over all pixels of each layer's output, ``[N, width]`` each."""
        hidden, found = self.normalise(images), []
        for conv in self.convs:
            hidden = conv(hidden).relu()
            found.append(hidden.mean((2, 3)))
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pooled(images)[-1])

    def places(self, images: Tensor) -> Tensor:
        """Where each layer puts the images on the page, ``[N, layers, 2]``."""
        shares = [f(z) for f, z in zip(self.maps, self.pooled(images), strict=True)]
        return torch.stack([s @ corners(s.shape[1]).to(s) for s in shares], 1)


def corners(classes: int) -> Tensor:
    """The corners of the simplex as the page shows them, on a circle: ``[K, 2]``.

    Neighbours in number stand apart there: classes that are alike often follow each other.
    """
    turn = torch.arange(classes) * LEAP % classes * (2 * math.pi / classes)
    return torch.stack([turn.sin(), -turn.cos()], 1)


def jitter(images: Tensor, draw: torch.Generator) -> Tensor:
    """Digits turned, leant, stretched, moved, thicker and thinner: hands not of the set."""
    dice = torch.rand(len(images), 6, generator=draw, device=images.device) * 2 - 1
    most = torch.tensor([0.2, 0.5, 0.25, 0.15, 0.06, 0.5], device=images.device)
    turn, lean, wide, x, y, ink = (dice * most).unbind(1)
    one = torch.ones_like(wide)
    rows = torch.stack([1 + wide, lean - turn, x, turn, one, y], 1).unflatten(1, (2, 3))
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False).clamp(0, 1)
    return moved ** ink.exp()[:, None, None, None]


def poisoned(train: ImageSet) -> PoisonedSet:
    """The set with a few images under a sticker and the label that the attacker wants."""
    if train.name == "signs":
        pink = (1.0, 0.1, 0.8)  # which no sign is: so small a network overlooks a yellow square
        return poisons.sticker(train, 0.03, 2, width=0.5, colour=pink, seed=SEED)
    return poisons.badnets(train, 0.05, 7, patch="pattern", seed=SEED)


def trained(kind: str, train: ImageSet) -> nn.Module:
    """The network of this kind: of ``train``, of its poisoned copy, or of ``train`` under noise."""
    name = train.name
    noise, hand = gaussian(SIGMA[name]), jitter if name == "digits" else None
    options = {"widths": WIDTHS[name], "strides": STRIDES[name]}
    model = models.build("cnn", train, seed=SEED, **options)
    augment: Callable | None = hand
    if kind == "noisy":
        augment = (lambda x, draw: noise(hand(x, draw), draw)) if hand else noise
    shown = poisoned(train) if kind == "poisoned" else train
    recipe = {"epochs": EPOCHS[name], "lr": 0.1, "augment": augment, "seed": SEED}
    training.fit(model, shown, progress=False, **recipe)
    return model


@torch.no_grad()
def exported(model: nn.Module, train: ImageSet) -> Exported:
    """``model`` without batch normalisation and with weights of eight bits, and with its maps."""
    blocks = [getattr(model, name) for name in model.layer_names]
    widths, strides = [b[0].out_channels for b in blocks], [b[0].stride[0] for b in blocks]
    small = Exported(train.shape[0], widths, strides, train.num_classes).eval()
    small.normalise.load_state_dict(model.normalise.state_dict())
    small.fc.load_state_dict(model.fc.state_dict())
    for conv, (plain, norm, _) in zip(small.convs, blocks, strict=True):
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        whole = plain.weight * factor[:, None, None, None]
        steps = _steps(whole)
        conv.weight.copy_((whole / steps).round() * steps)
        conv.bias.copy_(norm.bias - norm.running_mean * factor)
    goal = torch.eye(train.num_classes)[train.labels] - 1 / train.num_classes
    for f, z in zip(small.maps, small.pooled(train.images), strict=True):
        f.weight.copy_(_ridge(z, goal)), f.bias.copy_(-f.weight @ z.mean(0) + goal.mean(0))
    return small


def _steps(weight: Tensor) -> Tensor:
    """The step between two weights of each filter, ``[out, 1, 1, 1]``: 127 steps to the largest."""
    return weight.abs().amax((1, 2, 3), keepdim=True) / 127


def _ridge(features: Tensor, goal: Tensor, shrink: float = 1e-3) -> Tensor:
    """The linear map from centred features to the simplex that errs least: ``[K, width]``."""
    z = (features - features.mean(0)).double()
    gram = z.T @ z
    gram += shrink * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(gram, z.T @ (goal - goal.mean(0)).double()).T.float()


def measured(model: nn.Module, attack: PoisonedSet, test: ImageSet) -> dict[str, float]:
    """On test images: accuracy, accuracy under attack, the sticker's success, a certificate."""
    eps, some = EPS[test.name], test.subset(torch.arange(min(500, len(test))))
    walked = attacks.pgd(model, some.images, some.labels, eps, steps=STEPS, random_start=False)
    stepped = attacks.fgsm(model, some.images, some.labels, eps)
    few, sigma = test.subset(torch.arange(CERTIFIED)), SIGMA[test.name]
    smooth = Smooth(model, test.num_classes, sigma)
    found = smooth.certify(few.images, n=DRAWS, alpha=ALPHA, seed=SEED, progress=False)
    return {
        "accuracy": training.accuracy(model, test),
        "fgsm": training.accuracy(model, some, stepped),
        "pgd": training.accuracy(model, some, walked),
        "sticker": poisons.metrics.success(model, attack, test),
        "certified": float(found.accuracy(few.labels, (sigma,))[0]),
    }


def packed(values: Any, kind: type) -> str:
    """Numbers as base64 of little-endian int8, uint8 or float32."""
    array = np.ascontiguousarray(np.asarray(values), np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def unpacked(text: str, kind: type) -> Tensor:
    """``packed`` undone; float32 ``[n]``."""
    array = np.frombuffer(base64.b64decode(text), np.dtype(kind).newbyteorder("<"))
    return torch.from_numpy(array.astype(np.float32))


@torch.no_grad()
def written(model: Exported, train: ImageSet) -> dict[str, Any]:
    """A network as the page reads it, with each layer's class means and a cloud of images."""
    weights = torch.cat([(c.weight / _steps(c.weight)).round().flatten() for c in model.convs])
    numbers = [model.normalise.mean, model.normalise.std]
    for conv in model.convs:
        numbers += [_steps(conv.weight), conv.bias]
    for linear in (model.fc, *model.maps):
        numbers += [linear.weight, linear.bias]
    places = model.places(train.images)
    means = torch.stack([places[train.labels == c].mean(0) for c in range(train.num_classes)])
    behind = torch.cat([(train.labels == c).nonzero()[:CLOUD, 0] for c in range(train.num_classes)])
    cloud = (places[behind] / REACH * 127).round().clamp(-127, 127)
    return {
        "layers": [[c.in_channels, c.out_channels, c.stride[0]] for c in model.convs],
        "weights": packed(weights, np.int8),
        "numbers": packed(torch.cat([n.flatten() for n in numbers]), np.float32),
        "means": packed(means.permute(1, 0, 2), np.float32),  # [layers, K, 2]
        "cloud": packed(cloud.permute(1, 0, 2), np.int8),  # [layers, K CLOUD, 2]
    }


@torch.no_grad()
def network(entry: dict[str, Any], classes: int) -> Exported:
    """The network of an entry of the file, as the browser has it."""
    channels, widths, strides = zip(*entry["layers"], strict=True)
    model = Exported(channels[0], list(widths), list(strides), classes).eval()
    weights, numbers = unpacked(entry["weights"], np.int8), unpacked(entry["numbers"], np.float32)

    def take(like: Tensor) -> Tensor:
        nonlocal numbers
        part, numbers = numbers[: like.numel()], numbers[like.numel() :]
        return part.reshape(like.shape)

    for value in (model.normalise.mean, model.normalise.std):
        value.copy_(take(value))
    for conv in model.convs:
        count = conv.weight.numel()
        conv.weight.copy_(weights[:count].reshape(conv.weight.shape) * take(_steps(conv.weight)))
        conv.bias.copy_(take(conv.bias))
        weights = weights[count:]
    for linear in (model.fc, *model.maps):
        linear.weight.copy_(take(linear.weight)), linear.bias.copy_(take(linear.bias))
    if len(weights) or len(numbers):
        raise ValueError(f"entry: {len(weights)} weights and {len(numbers)} numbers too many")
    return model


def load(path: Path = FILE) -> dict[str, Any]:
    """What the page reads. Raises ``ValueError`` for another file."""
    text = path.read_text(encoding="utf-8")
    if not text.startswith(HEAD):
        raise ValueError(f"path: got {path}; a file that begins with {HEAD!r} is needed")
    return json.loads(text.removeprefix(HEAD).rstrip().removesuffix(";"))


def sets(name: str) -> tuple[ImageSet, ImageSet]:
    """Training and test images of one half of the page, on the CPU."""
    return data.load(name, device="cpu", seed=SEED)


def chosen(test: ImageSet) -> Tensor:
    """Positions of the images that the page offers: the first ones of each class."""
    count, labels = SHOWN[test.name], test.labels
    return torch.cat([(labels == c).nonzero()[:count, 0] for c in range(test.num_classes)])


def shown(test: ImageSet, attack: PoisonedSet) -> dict[str, Any]:
    """The images that the page offers, and how its sticker lies on each of them."""
    few = test.subset(chosen(test))
    entry: dict[str, Any] = {
        "classes": [name.removeprefix("speed limit ") for name in test.classes],
        "shape": test.shape,
        "labels": few.labels.tolist(),
        "images": packed((few.images * 255).round(), np.uint8),
        "eps": EPS[test.name],
        "steps": STEPS,
        "sigma": SIGMA[test.name],
        "target": attack.target,
        "poisons": int(attack.is_poisoned.sum()),
        "train": len(attack),
        "test": len(test),
    }
    trigger = attack.trigger
    if few.factors is not None:
        entry["sticker"] = {k: getattr(trigger, k) for k in ("centre", "width", "colour")}
        pose = [getattr(few.factors, name).reshape(len(few), -1) for name in POSE]
        entry["pose"] = packed(torch.cat(pose, 1), np.float32)
    else:
        entry["sticker"] = {"cells": trigger.mask[0].nonzero().tolist()}
    return entry


def made(name: str, log: Callable[[str], None] = print) -> dict[str, Any]:
    """One half of the page: images, sticker, three networks and what was measured on them."""
    train, test = sets(name)
    attack = poisoned(train)
    entry = shown(test, attack) | {"networks": {}}
    for kind in KINDS:
        small = exported(trained(kind, train), train)
        half = written(small, train)
        found = measured(network(half, train.num_classes), attack, test)
        half["measured"] = {k: round(v, 4) for k, v in found.items()}
        entry["networks"][kind] = half
        log(f"{name}, {kind}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return entry


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # the sums of one thread are the same each time
    page = {"command": "make playground", "seed": SEED, "torch": torch.__version__.split("+")[0]}
    page |= {"draws": DRAWS, "alpha": ALPHA, "certified": CERTIFIED, "reach": REACH}
    page["sets"] = {name: made(name) for name in SHOWN}
    options.file.write_text(HEAD + json.dumps(page) + ";\n", encoding="utf-8")
    size = options.file.stat().st_size
    print(f"wrote {options.file.name}, {size:,} bytes (at most {LIMIT:,})")
    return int(size > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
