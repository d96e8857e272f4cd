"""Poisons on CIFAR-10 at their papers' settings: data/results/photographs_poisons.csv.

``make results-photographs.poisons`` trains the fast network on each poisoned set. ``control_`` is a
network trained on the clean photographs that no attacker has seen. Backdoors: a row per seed.
Gradient matching and Bullseye aim at single test images: a row per victim, whose number stands
under ``seed``; they are made on several surrogates and judged on networks trained from scratch, or
in the transfer setting: a new head on 500 test images, five of them poisons, over a network that is
one of the surrogates (white box) or none of them (black box).
``ARGS="--data folder:PATH"`` takes JPEG copies; ``--images 10000 --settings transfer`` serves on a
CPU, with a narrow network (``arch``).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.photographs import Photographs, attacks, clean, photographs, trained, widths
from experiments.poisons import aims
from experiments.table import RESULTS, Table, facts
from nclib import device, poisons
from nclib.attacks import MeanLogits
from nclib.data import ImageSet
from nclib.data.sampling import split
from nclib.poisons import PoisonedSet, metrics, triggers
from nclib.poisons.sets import choose_count, poisoned

KEY = ("source", "attack", "setting", "variant", "n_train", "seed")
VICTIMS = 8
BIRD = 2  # the target of Narcissus, there and here
Left = Callable[[], float]
Backdoor = Callable[[ImageSet, nn.Module, int], PoisonedSet]  # data, surrogate, seed


def hardened(data: ImageSet, surrogate: nn.Module, seed: int, eps: float) -> PoisonedSet:
    """Turner's clean-label attack on 5% of the class, each image moved within ``eps`` first."""
    return poisons.clean_label_backdoor(data, surrogate, 0.05, eps=eps, steps=50, seed=seed)


DIRTY: dict[tuple[str, str], Backdoor] = {
    ("badnets", "10%"): lambda data, _, seed: poisons.badnets(data, 0.1, seed=seed),
    ("badnets", "1%"): lambda data, _, seed: poisons.badnets(data, 0.01, seed=seed),
    ("blended", "10%, alpha .2"): lambda data, _, seed: poisons.blended(data, 0.1, seed=seed),
    ("wanet", "10%, s .5, k 4"): lambda data, _, seed: poisons.wanet(data, 0.1, seed=seed),
}
CLEAN: dict[tuple[str, str], Backdoor] = {
    ("sig", "5%, delta 40/255"): lambda data, _, seed: poisons.sig(data, 0.05, seed=seed),
    ("hardened", "5%, eps 8/255"): lambda *given: hardened(*given, eps=8 / 255),
    ("hardened", "5%, eps 16/255"): lambda *given: hardened(*given, eps=16 / 255),
}
# its authors harden on an adversarially trained network
ROBUST: dict[tuple[str, str], Backdoor] = {
    ("hardened", f"5%, eps {eps}/255, robust surrogate"): partial(hardened, eps=eps / 255)
    for eps in (8, 16)
}


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_poisons", KEY, folder)


def backdoors(
    photos: Photographs,
    rows: Table,
    seed: int,
    left: Left,
    kinds: dict[tuple[str, str], Backdoor] = DIRTY | CLEAN,
    robust: bool = False,
) -> None:
    """One row for each backdoor; the surrogate is another seed's clean network, or ``robust``."""
    for (attack, variant), make in kinds.items():
        key = named(photos, attack, "scratch", variant, seed)
        if rows.has(**key) or left() < 30:
            continue
        surrogate = attacks.trained(photos, attacks.ROBUST) if robust else clean(photos, seed + 1)
        start = time.perf_counter()
        bad = make(photos.train, surrogate, seed)
        crafted = time.perf_counter() - start
        add(photos, rows, key, bad, victim(bad, seed), seed, crafted)


def hardened_well(photos: Photographs, rows: Table, seed: int, left: Left) -> None:
    """The clean-label rows whose surrogate is robust."""
    backdoors(photos, rows, seed, left, ROBUST, robust=True)


def narcissus(photos: Photographs, rows: Table, seed: int, left: Left) -> None:
    """One noise, on 25 to 500 images; at test time three times as strong, and as it is."""
    for count in (500, 25, 100):
        keys = {
            scale: named(photos, "narcissus", "scratch", f"{count} images, x{scale}", seed)
            for scale in (3, 1)
        }
        if all(rows.has(**key) for key in keys.values()) or left() < 30:
            continue
        start = time.perf_counter()
        noise = inward(photos, seed)
        bad = marked(photos.train, noise, max(1, round(count * len(photos.train) / 50_000)), seed)
        crafted = time.perf_counter() - start  # that of the noise in the first of the rows
        model = victim(bad, seed)
        for scale, key in keys.items():
            bad = replace(bad, trigger=triggers.Add(noise, scale))
            add(photos, rows, key, bad, model, seed, crafted)


@cache
def inward(photos: Photographs, seed: int) -> Tensor:
    """The noise of Narcissus for this seed: ``[C, H, W]`` on the CPU."""
    steps, rate = 10 if photos.dry else 300, 0.01  # to the noise the rate does not matter
    surrogate, options = clean(photos, seed + 1), {"steps": steps, "seed": seed, "amplify": 1.0}
    return poisons.narcissus(photos.train, surrogate, rate, BIRD, **options).trigger.pattern


