"""Find the poison and remove it: data/results/detection.csv and data/results/correction.csv.

``make results-detection`` walks attack x rate x seed on digits and on 2,000 MNIST images. A cell
trains the victim once, scores it at two epochs and every layer, cuts by every rule, and retrains.
Finished cells are kept, so it can be stopped at any time. About half an hour of one CPU core.
"""

from __future__ import annotations

import argparse
import time
from functools import lru_cache

import torch

from experiments.table import Table
from nclib import activations, correction, data, detection, device, models, poisons, training

# data set: training images (None is all), epochs
SIZES = {"digits": (None, 12), "mnist": (2000, 12), "cifar10": (None, 60)}
EARLY = 3
GRID = [("clean", 0)]
GRID += [(kind, rate) for rate in (0.01, 0.05, 0.1) for kind in ("pixel", "pattern")]
GRID += [("blended", 0.1), ("flip", 0.2)]
LATER = [("pixel", 0.02), ("pattern", 0.02), ("blended", 0.05), ("flip", 0.1), ("flip", 0.4)]
FULL = {("pattern", 0.05), ("flip", 0.2)}  # cells with every method retrained

CELL = ("dataset", "attack", "rate", "seed")


def poison(train, attack: str, rate: float, seed: int):
    """The training set as the victim gets it; the target class moves with the seed."""
    target = 3 * seed % train.num_classes
    if attack in ("pixel", "pattern"):
        return poisons.badnets(train, rate, target, patch=attack, seed=seed)
    if attack == "blended":
        return poisons.blended(train, rate, target, seed=seed)
    return poisons.label_flip(train, rate if attack == "flip" else 0.0, seed=seed)


def victim(train, epochs: int, seed: int):
    """Train on ``train``: the run, and the features of each layer at the early and last epoch."""
    run = training.fit(
        models.build("cnn", train, seed=seed),
        train,
        epochs=epochs,
        seed=seed,
        cache=False,
        progress=False,
        probes={"layer": lambda model: activations.features(model, train.images)},
        probe_at=(EARLY, epochs),
    )
    names = [k for k in run.history if k.startswith("layer/")]
    features = {
        epoch: {k.removeprefix("layer/"): run.history[k][i] for k in names}
        for i, epoch in enumerate((EARLY, epochs))
    }
    return run, features


