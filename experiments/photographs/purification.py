"""Purifying poisoned photographs: data/results/photographs_{purification,energy}.csv.

``make results-photographs.purification ARGS="--data folder:PATH"`` trains a convolutional energy, a
small diffusion model and the attackers' surrogate on images that the victim does not have, and
washes the victim's training images in every way: Langevin, noise and back, both (Bhat et al. 2024,
arXiv 2405.18627), JPEG, friendly noise, EPIC, and what ought to do less: noise of the same size
alone, the main axes of other images, hidden pixels, a median. On a GPU the victim has 10,000 images
and the fast network; on a CPU 2,500 and the small one, with smaller purifiers (``SIZES``).
Purifiers and finished rows are kept, so the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from experiments.photographs import Photographs, baselines, photographs
from experiments.table import RESULTS, Table, facts
from nclib import cache, data, device, fast, models, poisons, training
from nclib.data import ImageSet
from nclib.defenses import purification as pure
from nclib.defenses import squeezing
from nclib.defenses.purification import controls
from nclib.doors import seeded
from nclib.poisons import PoisonedSet, metrics, triggers
from nclib.poisons.sets import choose, poisoned

KEY = ("source", "arch", "n_train", "attack", "defence", "seed")
ENERGY = ("source", "arch", "n_train", "kind", "part", "at", "seed")
TARGET = 2  # birds
STEPS, T = 150, 75  # Langevin steps, level of the diffusion: the paper's
WALK = (0, 10, 25, 50, 100, 150, 250, 500, 1000, 1500, 2000)
BINS = 24  # of an energy histogram
AXES = 100
CHUNK = 2000  # images washed together
Wash = Callable[[Tensor], Tensor]


def table(folder: Path = RESULTS) -> Table:
    return Table("photographs_purification", KEY, folder)


def energy_table(folder: Path = RESULTS) -> Table:
    return Table("photographs_energy", ENERGY, folder)


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    arch: str  # the victim's network
    victim: int  # images
    others: int  # images, at most
    epochs: int
    widths: tuple[int, ...]  # of the energy
    width: int  # of the diffusion
    energy: dict[str, int]
    diffusion: dict[str, int]


SIZES = {
    "gpu": Size(
        "fast",
        10_000,
        40_000,
        12,
        (64, 128, 128, 256),  # .9 million weights
        64,
        {"updates": 2000, "steps": 20, "batch_size": 64},
        {"updates": 4000, "batch_size": 128},
    ),
    "cpu": Size(
        "cnn",
        2500,
        5000,
        12,
        (16, 32, 32, 64),  # .06 million
        16,
        {"updates": 800, "steps": 20, "batch_size": 32},
        {"updates": 1500, "batch_size": 64},
    ),
    "dry": Size(
        "cnn",
        100,
        100,
        1,
        (4, 8),
        8,
        {"updates": 3, "steps": 2, "batch_size": 8, "bank_size": 16},
        {"updates": 2, "batch_size": 8},
    ),
}


def size(photos: Photographs) -> Size:
    if photos.dry:
        return SIZES["dry"]
    return SIZES["gpu" if photos.train.device.type == "cuda" else "cpu"]


def key(photos: Photographs, seed: int) -> dict[str, object]:
    """The columns that all rows of a run share."""
    s = size(photos)
    return {"source": photos.source, "arch": s.arch, "n_train": s.victim, "seed": seed}


@dataclass(frozen=True, eq=False)
class Scene:
    """Victim, test and other images, and what is trained on the others."""

    size: Size
    train: ImageSet
    test: ImageSet
    others: ImageSet
    energy: pure.Energy
    diffusion: pure.Diffusion
    surrogate: nn.Module  # the attackers'
    clean: nn.Module  # the victim's network without poison and defence
    made: dict[str, Any]  # how the training of the energy went
    seed: int

    @property
    def dry(self) -> bool:
        return self.size is SIZES["dry"]


@lru_cache(maxsize=2)
def scene(photos: Photographs, seed: int = 0) -> Scene:
    """The scene, set once; its purifiers come from the cache if they are there."""
    s = size(photos)
    mine = data.stratified(photos.train.labels, s.victim, seed)
    rest = torch.ones(len(photos.train), dtype=torch.bool, device=photos.train.device)
    rest[mine] = False
    train, others = photos.train.subset(mine), photos.train.subset(rest)
    if len(others) > s.others:
        others = others.subset(data.stratified(others.labels, s.others, seed))
    energy, diffusion, made = purifiers(others, s, seed)
    nets = learn(others, s, seed + 7), learn(train, s, seed)
    return Scene(s, train, photos.test, others, energy, diffusion, *nets, made, seed)


def purifiers(
    others: ImageSet, s: Size, seed: int
) -> tuple[pure.Energy, pure.Diffusion, dict[str, Any]]:
    """An energy and a diffusion model of these images, and the energy's history."""
    walk: dict[str, Any] = {"eps": 0.0125, "temperature": 1e-4}  # the paper's
    for lr in (1e-3, 3e-4):  # the second where the first does not hold
        energy = pure.build_energy(others.shape, widths=s.widths, seed=seed, **walk)
        made = kept(energy, pure.train_energy, others.images, s.energy | {"lr": lr})
        energy.diverged = made["diverged"] is not None
        if not energy.diverged:
            break
    diffusion = pure.build_diffusion(others.shape, width=s.width, seed=seed)
    kept(diffusion, pure.train_diffusion, others.images, s.diffusion)
    return energy, diffusion, made


