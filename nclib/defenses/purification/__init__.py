"""Purifying a poisoned training set with generative models: PureGen (arXiv 2405.18627).

One idea per file: ``energy`` (an energy-based model, Langevin dynamics), ``diffusion`` (a DDPM on
low noise), ``combine`` (either or both over a whole set), ``store`` (weights as files),
``pretrained`` (the purifiers that come with the course), ``baselines`` (friendly noise and EPIC,
to compare with; JPEG is in ``defenses.squeezing``).
"""

from nclib.defenses.purification.combine import energies, filt, naive, purify, reps
from nclib.defenses.purification.diffusion import (
    Borrowed,
    Diffusion,
    build_diffusion,
    train_diffusion,
)
from nclib.defenses.purification.energy import Energy, build_energy, langevin, train_energy
from nclib.defenses.purification.noise import Diverged
from nclib.defenses.purification.pretrained import halves, purifier, purifiers, train_mlps
from nclib.defenses.purification.store import load, save

__all__ = [
    "Borrowed",
    "Diffusion",
    "Diverged",
    "Energy",
    "build_diffusion",
    "build_energy",
    "energies",
    "filt",
    "halves",
    "langevin",
    "load",
    "naive",
    "purifier",
    "purifiers",
    "purify",
    "reps",
    "save",
    "train_diffusion",
    "train_energy",
    "train_mlps",
]
