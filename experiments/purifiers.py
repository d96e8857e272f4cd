"""Train the purifiers of lessons 12 and 13 and write their weights: ``make purifiers``.

An energy and a diffusion model of 8,000 road signs, of another draw than the lessons' own: about
five minutes on one CPU core. A file that is there is kept; ``--again`` trains it anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nclib import data, device
from nclib.defenses.purification import Energy, pretrained, store

LIMIT = 300_000  # bytes per file
IMAGES, DRAW = 8000, 1000  # the lessons draw their signs with the seeds 0, 1, 2, ...


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=pretrained.KINDS, choices=pretrained.KINDS)
    parser.add_argument("--again", action="store_true", help="train what is there already")
    parser.add_argument("--folder", type=Path, default=pretrained.WEIGHTS)
    parser.add_argument("--share", type=float, default=1.0, help="of the updates, to try it out")
    options = parser.parse_args(argv)
    for kind in options.kinds:
        path = options.folder / f"signs-{kind}.safetensors"
        if path.exists() and not options.again:
            print(f"{path.name}: kept; --again trains it anew")
            continue
        few = {"n_train": IMAGES, "n_test": 10, "seed": DRAW, "device": device.pick()}
        model = pretrained.trained(kind, data.load("signs", **few)[0].images, options.share)
        if isinstance(model, Energy) and model.diverged:
            print("the energy diverged; nothing is written")
            return 1
        made = {"command": "make purifiers ARGS=--again", "data": f"{IMAGES} signs, seed {DRAW}"}
        store.save(model, path, **made, share=options.share, **pretrained.OPTIONS[kind])
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes (at most {LIMIT:,})")
        if path.stat().st_size >= LIMIT:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
