"""What is known about each image of a drawn set: the causes, beside the pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """How each of N road signs was drawn; every field is a tensor with N rows.

    ``sign``, ``shape``, ``colour``, ``symbol`` and ``background`` int64 ``[N]`` are positions in
    the names of ``nclib.data.signs.NAMES``. ``angle`` (clockwise) and ``tilt`` ``[N, 2]`` (about
    the upright and the level axis) in degrees. ``scale`` is the sign's radius in half images,
    ``place`` ``[N, 2]`` its centre, (x, y) in [-1, 1] with y down; ``homography`` ``[N, 3, 3]``
    takes the sign's own plane, where its outline lies about the unit circle, to the image.
    ``light`` ``[N]`` is the exposure, ``tint`` ``[N, 3]`` its colour, ``slope`` ``[N, 2]`` its
    growth along x and y; ``blur`` ``[N]`` a Gaussian's deviation in half images.
    """

    sign: Tensor
    shape: Tensor
    colour: Tensor
    symbol: Tensor
    background: Tensor
    angle: Tensor
    tilt: Tensor
    scale: Tensor
    place: Tensor
    homography: Tensor
    light: Tensor
    tint: Tensor
    slope: Tensor
    blur: Tensor

    def __len__(self) -> int:
        return len(self.sign)

    def __getitem__(self, index: Tensor | slice) -> Factors:
        """Those of the images that ``index`` (positions, a mask or a slice) selects."""
        return Factors(**{name: value[index] for name, value in self.tensors().items()})

    def to(self, device: torch.device | str) -> Factors:
        """The same, with every tensor on ``device``."""
        return Factors(**{name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
