"""What the playground computes in JavaScript, held against the package: node and browser alike.

Each check takes ``ask``, which evaluates an expression where ``Net`` and ``DATA`` are known and
returns what JSON can carry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments import playground
from nclib import attacks, data
from nclib.defenses import smoothing, squeezing

Ask = Callable[[str], object]
PAGE = playground.load()
CASES = [(name, kind) for name in PAGE["sets"] for kind in playground.KINDS]
FEW = 4  # images of a case
HEAD = """(() => {{
  const set = DATA.sets.{name}, size = set.shape.reduce((a, b) => a * b);
  const net = Net.network(set.networks.{kind}, set.shape, set.classes.length);
  const all = Net.unpack(set.images, Uint8Array).map((x) => x / 255);
  const image = (i) => all.slice(i * size, (i + 1) * size), few = [...Array({few}).keys()];
  const list = (x) => Array.from(x);
  {body}
}})()"""
# How a hand might draw each digit: points in percent of the pad, one line a stroke.
DRAWN = {
    0: "50,10 28,30 26,70 50,90 73,70 72,30 50,10",
    1: "36,30 53,10 53,90",
    2: "30,28 45,10 68,24 60,50 30,88 75,88",
    3: "30,15 66,16 66,40 45,48 70,60 64,84 30,86",
    4: "55,10 25,60 78,60 / 60,40 58,92",
    5: "72,12 34,12 32,45 62,45 70,68 55,88 28,85",
    6: "62,10 35,45 32,75 50,90 68,74 55,55 34,68",
    7: "26,12 74,12 45,90 / 38,50 68,50",
    8: "50,48 33,30 50,10 66,30 50,48 30,70 50,90 70,70 50,48",
    9: "66,32 48,48 32,30 50,10 66,30 62,60 50,92",
}
STROKES = {
    digit: [
        [[int(v) / 100 for v in point.split(",")] for point in stroke.split()]
        for stroke in text.split("/")
    ]
    for digit, text in DRAWN.items()
}


def body(name: str, kind: str, text: str, few: int = FEW) -> str:
    """An expression in which ``set``, ``net``, ``image(i)`` and ``few`` are of this case."""
    return HEAD.format(name=name, kind=kind, few=few, body=text)


def case(name: str, kind: str, few: int = FEW) -> tuple[playground.Exported, Tensor, Tensor]:
    """Network, first images and labels of a case in torch, in float64 as in JavaScript."""
    entry = PAGE["sets"][name]
    model = playground.network(entry["networks"][kind], len(entry["classes"])).double()
    images = playground.unpacked(entry["images"], np.uint8).reshape(-1, *entry["shape"])
    return model, images[:few].double() / 255, torch.tensor(entry["labels"][:few])


def same(got: object, wanted: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to within ``tolerance`` of the largest value."""
    flat, wanted = (
        torch.tensor(got, dtype=torch.float64).flatten(),
        wanted.detach().double().flatten(),
    )
    assert flat.shape == wanted.shape
    error = float((flat - wanted).abs().max())
    assert error <= tolerance * max(1.0, float(wanted.abs().max())), error


