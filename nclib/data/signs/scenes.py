"""What stands behind a road sign: sky, hills, a road, trees, houses, painted from back to front.

All scenes of a batch are painted at once. A place is (x, y) in [-1, 1], x to the right, y down.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

BACKGROUNDS = ("fields", "trees", "houses", "city")
SKIES = (  # zenith and horizon: clear, hazy, overcast, evening
    ((0.24, 0.48, 0.84), (0.74, 0.87, 0.97)),
    ((0.47, 0.66, 0.88), (0.90, 0.93, 0.95)),
    ((0.60, 0.64, 0.69), (0.83, 0.85, 0.86)),
    ((0.33, 0.38, 0.63), (0.98, 0.74, 0.52)),
)
GROUNDS = ((0.36, 0.50, 0.20), (0.47, 0.57, 0.26), (0.70, 0.62, 0.33), (0.56, 0.54, 0.51))
LEAVES = ((0.16, 0.34, 0.12), (0.25, 0.43, 0.16), (0.35, 0.47, 0.17), (0.62, 0.43, 0.14))
WALLS = ((0.88, 0.81, 0.67), (0.69, 0.37, 0.28), (0.62, 0.60, 0.57), (0.85, 0.64, 0.40))
ROOFS = ((0.55, 0.25, 0.18), (0.36, 0.22, 0.18), (0.30, 0.31, 0.34), (0.44, 0.33, 0.27))
GLASS = ((0.20, 0.27, 0.34), (0.32, 0.42, 0.50), (0.15, 0.17, 0.20), (0.98, 0.85, 0.55))


class Dice:
    """Uniform random numbers as tensors: one stream for each sequence of whole numbers."""

    def __init__(self, *stream: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))

    def __call__(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.random(shape, np.float32)) * (high - low) + low

    def choice(self, options: int, n: int) -> Tensor:
        """``n`` of 0..options-1."""
        return self(0, options, n).long().clamp(max=options - 1)

    def paint(self, palette: tuple, n: int, spread: float = 0.04) -> Tensor:
        """``n`` colours ``[n, 3]`` near those of the palette."""
        chosen = torch.tensor(palette)[self.choice(len(palette), n)]
        return chosen + self(-spread, spread, n, 1) + self(-spread, spread, n, 3) / 2


class Canvas:
    """A batch of pictures in the making, and the coordinates of their pixels."""

    def __init__(self, n: int, size: int) -> None:
        self.pixels = torch.zeros(n, 3, size, size)
        self.size = size
        steps = (torch.arange(size) + 0.5) / size * 2 - 1
        self.x, self.y = steps.expand(1, 1, size), steps[:, None].expand(1, size, 1)

    def inside(self, distance: Tensor) -> Tensor:
        """Opacity of pixels this far inside a shape: the background is a little out of focus."""
        return (distance * (self.size / 3) + 0.5).clamp(0, 1)

    def fill(self, opacity: Tensor, colour: Tensor) -> None:
        """Lay a colour ``[n, 3]`` (or ``[n, 3, H, W]``) over all pictures."""
        colour = colour if colour.ndim == 4 else colour[:, :, None, None]
        self.pixels.lerp_(
            colour.expand_as(self.pixels), opacity.unsqueeze(1).expand_as(self.pixels)
        )

    def part(self, index: Tensor) -> Canvas:
        """The pictures of ``index``, to be painted and put back."""
        few = Canvas(0, self.size)
        few.pixels = self.pixels[index]
        return few


def paint(dice: Dice, kinds: Tensor, size: int) -> Tensor:
    """Scenes ``[n, 3, size, size]`` in [0, 1] of these ``kinds`` (positions in BACKGROUNDS)."""
    n = len(kinds)
    canvas = Canvas(n, size)
    rough = noise(dice, n, 9, size)
    horizon = dice(0.05, 0.6, n, 1, 1)
    _sky(canvas, dice, horizon)
    _land(canvas, dice, horizon)
    for names, painter in ((("trees",), _trees), (("houses",), _houses), (("city",), _city)):
        chosen = torch.tensor([BACKGROUNDS[k] in names for k in kinds.tolist()]).nonzero()[:, 0]
        if len(chosen):
            part = canvas.part(chosen)
            painter(part, dice, horizon[chosen], rough[chosen])
            canvas.pixels[chosen] = part.pixels
    _road(canvas, dice, horizon)
    canvas.pixels *= 1 + 0.16 * (rough.unsqueeze(1) - 0.5) * (canvas.y > horizon).unsqueeze(1)
    return canvas.pixels.clamp_(0, 1)


def noise(dice: Dice, n: int, cells: int, size: int, wide: int = 1) -> Tensor:
    """Smooth noise ``[n, size, size]`` about .5: ``cells`` down, each ``wide`` times as long."""
    points = dice(0, 1, n, 1, cells, max(2, cells // wide))
    return interpolate(points, (size, size), mode="bicubic", align_corners=True)[:, 0]


def _sky(canvas: Canvas, dice: Dice, horizon: Tensor) -> None:
    n = len(horizon)
    ends = torch.tensor(SKIES)[dice.choice(len(SKIES), n)] + dice(-0.04, 0.04, n, 2, 1)
    height = ((canvas.y + 1) / (horizon + 1)).clamp(0, 1).unsqueeze(1)
    zenith, low = ends[:, 0, :, None, None], ends[:, 1, :, None, None]
    canvas.pixels = (zenith + (low - zenith) * height).repeat(1, 1, 1, canvas.size)
    clouds = noise(dice, n, 6, canvas.size, wide=2)
    cover = ((clouds - dice(0.35, 0.9, n, 1, 1)) * 2.5).clamp(0, 0.85)
    canvas.fill(cover, dice(0.86, 1.0, n, 1).expand(n, 3))


def _land(canvas: Canvas, dice: Dice, horizon: Tensor) -> None:
    """Hills far off, and the ground in front of them."""
    n = len(horizon)
    ridge = interpolate(dice(0, 1, n, 1, 6), canvas.size, mode="linear", align_corners=True)
    hills = horizon - 0.28 * ridge * dice(0.2, 1, n, 1, 1)
    far = 0.45 * dice.paint(LEAVES, n) + 0.55 * torch.tensor([0.55, 0.64, 0.72])
    canvas.fill(canvas.inside(canvas.y - hills), far)
    canvas.fill(canvas.inside(canvas.y - horizon), dice.paint(GROUNDS, n))


def _road(canvas: Canvas, dice: Dice, horizon: Tensor) -> None:
    """Asphalt that narrows towards the horizon, with a broken line along its middle."""
    n = len(horizon)
    depth = (canvas.y - horizon).clamp(min=0)
    end, left, right = (dice(a, b, n, 1, 1) for a, b in ((-0.9, 0.9), (-2.6, -0.8), (0.8, 2.6)))
    across = canvas.x - end
    opacity = canvas.inside(across - left * depth) * canvas.inside(right * depth - across)
    opacity = opacity * canvas.inside(canvas.y - horizon)
    canvas.fill(opacity, dice(0.30, 0.52, n, 1) + torch.tensor([0.0, 0.005, 0.02]))
    dash = ((1 / (depth + 0.12) + dice(0, 2, n, 1, 1)) % 2 - 1).abs() - 0.5
    line = canvas.inside(0.07 * depth - (across - (left + right) / 2 * depth).abs())
    canvas.fill(line * ((dash > 0) & (depth > 0)), torch.full((n, 3), 0.88))


def _trees(canvas: Canvas, dice: Dice, horizon: Tensor, rough: Tensor) -> None:
    """A hedge along the horizon and four trees, their leaves lighter towards the sky."""
    n = len(horizon)
    shade = ((rough - 0.5) * 0.9 - 0.25 * canvas.y).unsqueeze(1)
    hedge = canvas.y - horizon + dice(0.1, 0.5, n, 1, 1) + 0.3 * (rough - 0.5)
    low = canvas.inside(horizon + 0.06 - canvas.y)
    leaves = dice.paint(LEAVES, n)[:, :, None, None]
    canvas.fill(canvas.inside(hedge) * low, leaves * (1 + shade))
    for i in range(4):
        x = -1 + 0.55 * i + dice(0, 0.35, n, 1, 1)
        wide, high = dice(0.22, 0.42, n, 1, 1), dice(0.35, 0.75, n, 1, 1)
        y = horizon - 0.15 - high
        trunk = canvas.inside(0.035 - (canvas.x - x).abs()) * canvas.inside(canvas.y - y) * low
        canvas.fill(trunk, dice(0.18, 0.34, n, 1) * torch.tensor([1.0, 0.82, 0.66]))
        radius = ((canvas.x - x) / wide) ** 2 + ((canvas.y - y) / high) ** 2
        crown = canvas.inside((1 - radius + 1.4 * (rough - 0.5)) * 0.2)
        canvas.fill(crown, dice.paint(LEAVES, n)[:, :, None, None] * (1 + shade))


def _houses(canvas: Canvas, dice: Dice, horizon: Tensor, rough: Tensor) -> None:
    """A row of three houses with gables."""
    for i in range(3):
        x = -0.85 + 0.75 * i + dice(-0.1, 0.2, len(horizon), 1, 1)
        _house(canvas, dice, horizon, x, (0.24, 0.42), (0.35, 0.7), roof=0.45)


def _city(canvas: Canvas, dice: Dice, horizon: Tensor, rough: Tensor) -> None:
    """Five tall blocks with flat roofs, near enough to hide most of the sky."""
    for i in range(5):
        x = -0.95 + 0.46 * i + dice(-0.08, 0.12, len(horizon), 1, 1)
        _house(canvas, dice, horizon, x, (0.18, 0.36), (0.6, 1.7), roof=0.05)


def _house(
    canvas: Canvas,
    dice: Dice,
    horizon: Tensor,
    x: Tensor,
    widths: tuple,
    heights: tuple,
    roof: float,
) -> None:
    n = len(horizon)
    half, high = dice(*widths, n, 1, 1), dice(*heights, n, 1, 1)
    across, down = canvas.x - x, canvas.y - (horizon - high)  # from the middle, from the eaves
    foot = canvas.inside(horizon + 0.05 - canvas.y)
    slope = roof * dice(0.7, 1.2, n, 1, 1)
    gable = canvas.inside(down + slope * (1 - across.abs() / (half * 1.15)).clamp(min=0))
    canvas.fill(gable * canvas.inside(half * 1.12 - across.abs()) * foot, dice.paint(ROOFS, n))
    wall = canvas.inside(half - across.abs()) * canvas.inside(down) * foot
    canvas.fill(wall, dice.paint(WALLS, n, 0.08))
    columns = 0.3 - ((across / (half / dice(1.2, 2.2, n, 1, 1)) + 0.5) % 1 - 0.5).abs()
    rows = 0.3 - ((down / dice(0.22, 0.34, n, 1, 1)) % 1 - 0.55).abs()
    panes = canvas.inside(columns * 0.3) * canvas.inside(rows * 0.3)
    near_edge = canvas.inside(half - 0.04 - across.abs())
    canvas.fill(panes * wall * near_edge * 0.9, dice.paint(GLASS, n))
