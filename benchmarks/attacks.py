"""FGSM, PGD and C&W beside foolbox, ART and torchattacks: same model, same images, one run.

``python benchmarks/attacks.py`` prints a table and writes its rows into data/results/bench.csv.
Ours and the peer take turns; the figures are medians. On a CPU it measures the processor time of
one thread, so that other programs on the machine do not count; elsewhere wall time.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.table import Table  # noqa: E402
from nclib import attacks, data, device, models, training  # noqa: E402

EPS, ALPHA, STEPS = 0.1, 0.02, 20
Run = Callable[[], Tensor]


def foolbox(model: nn.Module, x: Tensor, y: Tensor, cw_steps: int) -> dict[str, Run]:
    import foolbox as fb

    peer, a = fb.PyTorchModel(model, bounds=(0, 1), device=x.device), fb.attacks
    walk = {"steps": STEPS, "random_start": False}
    fgsm = a.LinfFastGradientAttack(random_start=False)
    pgd = a.LinfPGD(abs_stepsize=ALPHA, **walk)
    pgd_l2 = a.L2PGD(abs_stepsize=10 * ALPHA, **walk)
    cw = a.L2CarliniWagnerAttack(steps=cw_steps)
    return {
        "FGSM": lambda: fgsm.run(peer, x, y, epsilon=EPS),
        "PGD Linf": lambda: pgd.run(peer, x, y, epsilon=EPS),
        "PGD L2": lambda: pgd_l2.run(peer, x, y, epsilon=10 * EPS),
        "C&W L2": lambda: cw.run(peer, x, y),
    }


def art(model: nn.Module, x: Tensor, y: Tensor, cw_steps: int) -> dict[str, Run]:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    shape, kind = tuple(x.shape[1:]), "cpu" if x.device.type == "cpu" else "gpu"
    peer = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type=kind
    )
    images, labels, shared = x.cpu().numpy(), y.cpu().numpy(), {"batch_size": len(x)}
    walk = {"max_iter": STEPS, "verbose": False, **shared}
    fgsm = evasion.FastGradientMethod(peer, eps=EPS, **shared)
    pgd = evasion.ProjectedGradientDescent(peer, eps=EPS, eps_step=ALPHA, **walk)
    pgd_l2 = evasion.ProjectedGradientDescent(
        peer, norm=2, eps=10 * EPS, eps_step=10 * ALPHA, **walk
    )
    return {
        name: lambda attack=attack: torch.from_numpy(attack.generate(images, labels)).to(x.device)
        for name, attack in (("FGSM", fgsm), ("PGD Linf", pgd), ("PGD L2", pgd_l2))
    }


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, cw_steps: int) -> dict[str, Run]:
    import torchattacks as ta

    fgsm = ta.FGSM(model, eps=EPS)
    pgd = ta.PGD(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False)
    pgd_l2 = ta.PGDL2(
        model, eps=10 * EPS, alpha=10 * ALPHA, steps=STEPS, random_start=False, eps_for_division=0
    )
    named = {"FGSM": fgsm, "PGD Linf": pgd, "PGD L2": pgd_l2}  # its C&W has no search for c
    return {name: lambda attack=attack: attack(x, y) for name, attack in named.items()}


def ours(model: nn.Module, x: Tensor, y: Tensor, cw_steps: int) -> dict[str, Run]:
    a = attacks
    walk = {"steps": STEPS, "random_start": False}
    return {
        "FGSM": lambda: a.fgsm(model, x, y, EPS),
        "PGD Linf": lambda: a.pgd(model, x, y, EPS, ALPHA, **walk),
        "PGD L2": lambda: a.pgd(model, x, y, 10 * EPS, 10 * ALPHA, norm="L2", **walk),
        "C&W L2": lambda: a.cw_l2(model, x, y, steps=cw_steps),
    }


def seconds(run: Run, where: torch.device) -> tuple[float, Tensor]:
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    device.synchronize(where)
    start = clock()
    result = run()
    device.synchronize(where)
    return clock() - start, result


def pair(ours: Run, peer: Run, where: torch.device, peer_first: bool) -> tuple:
    if peer_first:
        return (seconds(peer, where), seconds(ours, where))[::-1]
    return seconds(ours, where), seconds(peer, where)


def outcome(name: str, model: nn.Module, x: Tensor, y: Tensor, ours: Tensor, peer: Tensor) -> str:
    """What is equal, in words: the images, or the success and the mean distance."""
    if name != "C&W L2":
        apart = (ours - peer).abs().max()
        if apart <= 1e-6:
            return f"images differ by at most {apart:.0e}"
        hits = [training.predict(model, made).argmax(1) == y for made in (ours, peer)]
        share = [float(hit.float().mean()) for hit in hits]
        return f"accuracy {share[0]:.3f}; peer {share[1]:.3f}"
    parts = []
    for made in (ours, peer):
        wrong = training.predict(model, made).argmax(1) != y
        wrong &= made.flatten(1).amax(1) > 0  # foolbox marks a failure by a black image
        far = (made - x).flatten(1).norm(dim=1)[wrong].mean()
        parts.append(f"{wrong.float().mean():.3f} at L2 {far:.4f}")
    return f"success {parts[0]}; peer {parts[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=21, help="turns of ours and the peer")
    parser.add_argument("--cw-steps", type=int, default=400)
    parser.add_argument("--cw-pairs", type=int, default=2)
    args = parser.parse_args()

    where = device.pick()
    torch.set_num_threads(1)
    train, test = data.load("digits", device=where)
    model = training.fit(models.build("cnn", train), train, epochs=10, progress=False).model.eval()
    right = training.predict(model, test.images).argmax(1) == test.labels
    test = test.subset(right).subset(torch.arange(args.images))
    x, y = test.images, test.labels

    machine = f"{platform.machine()}, 1 thread, processor time"
    if where.type != "cpu":
        machine = f"{where.type}, wall time"
    table = Table("bench", ("comparison", "machine"))
    mine = ours(model, x, y, args.cw_steps)
    print(f"{args.images} digits, CNN, {machine}; torch {torch.__version__}")
    print(f"{'comparison':<26}{'ours s':>9}{'peer s':>9}{'ratio':>7}  outcome")
    for package, peers in (("foolbox", foolbox), ("art", art), ("torchattacks", torchattacks)):
        try:
            importlib.import_module(package)
        except ImportError:
            print(f"{package}: not installed, skipped")
            continue
        release = {"art": "adversarial-robustness-toolbox"}.get(package, package)
        for name, peer in peers(model, x, y, args.cw_steps).items():
            pairs = args.cw_pairs if name == "C&W L2" else args.pairs
            if name != "C&W L2":  # the first call of anything is slow
                mine[name](), peer()
            turns = [pair(mine[name], peer, where, turn % 2 == 1) for turn in range(pairs)]
            (_, our_images), (_, peer_images) = turns[-1]
            our_s, peer_s = (statistics.median(turn[i][0] for turn in turns) for i in (0, 1))
            said = outcome(name, model, x, y, our_images, peer_images)
            row = f"{name} / {package}"
            print(f"{row:<26}{our_s:>9.4f}{peer_s:>9.4f}{our_s / peer_s:>7.2f}  {said}", flush=True)
            table.add(
                {
                    "comparison": row,
                    "ours_s": our_s,
                    "peer_s": peer_s,
                    "ratio": our_s / peer_s,
                    "equal_outcome": said,
                    "versions": f"torch {torch.__version__}, {package} {version(release)}",
                    "machine": machine,
                }
            )


if __name__ == "__main__":
    main()
