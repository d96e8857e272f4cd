"""The sizes and strengths of ``experiments.purification``, and where its purifiers come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from nclib import cache, data
from nclib.data import ImageSet
from nclib.defenses import purification as pure
from nclib.defenses.purification import pretrained, store

OTHER = "cinic10_imagenet"  # what the paper's purifiers for CIFAR-10 are trained on


@dataclass(frozen=True)
class Setting:
    """One data set: the victim, the attacks at a strength that works, the defences."""

    arch: str
    epochs: int
    images: int | None  # of the victim; None: its whole share
    size: int | None = 14
    n_test: int | None = None
    amplitude: float = 0.3  # of the clean-label backdoor's trigger
    strong: float = 1.0
    backdoor_eps: float = 0.2
    narcissus_eps: float = 16 / 255
    narcissus_steps: int = 150
    bullseye_eps: float = 0.3
    bullseye_steps: int = 200
    bullseye_victims: int = 4
    match_rate: float = 0.05
    match_eps: float = 0.3
    match_steps: int = 100
    match_restarts: int = 2
    match_victims: int = 1
    quality: int = 75  # of the JPEG
    steps: int = 100  # of Langevin
    t: int = 75
    naive: tuple[int, int] = (50, 50)  # steps, t
    reps: tuple[int, int] = (10, 15)  # five times: steps, t
    curve_steps: tuple[int, ...] = (50, 100, 150, 300)
    curve_t: tuple[int, ...] = (50, 75, 100, 150, 250)
    energy: dict | None = None  # options of train_energy; None: the committed weights
    diffusion: dict | None = None
    widths: tuple[int, ...] = (64, 128, 128, 256)  # of the conv energy, about a million weights
    width: int = 96  # of the conv diffusion


SETTINGS = {
    "mnist": Setting("mlp", 15, 2000, n_test=2000),
    "digits": Setting("mlp", 30, None, amplitude=0.4, t=100, naive=(50, 75), reps=(10, 20)),
    "cifar10": Setting(
        "resnet18",
        60,
        None,
        size=None,
        amplitude=32 / 255,
        backdoor_eps=16 / 255,
        narcissus_eps=8 / 255,
        narcissus_steps=1000,
        bullseye_eps=0.1,
        bullseye_steps=1000,
        match_rate=0.01,
        match_eps=8 / 255,
        match_steps=250,
        match_restarts=8,
        steps=150,
        t=75,
        naive=(150, 75),
        reps=(10, 50),
        curve_steps=(50, 150, 300),
        curve_t=(25, 75, 125),
        energy={"updates": 10_000, "steps": 50, "batch_size": 128},
        diffusion={"updates": 40_000},
    ),
}


def tiny(setting: Setting) -> Setting:
    """The same with a few images, epochs and steps: shows that it runs, and nothing else."""
    few = {"epochs": 1, "images": 200, "n_test": 60, "match_victims": 1, "match_restarts": 1}
    few |= {"match_steps": 2, "bullseye_steps": 2, "bullseye_victims": 1, "narcissus_steps": 2}
    few |= {
        "steps": 2,
        "t": 2,
        "naive": (1, 1),
        "reps": (1, 1),
        "curve_steps": (1, 2),
        "curve_t": (1, 2),
    }
    if setting.energy is not None:
        few |= {"energy": {"updates": 2, "steps": 2}, "diffusion": {"updates": 2}}
        few |= {"size": 8, "images": 240, "arch": "mlp", "widths": (4, 8), "width": 8}
    return replace(setting, **few)


def purifiers(
    name: str, s: Setting, dev: torch.device
) -> tuple[pure.Energy | None, pure.Diffusion, str]:
    """Energy (None where it diverged), diffusion, and what they were trained on.

    For digits and MNIST the committed ones. Others are trained once and kept beside the cached
    runs, so that a killed run finds them again.
    """
    if s.energy is None:
        return *pure.purifiers(name, dev), f"other half of {name}"
    source, images = _other(name, s, dev)
    shape, made = tuple(images.shape[1:]), {"data": source, "seed": 0}
    key = cache.fingerprint(images[:64], s.energy, s.diffusion, s.widths, s.width)
    folder = cache.cache_root() / "purifiers"
    files = [folder / f"{name}-{kind}-{key}.safetensors" for kind in pretrained.KINDS]
    if files[0].exists():
        energy = store.load(files[0], dev)[0]
    else:
        energy = pure.build_energy("conv", shape, widths=s.widths, eps=0.0125, temperature=1e-4)
        run = pure.train_energy(energy, images, **s.energy)
        if run.diverged:
            print(f"the energy diverged at update {run.diverged}: no rows with an energy")
            energy = None
        else:
            store.save(energy, files[0], **made | s.energy)
    if files[1].exists():
        return energy, store.load(files[1], dev)[0], source
    diffusion = pure.build_diffusion("conv", shape, width=s.width)
    pure.train_diffusion(diffusion, images, **s.diffusion)
    store.save(diffusion, files[1], **made | s.diffusion)
    return energy, diffusion, source


def _other(name: str, s: Setting, dev: torch.device) -> tuple[str, torch.Tensor]:
    """Images that the victim does not see: another data set, else the other half of this one."""
    try:
        return OTHER, data.load(OTHER, device=dev)[0].images
    except (FileNotFoundError, ValueError) as error:
        print(f"{OTHER} is not to be had ({error}): the purifiers get a half of {name}")
    train, _ = data.load(name, size=s.size, device=dev)
    return f"other half of {name}", pretrained.halves(train)[0].images


def victims_share(
    name: str, s: Setting, seed: int, source: str, dev: torch.device
) -> tuple[ImageSet, ImageSet]:
    """The victim's training set, disjoint from the purifiers' images, and the test set."""
    train, test = data.load(name, n_test=s.n_test, size=s.size, device=dev)
    if source != OTHER:
        train = pretrained.halves(train)[1]
    if s.images is not None:
        train = train.subset(data.stratified(train.labels, s.images, seed))
    return train, test
