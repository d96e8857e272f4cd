"""The transplant test, attack by attack: data/results/transplant.csv.

``make results-transplant`` walks data set x attack x rate x seed. A row says what the verdict was,
what went, and what accuracy and success are before, after, and without any poison (``_oracle``).
The cut rules in ``nclib.correction.verdict`` were fixed on the first rows of ``--datasets digits
signs``, with two looks at CIFAR-10 that are named there. Finished rows are kept. About ten seconds
of CPU time a row on the digits, two minutes on 4,000 signs; ``--datasets "1000 signs"`` and the
like are small sets, with rows in transplant_small.csv.

``--controls`` plants known poison in clean sets instead and counts what the whole procedure finds
there, and whom it accuses: data/results/transplant_controls.csv; half a minute a seed on digits.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

from experiments.table import RESULTS, Table, facts
from nclib import correction, data, device, models, training
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet
from nclib.scoreboard.attacks import poisoned
from nclib.scoreboard.grids import SIZES

ATTACKS: list[tuple[str, float]] = [("clean", 0), ("badnets", 0.05), ("blended", 0.1)]
ATTACKS += [("badnets", 0.01), ("flip", 0.2), ("clean_label", 0.05), ("wanet", 0.1)]
ATTACKS += [("sticker", 0.05), ("adaptive_blend", 0.1), ("adaptive_patch", 0.1)]
ATTACKS += [("input_aware", 0.1), ("all_to_all", 0.1), ("two", 0.05), ("sig", 0.05)]
ATTACKS += [("flip_badnets", 0.05), ("each_class", 0.1), ("roaming", 0.05), ("permuted", 0.05)]
ATTACKS += [("badnets", 0.005), ("badnets", 0.02), ("badnets", 0.1), ("badnets", 0.2)]
ATTACKS += [("blended", 0.01), ("blended", 0.05), ("blended", 0.2), ("flip", 0.05)]
ATTACKS += [("sticker", 0.01), ("sticker", 0.1), ("wanet", 0.05), ("wanet", 0.2)]
ATTACKS += [("clean_label", 0.02), ("sig", 0.02), ("roaming", 0.1), ("roaming_three", 0.05)]
ATTACKS += [("roaming_one", 0.05), ("one_source", 0.05)]
SMALL = {"400 signs": (400, 32), "600 signs": (600, 32), "1000 signs": (1000, 24)}  # images, size
COLOUR = {"sticker"}  # attacks that only the drawn signs know
KEY = ("dataset", "attack", "rate", "seed")
INNOCENT, SHUFFLED = "a class without a trigger, accused", "a class of shuffled groups, accused"
EVIDENCE = ("success", "without", "control", "base", "keeps", "keeps_control", "sure", "kinds")
EVIDENCE += ("kin", "variety")


def victim(train: ImageSet, epochs: int, seed: int) -> torch.nn.Module:
    """A model trained on ``train`` alone."""
    model = models.build("cnn", train, seed=seed)
    run = training.fit(model, train, epochs=epochs, seed=seed, cache=False, progress=False)
    return run.model


def poison(train: ImageSet, attack: str, rate: float, epochs: int, seed: int) -> PoisonedSet:
    """The training set as the victim gets it, by the board's table of attacks."""
    name = "badnets" if attack == "permuted" else attack
    return poisoned(train, name, rate, seed, lambda: victim(train, epochs, seed + 100))


def right(verdict: correction.Verdict, attack: str, target: int | None, classes: int) -> bool:
    """Whether the verdict names what is there."""
    if attack in ("clean", "permuted"):
        return verdict.call != "backdoor" if attack == "permuted" else verdict.call == "clean"
    if attack == "flip":
        return verdict.call == "wrong labels"
    if attack in ("all_to_all", "each_class"):  # most of the classes
        return 2 * len(verdict.classes) > classes
    assert target is not None
    wanted = {target, (target + 4) % classes} if attack == "two" else {target}
    return set(verdict.classes) == wanted


def evidence(finding: correction.Finding) -> dict[str, float | str]:
    """What was measured of a group; "" where it was not."""
    found = {name: getattr(finding, name) for name in EVIDENCE}
    return {name: "" if value is None or value != value else value for name, value in found.items()}


def groups(train: PoisonedSet, verdict: correction.Verdict) -> list[dict]:
    """The groups that were tested, each with its evidence and what it really is."""
    bad, labels = train.harmful.cpu(), train.labels.cpu()
    return [
        {
            "number": number,
            "class": finding.label,
            "part": float(finding.group.sum() / (labels == finding.label).sum()),
            "purity": float(bad[finding.group].double().mean()),
            "poisoned": float(bad[labels == finding.label].double().mean()),
            "source": "" if finding.source is None else finding.source,
            "call": finding.call,
        }
        | evidence(finding)
        for number, finding in enumerate(verdict.findings)
    ]


