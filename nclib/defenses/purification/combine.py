"""Purify images by an energy model, a diffusion model, or both, in chunks.

PureGen (Bhat et al. 2024, arXiv 2405.18627). The noise of an image depends on the seed and on its
position in the set alone, so the chunks do not change the result.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nclib.activations import evaluating
from nclib.data import check_images
from nclib.defenses.purification.diffusion import Diffusion, check_time, noised, reverse
from nclib.defenses.purification.energy import Energy, langevin
from nclib.defenses.purification.noise import (
    BLOCK,
    Diverged,
    Generators,
    block_generators,
    normal,
    to_signed,
    to_unit,
)
from nclib.doors import gradients, integer

PIXELS = 2**19  # pixels per chunk: 512 images of 32 x 32; 64 feature maps of it are 128 MiB
Stage = tuple[Energy | Diffusion, int]  # a model and its strength: steps, or the noise level t


@gradients
def purify(
    images: Tensor,
    model: Energy | Diffusion,
    *,
    steps: int | None = None,
    t: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Tensor:
    """``images`` ``[N, C, H, W]`` in [0, 1], washed: ``steps`` of Langevin, or noised to ``t``.

    An ``Energy`` needs ``steps``, a ``Diffusion`` needs ``t``; 0 returns the images as they are.
    ``chunk`` images are in memory at once (rounded up to a multiple of 16; None: by their size).
    Raises ``ValueError`` for images or strengths that do not fit and for a model that diverged.
    """
    wanted, strength, other = ("steps", steps, t) if isinstance(model, Energy) else ("t", t, steps)
    if strength is None or other is not None:
        raise ValueError(
            f"steps, t: got {steps}, {t}; {type(model).__name__} needs {wanted} and no other"
        )
    return _run(images, [(model, strength)], seed, chunk, progress)


@gradients
def naive(
    images: Tensor,
    energy: Energy,
    diffusion: Diffusion,
    *,
    steps: int = 150,
    t: int = 75,
    **options: Any,
) -> Tensor:
    """PureGen-Naive: first the energy, then the diffusion. ``options`` as in ``purify``."""
    return reps(images, energy, diffusion, steps=steps, t=t, repetitions=1, **options)


@gradients
def reps(
    images: Tensor,
    energy: Energy,
    diffusion: Diffusion,
    *,
    steps: int = 10,
    t: int = 50,
    repetitions: int = 5,
    seed: int = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Tensor:
    """PureGen-Reps: a little of the energy and of the diffusion, ``repetitions`` times in turn."""
    integer(repetitions, "repetitions", 1)
    stages: list[tuple[Energy | Diffusion, int]] = [(energy, steps), (diffusion, t)]
    return _run(images, stages * repetitions, seed, chunk, progress)


@gradients
@torch.no_grad()
def energies(images: Tensor, model: Energy, *, chunk: int | None = None) -> Tensor:
    """E(x) ``[N]`` of images in [0, 1]; a high energy says unlikely."""
    check_images(images)
    if not isinstance(model, Energy):
        raise ValueError(f"model: got {type(model).__name__}; an Energy is needed")
    _check(images, model, 0)
    with evaluating(model):
        parts = [model(to_signed(part)) for part in images.split(_chunk_size(images, chunk))]
    found = torch.cat(parts)
    if not found.isfinite().all():
        raise Diverged("model: an energy is not finite")
    return found


def _run(
    images: Tensor,
    stages: list[Stage],
    seed: int,
    chunk: int | None,
    progress: bool,
) -> Tensor:
    """All ``stages`` over every chunk."""
    check_images(images)
    size = _chunk_size(images, chunk)
    for model, strength in stages:
        _check(images, model, strength)
    stages = [stage for stage in stages if stage[1] > 0]
    if not stages:
        return images.clone()
    starts = range(0, len(images), size)
    total = len(starts) * sum(strength for _, strength in stages)
    with ExitStack() as stack:
        for model, _ in stages:
            stack.enter_context(evaluating(model))
        bar = tqdm(total=total, desc="purifying", unit="step", disable=not progress)
        stack.enter_context(bar)
        return torch.cat([_wash(images[i : i + size], stages, seed, i, bar.update) for i in starts])


def _wash(
    images: Tensor, stages: list[Stage], seed: int, first: int, tick: Callable[[], object]
) -> Tensor:
    """One chunk through all the stages."""
    generator = block_generators(seed, first, len(images), images.device)
    x = to_signed(images)
    for model, strength in stages:
        x = _stage(x, model, strength, generator, tick)
    if not x.isfinite().all():
        raise Diverged(f"model: the purified images from {first} on are not finite")
    return to_unit(x)


def _stage(
    x: Tensor, model: Energy | Diffusion, strength: int, generator: Generators, tick: Callable
) -> Tensor:
    if isinstance(model, Energy):
        walk = {"eps": model.eps, "temperature": model.temperature}
        return langevin(x, model, strength, generator=generator, tick=tick, **walk)
    x = noised(x, model, strength, normal(x, generator))
    return reverse(x, model, strength, generator=generator, tick=tick)


def _chunk_size(images: Tensor, chunk: int | None) -> int:
    """Images per chunk, a multiple of ``BLOCK``."""
    if chunk is None:
        return max(PIXELS // (images.shape[2] * images.shape[3]) // BLOCK, 1) * BLOCK
    integer(chunk, "chunk", 1)
    return -(-chunk // BLOCK) * BLOCK


def _check(images: Tensor, model: Energy | Diffusion, strength: int) -> None:
    """Refuse models and strengths that cannot do it, before any work."""
    if isinstance(model, Energy):
        integer(strength, "steps", 0)
        if model.diverged:
            raise ValueError("model: this energy diverged in training; it cannot purify")
    elif isinstance(model, Diffusion):
        check_time(strength, model)
    else:
        raise ValueError(f"model: got {type(model).__name__}; an Energy or a Diffusion is needed")
    channels, wanted = images.shape[1], model.recipe.get("shape", images.shape[1:])[0]
    if channels != wanted:
        raise ValueError(f"images: got {channels} channel(s); this model was built for {wanted}")
    weight = next(model.parameters(), images)
    if weight.device != images.device:
        raise ValueError(f"images: on {images.device}, the model is on {weight.device}")