def kept(model: nn.Module, train: Callable, images: Tensor, plan: dict) -> dict[str, Any]:
    """Train ``model`` in place, or read it from the cache; how its training went."""
    path = cache.cache_root() / f"photographs-{cache.fingerprint(images[:64], model, plan)}"
    path = path.with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # a process beside this one waits, and then reads
        if found := cache.load(path):
            model.load_state_dict(found[0])
            model.to(images.device).eval()
            return found[1]
        print(f"  training: {type(model).__name__}, {plan}", flush=True)
        run = train(model, images, **plan, progress=False)
        record = {"history": run.history, "diverged": getattr(run, "diverged", None)}
        cache.save(path, model.state_dict(), record)
    return record


def learn(part: ImageSet, s: Size, seed: int, augment: Any = None, epochs: int = 0) -> nn.Module:
    """The victim's network, trained from scratch on shifted and mirrored images."""
    plan: dict[str, Any] = {"weight_decay": 5e-4, "mirror": True, "augment": fast.shifted}
    if s.arch == "fast":
        plan = fast.recipe(part, epochs=epochs or s.epochs)
    plan["epochs"] = epochs or s.epochs
    if augment is not None:
        plan["augment"] = lambda images, draw: augment(fast.shifted(images, draw), draw)
    few = torch.arange(min(1000, len(part)))  # the fast one's first layer whitens on the CPU
    model = models.build(s.arch, part.subset(few), seed=seed)
    training.fit(model, part, **plan, seed=seed, cache=False, progress=False)
    return model


@lru_cache(maxsize=12)
def crafted(s: Scene, attack: str) -> tuple[PoisonedSet, float]:
    """The victim's poisoned images, and the attack's success on his network without poison."""
    half: dict[str, Any] = {"rate": 0.05, "target": TARGET, "seed": s.seed}  # of the class
    tenth = half | {"rate": 0.1}
    makers: dict[str, Callable[[], PoisonedSet]] = {
        "hardened clean-label": lambda: poisons.clean_label_backdoor(
            s.train, s.surrogate, **half, steps=20, amplitude=0.25, amplify=4
        ),
        "Narcissus": lambda: poisons.narcissus(
            s.train, s.surrogate, **half | {"rate": 0.01}, eps=8 / 255, steps=2 if s.dry else 300
        ),
        "BadNets": lambda: poisons.badnets(s.train, **tenth),
        "large patch": lambda: large_patch(s.train, **tenth),
        "blended": lambda: poisons.blended(s.train, **tenth, alpha=0.1),
        "SIG": lambda: poisons.sig(s.train, **half),
    }
    bad = makers[attack]()
    return bad, metrics.success(s.clean, bad, s.test)


ATTACKS = ("hardened clean-label", "Narcissus", "BadNets", "large patch", "blended", "SIG")


def large_patch(train: ImageSet, rate: float, target: int, seed: int) -> PoisonedSet:
    """BadNets with a square of 8 x 8 random colours, one pixel from the lower right corner."""
    mask, paint = torch.zeros(train.shape), torch.zeros(train.shape)
    mask[:, -9:-1, -9:-1] = 1
    paint[:, -9:-1, -9:-1] = torch.rand(train.shape[0], 8, 8, generator=seeded(seed))
    trigger = triggers.Patch(mask, paint)
    index = choose(train, rate, train.labels != target, seed)
    images, labels = train.images.clone(), train.labels.clone()
    images[index], labels[index] = trigger(images[index]), target
    return poisoned(train, images, labels, "badnets", target=target, trigger=trigger)


