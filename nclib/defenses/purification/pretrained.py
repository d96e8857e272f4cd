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
