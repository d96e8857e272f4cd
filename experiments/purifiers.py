"""Train the purifiers of lesson 13 and write their weights into the package: ``make purifiers``.

For digits and for MNIST, both at 14 x 14 pixels: an energy and a diffusion model, on the half of
the training set that the lesson's victims never see. About four minutes on one CPU core. A file
that is there is kept; ``--again`` trains it anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nclib import data, device
from nclib.defenses.purification import pretrained, store

LIMIT = 500_000  # bytes per file


def made(name: str, count: int, seed: int, options: dict) -> dict[str, object]:
    """What a file says about itself."""
    side = pretrained.SIZE
    return {
        "command": f"make purifiers, or: python -m experiments.purifiers --datasets {name} --again",
        "data": f"{name}, {side} x {side} pixels, first half of the training set",
        "images": count,
        "seed": seed,
        **options,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--datasets", nargs="+", default=list(pretrained.NAMES), choices=pretrained.NAMES
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="train what is there already")
    parser.add_argument("--folder", type=Path, default=pretrained.WEIGHTS)
    parser.add_argument("--updates", type=int, help="fewer, to try it out")
    options = parser.parse_args(argv)
    few = {"updates": options.updates} if options.updates else {}
    for name in options.datasets:
        files = {kind: options.folder / f"{name}-{kind}.safetensors" for kind in pretrained.KINDS}
        if all(file.exists() for file in files.values()) and not options.again:
            print(f"{name}: kept; --again trains it anew")
            continue
        train, _ = data.load(name, size=pretrained.SIZE, device=device.pick())
        images = pretrained.halves(train)[0].images
        plans = [plan | few for plan in pretrained.OPTIONS[name]]
        run, wash = pretrained.train_mlps(
            images, energy=plans[0], diffusion=plans[1], seed=options.seed
        )
        if run.diverged:
            print(f"{name}: the energy diverged at update {run.diverged}; nothing is written")
            return 1
        for model, plan, file in zip((run.model, wash), plans, files.values(), strict=True):
            store.save(model, file, **made(name, len(images), options.seed, plan))
            print(f"wrote {file.name}, {file.stat().st_size:,} bytes (at most {LIMIT:,})")
            if file.stat().st_size >= LIMIT:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
