"""The purifiers that come with the course, for road signs, and small ones for anything else.

``make purifiers`` trains those of the signs. The files say with which data, seed and command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nclib.data import ImageSet
from nclib.defenses.purification.diffusion import Diffusion, build_diffusion, train_diffusion
from nclib.defenses.purification.energy import Energy, build_energy, train_energy
from nclib.defenses.purification.store import load
from nclib.doors import seeded

WEIGHTS = Path(__file__).parent / "weights"
KINDS = ("energy", "diffusion")
SHAPE = (3, 32, 32)  # of the signs
# What the committed weights were trained with; one that a lesson trains gets a part of the updates.
OPTIONS: dict[str, dict[str, Any]] = {
    "energy": {"updates": 150, "lr": 3e-4, "noise": 0.03, "steps": 10},
    "diffusion": {"updates": 1500, "lr": 2e-3, "batch_size": 64},
}
SHARE = {"energy": 0.5, "diffusion": 0.4}


def halves(train: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Two disjoint random halves of ``train``: the purifiers' and the victim's.

    A purifier should not have seen the images that it washes.
    """
    order = torch.randperm(len(train), generator=seeded(seed))
    first, second = order.chunk(2)
    return train.subset(first), train.subset(second)


def purifier(
    kind: str, name: str, images: Tensor, seed: int = 0, *, progress: bool = True
) -> Energy | Diffusion:
    """The "energy" or the "diffusion" for images like these: the committed one for "signs".

    That one knows 8,000 signs of another draw, at 32 x 32 pixels. For another data set, or size, a
    small one is trained on ``images`` ``[N, C, H, W]`` in a minute or less. Raises ``ValueError``
    for another ``kind``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; allowed are {', '.join(map(repr, KINDS))}")
    if (name, tuple(images.shape[1:])) == ("signs", SHAPE):
        return load(WEIGHTS / f"signs-{kind}.safetensors", images.device)[0]
    return trained(kind, images, SHARE[kind], seed, progress=progress)


def trained(
    kind: str, images: Tensor, share: float = 1.0, seed: int = 0, *, progress: bool = True
) -> Energy | Diffusion:
    """A purifier made as the committed ones were, with a ``share`` of their updates."""
    channels, height, width = images.shape[1:]
    shape, options = (channels, height, width), dict(OPTIONS[kind])
    options |= {"updates": max(1, round(share * options["updates"])), "seed": seed}
    if kind == "energy":
        energy = build_energy(shape, widths=(16, 32, 64), gain=16, seed=seed)
        return train_energy(energy, images, **options, progress=progress).model
    patch = 1 if height % 2 or width % 2 or height < 16 else 2
    wash = build_diffusion(shape, width=24, patch=patch, seed=seed)
    return train_diffusion(wash, images, **options, progress=progress).model
