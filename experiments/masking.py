"""Gradient masking, the networks of lesson 10 under several attacks: data/results/masking.csv.

``make results-masking`` trains five networks on 2,000 signs of 24 x 24 pixels for each of 3 seeds:
without defence, distilled, under PGD training, under TRADES, and the first with a ripple on its
logits. AutoAttack (Croce & Hein 2020, arXiv 2003.01690) is torchattacks' version, without the
warnings of its authors' own. Finished rows are kept.
"""

from __future__ import annotations

from functools import partial

import torch
import torchattacks
from torch import Tensor, nn

from experiments.table import Table, facts
from nclib import attacks, data, device, models, training
from nclib.defenses.adversarial_training import pgd_training, trades
from nclib.defenses.distillation import distil

KEY = ("network", "attack", "seed")
EPS, HEIGHT, SPEED = 16 / 255, 0.1, 300.0
ATTACKS = {
    "PGD, 20 steps": partial(attacks.pgd, steps=20),
    "margin PGD, 20 steps": partial(attacks.margin_pgd, steps=20),
    "square, 300 queries": partial(attacks.square, queries=300),
}


class Rippled(nn.Module):
    """``net`` with small fast waves on its logits, the gradient masking of lesson 10."""

    def __init__(self, net: nn.Module, images: Tensor, classes: int) -> None:
        super().__init__()
        self.net, pixels = net, images[0].numel()
        mix = torch.randn(pixels, classes, generator=torch.Generator().manual_seed(0))
        self.register_buffer("mix", (mix / pixels**0.5).to(images.device))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + HEIGHT * torch.sin(SPEED * images).flatten(1) @ self.mix


def networks(train: data.ImageSet, seed: int) -> dict[str, nn.Module]:
    """The five networks of one seed."""
    adam = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0)
    options = {"optimizer": adam, "seed": seed, "progress": False}

    def build() -> nn.Module:
        return models.build("mlp", train, batchnorm=False, seed=seed)

    def hard(loss: training.Loss) -> nn.Module:
        return training.fit(build(), train, epochs=15, loss=loss, **options).model

    ordinary = distil(build, train, 1, epochs=25, **options)[1]
    return {
        "none": ordinary,
        "distillation, T = 100": distil(build, train, 100, epochs=25, **options)[1],
        "PGD": hard(pgd_training(EPS, steps=3)),
        "TRADES": hard(trades(EPS, steps=3)),
        "ripple": Rippled(ordinary, train.images, train.num_classes),
    }


def main() -> None:
    dev = device.pick()
    table = Table("masking", KEY)
    train, test = data.load("signs", n_train=2000, n_test=100, size=24, difficulty=0.5, device=dev)
    for seed in range(3):
        for name, net in networks(train, seed).items():
            key = {"network": name, "seed": seed}
            if table.has(**key, attack="AutoAttack"):
                continue
            held = {"clean": training.accuracy(net, test)}
            for attack, run in ATTACKS.items():
                held[attack] = training.accuracy(net, test, run(net, test.images, test.labels, EPS))
            auto = torchattacks.AutoAttack(net.eval(), eps=EPS, n_classes=train.num_classes)
            held["AutoAttack"] = training.accuracy(net, test, auto(test.images, test.labels))
            for attack, share in held.items():
                row = {"network": name, "attack": attack, "seed": seed, "accuracy": round(share, 4)}
                size = {"eps": round(EPS, 5), "n_train": len(train), "n_test": len(test)}
                table.append(row | size | facts(dev))
            print(key, held, flush=True)


if __name__ == "__main__":
    main()
