"""Gaussian noise that does not depend on how the images are cut into chunks, and the two scales."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from nclib.doors import integer

BLOCK = 16  # consecutive images that share a generator
Generators = torch.Generator | Sequence[torch.Generator]


class Diverged(ValueError):
    """Energies or images left the finite numbers: the model is no use as a purifier."""


def to_signed(images: Tensor) -> Tensor:
    """[0, 1], the scale of the course, to [-1, 1], the scale of the generative models."""
    return images * 2 - 1


def to_unit(images: Tensor) -> Tensor:
    """[-1, 1] back to [0, 1]; what lies beyond is cut off."""
    return ((images + 1) / 2).clamp(0, 1)


def block_generators(
    seed: int, first: int, count: int, device: torch.device
) -> list[torch.Generator]:
    """A generator for each block of the images ``first`` .. ``first + count - 1``.

    ``first`` is a multiple of ``BLOCK``. The same image meets the same noise in every chunk.
    """
    seed = integer(seed, "seed")
    blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
    return [torch.Generator(device).manual_seed(_mixed(seed, block)) for block in blocks]


def _mixed(seed: int, block: int) -> int:
    """32 bits for a block: the CPU's generator ignores the upper half of a 64-bit seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {block}".encode()).digest()[:4], "big")


def normal(like: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise of the shape of ``like``, from one generator or from one per block."""
    if isinstance(generator, torch.Generator):
        return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)
    blocks = zip(like.split(BLOCK), generator, strict=True)
    return torch.cat([normal(part, one) for part, one in blocks])