def marked(data: ImageSet, noise: Tensor, count: int, seed: int) -> PoisonedSet:
    """``data`` with the noise on ``count`` images of its class, labels as they were."""
    index, images = choose_count(data, count, data.labels == BIRD, seed), data.images.clone()
    images[index] = triggers.Add(noise)(images[index])
    trigger = triggers.Add(noise)
    return poisoned(data, images, data.labels, "narcissus", target=BIRD, trigger=trigger)


def views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted and mirrored as the victim will see them, with a gradient."""
    half = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return poisons.random_shift(2)(torch.where(half, images.flip(3), images), generator)


def scratch(photos: Photographs, rows: Table, attack: str, left: Left) -> None:
    """Poisons in 1% of the training images, made on two surrogates; a new network each time."""
    jury, steps = [clean(photos, seed) for seed in (1, 2)], 3 if photos.dry else 150
    aimed = aims(MeanLogits(jury), photos.test, 1 if photos.dry else VICTIMS, 0)
    for i, (image, goal) in enumerate(aimed):
        key = named(photos, attack, "scratch", "1%, eps 16/255, 2 surrogates", i)
        if rows.has(**key) or left() < 30:
            continue
        start, options = time.perf_counter(), {"eps": 16 / 255, "steps": steps, "seed": i}
        if attack == "gradient_matching":
            options |= {"restarts": 1, "augment": views}
            bad = poisons.gradient_matching(photos.train, MeanLogits(jury), image, goal, **options)
        else:
            options |= {"poisons": max(1, len(photos.train) // 100), "lr": 0.01}
            bad = poisons.bullseye_polytope(photos.train, jury, image, goal, **options)
        crafted = time.perf_counter() - start
        add(photos, rows, key, bad, victim(bad, i), 0, crafted)


def transfer(photos: Photographs, rows: Table, attack: str, left: Left) -> None:
    """Five poisons among 500 images for a new head, over a network that never met these images."""
    part, rest = split(photos.test.labels, min(500, len(photos.test) // 2), 0)
    fine, test = photos.test.subset(part), photos.test.subset(rest)
    room = min(5, int(torch.bincount(fine.labels).min()))
    backbones = [clean(photos, seed) for seed in range(4)]
    heads = [poisons.retrain_head(net, fine) for net in backbones]
    for head in heads:  # the attacker knows that only the classifier will learn
        head.requires_grad_(False)
        head.get_submodule("fc").requires_grad_(True)
    eps, name = (0.1, ".1") if attack == "bullseye_polytope" else (16 / 255, "16/255")
    aimed = aims(MeanLogits(heads[1:]), test, 1 if photos.dry else VICTIMS, 0)
    for i, (image, goal) in enumerate(aimed):
        boxes = {
            box: named(photos, attack, f"transfer, {box} box", f"5 poisons, eps {name}", i)
            for box in ("black", "white")
        }
        if all(rows.has(**key) for key in boxes.values()) or left() < 20:
            continue
        start, options = time.perf_counter(), {"eps": eps, "seed": i}
        if attack == "gradient_matching":
            options |= {"rate": room / len(fine), "restarts": 1, "steps": 3 if photos.dry else 150}
            bad = poisons.gradient_matching(fine, MeanLogits(heads[1:]), image, goal, **options)
        else:
            options |= {"poisons": room, "steps": 3 if photos.dry else 300}
            bad = poisons.bullseye_polytope(fine, backbones[1:], image, goal, **options)
        crafted = time.perf_counter() - start
        for which, key in enumerate(boxes.values()):
            model = poisons.retrain_head(backbones[which], bad)
            found = metrics.outcome(model, heads[which], bad, test)
            rows.append(key | found | measured(photos, bad, crafted))
            print(f"{[*key.values()]}: {found}", flush=True)


def named(photos: Photographs, attack: str, setting: str, variant: str, seed: int) -> dict:
    key: dict[str, object] = {"source": photos.source, "attack": attack, "setting": setting}
    return key | {"variant": variant, "n_train": len(photos.train), "seed": seed}


def victim(bad: ImageSet, seed: int) -> nn.Module:
    return trained(bad, seed + 100)


def measured(photos: Photographs, bad: PoisonedSet, crafted: float) -> dict:
    size = widths(photos.train)
    about = {"arch": "fast" + ("" if size[-1] == 256 else f" {'-'.join(map(str, size))}")}
    about |= {"poisons": int(bad.is_poisoned.sum()), "craft_seconds": round(crafted, 2)}
    return about | facts(bad.device)


def add(
    photos: Photographs,
    rows: Table,
    key: dict,
    bad: PoisonedSet,
    model: nn.Module,
    control: int,
    crafted: float,
) -> None:
    """The row of a network trained from scratch, beside the clean one of the seed ``control``."""
    found = metrics.outcome(model, clean(photos, control), bad, photos.test)
    rows.append(key | found | measured(photos, bad, crafted))
    print(f"{[*key.values()]}: {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--images", type=int, help="train on so many")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    options = parser.parse_args()
    photos = photographs(options.data, device.pick(), n_train=options.images)
    for setting in options.settings:
        one = setting in ("transfer", "from scratch")
        for argument in ("bullseye_polytope", "gradient_matching") if one else options.seeds:
            SETTINGS[setting](photos, table(), argument, lambda: float("inf"))


SETTINGS = {
    "backdoors": backdoors,
    "robust surrogate": hardened_well,
    "narcissus": narcissus,
    "transfer": transfer,
    "from scratch": scratch,
}

if __name__ == "__main__":
    main()