def slopes(model: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of each image's own cross-entropy, by torch."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def forward(ask: Ask, name: str, kind: str) -> None:
    """Logits, and where each layer puts an image, against torch in both precisions."""
    said = ask(
        body(
            name,
            kind,
            """return few.map((i) => {
      const logits = list(Net.forward(net, image(i)));
      return { logits, places: Net.places(net).map((s) => Net.onPage(s)) };
    });""",
        )
    )
    model, images, _ = case(name, kind)
    for net in (model, model.float()):
        x = images.to(next(net.parameters()).dtype)
        same([s["logits"] for s in said], net(x))
        same([s["places"] for s in said], net.places(x))
        model.double()


def backward(ask: Ask, name: str, kind: str) -> None:
    """The gradient at the image: small as it is, to 1e-4 of its largest entry."""
    said = ask(
        body(name, kind, "return few.map((i) => list(Net.slope(net, image(i), set.labels[i])));")
    )
    model, images, labels = case(name, kind)
    wanted = slopes(model, images, labels)
    scale = wanted.abs().amax()
    same((torch.tensor(said) / scale).tolist(), wanted / scale)


def attack(ask: Ask, name: str, kind: str) -> None:
    """FGSM and PGD, step by step in torch; and they fool as many as the package's own do."""
    entry = PAGE["sets"][name]
    eps, steps, few = 2 * entry["eps"], entry["steps"], 8
    text = """return few.map((i) => {
      let x = image(i);
      const how = { eps: EPS, alpha: ALPHA };
      for (let k = 0; k < STEPS; k++) x = Net.step(net, x, image(i), set.labels[i], how);
      return { image: list(x), logits: list(Net.forward(net, x)) };
    });"""
    model, images, labels = case(name, kind, few)
    for count, alpha in ((1, eps), (steps, 2.5 * eps / steps)):
        filled = text.replace("STEPS", str(count)).replace("EPS", repr(eps))
        said = ask(body(name, kind, filled.replace("ALPHA", repr(alpha)), few))
        x = images
        for _ in range(count):
            x = x + alpha * slopes(model, x, labels).sign()
            x = torch.minimum(torch.maximum(x, images - eps), images + eps).clamp(0, 1)
        same([s["image"] for s in said], x)
        same([s["logits"] for s in said], model(x))
        own = attacks.pgd(
            model.float(), images.float(), labels, eps, alpha, count, random_start=False
        )
        fooled = model(own).argmax(1) != labels
        mine = torch.tensor([s["logits"] for s in said]).argmax(1) != labels
        assert abs(int(fooled.sum()) - int(mine.sum())) <= 1
        model.double()


def squeeze(ask: Ask, name: str) -> None:
    """Bits, medians and JPEG against the package's squeezers."""
    _, images, _ = case(name, "clean")
    pairs = {
        "bits(x, 1)": squeezing.bit_depth(images, 1),
        "bits(x, 3)": squeezing.bit_depth(images, 3),
        "median(x, set.shape, 2)": squeezing.median(images, 2),
        "median(x, set.shape, 3)": squeezing.median(images, 3),
        "jpeg(x, set.shape, 75)": squeezing.jpeg_differentiable(images, 75),
        "jpeg(x, set.shape, 25)": squeezing.jpeg_differentiable(images, 25),
    }
    for call, wanted in pairs.items():
        text = f"return few.map((i) => {{ const x = image(i); return list(Net.{call}); }});"
        same(ask(body(name, "clean", text)), wanted)


def sticker(ask: Ask, name: str) -> None:
    """The sticker on every image that the page shows, against the trigger of the training."""
    entry = PAGE["sets"][name]
    few = len(entry["labels"])
    text = (
        "return few.map((i) => list(Net.patched(image(i), set.shape, set.sticker.cells, [0, 0])));"
    )
    if name == "signs":
        text = """const poses = Net.unpack(set.pose, Float32Array);
        return few.map((i) => list(Net.stuck(
          image(i), set.shape[1], poses.slice(i * 16, i * 16 + 16), set.sticker)));"""
    train, test = data.load(name, device="cpu", **({"n_train": 100} if name == "signs" else {}))
    attack = playground.poisoned(train)
    images = case(name, "clean", few)[1].float()  # in 256 grey levels, as the page has them
    shown = replace(test.subset(playground.chosen(test)), images=images)
    same(ask(body(name, "clean", text, few)), attack.triggered(shown))


def certificate(ask: Ask) -> None:
    """Clopper-Pearson's bound and Cohen's radius; the noise has mean 0 and deviation 1."""
    cases = [(0, 100, 0.001), (990, 1000, 0.001), (1000, 1000, 0.001), (501, 1000, 0.05)]
    for hits, n, alpha in cases:
        bound = float(smoothing.lower_bound(hits, n, alpha))
        said = ask(
            f"[Net.lowerBound({hits}, {n}, {alpha})].map((p) => [p, Net.radius(p, 0.25)])[0]"
        )
        assert math.isclose(said[0], bound, abs_tol=1e-9)
        assert math.isclose(said[1], float(smoothing.radius(bound, 0.25)), abs_tol=1e-7)
    said = ask(
        "(() => { const draw = Net.normals(3); return Array.from({ length: 20000 }, draw); })()"
    )
    drawn = torch.tensor(said)
    assert abs(float(drawn.mean())) < 0.03 and abs(float(drawn.std()) - 1) < 0.03
    assert abs(float((drawn.abs() < 1).float().mean()) - 0.6827) < 0.015


def digits(ask: Ask) -> None:
    """Digits from strokes look like those of the set, and the clean network reads them."""
    train = data.load("digits", device="cpu")[0].images
    text = """return STROKES.map((strokes) => {
      const x = Net.digit(strokes);
      return { image: list(x), read: Net.argmax(Net.forward(net, x)) };
    });""".replace("STROKES", json.dumps(list(STROKES.values())))
    said = ask(body("digits", "clean", text))
    images = torch.tensor([s["image"] for s in said]).reshape(-1, 8, 8)
    assert images[:, [0, 7]].amax(2).min() > 0  # as tall as the picture, like all of the set
    ink = images.mean((1, 2))
    assert (ink > train.mean((1, 2, 3)).min()).all() and (ink < train.mean((1, 2, 3)).max()).all()
    read = [s["read"] for s in said]
    assert sum(r == k for r, k in zip(read, STROKES, strict=True)) >= 9, read
