"""Our strongest attacks beside AutoAttack on the road signs: data/results/autoattack.csv.

``make results-autoattack`` attacks the networks of lesson 06 (2,000 signs, small CNN). AutoAttack
(Croce & Hein 2020, arXiv 2003.01690) is torchattacks' version: two APGD, FAB and Square in turn.
"""

from __future__ import annotations

from functools import partial

import torch
import torchattacks

from experiments.table import Table, facts
from nclib import attacks, data, device, models, training

KEY = ("dataset", "attack", "eps", "seed")
N_TRAIN, N_TEST = 2000, 200
OURS = {
    "FGSM": attacks.fgsm,
    "PGD, 20 steps": partial(attacks.pgd, steps=20),
    "margin PGD, 40 steps, 2 starts": partial(attacks.margin_pgd, steps=40, restarts=2),
}


def main() -> None:
    dev = device.pick()
    table = Table("autoattack", KEY)
    train, test = data.load("signs", n_train=2 * N_TRAIN, n_test=1000, device=dev)
    train, test = (part.subset(torch.arange(n)) for part, n in ((train, N_TRAIN), (test, N_TEST)))
    for seed in range(3):
        model = models.build("cnn", train, seed=seed)
        training.fit(model, train, epochs=10, lr=0.05, batch_size=64, seed=seed)
        for eps in (2, 4, 8):
            key = {"dataset": train.name, "eps": f"{eps}/255", "seed": seed}
            if table.has(**key, attack="AutoAttack"):
                continue
            found = attacks.robustness(model, test.images, test.labels, OURS, [eps / 255])
            shares = dict(zip(found.attack, found.accuracy, strict=True))
            auto = torchattacks.AutoAttack(model, eps=eps / 255, n_classes=train.num_classes)
            shares["AutoAttack"] = training.accuracy(model, test, auto(test.images, test.labels))
            for name, share in shares.items():
                row = key | {"attack": name, "accuracy": round(share, 4)}
                table.append(row | {"n_train": N_TRAIN, "n_test": N_TEST, **facts(dev)})
            print(key, shares, flush=True)


if __name__ == "__main__":
    main()
