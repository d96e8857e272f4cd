"""Attacks on six networks that know CIFAR-10: data/results/photographs_{attacks,certified}.csv.

``make results-photographs.attacks ARGS="--data folder:PATH"`` trains a plain network, one on single
steps of 8/255, one on such steps from larger noise, a distilled one and one on noise, puts
squeezers before the plain one and a vote behind the noisy one, and attacks each on 500 test images;
on a CPU narrow networks of 5,000 images, on 100. AutoAttack is that of the package torchattacks
where it is installed, else a stand-in that the table calls ours. ``--certify`` bounds the radii of
the vote instead.
"""

from __future__ import annotations

import argparse
import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from experiments.photographs import Photographs, photographs
from experiments.table import RESULTS, Table, facts
from nclib import attacks, data, device, fast, models, training
from nclib.data import ImageSet
from nclib.defenses import adversarial_training as hardened
from nclib.defenses.distillation import soft_labels, vanished
from nclib.defenses.smoothing import Smooth, gaussian
from nclib.defenses.squeezing import Squeezed, bit_depth, median

KEY = ("source", "network", "attack", "norm", "eps", "n_train", "seed")
CERTIFIED = ("source", "n_train", "sigma", "n", "seed")
ROBUST = "trained on noisy steps"
NETWORKS = ("plain", "adversarially trained", ROBUST, "squeezed", "distilled", "smoothed")
EPS = 8 / 255
SIGMAS, RADII = (0.25, 0.5), (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (0.1, 0.25, 0.5, 1.0)  # of C&W's changes, L2
HEAT = 40  # the temperature of distillation
SLOW = 0.5  # the learning rate of training on noisy steps
# where: widths of the fast network's blocks; epochs, and those of adversarial training
SIZES = {
    "gpu": ((64, 256, 256), 8, 12),
    "cpu": ((32, 64, 64), 16, 24),
    "dry": ((8, 16, 16), 1, 1),
}
Measure = Callable[[Tensor], float]  # attacked images -> accuracy


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_attacks", KEY, folder)


def certified_table(folder: Path = RESULTS) -> Table:
    return Table("photographs_certified", CERTIFIED, folder)


class Hot(nn.Module):
    """A network whose logits are ``HEAT`` times those of ``model``: one trained at that heat.

    At the temperature ``HEAT`` it is ``model``, so it learns at the rates of ``model``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return HEAT * self.model(images)


class _Widened(torch.autograd.Function):
    """float32 to float64; backward each image's gradient, scaled to 1, so that none underflows."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.double()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        most = slope.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
        return torch.where(most > 0, slope / most, 0).float()


class Double(nn.Module):
    """``model`` in float64 for images in float32; what follows a gradient's sign sees no other."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(_Widened.apply(images))


class Noisy(nn.Module):
    """The mean probabilities of ``model``, as logits, over ``draws`` of fresh noise a call."""

    def __init__(self, model: nn.Module, sigma: float, draws: int = 4) -> None:
        super().__init__()
        self.model, self.sigma, self.draws, self.calls = model, sigma, draws, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        generator = torch.Generator(images.device).manual_seed(self.calls)
        total = torch.zeros((), device=images.device)
        for _ in range(self.draws):
            drawn = torch.randn(images.shape, generator=generator, device=images.device)
            total = total + self.model(images + self.sigma * drawn).softmax(1)
        return (total / self.draws).clamp_min(1e-30).log()


class Half(nn.Module):
    """``model`` in bfloat16 where that is fast, its logits in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        fast_there = device.has_fast_bfloat16(images.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=fast_there):
            return self.model(images).float()


def size(photos: Photographs) -> tuple[tuple[int, int, int], int, int]:
    where = "gpu" if photos.train.device.type == "cuda" else "cpu"
    return SIZES["dry" if photos.dry else where]


@lru_cache(maxsize=8)
def trained(photos: Photographs, kind: str, seed: int = 0) -> nn.Module:
    """The network of this ``kind``, or "noise SIGMA"; trained on all photographs, once."""
    train = photos.train
    widths, *counts = size(photos)
    epochs = counts[kind in ("adversarially trained", ROBUST)]
    if kind == "squeezed":
        squeezers = (partial(bit_depth, bits=5), partial(median, size=2))
        return Squeezed(trained(photos, "plain", seed), *squeezers)
    plan: dict[str, Any] = fast.recipe(train, epochs=epochs, smoothing=0)
    model = models.build("fast", train, seed=seed + (kind == "distilled"), widths=widths)
    if kind == "adversarially trained":
        plan["loss"] = hardened.fast_training(EPS, seed=seed)
    elif kind == ROBUST:
        plan = fast.recipe(train, epochs=epochs, smoothing=0, lr=SLOW)
        plan["loss"] = hardened.noisy_fast_training(EPS, seed=seed)
    elif kind == "distilled":
        teacher = Hot(trained(photos, "plain", seed))
        plan["targets"] = soft_labels(teacher, train.images, HEAT)
    elif kind.startswith("noise "):
        add = gaussian(float(kind.split()[1]))
        plan["augment"] = lambda images, draw: add(fast.shifted(images, draw), draw)
    print(f"  training: {kind}, {epochs} epochs", flush=True)
    training.fit(model, train, **plan, seed=seed, cache=False, progress=False)
    return Hot(model).eval() if kind == "distilled" else model


@contextmanager
def unrehearsed() -> Iterator[None]:
    """Without cuDNN's trial of every new size: the sizes here shrink with those who still hold."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def some(test: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """``count`` test images, as many of each class; all where there are no more."""
    if count >= len(test):
        return test
    return test.subset(data.stratified(test.labels, count, seed))


def targeted(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int = 20
) -> Tensor:
    """PGD on the margin of every other class in turn, for the images that still hold."""
    result, classes = images.clone(), int(training.predict(model, images[:2]).shape[1])
    for shift in range(1, classes):
        left = (training.predict(model, result).argmax(1) == labels).nonzero()[:, 0]
        if not len(left):
            break
        goal = (labels[left] + shift) % classes
        options = {"steps": steps, "targets": goal, "seed": shift}
        result[left] = attacks.margin_pgd(model, images[left], labels[left], eps, **options)
    return result


def exact(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy ``[N]`` without 1 - p, whose slope is 0 in float64 as well where p is 1."""
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return softplus(others - logits.gather(1, own)[:, 0])


def walks(dry: bool) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]]:
    """The attacks that follow a gradient's sign, each as it is and as it serves in float64."""
    pgd, margin = ({"steps": 2}, {"steps": 1}) if dry else ({"steps": 40}, {"steps": 20})
    single = partial(attacks.pgd, steps=1, random_start=False, loss=exact)
    return {
        "FGSM": (attacks.fgsm, single),
        "PGD": (partial(attacks.pgd, **pgd), partial(attacks.pgd, loss=exact, **pgd)),
        "targeted margin PGD": (partial(targeted, **margin),) * 2,
    }


