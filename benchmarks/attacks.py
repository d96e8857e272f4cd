"""FGSM, PGD and C&W beside foolbox, ART and torchattacks: same model, same images."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from pairs import WHERE, compare, installed
from torch import Tensor, nn

from nclib import attacks, data, models, training

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


def images_agree(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], str]:
    """Whether the images are equal, else the accuracy that each side leaves."""

    def said(ours: Tensor, peer: Tensor) -> str:
        apart = (ours - peer).abs().max()
        if apart <= 1e-6:
            return f"images differ by at most {apart:.0e}"
        left = [training.predict(model, made).argmax(1) == y for made in (ours, peer)]
        return "accuracy {:.3f}; peer {:.3f}".format(*(float(v.float().mean()) for v in left))

    return said


def distances_agree(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], str]:
    """Success and mean distance of each side."""

    def reached(made: Tensor) -> str:
        wrong = training.predict(model, made).argmax(1) != y
        wrong &= made.flatten(1).amax(1) > 0  # foolbox marks a failure by a black image
        far = (made - x).flatten(1).norm(dim=1)[wrong].mean()
        return f"{wrong.float().mean():.3f} at L2 {far:.4f}"

    return lambda ours, peer: f"success {reached(ours)}; peer {reached(peer)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21, help="turns of ours and the peer")
    parser.add_argument("--cw-steps", type=int, default=400)
    parser.add_argument("--cw-rounds", type=int, default=2)
    args = parser.parse_args()

    train, test = data.load("digits", device=WHERE)
    model = training.fit(models.build("cnn", train), train, epochs=10, progress=False).model.eval()
    right = training.predict(model, test.images).argmax(1) == test.labels
    test = test.subset(right).subset(torch.arange(args.images))
    x, y = test.images, test.labels

    mine = ours(model, x, y, args.cw_steps)
    for package, peers in (("foolbox", foolbox), ("art", art), ("torchattacks", torchattacks)):
        if not installed(package):
            continue
        for name, peer in peers(model, x, y, args.cw_steps).items():
            slow = name == "C&W L2"
            compare(
                name,
                mine[name],
                peer,
                package,
                outcome=(distances_agree if slow else images_agree)(model, x, y),
                rounds=args.cw_rounds if slow else args.rounds,
                warm=not slow,
            )


if __name__ == "__main__":
    main()
