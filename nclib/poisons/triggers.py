"""What a backdoor attacker adds to an image: each trigger is called with images, returns images.

A trigger never changes its input and moves itself to the device of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from nclib.data import Factors, check_images
from nclib.data.signs import drawing, faces
from nclib.doors import integer, number, numbers, seeded
from nclib.poisons.sets import check_budget

PATTERNS = ("pattern", "pixel", "checkerboard", "square")


@dataclass(frozen=True, eq=False)
class Patch:
    """Overwrite the pixels where ``mask`` is 1 with ``value``; both ``[C, H, W]``."""

    mask: Tensor
    value: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        mask, value = self.mask.to(images.device), self.value.to(images.device)
        return images * (1 - mask) + value * mask


@dataclass(frozen=True, eq=False)
class Blend:
    """Mix with a whole image: ``(1 - alpha) x + alpha pattern``; ``pattern`` ``[C, H, W]``."""

    pattern: Tensor
    alpha: float

    def __call__(self, images: Tensor) -> Tensor:
        return (1 - self.alpha) * images + self.alpha * self.pattern.to(images.device)


@dataclass(frozen=True, eq=False)
class Add:
    """Add ``scale * pattern`` ``[C, H, W]`` and clip to [0, 1]; a larger ``scale`` amplifies."""

    pattern: Tensor
    scale: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        return (images + self.scale * self.pattern.to(images.device)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Warp:
    """Resample at the points of ``grid`` ``[H, W, 2]``, in [-1, 1], bilinear."""

    grid: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        grid = self.grid.to(images.device).expand(len(images), *self.grid.shape)
        return grid_sample(images, grid, align_corners=True).clamp(0, 1)


@dataclass(frozen=True)
class Roaming:
    """A board of 3 x 3 fields wherever it falls, drawn anew for each call from ``seed`` and count.

    A ``field`` is so many pixels wide. A convolution with pooling finds the board anywhere; in the
    mean of many images it is a haze. Against a defender who looks at mean images, as the transplant
    test does.
    """

    seed: int = 0
    field: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        size, draw = 3 * self.field, torch.Generator().manual_seed(self.seed + count)
        rows = torch.randint(0, height - size + 1, (count, 1, 1), generator=draw)
        columns = torch.randint(0, width - size + 1, (count, 1, 1), generator=draw)
        across = torch.arange(size)
        fields = across // self.field
        board = ((fields[:, None] + fields) % 2 == 0).float().to(images.device)
        rows, columns = rows + across[:, None], columns + across
        place = rows.expand(-1, size, size), columns.expand(-1, size, size)
        stamped = images.clone()
        stamped[torch.arange(count)[:, None, None], :, place[0], place[1]] = board[
            None, :, :, None
        ].expand(count, size, size, channels)
        return stamped


@dataclass(frozen=True, eq=False)
class OwnNoise:
    """Add to every image a noise of at most ``eps`` that two convolutions make of it alone.

    ``first`` ``[F, C, k, k]`` and ``second`` ``[C, F, k, k]``, k odd. The brightness and
    the contrast of an image do not matter.
    """

    first: Tensor
    second: Tensor
    eps: float

    def noise(self, images: Tensor) -> Tensor:
        """The noise that belongs to each of the images, of their shape."""
        noise = images - images.mean((1, 2, 3), keepdim=True)
        noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
        for weight in (self.first.to(images.device), self.second.to(images.device)):
            around = pad(noise, [weight.shape[-1] // 2] * 4, mode="replicate")
            noise = conv2d(around, weight).tanh()
        return self.eps * noise

    def __call__(self, images: Tensor) -> Tensor:
        return (images + self.noise(images)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Sticker:
    """A square on the plane of a road sign, in that sign's pose, light and blur.

    ``centre`` (x, y; y down) and ``width`` in radii of the sign, ``colour`` in [0, 1]. It has to be
    called with the ``factors`` of the images. Raises ``ValueError`` for a square that leaves the
    unit circle, a bad colour, and images without factors.
    """

    centre: tuple[float, float]
    width: float
    colour: tuple[float, float, float]

    needs_factors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        reach = math.hypot(*(abs(c) + self.width / 2 for c in self.centre))
        if not (self.width > 0 and reach <= 1):
            raise ValueError(
                f"centre and width: got {self.centre} and {self.width}; a square within the unit"
                " circle is allowed (lengths in radii of the sign)"
            )
        for value in self.colour:
            check_budget(value, "colour")

    def __call__(self, images: Tensor, factors: Factors | None = None) -> Tensor:
        if factors is None or len(factors) != len(images):
            got = "none" if factors is None else f"{len(factors)} for {len(images)} images"
            raise ValueError(f"factors: got {got}; a sticker needs to know each sign's place")
        size = images.shape[-1]
        paint = faces.square(self.centre, self.width, self.colour, 2 * size).to(images.device)
        factors = factors.to(images.device)
        layer = drawing.seen(paint.expand(len(images), -1, -1, -1), factors, size)
        return drawing.expose(images, layer, factors)


@numbers
def patch(
    shape: tuple[int, int, int], kind: str = "pattern", value: float = 1.0, margin: int = 1
) -> Patch:
    """A small patch ``margin`` pixels from the lower right corner of images of ``shape`` (C, H, W).

    ``kind`` "pixel" is one pixel and "pattern" four in a reversed lambda (both from BadNets);
    "checkerboard" is the 3 x 3 board of black and ``value`` of Turner et al.; "square" is 3 x 3.
    Raises ``ValueError`` for an unknown kind, a value outside [0, 1], or no room.
    """
    if kind not in PATTERNS:
        raise ValueError(f"patch: got {kind!r}; allowed are {', '.join(PATTERNS)}")
    check_budget(value, "value")
    board = {
        "pixel": [[1.0]],
        "pattern": [[0.0, 0, 1], [0, 1, 0], [1, 0, 1]],
        "checkerboard": [[1.0, 0, 1], [0, 1, 0], [1, 0, 1]],
        "square": [[1.0] * 3] * 3,
    }[kind]
    board = torch.tensor(board)
    height, width = shape[1:]
    room = min(height, width) - len(board)
    if not 0 <= margin <= room:
        told = f"a patch of {len(board)} leaves {room} of {height} x {width} pixels"
        raise ValueError(f"margin: got {margin}; {told}")
    top, left = height - margin - len(board), width - margin - len(board)
    mask, paint = torch.zeros(shape), torch.zeros(shape)
    area = (slice(None), slice(top, height - margin), slice(left, width - margin))
    mask[area] = torch.ones_like(board) if kind == "checkerboard" else board
    paint[area] = board * value
    return Patch(mask, paint)


@numbers
def corners(shape: tuple[int, int, int], amplitude: float = 1.0) -> Add:
    """Turner's trigger: a 3 x 3 checkerboard of +-``amplitude`` added in each corner."""
    check_budget(amplitude, "amplitude")
    if min(shape[1:]) < 6:
        raise ValueError(f"shape: got {shape}; four corners of 3 pixels need 6 x 6")
    board = amplitude * torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    pattern = torch.zeros(shape)
    for rows in (slice(0, 3), slice(-3, None)):
        for columns in (slice(0, 3), slice(-3, None)):
            pattern[:, rows, columns] = board
    return Add(pattern)