def auto(
    model: nn.Module, images: Tensor, labels: Tensor, classes: int, dry: bool
) -> Iterator[tuple[str, Tensor]]:
    """(part, images so far) of AutoAttack: each part goes on with the images that still hold.

    Against a random model these are APGD alone, on the cross-entropy and on the logits' ratio.
    """
    long, queries = (2, 2) if dry else (100, 1000)
    try:
        found: Any = importlib.import_module("torchattacks")
        more, so = {"eps": EPS, "norm": "Linf", "seed": 0}, {"n_classes": classes}
        parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "APGD-CE": found.APGD(model, steps=long, loss="ce", **more),
            "APGD-T": found.APGDT(model, steps=long, **so, **more),
            "FAB-T": found.FAB(model, steps=max(long // 5, 2), multi_targeted=True, **so, **more),
            "Square": found.Square(model, n_queries=queries, **more),
        }
        if isinstance(model, Noisy):
            ratio = found.APGD(model, steps=long, loss="dlr", **more)
            parts = {"APGD-CE": parts["APGD-CE"], "APGD-DLR": ratio}
    except Exception as error:  # not installed, or not for these versions
        print(f"  our own attacks stand in for torchattacks ({error!r})", flush=True)
        parts = {
            "ours: PGD": lambda x, y: attacks.pgd(model, x, y, EPS, steps=long),
            "ours: margin": lambda x, y: targeted(model, x, y, EPS, steps=long),
            "ours: Square": lambda x, y: attacks.square(model, x, y, EPS, queries=queries),
        }
    result = images.clone()
    for name, attack in parts.items():
        left = (training.predict(model, result).argmax(1) == labels).nonzero()[:, 0]
        try:
            made = attack(images[left], labels[left]).detach() if len(left) else images[left]
        except Exception as error:  # another's code: its failure must not take our rows along
            print(f"  {name} failed: {error!r}", flush=True)
            continue
        result[left] = images[left] + (made - images[left]).clamp(-EPS, EPS)
        result.clamp_(0, 1)
        yield name, result


def masked(model: nn.Module, test: ImageSet) -> float:
    """The share of the images at which the gradient of the cross-entropy is exactly 0."""
    return float(vanished(model, test.images, test.labels).float().mean())


def measured(
    model: nn.Module, test: ImageSet, right: Measure, dry: bool
) -> Iterator[dict[str, object]]:
    """A row for each attack on ``model``; ``right`` says what holds of the attacked images.

    ``float64`` is the same attack in float64, where gradients vanish in float32.
    """
    x, y, flat = test.images, test.labels, masked(model, test)
    yield {"attack": "none", "norm": "-", "eps": 0, "accuracy": right(x), "vanished": flat}
    wide = Double(model) if flat > 0 and x.device.type != "mps" else None
    for eps in (EPS / 4, EPS):
        for name, (attack, in_double) in walks(dry).items():
            row = {"attack": name, "norm": "Linf", "eps": round(eps, 5), "vanished": flat}
            row["accuracy"] = right(attack(model, x, y, eps))
            row["float64"] = "" if wide is None else right(in_double(wide, x, y, eps))
            yield row
    if isinstance(model, Squeezed):
        around = attacks.bpda(model.model, model.squeeze)
        for name, (attack, _) in walks(dry).items():
            row = {"attack": f"{name}, BPDA", "norm": "Linf", "eps": round(EPS, 5)}
            yield row | {"accuracy": right(attack(around, x, y, EPS))}
    options: dict[str, Any] = {"steps": 2 if dry else 150, "search_steps": 2 if dry else 6}
    near = attacks.cw_l2(model, x, y, lr=0.01, c=1.0, **options)
    size = (near - x).flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    for length in LENGTHS:
        row = {"attack": "C&W", "norm": "L2", "eps": length}
        yield row | {"accuracy": right(torch.where(size <= length, near, x))}


def run(
    photos: Photographs, rows: Table, network: str, *, images: int = 500, seed: int = 0
) -> None:
    """All rows of one network that the table does not have yet."""
    dry = photos.dry
    test = some(photos.test, 10 if dry else images)
    key: dict[str, object] = {"source": photos.source, "network": network}
    key |= {"n_train": len(photos.train), "seed": seed}
    last = {"attack": "AutoAttack", "norm": "Linf", "eps": round(EPS, 5)}
    if rows.has(**key, **last):
        return
    print(", ".join(f"{name} {value}" for name, value in key.items()), flush=True)
    about = {"images": len(test), "widths": "-".join(map(str, size(photos)[0]))}
    about |= facts(test.device)
    kind = f"noise {SIGMAS[0]}" if network == "smoothed" else network
    model = trained(photos, kind, seed)
    right: Measure = partial(training.accuracy, model, test)
    if network == "smoothed":
        vote = Smooth(Half(model), test.num_classes, SIGMAS[0])
        right = partial(voted, vote, test, 10 if dry else 200)
        model = Noisy(model, SIGMAS[0])
    with unrehearsed():
        for row in measured(model, test, right, dry):
            rows.append(key | row | about)
            print(f"  {row['attack']} {row['eps']}: {row['accuracy']:.3f}", flush=True)
        ran: list[str] = []
        for part, found in auto(model, test.images, test.labels, test.num_classes, dry):
            row = last | {"attack": f"AutoAttack, to {part}", "accuracy": right(found)}
            rows.append(key | row | about)
            print(f"  {row['attack']}: {row['accuracy']:.3f}", flush=True)
            ran.append(part)
        if ran:
            rows.append(key | row | last | {"parts": ", ".join(ran)} | about)


def voted(vote: Smooth, test: ImageSet, n: int, images: Tensor) -> float:
    """The share that ``n`` draws name rightly; where they are at odds (alpha .05) they do not."""
    named = vote.predict(images, n=n, alpha=0.05, batch_size=10_000, seed=1)
    return float((named == test.labels.cpu()).float().mean())


def certify(
    photos: Photographs, rows: Table, sigma: float, n: int, *, images: int = 500, seed: int = 0
) -> None:
    """The row of one noise and number of draws, unless it is there."""
    key: dict[str, object] = {"source": photos.source, "n_train": len(photos.train)}
    key |= {"sigma": sigma, "n": n, "seed": seed}
    if rows.has(**key):
        return
    print(", ".join(f"{name} {value}" for name, value in key.items()), flush=True)
    test, model = some(photos.test, images), Half(trained(photos, f"noise {sigma}", seed))
    vote = Smooth(model, test.num_classes, sigma)
    with unrehearsed(), device.Timer(test.device) as timer:
        found = vote.certify(test.images, n=n, batch_size=10_000, seed=seed, progress=False)
    curve = found.accuracy(test.labels, RADII).tolist()
    right = found.labels == test.labels.cpu()
    row: dict[str, object] = {"images": len(test), "accuracy": training.accuracy(model, test)}
    row |= {f"certified_{r:g}": share for r, share in zip(RADII, curve, strict=True)}
    row["mean_radius"] = float((found.radii * right).mean())
    row["abstained"] = float((found.labels < 0).double().mean())
    row["draws_per_image"] = float(found.draws.double().mean())
    rows.append(key | row | {"seconds": round(timer.seconds, 1)} | facts(test.device))
    print(f"  {row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--images", type=int, help="to attack")
    parser.add_argument("--certify", action="store_true", help="the radii instead of the attacks")
    options = parser.parse_args()
    few = {} if (dev := device.pick()).type == "cuda" else {"n_train": 5000, "n_test": 2000}
    photos, images = photographs(options.data, dev, **few), options.images or (100 if few else 500)
    for network in () if options.certify else options.networks:
        run(photos, table(), network, images=images)
    for n in (1000, 10_000) if options.certify else ():
        for sigma in SIGMAS:
            certify(photos, certified_table(), sigma, n, images=images)


if __name__ == "__main__":
    main()