@lru_cache(maxsize=2)
def washes(s: Scene) -> dict[str, tuple[str, Wash]]:
    """Each defence that changes images one by one: its strength, and the wash."""
    both, more = (s.energy, s.diffusion), {"seed": s.seed + 1, "chunk": CHUNK, "progress": False}
    draw = seeded(s.seed + 1, s.train.device)
    sizes = {"energy": s.energy.eps * STEPS**0.5 / 2}  # in units of [0, 1]
    sizes["diffusion"] = float((1 - s.diffusion.alpha_bar[T]).sqrt()) / 2
    noise = {
        f"noise like the {name}'s": (
            f"{size:.3f}",
            lambda x, size=size: squeezing.noise(x, size, draw),
        )
        for name, size in sizes.items()
    }
    steps, t = (2, 2) if s.dry else (STEPS, T)
    short, level = (1, 1) if s.dry else (10, 50)
    found: dict[str, tuple[str, Wash]] = {
        "none": ("", lambda x: x),
        "energy": (f"{STEPS} steps", partial(pure.purify, model=s.energy, steps=steps, **more)),
        "diffusion": (f"t = {T}", partial(pure.purify, model=s.diffusion, t=t, **more)),
        **noise,
        "main axes": (f"{AXES}", controls.main_axes(s.others.images, AXES)),
        "naive": (
            f"{STEPS} + {T}",
            lambda x: pure.naive(x, *both, steps=steps, t=t, **more),
        ),
        "jpeg": ("quality 75", squeezing.jpeg),
        "median": ("3 x 3", partial(squeezing.median, size=3)),
        "hidden pixels": ("half", partial(controls.hidden, seed=s.seed + 1)),
        "reps": (
            "5 x (10 + 50)",
            lambda x: pure.reps(x, *both, steps=short, t=level, repetitions=5, **more),
        ),
    }
    if s.energy.diverged:
        found = {k: v for k, v in found.items() if k not in ("energy", "naive", "reps")}
    return found


@lru_cache(maxsize=12)
def washed(s: Scene, defence: str) -> Tensor:
    """The victim's images without poison, washed: most of them are the same in every attack."""
    if defence == "naive":  # what Langevin has washed already
        options: dict[str, Any] = {"t": 2 if s.dry else T, "seed": s.seed + 2, "chunk": CHUNK}
        return pure.purify(washed(s, "energy"), s.diffusion, **options, progress=False)
    return washes(s)[defence][1](s.train.images)