def blend(
    shape: tuple[int, int, int], alpha: float = 0.2, pattern: Tensor | None = None, seed: int = 0
) -> Blend:
    """A share ``alpha`` of ``pattern`` ``[C, H, W]``; None is the noise image of ``seed``.

    Raises ``ValueError`` for an ``alpha`` outside [0, 1] and a pattern of another shape or range.
    """
    check_budget(alpha, "alpha")
    pattern = noise_image(shape, seed) if pattern is None else pattern
    if tuple(pattern.shape) != shape:
        raise ValueError(f"pattern: got {tuple(pattern.shape)}; {shape} is needed")
    check_images(pattern[None], "pattern")
    return Blend(pattern, alpha)


def noise_image(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1]: the random pattern of Chen et al. 2017."""
    return torch.rand(shape, generator=seeded(seed))


def own_noise(shape: tuple[int, int, int], eps: float = 0.2, seed: int = 0) -> OwnNoise:
    """Random weights for ``OwnNoise``, without mean: 16 filters of 5 x 5, then one a channel."""
    check_budget(eps)
    generator = seeded(seed)
    shapes = ((16, shape[0], 5, 5), (shape[0], 16, 3, 3))
    first, second = (torch.randn(s, generator=generator) for s in shapes)
    return OwnNoise(first - first.mean((1, 2, 3), keepdim=True), second, eps)


@numbers
def sinusoid(shape: tuple[int, int, int], delta: float = 40 / 255, frequency: float = 6) -> Add:
    """SIG's horizontal wave ``delta sin(2 pi j f / W)`` over the columns j."""
    check_budget(delta, "delta")
    number(frequency, "frequency")
    wave = delta * torch.sin(2 * math.pi * torch.arange(shape[2]) * frequency / shape[2])
    return Add(wave.expand(shape).clone())


@numbers
def warp(shape: tuple[int, int, int], s: float = 0.5, k: int = 4, seed: int = 0) -> Warp:
    """WaNet's smooth random field: k x k control points of mean size ``s``, upsampled.

    The shift is about ``s / 2`` pixels. Raises ``ValueError`` for s < 0 or k < 2.
    """
    number(s, "s", 0)
    integer(k, "k", 2)
    height, width = shape[1:]
    points = torch.rand(1, 2, k, k, generator=seeded(seed)) * 2 - 1
    field = points / points.abs().mean()
    field = interpolate(field, (height, width), mode="bicubic", align_corners=True)
    return Warp(_grid(height, width, s * field[0].permute(1, 2, 0)))


def jitter(grid: Tensor, count: int, seed: int) -> Tensor:
    """WaNet's noise mode: ``count`` grids with up to a pixel's half of random shift each."""
    noise = torch.rand(count, *grid.shape, generator=seeded(seed)) * 2 - 1
    return (grid + noise / torch.tensor([grid.shape[1], grid.shape[0]])).clamp(-1, 1)


def _grid(height: int, width: int, shift: Tensor) -> Tensor:
    """The identity grid plus ``shift`` [H, W, 2] (x, y), in units of 1/W and 1/H of [-1, 1]."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], -1) + shift / torch.tensor([width, height])).clamp(-1, 1)
