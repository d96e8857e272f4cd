"""Adversarial training of small networks: data/results/adversarial.csv, read by lesson 09.

``make results-adversarial`` runs three parts over three seeds: "ways" (one step, seven, TRADES,
at four eps), "poison" (a blended backdoor over its strength and the eps of training), and "long"
(collapse under true and predicted labels): all of them with an MLP on the digits, and the poison
with a small CNN on the road signs, too. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator

from torch import nn

from experiments.table import Table, facts
from nclib import activations, attacks, data, device, geometry, models, poisons, training
from nclib.data import ImageSet
from nclib.defenses import adversarial_training as hardened

KEY = ("dataset", "part", "way", "trained_eps", "strength", "epochs", "seed", "measure", "eps")
BUDGETS = (0.1, 0.2, 0.3, 0.4)
WAYS: dict[str, Callable] = {
    "one step": lambda eps, _: hardened.fast_training(eps, eps, random_start=False),
    "7 steps": lambda eps, _: hardened.pgd_training(eps, steps=7),
    "3 steps": lambda eps, _: hardened.pgd_training(eps, steps=3),
    "TRADES": lambda eps, beta: hardened.trades(eps, beta, steps=3),
}
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
DIGITS = [
    ("ways", "ordinary", 0, 0, 12),
    *(("ways", "one step", eps, 0, 24) for eps in BUDGETS),
    *(("ways", "7 steps", eps, 0, 12) for eps in BUDGETS),
    *(("ways", "TRADES", 0.2, beta, 12) for beta in (1, 3, 10)),
    # strength 0 is the control: the same triggers, clean training images
    *(("poison", "ordinary", 0, alpha, 12) for alpha in (0, *ALPHAS)),
    *(("poison", "3 steps", eps, alpha, 12) for eps in BUDGETS[:3] for alpha in (0, *ALPHAS)),
    *(("long", "ordinary", 0, 0, epochs) for epochs in (12, 150)),
    *(("long", "3 steps", eps, 0, epochs) for eps in (0.1, 0.2) for epochs in (12, 150)),
]
SIGNS = [
    ("poison", way, eps, alpha, 12)
    for way, eps in (("ordinary", 0), ("3 steps", 0.063))  # .063 is 16/255
    for alpha in (0, *ALPHAS[1::2])
]
SETS = {  # the jobs, what data.load gets, the network, its batch
    "digits": (DIGITS, {"n_test": 300}, "mlp", 256),
    "signs": (SIGNS, {"n_train": 1000, "n_test": 200, "size": 24, "difficulty": 0.5}, "cnn", 64),
}


def robust(net: nn.Module, test: ImageSet, eps: float) -> Iterator[tuple[str, float, float]]:
    """Accuracy on clean images, under PGD at .2 and at ``eps``, and under one step of it."""
    x, y = test.images, test.labels
    yield "accuracy", 0, training.accuracy(net, test)
    for k in sorted({0.2, eps} - {0}):
        yield "PGD", k, training.accuracy(net, test, attacks.pgd(net, x, y, k, steps=20))
    if eps:
        yield "FGSM", eps, training.accuracy(net, test, attacks.fgsm(net, x, y, eps))


def collapsed(net: nn.Module, train: ImageSet) -> Iterator[tuple[str, float, float]]:
    """NC1 of clean and attacked training images, with the true and with the predicted labels."""
    hostile = attacks.pgd(net, train.images, train.labels, 0.2, steps=10)
    for k, images in ((0, train.images), (0.2, hostile)):
        features = activations.penultimate(net, images)
        told = training.predict(net, images).argmax(1)
        yield "NC1 true", k, geometry.measure(features, train.labels).nc1
        if len(told.unique()) == train.num_classes and told.bincount().min() > 1:
            yield "NC1 predicted", k, geometry.measure(features, told).nc1
        yield "training accuracy", k, float((told == train.labels).double().mean())


def measured(
    job: tuple, seed: int, train: ImageSet, test: ImageSet, arch: str, batch: int
) -> Iterator[tuple[str, float, float]]:
    """Train one network and yield (measure, eps, value)."""
    part, way, eps, strength, epochs = job
    bad = None
    if part == "poison":
        bad = poisons.blended(train, 0.1, 0, alpha=strength or 0.1, seed=seed)
    given = bad if bad is not None and strength else train  # strength 0: the control, clean images
    loss = WAYS[way](eps, strength) if eps else None
    net = models.build(arch, train, seed=seed)
    recipe = {"epochs": epochs, "lr": 0.1, "batch_size": batch, "seed": seed, "progress": False}
    training.fit(net, given, loss=loss, cache=False, **recipe)
    if part == "ways":
        yield from robust(net, test, eps)
    elif part == "long":
        yield from collapsed(net, train)
    elif strength:
        yield "success", 0, poisons.metrics.success(net, bad, test)
        told = training.predict(net, test.images)[test.labels != 0].argmax(1)
        yield "without the trigger", 0, float((told == 0).double().mean())
        yield "accuracy", 0, training.accuracy(net, test)
    else:
        for alpha in ALPHAS:
            trigger = poisons.blended(train, 0.1, 0, alpha=alpha, seed=seed)
            yield "success without poison", alpha, poisons.metrics.success(net, trigger, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    dev = device.pick()
    table = Table("adversarial", KEY)
    done = {tuple(row[name] for name in KEY[:7]) for row in table.rows.values()}
    for name, seed in itertools.product(options.sets, options.seeds):
        jobs, given, arch, batch = SETS[name]
        train, test = data.load(name, device=dev, **given)
        for job in jobs:
            if tuple(map(str, (name, *job, seed))) in done:
                continue
            print(name, *job, seed, flush=True)
            key = dict(zip(KEY, (name, *job, seed), strict=False))
            rows = [
                key | {"measure": measure, "eps": eps, "value": value} | facts(dev)
                for measure, eps, value in measured(job, seed, train, test, arch, batch)
            ]
            table.append(*rows)
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