def measured(
    train: PoisonedSet, test: ImageSet, attack: str, epochs: int, seed: int
) -> tuple[dict, list[dict]]:
    """The columns of one row beside its key, and the groups behind it."""
    permute = attack == "permuted"
    verdict = correction.transplant(train, epochs=epochs, seed=seed, permute=permute)
    before = victim(train, epochs, seed + 200)
    after = before
    if verdict.mask.any():
        after = victim(correction.remove(train, verdict.mask), epochs, seed + 201)
    oracle = victim(train.subset(~train.is_poisoned), epochs, seed + 202)
    bad, mask = train.harmful.cpu(), verdict.mask
    innocent = ~train.is_poisoned.cpu()
    row = {
        "call": verdict.call,
        "classes": " ".join(map(str, verdict.classes)),
        "right": int(right(verdict, attack, train.target, train.num_classes)),
        "tpr": float((mask & bad).sum() / bad.sum().clamp_min(1)),
        "fpr": float((mask & innocent).sum() / innocent.sum()),
    }
    for name, model in (("", before), ("_after", after), ("_oracle", oracle)):
        found = correction.outcome(model, test, train)
        row |= {k + name: found[k] for k in ("accuracy", "asr") if k in found}
    if verdict.findings:
        first = verdict.findings[0]
        row |= evidence(first)
        if train.trigger is not None:
            row["trigger_correlation"] = likeness(train, first.trigger)
    row |= {"wrong_labels": verdict.wrong_labels.share, "plain": int(verdict.wrong_labels.plain)}
    row |= {"trainings": verdict.trainings, "cpu_seconds": verdict.seconds}
    return row, groups(train, verdict)


def likeness(train: PoisonedSet, found: Tensor) -> float:
    """Correlation of the recovered trigger with what the true one adds to images on average."""
    clean = train.subset(~train.is_poisoned)
    true = (train.triggered(clean) - clean.images).mean(0).cpu()
    return float(torch.corrcoef(torch.stack([true.flatten(), found.flatten()]))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["digits", "signs", "mnist"])
    parser.add_argument("--attacks", nargs="+", help="names, or name:rate")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--share", default="0/1", help="I/N: every N-th row, from the I-th on")
    parser.add_argument("--controls", action="store_true", help="planted controls, no attacks")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    options = parser.parse_args()
    warnings.filterwarnings("error", message="training stopped")  # no row of half a training
    if options.controls:
        for dataset in options.datasets:
            for seed in options.seeds:
                controls(dataset, seed, options.out)
        return
    first, every = map(int, options.share.split("/"))
    jobs = [
        (dataset, attack, rate, seed)
        for attack, rate in ATTACKS
        for seed in options.seeds
        for dataset in options.datasets
        if options.attacks is None or {attack, f"{attack}:{rate:g}"} & set(options.attacks)
        if attack not in COLOUR or dataset == "signs"
    ]
    for job in jobs[first::every]:
        run(*job, options.out)


def run(dataset: str, attack: str, rate: float, seed: int, folder: Path) -> None:
    """Measure one row and its groups, unless the row is there."""
    name = "transplant_small" if dataset in SMALL else "transplant"
    table, dev = Table(name, KEY, folder), device.pick()
    key = {"dataset": dataset.split("/")[-1], "attack": attack, "rate": rate, "seed": seed}
    if table.has(**key):
        return
    start = time.perf_counter()
    train, test, epochs = loaded(dataset, seed, dev)
    row, tested = measured(poison(train, attack, rate, epochs, seed), test, attack, epochs, seed)
    row |= {"seconds": round(time.perf_counter() - start, 1)}
    if tested and dataset not in SMALL:
        Table("transplant_groups", (*KEY, "number"), folder).append(*(key | g for g in tested))
    table.append(key | row | facts(dev))
    print(*key.values(), row["call"], row["classes"], round(row["seconds"]), "s", flush=True)


def loaded(dataset: str, seed: int, dev: torch.device) -> tuple[ImageSet, ImageSet, int]:
    """Training set, test set, and how many epochs a network sees the first."""
    if dataset in SMALL:
        count, size = SMALL[dataset]
        found = data.load("signs", n_train=count, n_test=800, size=size, seed=seed, device=dev)
        return *found, 12
    n_train, n_test, epochs, size, *_ = SIZES.get(dataset, SIZES["cifar10"])
    train, test = data.load(
        dataset, n_train=n_train, n_test=n_test, size=size, seed=seed, device=dev
    )
    return train, test, epochs


def controls(dataset: str, seed: int, folder: Path) -> None:
    """Count what the test finds of known poison in a clean set, unless the rows are there."""
    key = {"dataset": dataset.split("/")[-1], "seed": seed}
    table, dev = Table("transplant_controls", (*key, "kind"), folder), device.pick()
    if table.has(**key, kind=SHUFFLED):
        return
    train, _, epochs = loaded(dataset, seed, dev)
    found = correction.planted(train, runs=1, seed=seed, epochs=epochs)
    counts = found.found | {INNOCENT: found.accused, SHUFFLED: found.permuted}
    cost = {"trainings": found.trainings, "cpu_seconds": found.seconds} | facts(dev)
    for kind, (times, of) in counts.items():
        table.append(key | {"kind": kind, "times": times, "of": of, "share": times / of} | cost)
    print(*key.values(), found, f"{found.seconds:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
