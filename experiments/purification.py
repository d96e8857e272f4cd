"""Purify, train, attack: every defence, every clean-label poison: data/results/purification.csv.

``make results-purification`` runs MNIST (2,000 images for the victim) and digits (650), both at
14 x 14 pixels, three seeds, an MLP as the victim and the committed purifiers; about 40 minutes of
one busy CPU core. ``make results-purification DATASET=cifar10`` is the paper's setting in small:
ResNet-18 and conv purifiers, trained first on the ImageNet part of CINIC-10, or on a half of
CIFAR-10 where CINIC-10 is not to be had; it wants a GPU. Finished rows, purifiers and washed
chunks are kept, so the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from tqdm.auto import tqdm

from experiments.poisons import aims
from experiments.purification_settings import SETTINGS, Setting, purifiers, tiny, victims_share
from experiments.table import RESULTS, Table
from nclib import cache, data, device, models, poisons, training
from nclib.activations import penultimate
from nclib.data import ImageSet
from nclib.defenses import purification as pure
from nclib.defenses.purification import baselines
from nclib.defenses.squeezing import jpeg
from nclib.poisons import PoisonedSet, metrics

KEY = ("dataset", "attack", "variant", "defence", "strength", "seed")
Learn = Callable[..., nn.Module]  # (set, seed, augment) -> trained model
Attack = tuple[list[PoisonedSet], Learn, nn.Module]  # a set per victim image, or one; the control


def learner(setting: Setting) -> Learn:
    """The victim's training from scratch."""

    def learn(part: ImageSet, seed: int, augment: Callable | None = None) -> nn.Module:
        model, kept = models.build(setting.arch, part, seed=seed), augment is None
        options = {"seed": seed, "cache": kept, "augment": augment, "progress": len(part) > 9999}
        training.fit(model, part, epochs=setting.epochs, **options)
        return model

    return learn


def attacks(
    s: Setting, train: ImageSet, test: ImageSet, seed: int
) -> Iterator[tuple[str, str, Callable]]:
    """(name, variant, craft) of every attack; ``craft()`` gives an ``Attack``."""
    learn = learner(s)

    def scratch(make: Callable[[nn.Module], PoisonedSet | list[PoisonedSet]]) -> Attack:
        clean = learn(train, seed)
        made = make(clean)
        return made if isinstance(made, list) else [made], learn, clean

    backdoor = partial(
        poisons.clean_label_backdoor, train, rate=0.05, steps=20, amplify=2, seed=seed
    )
    for name, amplitude in (("trigger", s.amplitude), ("strong trigger", s.strong)):
        make = partial(backdoor, eps=s.backdoor_eps, amplitude=amplitude)
        variant = f"eps {s.backdoor_eps:.2g}, {name} {amplitude:.2g} x 2"
        yield "clean_label_backdoor", variant, partial(scratch, make)
    noise = {"rate": 0.01, "target": 2, "eps": s.narcissus_eps, "steps": s.narcissus_steps}
    noise = partial(poisons.narcissus, train, seed=seed, **noise)
    yield "narcissus", f"eps {s.narcissus_eps:.2g}", partial(scratch, noise)
    yield "bullseye_polytope", f"eps {s.bullseye_eps:.2g}", partial(bullseye, s, train, test, seed)

    def match(clean: nn.Module) -> list[PoisonedSet]:
        options = {"rate": s.match_rate, "eps": s.match_eps, "restarts": s.match_restarts}
        options |= {"steps": s.match_steps}
        pairs = enumerate(aims(clean, test, s.match_victims, seed))
        return [
            poisons.gradient_matching(train, clean, x, c, seed=10 * seed + i, **options)
            for i, (x, c) in pairs
        ]

    yield "gradient_matching", f"eps {s.match_eps:.2g}", partial(scratch, match)
    for kind, variant in (("pattern", "patch"), ("square", "large patch")):
        patch = partial(poisons.badnets, train, 0.05, patch=kind, seed=seed)
        yield "badnets", f"{variant}, false labels", partial(scratch, lambda _, p=patch: p())


def bullseye(s: Setting, train: ImageSet, test: ImageSet, seed: int) -> Attack:
    """Transfer: a backbone of one part of ``train``, a new head from 20 images per class."""
    fine = data.stratified(train.labels, 20 * train.num_classes, seed)
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[fine] = False
    backbone, fine = learner(s)(train.subset(rest), seed), train.subset(fine)
    clean = poisons.retrain_head(backbone, fine)
    options = {"poisons": 5, "eps": s.bullseye_eps, "steps": s.bullseye_steps}
    made = [
        poisons.bullseye_polytope(fine, backbone, x, c, seed=10 * seed + i, **options)
        for i, (x, c) in enumerate(aims(clean, test, s.bullseye_victims, seed))
    ]
    return made, lambda part, *_: poisons.retrain_head(backbone, part), clean


