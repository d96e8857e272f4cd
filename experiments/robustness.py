"""Defence x attack x eps x seed on digits and MNIST: data/results/robustness.csv.

``make results-robustness`` runs what a CPU can do: an MLP under every defence, and the small CNN
without defence and under PGD adversarial training. Where a CUDA device is at hand, the CNN gets the
whole MNIST and ResNet-18 trains on CIFAR-10 at eps 8/255. Finished rows are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from experiments.table import Table, facts
from nclib import attacks, data, device, models, training
from nclib.data import ImageSet
from nclib.defenses import adversarial_training as hardened
from nclib.defenses.distillation import distil

KEY = ("dataset", "arch", "defence", "attack", "norm", "eps", "seed")
DISTILLED = "distillation, T = 100"


@dataclass(frozen=True)
class Job:
    """One data set and network: sizes, the eps of the training, and the eps of the attacks."""

    dataset: str
    arch: str
    n_train: int | None
    n_test: int | None
    epochs: int
    eps: float
    budgets: tuple[float, ...]
    defences: tuple[str, ...]
    steps: int = 5  # of the inner attack


ALL = ("none", "PGD", "fast", "FGSM", "TRADES", DISTILLED)
SMALL = [
    Job("digits", "mlp", None, 300, 20, 0.2, (0.0, 0.1, 0.2), ALL),
    Job("mnist", "mlp", 4000, 300, 10, 0.1, (0.0, 0.1, 0.2, 0.3), ALL),
    Job("digits", "cnn", None, 300, 15, 0.2, (0.0, 0.1, 0.2), ("none", "PGD")),
    Job("mnist", "cnn", 2000, 300, 10, 0.3, (0.0, 0.1, 0.2, 0.3), ("none", "PGD")),
]
WIDE = tuple(k / 255 for k in (0, 4, 8))
LARGE = [
    Job("mnist", "cnn", None, 1000, 20, 0.3, (0.0, 0.1, 0.2, 0.3), ALL[:-1], 10),
    Job("cifar10", "resnet18", None, 1000, 30, 8 / 255, WIDE, ALL[:-1], 10),
]


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 5e-3, weight_decay=0)


def defended(job: Job, defence: str, train: ImageSet, seed: int) -> nn.Module:
    """A network trained under this defence."""
    if defence == DISTILLED:

        def build() -> nn.Module:
            return models.build(job.arch, train, seed=seed, batchnorm=False)

        options = {"epochs": 2 * job.epochs, "optimizer": adam, "seed": seed, "cache": False}
        return distil(build, train, 100, **options)[1]
    losses: dict[str, Callable] = {
        "PGD": partial(hardened.pgd_training, steps=job.steps),
        "fast": hardened.fast_training,
        "FGSM": lambda eps: hardened.fast_training(eps, eps, random_start=False),
        "TRADES": partial(hardened.trades, steps=job.steps),
    }
    loss = losses[defence](job.eps) if defence in losses else None
    model = models.build(job.arch, train, seed=seed)
    training.fit(model, train, epochs=job.epochs, lr=0.05, loss=loss, seed=seed, cache=False)
    return model


def measured(job: Job, model: nn.Module, test: ImageSet) -> list[dict]:
    """Accuracy under every attack: Linf at the budgets, and C&W at three L2 lengths."""
    linf = {
        "FGSM": attacks.fgsm,
        "PGD, 20 steps": partial(attacks.pgd, steps=20),
        "margin PGD, 20 steps": partial(attacks.margin_pgd, steps=20),
        "square, 300 queries": partial(attacks.square, queries=300),
    }
    table = attacks.robustness(model, test.images, test.labels, linf, job.budgets)
    rows = [dict(row, norm="Linf") for row in table.to_dict("records")]
    few = test.subset(torch.arange(min(100, len(test))))
    cw = partial(attacks.cw_l2, steps=100, lr=0.05, c=1.0, search_steps=4)
    table = attacks.robustness(model, few.images, few.labels, {"C&W": cw}, (0.5, 1.0, 2.0))
    return rows + [dict(row, norm="L2") for row in table.to_dict("records")]


def run(job: Job, seed: int, table: Table, dev: torch.device) -> None:
    """All rows of one job and seed that the table does not have yet."""
    train, test = data.load(job.dataset, n_train=job.n_train, n_test=job.n_test, device=dev)
    for defence in job.defences:
        key = {"dataset": job.dataset, "arch": job.arch, "defence": defence, "seed": seed}
        # C&W is the last thing measured: with its row the others are there, too.
        if table.has(**key, attack="C&W", norm="L2", eps=2.0):
            continue
        print(f"{job.dataset} {job.arch}, {defence}, seed {seed} on {dev}", flush=True)
        model = defended(job, defence, train, seed)
        about = {
            "n_train": job.n_train or "all",
            "n_test": len(test),
            "trained_eps": job.eps if defence in ALL[1:5] else "",
            **facts(dev),
        }
        for row in measured(job, model, test):
            row["eps"] = round(row["eps"], 6)
            table.append({name: (key | row)[name] for name in (*KEY, "accuracy")} | about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["digits", "mnist", "cifar10"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    dev = device.pick()
    table = Table("robustness", KEY)
    for job in SMALL if dev.type != "cuda" else [*SMALL[:3], *LARGE]:
        for seed in options.seeds if job.dataset in options.datasets else ():
            run(job, seed, table, dev)
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
