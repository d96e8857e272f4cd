"""The purifiers that come with the course, and how they were made.

``make purifiers`` trains them, on 14 x 14 pixels: small enough for a CPU, and enough of them that
an attack has room. The files say with which data, seed and command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nclib.data import ImageSet
from nclib.defenses.purification.diffusion import Diffusion, build_diffusion, train_diffusion
from nclib.defenses.purification.energy import Energy, EnergyRun, build_energy, train_energy
from nclib.defenses.purification.store import load
from nclib.doors import seeded

WEIGHTS = Path(__file__).parent / "weights"
SIZE = 14  # pixels on each side
KINDS = ("energy", "diffusion")
# What the committed weights were trained with; a lesson that trains its own asks for less.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "digits": ({"updates": 1500, "noise": 0.03}, {"updates": 6000}),
    "mnist": ({"updates": 2000, "noise": 0.03}, {"updates": 12_000, "batch_size": 256}),
}
SHAPE = (3, 32, 32)  # of the signs
# What the weights for signs were trained with; a lesson's own get a share of the updates.
SIGNS: dict[str, dict[str, Any]] = {
    "energy": {"updates": 150, "lr": 3e-4, "noise": 0.03, "steps": 10},
    "diffusion": {"updates": 1500, "lr": 2e-3, "batch_size": 64},
}
SHARE = {"energy": 0.5, "diffusion": 0.4}
NAMES = tuple(OPTIONS)


def halves(train: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Two disjoint random halves of ``train``: the purifiers' and the victim's.

    A purifier should not have seen the images that it washes. The committed weights know the first
    half of the whole training set, at seed 0.
    """
    order = torch.randperm(len(train), generator=seeded(seed))
    first, second = order.chunk(2)
    return train.subset(first), train.subset(second)


def purifiers(name: str, device: torch.device | str = "cpu") -> tuple[Energy, Diffusion]:
    """The committed purifiers for "digits" or "mnist", for grey images of 14 x 14 pixels."""
    if name not in NAMES:
        raise ValueError(f"name: got {name!r}; there are weights for {', '.join(NAMES)}")
    energy, diffusion = (load(WEIGHTS / f"{name}-{kind}.safetensors", device)[0] for kind in KINDS)
    assert isinstance(energy, Energy) and isinstance(diffusion, Diffusion)
    return energy, diffusion


def train_mlps(
    images: Tensor,
    *,
    energy: dict | None = None,
    diffusion: dict | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[EnergyRun, Diffusion]:
    """An energy and a diffusion model of ``images``, both MLPs, as the committed ones were made.

    ``energy`` and ``diffusion`` are options of ``train_energy`` and ``train_diffusion``; None means
    those of the digits. Whether the energy diverged is in its run.
    """
    energy, diffusion = energy or OPTIONS["digits"][0], diffusion or OPTIONS["digits"][1]
    channels, height, width = images.shape[1:]
    shape = channels, height, width
    low = build_energy("mlp", shape, seed=seed)
    run = train_energy(low, images, seed=seed, progress=progress, **energy)
    wash = build_diffusion("mlp", shape, seed=seed)
    train_diffusion(wash, images, seed=seed, progress=progress, **diffusion)
    return run, wash


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
    shape, options = (channels, height, width), dict(SIGNS[kind])
    options |= {"updates": max(1, round(share * options["updates"])), "seed": seed}
    if kind == "energy":
        energy = build_energy("conv", shape, widths=(16, 32, 64), gain=16, seed=seed)
        return train_energy(energy, images, **options, progress=progress).model
    patch = 1 if height % 2 or width % 2 or height < 16 else 2
    wash = build_diffusion("conv", shape, width=24, patch=patch, seed=seed)
    return train_diffusion(wash, images, **options, progress=progress).model
