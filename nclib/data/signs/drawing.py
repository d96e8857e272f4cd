"""From a sign's face to a photograph of it: pose, light, blur, noise.

The sign's plane is turned in space and projected, then sampled through the inverse homography at
twice the resolution, so that edges come out smooth.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from nclib.data.factors import Factors
from nclib.data.signs import faces, scenes
from nclib.data.signs.scenes import Dice

SHAPES, COLOURS, SYMBOLS = faces.SHAPES, tuple(faces.COLOURS), faces.SYMBOLS
DISTANCE = 3.5  # of the camera, in radii of the sign


def draw(dice: Dice, labels: Tensor, size: int, difficulty: float) -> tuple[Tensor, Factors]:
    """Signs of these classes: images ``[n, 3, size, size]`` in [0, 1], and how they were drawn."""
    factors = throw(dice, labels, difficulty)
    planes = torch.stack(
        [
            faces.face(SHAPES[a], COLOURS[b], SYMBOLS[c], 2 * size, post=True)
            for a, b, c in zip(
                factors.shape.tolist(),
                factors.colour.tolist(),
                factors.symbol.tolist(),
                strict=True,
            )
        ]
    )
    scene = scenes.paint(dice, factors.background, size)
    images = expose(scene, seen(planes, factors, size), factors, whole=True)
    grain = dice(-0.5, 0.5, *images.shape) + dice(-0.5, 0.5, *images.shape)
    deviation = dice(0, 0.09, len(labels), 1, 1, 1) * difficulty
    return images.add_(grain * deviation).clamp_(0, 1), factors


def throw(dice: Dice, labels: Tensor, d: float) -> Factors:
    """Random factors for signs of these classes; ``d`` stretches everything that is in the way."""
    n = len(labels)
    kinds = [faces.KINDS[label] for label in labels.tolist()]
    variant = dice(0, 1, n).tolist()
    colours = [k.colours[int(v * len(k.colours))] for k, v in zip(kinds, variant, strict=True)]
    angle, tilt = dice(-9, 9, n) * d, dice(-1, 1, n, 2) * torch.tensor([26.0, 14.0]) * d
    scale = 0.7 + dice(-0.14, 0.12, n) * d
    place = dice(-1, 1, n, 2) * (1 - scale)[:, None] * d
    warmth = dice(-0.15, 0.15, n) * d
    return Factors(
        sign=labels,
        shape=torch.tensor([SHAPES.index(k.shape) for k in kinds]),
        colour=torch.tensor([COLOURS.index(c) for c in colours]),
        symbol=torch.tensor([SYMBOLS.index(k.symbol) for k in kinds]),
        background=dice.choice(len(scenes.BACKGROUNDS), n),
        angle=angle,
        tilt=tilt,
        scale=scale,
        place=place,
        homography=homography(angle, tilt, scale, place),
        light=torch.exp(dice(-0.7, 0.3, n) * d),
        tint=1 + torch.stack([warmth, dice(-0.05, 0.05, n) * d, -warmth], 1),
        slope=dice(-0.3, 0.3, n, 2) * d,
        blur=dice(0, 0.036, n) * d,
    )


def homography(angle: Tensor, tilt: Tensor, scale: Tensor, place: Tensor) -> Tensor:
    """``[n, 3, 3]`` from the plane of a sign, turned in space, to the image that a camera sees."""
    (roll, yaw, pitch) = (a.double().deg2rad() for a in (angle, tilt[:, 0], tilt[:, 1]))
    one, zero = torch.ones_like(roll), torch.zeros_like(roll)

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    spin = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    nod = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    flat = (nod @ turn @ spin).clone()
    flat[:, 2] /= DISTANCE
    flat[:, :, 2] = torch.stack([zero, zero, one], 1)
    s, x, y = scale.double(), place[:, 0].double(), place[:, 1].double()
    return (matrix(s, zero, x, zero, s, y, zero, zero, one) @ flat).float()


def seen(planes: Tensor, factors: Factors, size: int) -> Tensor:
    """What a camera sees of planes ``[n, 4, P, P]`` at these poses: ``[n, 4, size, size]``.

    The edge of a plane goes on beyond it, and so a post reaches the ground.
    """
    steps = (torch.arange(2 * size, device=planes.device) + 0.5) / size - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])
    back = torch.linalg.inv(factors.homography.cpu().double()).float().to(planes.device)
    u, v, w = (back @ pixels).unflatten(2, (2 * size, 2 * size)).unbind(1)
    grid = torch.stack([u, v], -1).div_(faces.EXTENT * w.unsqueeze(-1))
    view = grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return avg_pool2d(view, 2)


def expose(images: Tensor, layer: Tensor, factors: Factors, whole: bool = False) -> Tensor:
    """``layer`` ``[n, 4, H, W]`` over the images, in the light and blur of each image.

    ``whole`` also lights and blurs the images below, which have seen no camera yet.
    """
    size = images.shape[-1]
    paint, opacity = layer[:, :3] * light(factors, size), layer[:, 3:]
    if whole:
        return soften(images * light(factors, size) * (1 - opacity) + paint, factors)
    paint, opacity = soften(paint, factors), soften(opacity, factors)
    return (images * (1 - opacity) + paint).clamp(0, 1)


def light(factors: Factors, size: int) -> Tensor:
    """The light that falls on each pixel: ``[n, 3, size, size]``."""
    steps = (torch.arange(size, device=factors.light.device) + 0.5) / size * 2 - 1
    x, y = factors.slope[:, 0, None, None], factors.slope[:, 1, None, None]
    field = factors.light[:, None, None] * (1 + x * steps + y * steps[:, None])
    return field.clamp(min=0).unsqueeze(1) * factors.tint[:, :, None, None]


def soften(images: Tensor, factors: Factors) -> Tensor:
    """A Gaussian blur of the deviation of each image, as a product with one matrix from each side.

    ``blur`` counts half images.
    """
    size = images.shape[-1]
    deviation = (factors.blur * size / 2).clamp(min=1e-3)
    steps = torch.arange(size, device=images.device)
    apart = (steps - steps[:, None]) / deviation[:, None, None]
    matrix = torch.softmax(-(apart**2) / 2, -1).unsqueeze(1)
    return matrix @ images @ matrix.mT