def score_rows(features: dict, bad: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    """AUROC, TPR and precision of every score at every layer and epoch."""
    rows = []
    for epoch, layers in features.items():
        found = {
            (name, layer): score(hidden, labels)
            for layer, hidden in layers.items()
            for name, score in detection.SCORES.items()
        }
        found["ncc_depth", "all"] = detection.ncc_depth(layers, labels)
        found["random", "all"] = detection.random_score(labels)
        for name in ("robust_distance", "whitened_margin"):
            every = {layer: found[name, layer] for layer in layers}
            found[name, "max z of all"] = detection.combine(every, "max")
        rows += [
            {"epoch": epoch, "score": name, "layer": layer} | detection.evaluate(score, bad)
            for (name, layer), score in found.items()
        ]
    return rows


def masks(layers: dict, bad: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each rule that looks at scores alone would remove; the last two know too much."""
    deep = dict(list(layers.items())[1:])
    scores = {name: detection.robust_distance(hidden, labels) for name, hidden in deep.items()}
    joint = torch.stack([s.log() for s in scores.values()]).mean(0).exp()
    found = {f"rule: {name}": rule(joint, labels) for name, rule in detection.RULES.items()}
    found["rule: agreement"] = detection.agreement(scores, labels)
    rate = float(bad.double().mean())
    return found | {"known rate": detection.known_rate(joint, rate), "oracle": bad}


def repaired(cell: dict, train, test, features, victim_model, epochs: int, missing):
    """Yield each missing method: what it removed, the repaired model or None."""
    seed, bad, labels = cell["seed"], train.is_poisoned.cpu(), train.labels.cpu()
    full = (cell["attack"], cell["rate"]) in FULL

    def retrain(kept):
        model = models.build("cnn", kept, seed=seed + 10)
        options = {"epochs": epochs, "seed": seed + 10, "cache": False, "progress": False}
        return training.fit(model, kept, **options).model

    if missing("none"):
        yield "none", torch.zeros_like(bad), victim_model()
    if missing("consensus") or (full and missing("random")):
        found = correction.consensus(train, seed=seed)
        yield "consensus", found.bad, retrain(correction.remove(train, found.bad))
        yield "second look only", found.rejected, None
        if full:
            mask = correction.random_removal(labels, found.bad, seed)
            yield "random", mask, retrain(correction.remove(train, mask))
    if missing("known rate"):
        for method, mask in masks(features()[EARLY], bad, labels).items():
            cut = full and method in ("rule: mad", "rule: mixture", "oracle")
            cut |= method == "known rate" and bool(bad.any())
            yield method, mask, retrain(correction.remove(train, mask)) if cut else None
    if not full:
        return
    if cell["attack"] == "flip":
        if missing("relabel"):
            yield "relabel", None, retrain(correction.relabel(train, features()[EARLY]))
        return
    clean = test.subset(data.stratified(test.labels, len(train) // 20, seed))  # 5% clean, from test
    for method, tune in (("fine-tune", correction.fine_tune), ("etf head", correction.etf_head)):
        if missing(method):
            options = {"cache": False, "progress": False, "seed": seed}
            yield method, None, tune(victim_model(), clean, **options).model


def one(cell: dict, scores: Table, corrections: Table) -> None:
    """Run what is missing of one cell and write its rows."""
    n_train, epochs = SIZES[cell["dataset"]]
    n_test = 1000 if cell["dataset"] == "mnist" else None
    train, test = data.load(
        cell["dataset"], n_train=n_train, n_test=n_test, seed=cell["seed"], device=device.pick()
    )
    train = poison(train, cell["attack"], cell["rate"], cell["seed"])
    bad, labels = train.is_poisoned.cpu(), train.labels.cpu()
    trained = lru_cache(None)(lambda: victim(train, epochs, cell["seed"]))  # only where needed
    last = {"epoch": epochs, "score": "random", "layer": "all"}
    if bad.any() and not scores.has(**cell, **last):
        scores.append(*(cell | row for row in score_rows(trained()[1], bad, labels)))
    rows = []
    missing = lambda method: not corrections.has(**cell, method=method)  # noqa: E731
    parts = (lambda: trained()[1], lambda: trained()[0].model)
    for method, mask, model in repaired(cell, train, test, *parts, epochs, missing):
        row = cell | {"method": method, "poison": int(bad.sum())}
        if mask is not None:
            row |= {
                "poison_left": int((bad & ~mask).sum()),
                "clean_removed": float((mask & ~bad).sum() / (~bad).sum()),
            }
        if model is not None:
            row |= correction.outcome(model, test, train)
        rows.append(row)
    corrections.append(*rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["digits", "mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    names = list(options.datasets)
    if device.pick().type == "cuda":
        names += ["cifar10"]
    scores = Table("detection", (*CELL, "epoch", "score", "layer"))
    corrections = Table("correction", (*CELL, "method"))
    jobs = [
        {"dataset": name, "attack": attack, "rate": rate, "seed": seed}
        for grid in (GRID, LATER)  # all data sets and seeds have the grid before the rest begins
        for name in dict.fromkeys(names)
        for seed in options.seeds
        for attack, rate in grid
    ]
    for cell in jobs:
        if not all(corrections.has(**cell, method=m) for m in ("consensus", "known rate")):
            start = time.perf_counter()
            one(cell, scores, corrections)
            print(*cell.values(), f"{time.perf_counter() - start:.0f} s", flush=True)
    print(f"wrote {scores.path} and {corrections.path}")


if __name__ == "__main__":
    main()