def washers(
    s: Setting, energy, diffusion, curve: bool
) -> Iterator[tuple[str, int | str, Callable]]:
    """(defence, strength, wash) of all defences that only change images."""
    yield "none", 0, lambda images, **_: images
    yield "jpeg", s.quality, lambda images, **_: jpeg(images, s.quality)
    if energy is not None:
        for steps in s.curve_steps if curve else (s.steps,):
            yield "energy", steps, partial(pure.purify, model=energy, steps=steps)
    for t in s.curve_t if curve else (s.t,):
        yield "diffusion", t, partial(pure.purify, model=diffusion, t=t)
    if energy is not None:
        both, (steps, t) = {"energy": energy, "diffusion": diffusion}, s.naive
        yield "naive", f"{steps}+{t}", partial(pure.naive, **both, steps=steps, t=t)
        yield "filt", f"half {s.steps}+{s.t}", partial(pure.filt, **both, steps=s.steps, t=s.t)
        both, (steps, t) = both | {"repetitions": 5}, s.reps
        yield "reps", f"5 x {steps}+{t}", partial(pure.reps, **both, steps=steps, t=t)


def friendly(bad: PoisonedSet, learn: Learn, seed: int) -> tuple[nn.Module, ImageSet]:
    """Friendly noise found on a network of the poisoned set, then training on it with noise."""
    images = baselines.friendly_noise(bad.images, learn(bad, seed), seed=seed, progress=False)
    part = replace(bad, images=images)
    return learn(part, seed, baselines.random_noise()), part


def epic(bad: PoisonedSet, learn: Learn, seed: int) -> tuple[nn.Module, ImageSet]:
    """EPIC; every round trains a new network for as long as the victim's."""
    model, kept = baselines.epic(bad, lambda part, _: learn(part, seed))
    return model, bad.subset(kept)


def distance(model: nn.Module, part: ImageSet) -> float:
    """How far the poisons lie from their class mean, in units of the clean images of the class."""
    hidden = penultimate(model, part.images)
    ratios = []
    for c in part.labels[part.is_poisoned].unique():
        mine, bad = part.labels == c, part.is_poisoned[part.labels == c]
        far = (hidden[mine] - hidden[mine].mean(0)).norm(dim=1)
        ratios.append(far[bad].mean() / far[~bad].mean().clamp_min(1e-12))
    return float(torch.stack(ratios).mean()) if ratios else float("nan")


def row(made: list[PoisonedSet], clean: nn.Module, test: ImageSet, defend: Callable) -> dict:
    """One row: ``defend(poisoned set)`` gives a model and what it was trained on."""
    rows = []
    for bad in made:
        model, part = defend(bad)
        result = metrics.outcome(model, clean, bad, test)
        rows.append(result | {"poison_distance": distance(model, part), "kept": len(part)})
    mean = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}
    return mean | {"victims": len(rows), "poisons": int(made[0].is_poisoned.sum())}


def one_seed(name: str, s: Setting, seed: int, table: Table, dev: torch.device) -> None:
    """All attacks and defences of one data set and seed."""
    energy, diffusion, source = purifiers(name, s, dev)
    train, test = victims_share(name, s, seed, source, dev)
    options = {"seed": seed, "progress": len(train) > 9999}
    if len(train) > 9999:
        options["keep"] = cache.cache_root() / "purified"
    bar = tqdm(list(attacks(s, train, test, seed)), desc=f"{name}, seed {seed}", unit="attack")
    for attack, variant, craft in bar:
        jobs: list[tuple[str, int | str, Callable]] = []
        curve = attack == "clean_label_backdoor" and "strong" not in variant
        for defence, strength, wash in washers(s, energy, diffusion, curve):

            def defend(bad, learn, wash=wash, strength=strength):
                images = bad.images if strength == 0 else wash(bad.images, **options)
                part = replace(bad, images=images)
                return learn(part, seed + 100), part

            jobs.append((defence, strength, defend))
        jobs.append(("friendly", "16/255", partial(friendly, seed=seed + 100)))
        jobs.append(("epic", "3 rounds", partial(epic, seed=seed + 100)))
        key = {"dataset": name, "attack": attack, "variant": variant, "seed": seed}
        left = [j for j in jobs if not table.has(**key, defence=j[0], strength=j[1])]
        if not left:
            continue
        made, learn, clean = craft()
        for defence, strength, defend in left:
            bar.set_postfix_str(f"{attack}: {defence} {strength}")
            found = row(made, clean, test, partial(defend, learn=learn))
            found |= {"images": len(made[0]), "arch": s.arch, "purifier_data": source}
            table.append(
                key | {"defence": defence, "strength": strength} | found | {"device": str(dev)}
            )


def main(argv: list[str] | None = None, folder=RESULTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "digits"], choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tiny", action="store_true", help="a few images, to test the plumbing")
    options = parser.parse_args(argv)
    dev, table = device.pick(), Table("purification", KEY, folder)
    for seed in options.seeds:
        for name in options.datasets:
            setting = tiny(SETTINGS[name]) if options.tiny else SETTINGS[name]
            one_seed(name, setting, seed, table, dev)
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