def defended(s: Scene, bad: PoisonedSet, defence: str) -> ImageSet:
    """The poisoned set after a wash; an image's way depends on that image alone."""
    if defence == "filt":  # the half of higher energy goes through both
        naive = defended(s, bad, "naive").images
        high = pure.energies(bad.images, s.energy, chunk=CHUNK).topk(len(bad) // 2).indices
        images = bad.images.clone()
        images[high] = naive[high]
    else:
        images = washed(s, defence).clone()
        images[bad.is_poisoned] = washes(s)[defence][1](bad.images[bad.is_poisoned])
    return replace(bad, images=images)


def friendly(s: Scene, bad: PoisonedSet, seed: int) -> tuple[nn.Module, ImageSet]:
    """Friendly noise, found on a network that saw the set five times, then noise in training."""
    steps = 2 if s.dry else 30
    options: dict[str, Any] = {"steps": steps, "chunk": CHUNK, "seed": seed, "progress": False}
    images = baselines.friendly_noise(bad.images, learn(bad, s.size, seed, epochs=5), **options)
    part = replace(bad, images=images)
    return learn(part, s.size, seed, baselines.random_noise()), part


def epic(s: Scene, bad: PoisonedSet, seed: int) -> tuple[nn.Module, ImageSet]:
    """EPIC in small: a new network for each of its rounds."""
    rounds = 1 if s.dry else 3
    model, mask = baselines.epic(bad, lambda part, _: learn(part, s.size, seed), rounds=rounds)
    return model, bad.subset(mask)


OTHER: dict[str, tuple[str, Callable]] = {
    "friendly noise": ("16/255", friendly),
    "EPIC": ("3 rounds", epic),
}
FIRST = ("none", "energy", "diffusion", "noise like the energy's", "noise like the diffusion's")
THEN = ("main axes", "naive", "filt", "jpeg", "median", "hidden pixels")
LAST = ("friendly noise", "EPIC", "reps")


def run(photos: Photographs, rows: Table, attack: str, defence: str, *, seed: int = 0) -> None:
    """The row of one attack and defence, unless it is there or the energy diverged."""
    mine = key(photos, seed) | {"attack": attack, "defence": defence}
    if rows.has(**mine):
        return
    s = scene(photos, seed)
    bad, control = crafted(s, attack)
    if defence in OTHER:
        strength, defend = OTHER[defence]
        model, part = defend(s, bad, seed + 100)
    elif (defence if defence != "filt" else "naive") in washes(s):
        strength = f"half of {STEPS} + {T}" if defence == "filt" else washes(s)[defence][0]
        part = defended(s, bad, defence)
        model = learn(part, s.size, seed + 100)
    else:
        return
    row: dict[str, object] = {"strength": strength, "poisons": int(bad.is_poisoned.sum())}
    row["energy_weights"] = sum(p.numel() for p in s.energy.parameters())
    row |= {"accuracy": training.accuracy(model, s.test)}
    row |= {"success": metrics.success(model, bad, s.test), "control_success": control}
    row |= {"control_accuracy": training.accuracy(s.clean, s.test), "kept": len(part)}
    if len(part) == len(bad):
        moved = (part.images - bad.images).square().mean((1, 2, 3))
        row |= {"moved": float(moved.mean().sqrt())}
        row |= {"poison_moved": float(moved[bad.is_poisoned].mean().sqrt())}
    rows.append(mine | row | facts(s.train.device))
    shown = f"accuracy {row['accuracy']:.3f}, success {row['success']:.3f} ({control:.3f})"
    print(f"{attack}, {defence}: {shown}", flush=True)


def energies(photos: Photographs, rows: Table, *, seed: int = 0) -> None:
    """The energies in training, over 2,000 Langevin steps, and of clean and poisoned images."""
    mine = key(photos, seed)
    if rows.has(**mine, kind="histogram", part=ATTACKS[-1], at=BINS - 1):
        return
    s = scene(photos, seed)
    about, history = facts(s.train.device), s.made["history"]
    for at in range(0, len(history["gap"]), max(1, len(history["gap"]) // 25)):
        for part in ("data", "samples"):
            row = {"kind": "training", "part": part, "at": at, "energy": history[part][at]}
            rows.append(mine | row | about)
    if s.energy.diverged:
        print(f"the energy diverged at update {s.made['diverged']}", flush=True)
        return
    few = s.test.images[torch.arange(0, len(s.test), max(1, len(s.test) // (8 if s.dry else 64)))]
    noise = torch.rand(few.shape, generator=seeded(seed, few.device), device=few.device)
    for part, start in (("photographs", few), ("noise", noise)):
        for row in walked(s.energy, start, WALK[:3] if s.dry else WALK, seed):
            rows.append(mine | {"kind": "walk", "part": part} | row | about)
    rows.append(*(mine | row | about for row in histograms(s)))


def walked(model: pure.Energy, images: Tensor, moments: Iterable[int], seed: int) -> Iterable[dict]:
    """Energy, deviation and way (scale [-1, 1]) after so many Langevin steps: a row for each."""
    start = x = images * 2 - 1
    draw, done = seeded(seed, images.device), 0
    for at in moments:
        walk = {"eps": model.eps, "temperature": model.temperature}
        x = pure.langevin(x, model, at - done, generator=draw, **walk)
        done = at
        with torch.no_grad():
            found = model(x)
        row = {"at": at, "energy": float(found.mean()), "energy_std": float(found.std())}
        row["moved"] = float((x - start).square().mean().sqrt())
        yield row | {"outside": float((x.abs() > 1).float().mean())}


def histograms(s: Scene) -> Iterable[dict]:
    """The energies of the clean images and of every attack's poisons, in bins that they share.

    ``auroc``: how often a poison's energy is above that of a clean image.
    """
    found = {"clean": pure.energies(s.train.images, s.energy, chunk=CHUNK)}
    for attack in ATTACKS:
        bad, _ = crafted(s, attack)
        images = bad.images[bad.is_poisoned]
        found[attack] = pure.energies(images, s.energy, chunk=CHUNK)
    found = {part: values.cpu().double() for part, values in found.items()}
    low, high = (float(torch.cat(list(found.values())).quantile(q)) for q in (0.002, 0.998))
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    clean = found["clean"].sort().values
    for part, values in found.items():
        place = torch.bucketize(values, edges[1:-1])
        share = torch.bincount(place, minlength=BINS).double() / len(values)
        below, upto = (torch.searchsorted(clean, values, right=r).double() for r in (False, True))
        more = {"energy": float(values.mean()), "energy_std": float(values.std(correction=0))}
        more["auroc"] = float((below + upto).mean() / 2 / len(clean))
        for at in range(BINS):
            row: dict[str, object] = {"kind": "histogram", "part": part, "at": at}
            row |= {"low": float(edges[at]), "high": float(edges[at + 1])}
            yield row | {"share": float(share[at])} | more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--attacks", nargs="+", default=ATTACKS, choices=ATTACKS)
    parser.add_argument("--defences", nargs="+", default=(*FIRST, *THEN, *LAST))
    options = parser.parse_args()
    few = {} if (dev := device.pick()).type == "cuda" else {"n_train": 10_000, "n_test": 2000}
    photos = photographs(options.data, dev, **few)
    energies(photos, energy_table())
    for defence in options.defences:
        for attack in options.attacks:
            run(photos, table(), attack, defence)


if __name__ == "__main__":
    main()
