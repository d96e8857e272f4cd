"""Gradient matching and Bullseye Polytope beside ART: the same victim, poisons, steps, restarts.

Beside the time stands what was reached: the alignment for gradient matching; for Bullseye the
relative distance of the poisons' mean from the victim in feature space (ART 1.20 measures its loss
from the bases, not from its target, so its poisons do not approach the victim).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from art.attacks.poisoning import BullseyePolytopeAttackPyTorch, GradientMatchingAttack
from art.estimators.classification import PyTorchClassifier
from pairs import compare

from nclib import data, models, poisons, training
from nclib.poisons import collisions

TARGET, EPS, POISONS = 8, 0.3, 13


def both(reached: Callable[[torch.Tensor], float]) -> Callable[..., str]:
    return lambda ours, theirs: f"reached {reached(ours):.3f}; peer {reached(theirs):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    train, test = data.load("digits", device="cpu")
    victim = test.images[test.labels == 3][:1]
    model = models.build("mlp", train)
    training.fit(model, train, epochs=10, progress=False)
    model.zero_grad(set_to_none=True)
    matching(model, train, victim, options)
    bullseye(model, train, victim, options)


def wrapped(model: torch.nn.Module, train: data.ImageSet) -> PyTorchClassifier:
    shape, loss = train.shape, torch.nn.CrossEntropyLoss()
    return PyTorchClassifier(
        model, loss, shape, train.num_classes, clip_values=(0, 1), device_type="cpu"
    )


def matching(model, train, victim, options) -> None:
    """13 poisons, one restart."""
    classifier = wrapped(model, train)
    images, labels = train.images.numpy(), train.labels.numpy()

    def ours():
        settings = {"rate": POISONS / len(train), "eps": EPS, "steps": options.steps, "restarts": 1}
        bad = poisons.gradient_matching(train, model, victim, TARGET, **settings)
        return bad.images[bad.is_poisoned]

    def theirs():
        settings = {"epsilon": EPS, "max_trials": 1, "max_epochs": options.steps, "verbose": 0}
        attack = GradientMatchingAttack(classifier, (POISONS + 0.5) / len(train), **settings)
        made, _ = attack.poison(victim.numpy(), np.array([TARGET]), images, labels)
        changed = (made != images).reshape(len(made), -1).any(1)
        return torch.from_numpy(made[changed]).float()

    def reached(found):
        return poisons.alignment(model, found, victim, TARGET)

    compare(
        f"gradient matching, {options.steps} steps",
        ours,
        theirs,
        "art",
        outcome=both(reached),
        rounds=options.rounds,
    )


def bullseye(model, train, victim, options) -> None:
    """5 poisons."""
    classifier, layer = wrapped(model, train), list(model.layer_names)[-1]
    settings = {"poisons": 5, "eps": EPS, "steps": options.steps, "layers": [layer]}
    chosen = poisons.bullseye_polytope(train, model, victim, TARGET, **settings).is_poisoned
    base = train.images[chosen].numpy()

    def ours():
        return poisons.bullseye_polytope(train, model, victim, TARGET, **settings).images[chosen]

    def theirs():
        quiet = {"max_iter": options.steps, "epsilon": EPS, "verbose": False}
        attack = BullseyePolytopeAttackPyTorch(classifier, victim.numpy(), layer, **quiet)
        return torch.from_numpy(attack.poison(base, np.eye(10)[[TARGET] * 5])[0])

    def reached(found):
        with torch.no_grad():
            mark = collisions.represent(model, victim, layer)
            return float((collisions.represent(model, found, layer).mean(0) - mark).norm()) / float(
                mark.norm()
            )

    compare(
        f"Bullseye Polytope, {options.steps} steps",
        ours,
        theirs,
        "art",
        outcome=both(reached),
        rounds=options.rounds,
    )


if __name__ == "__main__":
    main()
