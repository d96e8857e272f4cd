"""The face of a road sign as vectors: an outline, its paint, and a symbol on it.

A face lies in the square [-1.1, 1.1]^2 of its own plane, x to the right and y down, and its
outline just reaches the unit circle. Symbols are polygons, because fonts differ between machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

EXTENT = 1.1  # half the side of the square of the plane that is drawn
FINE = 4  # samples along each side of a pixel of the plane
POST = ((-0.075, 0.78), (-0.035, 0.63), (0.03, 0.46))  # where each shade of the post begins
# triangles leave less room for a symbol, and their middle does not lie on their centre of gravity
ROOM = {"triangle": 0.56, "inverted triangle": 0.56, "diamond": 0.72}
LOWER = {"triangle": 0.22, "inverted triangle": -0.22}
Paint = tuple[float, float, float]
Polygon = np.ndarray  # [P, 2] points

WHITE, BLACK, RED = (0.96, 0.96, 0.94), (0.07, 0.07, 0.08), (0.78, 0.06, 0.11)
YELLOW, BLUE, STEEL = (1.0, 0.77, 0.05), (0.03, 0.29, 0.64), (0.42, 0.44, 0.46)

# rim, field and ink of each way to paint a sign; northern Europe paints in yellow what the rest
# of it leaves white
COLOURS: dict[str, tuple[Paint, Paint, Paint]] = {
    "white": (RED, WHITE, BLACK),
    "yellow": (RED, YELLOW, BLACK),
    "red": (WHITE, RED, WHITE),
    "blue": (WHITE, BLUE, WHITE),
    "amber": (WHITE, YELLOW, WHITE),
}
SHAPES = ("disc", "octagon", "triangle", "inverted triangle", "diamond")
SYMBOLS = ("30", "50", "80", "stop", "bar", "left", "right", "exclamation", "blank")


class Kind(NamedTuple):
    """One class of signs: its name, shape and symbol, and the colours that it comes in."""

    name: str
    shape: str
    symbol: str
    colours: tuple[str, ...]


KINDS = (
    Kind("speed limit 30", "disc", "30", ("white", "yellow")),
    Kind("speed limit 50", "disc", "50", ("white", "yellow")),
    Kind("speed limit 80", "disc", "80", ("white", "yellow")),
    Kind("stop", "octagon", "stop", ("red",)),
    Kind("yield", "inverted triangle", "blank", ("white", "yellow")),
    Kind("no entry", "disc", "bar", ("red",)),
    Kind("priority road", "diamond", "blank", ("amber",)),
    Kind("turn left", "disc", "left", ("blue",)),
    Kind("turn right", "disc", "right", ("blue",)),
    Kind("caution", "triangle", "exclamation", ("white", "yellow")),
)


@cache
def face(shape: str, colour: str, symbol: str, pixels: int = 64, post: bool = False) -> Tensor:
    """One sign as ``[4, pixels, pixels]``: red, green, blue (each times opacity), and opacity.

    Any shape, colour and symbol go together. ``post`` adds the upper end of the post behind the
    sign. Raises ``ValueError`` for an unknown one.
    """
    for name, got, allowed in (
        ("shape", shape, SHAPES),
        ("colour", colour, COLOURS),
        ("symbol", symbol, SYMBOLS),
    ):
        if got not in allowed:
            raise ValueError(f"{name}: got {got!r}; allowed are {', '.join(allowed)}")
    rim, field, ink = COLOURS[colour]
    layers = [(shape, 1.0, STEEL), (shape, 0.975, rim), (shape, _width(shape, colour), field)]
    canvas = Image.new("RGBA", (pixels * FINE,) * 2)
    draw = ImageDraw.Draw(canvas)
    for left, grey in POST if post else ():
        _fill(draw, _box(left, 0, -POST[0][0], 2), (grey, grey, grey), "disc")
    for outline, radius, paint in layers:
        _fill(draw, radius * _outline(outline), paint, shape)
    for part in _symbol(symbol):
        _fill(draw, part * ROOM.get(shape, 1.0), ink, shape)
    drawn = torch.from_numpy(np.array(canvas)).float().div(255).permute(2, 0, 1)
    premultiplied = torch.cat([drawn[:3] * drawn[3:], drawn[3:]])
    return premultiplied.unflatten(1, (pixels, FINE)).unflatten(3, (pixels, FINE)).mean((2, 4))


def square(centre: tuple[float, float], width: float, paint: Paint, pixels: int) -> Tensor:
    """A square of one colour on a plane of its own: ``[4, pixels, pixels]`` like a face."""
    steps = ((torch.arange(pixels) + 0.5) / pixels * 2 - 1) * EXTENT
    x, y = (
        ((width / 2 - (steps - c).abs()) * pixels / (2 * EXTENT) + 0.5).clamp(0, 1) for c in centre
    )
    return torch.tensor([*paint, 1.0])[:, None, None] * (y[:, None] * x)


def _width(shape: str, colour: str) -> float:
    """Radius of the field inside the rim; only the red rims are broad."""
    if COLOURS[colour][0] == RED:
        return 0.74 if shape == "disc" else 0.66
    return 0.8 if colour == "amber" else 0.92


def _fill(draw: ImageDraw.ImageDraw, points: Polygon, paint: Paint, shape: str) -> None:
    """Fill a polygon given around the centre of gravity of a sign of this shape."""
    corners = ((points + [0, LOWER.get(shape, 0.0)]) / EXTENT + 1) * draw.im.size[0] / 2 - 0.5
    draw.polygon([tuple(p) for p in corners.tolist()], fill=tuple(round(255 * c) for c in paint))


@cache
def _outline(shape: str) -> Polygon:
    """The outline as a polygon, its corners rounded."""
    if shape == "disc":
        return _arc(0, 0, 1, 0, 360)
    if shape == "octagon":
        return _ring(8, 22.5)
    if shape == "diamond":
        return _rounded(_ring(4, 0), 0.1)
    points = _rounded(_ring(3, -90), 0.14) * 1.16
    return points if shape == "triangle" else -points


def _ring(corners: int, start: float) -> Polygon:
    angles = np.deg2rad(start + np.arange(corners) * 360 / corners)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _rounded(corners: Polygon, radius: float) -> Polygon:
    """The regular polygon with arcs of ``radius`` for corners, which still reach as far."""
    turn = 180 / len(corners)
    arcs = []
    for corner in corners * (1 - radius):
        middle = math.degrees(math.atan2(corner[1], corner[0]))
        arcs.append(_arc(corner[0], corner[1], radius, middle - turn, middle + turn))
    return np.concatenate(arcs)


def _arc(x: float, y: float, r: float | tuple[float, float], start: float, end: float) -> Polygon:
    """Points of an elliptic arc, angles in degrees from the right over the bottom."""
    angles = np.deg2rad(np.linspace(start, end, 2 + round(abs(end - start) / 6)))
    rx, ry = r if isinstance(r, tuple) else (r, r)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], 1)


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _stroke(points: Polygon, width: float) -> Polygon:
    """A smooth line as a polygon of this ``width``."""
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] * [-1, 1] / np.linalg.norm(along, axis=1, keepdims=True)
    return np.concatenate([points + across * width / 2, (points - across * width / 2)[::-1]])


def _hoop(y: float, r: tuple[float, float], width: float) -> Iterable[Polygon]:
    """A closed ring, in two strokes that overlap."""
    yield _stroke(_arc(0, y, r, -3, 183), width)
    yield _stroke(_arc(0, y, r, 177, 363), width)


# Characters stand in the box x in [-.5, .5], y in [-1, 1], with strokes of PEN.
PEN = 0.36


def _character(name: str) -> Iterable[Polygon]:
    p = PEN / 2
    if name in "0O":
        yield from _hoop(0, (0.5 - p, 1 - p), PEN)
    elif name == "8":
        yield from _hoop(-0.48, (0.45 - p, 0.52 - p), 0.9 * PEN)
        yield from _hoop(0.43, (0.5 - p, 0.57 - p), 0.9 * PEN)
    elif name == "3":
        yield _stroke(_arc(-0.05, -0.47, (0.5 - p, 0.53 - p), -165, 90), PEN)
        yield _stroke(_arc(-0.05, 0.43, (0.55 - p, 0.57 - p), -90, 165), PEN)
        yield _box(-0.22, -0.2, -0.02, 0.12)
    elif name == "5":
        yield _box(-0.42, -1, 0.46, -1 + PEN)
        yield np.array([[-0.42, -1], [-0.42 + PEN, -1], [-0.48 + PEN, 0.05], [-0.48, 0.05]])
        yield _stroke(_arc(-0.05, 0.36, (0.55 - p, 0.64 - p), -140, 160), PEN)
    elif name == "S":
        upper = _arc(0, -0.5 + p / 2, (0.5 - p, 0.5 - p / 2), -25, -270)
        lower = _arc(0, 0.5 - p / 2, (0.5 - p, 0.5 - p / 2), -90, 155)
        yield _stroke(np.concatenate([upper, lower[1:]]), PEN)
    elif name == "T":
        yield _box(-0.5, -1, 0.5, -1 + PEN)
        yield _box(-p, -1, p, 1)
    elif name == "P":
        yield _box(-0.5, -1, -0.5 + PEN, 1)
        bowl = _arc(0.0, -0.42, (0.5 - p, 0.58 - p), -90, 90)
        yield _stroke(np.concatenate([[[-0.4, -1 + p]], bowl, [[-0.4, 0.16 - p]]]), PEN)


def _word(text: str, width: float, height: float, gap: float) -> Iterable[Polygon]:
    """Characters side by side, ``width`` and ``height`` each, around the centre."""
    for i, name in enumerate(text):
        middle = (i - (len(text) - 1) / 2) * (width + gap)
        for part in _character(name):
            yield part * [width, height / 2] + [middle, 0]


def _symbol(name: str) -> Iterable[Polygon]:
    """The polygons of a symbol, for the inside of a disc."""
    if name == "stop":
        yield from _word("STOP", 0.34, 0.74, 0.09)
    elif name.isdigit():
        yield from _word(name, 0.5, 0.88, 0.1)
    elif name == "bar":
        yield _box(-0.7, -0.18, 0.7, 0.18)
    elif name == "exclamation":
        yield np.array([[-0.2, -0.86], [0.2, -0.86], [0.12, 0.18], [-0.12, 0.18]])
        yield _arc(0, 0.46, 0.17, 0, 360)
    elif name in ("left", "right"):
        bend = _arc(0.08, 0.2, 0.28, -90, 0)
        shaft = np.concatenate([[[-0.2, -0.08]], bend, [[0.36, 0.66]]])
        side = np.array([1 if name == "left" else -1, 1])
        yield _stroke(shaft, 0.24) * side
        yield np.array([[-0.68, -0.08], [-0.16, -0.5], [-0.16, 0.34]]) * side
