"""What washes a poison out of road signs, and what does not: data/results/purification.csv.

``make results-purification`` poisons 800 signs (a faint wave over the whole image, and one that
knows the diffusion), washes the set with the course's purifiers and with simpler
means, and trains a small CNN on what comes out: three seeds (which images are poisoned, and the
networks), about five minutes of one CPU core.
Finished rows are kept. The rows on photographs come from ``experiments.photographs.purification``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from experiments.table import RESULTS, Table, facts
from nclib import activations, data, device, models, poisons, training
from nclib.data import ImageSet
from nclib.defenses import purification as pure
from nclib.defenses import squeezing
from nclib.defenses.purification import controls
from nclib.doors import seeded
from nclib.poisons import PoisonedSet, metrics

KEY = ("dataset", "attack", "defence", "seed")
TARGET = 2
ATTACKS = {"wave": 6, "wave that knows": 4}  # the number of stripes
WAVE = 12 / 255  # the height of the waves: less than half of the noise that the purifiers add
STEPS, T = 50, 125  # of Langevin, of the diffusion
AXES = 150
LIKE_ENERGY, LIKE_DIFFUSION = 0.106, 0.2  # the noise that these add, as a deviation
Wash = Callable[[Tensor], Tensor]


def poisoned(train: ImageSet, attack: str, seed: int) -> PoisonedSet:
    """A tenth of the set gets a faint wave and a false label."""
    options = {"delta": WAVE, "frequency": ATTACKS[attack], "relabel": True, "seed": seed}
    return poisons.sig(train, 0.1, TARGET, **options)


def washes(others: Tensor, seed: int = 0) -> dict[str, Wash]:
    """Every defence: a function of images alone."""
    energy, diffusion = (pure.purifier(kind, "signs", others) for kind in ("energy", "diffusion"))
    run = {"seed": seed, "progress": False}
    axes = controls.main_axes(others, AXES)

    def noisy(x: Tensor, sigma: float) -> Tensor:
        return squeezing.noise(x, sigma, seeded(seed, x.device))

    return {
        "none": lambda x: x,
        "noise like the energy's": partial(noisy, sigma=LIKE_ENERGY),
        "noise like the diffusion's": partial(noisy, sigma=LIKE_DIFFUSION),
        "diffusion": lambda x: pure.purify(x, diffusion, t=T, **run),
        "energy": lambda x: pure.purify(x, energy, steps=STEPS, **run),
        "median": partial(squeezing.median, size=3),
        "hidden pixels": partial(controls.hidden, seed=seed),
        "JPEG": partial(squeezing.jpeg, quality=50),
        "main axes": axes,
        "both": lambda x: pure.naive(x, energy, diffusion, steps=STEPS // 2, t=T // 2, **run),
    }


def learn(part: ImageSet, seed: int) -> nn.Module:
    """The victim: a small CNN, eight epochs."""
    model = models.build("cnn", part, seed=seed)
    training.fit(model, part, epochs=8, lr=0.05, batch_size=32, seed=seed, progress=False)
    return model


def apart(model: nn.Module, part: PoisonedSet, clean_mean: bool) -> float:
    """How far the poisons lie from the class mean of the target, clean images = 1."""
    hidden = activations.penultimate(model, part.images)
    bad, mine = part.is_poisoned, part.labels == part.target
    middle = hidden[mine & ~bad if clean_mean else mine].mean(0)
    far = (hidden - middle).norm(dim=1)
    return float(far[bad].mean() / far[mine & ~bad].mean())


def row(
    bad: PoisonedSet, dry: Tensor, wash: Wash, clean: nn.Module, test: ImageSet, seed: int
) -> dict:
    """Train on the washed set; ``dry`` are the victim's images without poison, washed."""
    images = dry.clone()
    images[bad.is_poisoned] = wash(bad.images[bad.is_poisoned])
    part = replace(bad, images=images)
    model = learn(part, seed + 100)
    rest = test.subset(test.labels != TARGET)
    few, marked = rest.images[:150], bad.triggered(rest)[:150]
    pattern = (marked - few).mean(0)
    called = training.predict(model, rest.images).argmax(1) == TARGET
    return metrics.outcome(model, clean, bad, test) | {
        "base": float(called.float().mean()),  # the target's name without a trigger
        "contrast": controls.contrast(wash(few), wash(marked), pattern),
        "distance_clean_mean": apart(model, part, True),
        "distance_own_mean": apart(model, part, False),
        "poisons": int(bad.is_poisoned.sum()),
        "images": len(bad),
    }


def main(argv: list[str] | None = None, folder=RESULTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    options = parser.parse_args(argv)
    dev, table = device.pick(), Table("purification", KEY, folder)
    size = {"n_train": options.images, "device": dev}
    train, test = data.load("signs", n_test=500, **size)
    others, _ = data.load("signs", n_test=10, seed=1000, **size)
    for defence, wash in washes(others.images).items():
        dry: Tensor | None = None
        for attack in options.attacks:
            for seed in options.seeds:
                key = {"dataset": "signs", "attack": attack, "defence": defence, "seed": seed}
                if table.has(**key):
                    continue
                dry = wash(train.images) if dry is None else dry
                bad, clean = poisoned(train, attack, seed), learn(train, seed)
                found = row(bad, dry, wash, clean, test, seed)
                print(*key.values(), {k: round(v, 3) for k, v in found.items()}, flush=True)
                table.append(key | found | facts(dev))
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
