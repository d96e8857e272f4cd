"""Every attack on small data, each beside a clean model: data/results/poisons.csv.

``make results-poisons`` runs digits (CNN) and 2,000 images of MNIST at 14 x 14 pixels (MLP), five
seeds each; a seed fixes the poisons, the victims, the network and the order of the samples. The
setting "transfer" trains a new head on 200 images over a frozen backbone; "scratch" trains the
whole network. ``--datasets signs`` (2,000 images, CNN) knows the second, and ``--attacks`` takes
some alone. Success is the attack success rate, or the share of four (gradient matching: two)
victims that end up in the target class; of several attacks at once it is their mean. With a CUDA
device CIFAR-10 with ResNet-18 joins. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from tqdm.auto import tqdm

from experiments.table import Table
from nclib import data, device, models, poisons, training
from nclib.data import ImageSet
from nclib.poisons import PoisonedSet, metrics

# data set: network, epochs, weight decay aside all as in training.fit
NETWORK = {"digits": ("cnn", 20), "mnist": ("mlp", 15), "cifar10": ("resnet18", 60)}
NETWORK["signs"] = ("cnn", 24)
LR = {"signs": 0.05}  # elsewhere the 0.1 of training.fit
BACKBONE = {"digits": ("mlp", 30), "mnist": ("mlp", 15)}
SIZE = {"digits": {}, "mnist": {"n_train": 4000, "n_test": 1000, "size": 14}, "cifar10": {}}
SIZE["signs"] = {"n_train": 4000, "n_test": 1000}
FLIPS = ((0.1, "symmetric"), (0.2, "symmetric"), (0.4, "symmetric"), (0.2, "pair"), (1, "random"))
BADNETS = (0.005, 0.01, 0.02, 0.05, 0.1)
RATES = (*BADNETS, 0.2)
EPS = (0.1, 0.2, 0.3)

Job = tuple[dict, Callable[[], dict]]


def trained(dataset: str, part: ImageSet, seed: int, network: dict = NETWORK) -> torch.nn.Module:
    """The network of ``dataset``, trained on ``part``; clean ones come from the run cache."""
    arch, epochs = network[dataset]
    model = models.build(arch, part, seed=seed)
    options = {"epochs": epochs, "lr": LR.get(dataset, 0.1), "seed": seed}
    training.fit(model, part, progress=False, **options)
    return model


def scratch(dataset: str, seed: int, halves: list[ImageSet], test: ImageSet) -> Iterator[Job]:
    """Attacks on a network trained from scratch: flips, backdoors, clean-label backdoors."""
    train = halves[0]

    def job(attack: str, rate: float, variant: str, make: Callable[[], ImageSet]) -> Job:
        def run() -> dict:
            clean, start = trained(dataset, train, seed), time.perf_counter()
            bad = make()
            crafted = time.perf_counter() - start
            model = trained(dataset, bad, seed + 100)
            goals = [part for part in bad.parts if part.trigger or part.victims is not None]
            row = averaged([metrics.outcome(model, clean, part, test) for part in goals or [bad]])
            return row | {"poisons": int(bad.is_poisoned.sum()), "craft_seconds": round(crafted, 2)}

        return {"attack": attack, "rate": rate, "variant": variant, "setting": "scratch"}, run

    for rate, kind in FLIPS:
        yield job("label_flip", rate, kind, lambda r=rate, k=kind: flip(train, r, k, seed))
    for rate in BADNETS:
        yield job("badnets", rate, "pattern", lambda r=rate: poisons.badnets(train, r, seed=seed))
    options = {"all_to_all": True, "seed": seed}
    for rate in RATES:
        yield job(
            "badnets", rate, "all-to-all", lambda r=rate: poisons.badnets(train, r, **options)
        )
    yield job("blended", 0.1, "alpha .2", lambda: poisons.blended(train, 0.1, seed=seed))
    for delta, name in ((40 / 255, "delta 40/255"), (0.3, "delta .3")):
        yield job("sig", 0.05, name, lambda d=delta: poisons.sig(train, delta=d, seed=seed))
    for s in (0.5, 2.0):
        yield job("wanet", 0.1, f"s {s}", lambda s=s: poisons.wanet(train, 0.1, s=s, seed=seed))
    for make in (poisons.adaptive_blend, poisons.adaptive_patch, poisons.input_aware):
        for rate in RATES:
            yield job(make.__name__, rate, "covered", lambda m=make, r=rate: m(train, r, seed=seed))
    for make in (two, flips_too, per_class):
        yield job(make.__name__, 0.1, "several", lambda m=make: m(train, 0.1, seed))
    yield from clean_labelled(job, dataset, seed, halves)


def clean_labelled(
    job: Callable[..., Job], dataset: str, seed: int, halves: list[ImageSet]
) -> Iterator[Job]:
    """Backdoors whose labels are right; Narcissus learns its trigger on the other half."""
    train, other = halves
    for eps in (0.0, 0.05, 0.1, 0.2, 0.4):
        yield job(
            "clean_label_backdoor",
            0.05,
            f"eps {eps}",
            lambda eps=eps: poisons.clean_label_backdoor(
                train, trained(dataset, train, seed), 0.05, eps=eps, steps=20, seed=seed
            ),
        )
    for eps, name in ((16 / 255, "eps 16/255"), (4 / 255, "eps 4/255")):
        yield job(
            "narcissus",
            0.01,
            name,
            lambda eps=eps: poisons.narcissus(
                train, trained(dataset, other, seed), 0.01, 2, eps=eps, steps=150, seed=seed
            ),
        )


def flip(train: ImageSet, rate: float, kind: str, seed: int) -> ImageSet:
    return poisons.label_flip(train, rate, kind=kind, seed=seed)


def two(train: ImageSet, rate: float, seed: int) -> PoisonedSet:
    # two backdoors at once, each with half of the poisons
    return poisons.blended(
        poisons.badnets(train, rate / 2, 1, seed=seed), rate / 2, 5, seed=seed + 1
    )


def flips_too(train: ImageSet, rate: float, seed: int) -> PoisonedSet:
    # as many flips as samples with a trigger
    return poisons.badnets(poisons.label_flip(train, rate, seed=seed), rate, seed=seed + 1)


def per_class(train: ImageSet, rate: float, seed: int) -> PoisonedSet:
    # a trigger per class: K patterns, each with its own target
    bad, share = train, rate / train.num_classes
    for c in range(train.num_classes):
        bad = poisons.blended(bad, share, c, seed=100 * seed + c)
    return bad


def aims(model, test: ImageSet, count: int, seed: int) -> Iterator[tuple[torch.Tensor, int]]:
    """``count`` test images that the clean model gets right, each with another class to aim at."""
    generator = torch.Generator().manual_seed(seed)
    right = training.predict(model, test.images).argmax(1) == test.labels
    right = right.nonzero().squeeze(1).cpu()
    for place in right[torch.randperm(len(right), generator=generator)[:count]]:
        step = int(torch.randint(1, test.num_classes, (1,), generator=generator))
        yield test.images[place : place + 1], int(test.labels[place] + step) % test.num_classes


def transfer(dataset: str, seed: int, halves: list[ImageSet], test: ImageSet) -> Iterator[Job]:
    """Feature collision and Bullseye: five poisons among 200 images for a new head."""
    known, rest = halves
    fine = rest.subset(data.stratified(rest.labels, 200, seed))

    def job(attack: str, eps: float) -> Job:
        def run() -> dict:
            backbone = trained(dataset, known, seed, BACKBONE)
            clean, rows, start = poisons.retrain_head(backbone, fine), [], time.perf_counter()
            for i, (victim, target) in enumerate(aims(clean, test, 4, seed)):
                options = {"poisons": 5, "eps": eps, "steps": 200, "seed": 10 * seed + i}
                bad = getattr(poisons, attack)(fine, backbone, victim, target, **options)
                model = poisons.retrain_head(backbone, bad)
                rows.append(metrics.outcome(model, clean, bad, test))
            seconds = {"craft_seconds": round((time.perf_counter() - start) / len(rows), 2)}
            return averaged(rows) | {"poisons": 5} | seconds

        return {
            "attack": attack,
            "rate": 0.025,
            "variant": f"eps {eps}",
            "setting": "transfer",
        }, run

    for attack in ("feature_collision", "bullseye_polytope"):
        for eps in EPS:
            yield job(attack, eps)


def matching(dataset: str, seed: int, halves: list[ImageSet], test: ImageSet) -> Iterator[Job]:
    """Gradient matching against an MLP trained from scratch, two victims a seed."""
    train = halves[0]

    def job(rate: float, eps: float) -> Job:
        def run() -> dict:
            clean, rows = trained(dataset, train, seed, BACKBONE), []
            for i, (victim, target) in enumerate(aims(clean, test, 2, seed)):
                start = time.perf_counter()
                options = {"rate": rate, "eps": eps, "restarts": 2, "seed": 10 * seed + i}
                bad = poisons.gradient_matching(train, clean, victim, target, **options)
                seconds = time.perf_counter() - start
                made = bad.images[bad.is_poisoned]
                row = {"alignment": poisons.alignment(clean, made, victim, target)}
                row |= {"poisons": len(made), "craft_seconds": round(seconds, 2)}
                model = trained(dataset, bad, seed + 100, BACKBONE)
                rows.append(row | metrics.outcome(model, clean, bad, test))
            return averaged(rows)

        variant = "eps 16/255" if eps < 0.1 else f"eps {eps}"
        return {
            "attack": "gradient_matching",
            "rate": rate,
            "variant": variant,
            "setting": "scratch",
        }, run

    for rate, eps in ((0.01, 16 / 255), (0.05, 0.3)):
        yield job(rate, eps)


def averaged(rows: list[dict]) -> dict:
    return {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["digits", "mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--attacks", nargs="+", help="names; all by default")
    options = parser.parse_args()
    dev = device.pick()
    if dev.type == "cuda" and "cifar10" not in options.datasets:
        options.datasets.append("cifar10")
    table = Table("poisons", ("attack", "dataset", "setting", "rate", "variant", "seed"))
    for seed in options.seeds:
        for dataset in options.datasets:
            train, test = data.load(dataset, device=dev, seed=seed, **SIZE[dataset])
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
            halves = [train.subset(part) for part in order.chunk(2)]
            plans = [scratch(dataset, seed, halves, test)]
            if dataset in BACKBONE:
                plans += [transfer(dataset, seed, halves, test)]
                plans += [matching(dataset, seed, halves, test)]
            jobs = [job for plan in plans for job in plan]
            if options.attacks:
                jobs = [job for job in jobs if job[0]["attack"] in options.attacks]
            for key, run in tqdm(jobs, desc=f"{dataset}, seed {seed}"):
                key |= {"dataset": dataset, "seed": seed}
                if not table.has(**key):
                    arch = "mlp" if key["setting"] == "transfer" else NETWORK[dataset][0]
                    arch = "mlp" if key["attack"] == "gradient_matching" else arch
                    row = key | {"arch": arch, "train_images": len(halves[0])} | run()
                    table.append(row | {"device": str(dev)})
    print(f"wrote {table.path}")


if __name__ == "__main__":
    main()
