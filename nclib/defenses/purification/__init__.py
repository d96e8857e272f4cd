"""Purifying a poisoned training set with generative models: PureGen (arXiv 2405.18627).

One idea per file: ``energy`` (an energy-based model, Langevin dynamics), ``diffusion`` (a DDPM on
low noise), ``combine`` (either or both over a whole set), ``controls`` (what a purifier has to
beat; JPEG, median and noise are in ``defenses.squeezing``), ``store`` (weights as files),
``pretrained`` (the purifiers that come with the course).
"""

from nclib.defenses.purification.combine import energies, naive, purify, reps
from nclib.defenses.purification.diffusion import (
    Diffusion,
    build_diffusion,
    train_diffusion,
)
from nclib.defenses.purification.energy import Energy, build_energy, langevin, train_energy
from nclib.defenses.purification.noise import Diverged
from nclib.defenses.purification.pretrained import halves, purifier
from nclib.defenses.purification.store import load, save
