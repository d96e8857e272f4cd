"""Feature squeezing: throw away what an attacker can use and a classifier does not need.

A squeezer is any function from images ``[N, C, H, W]`` in [0, 1] to images of the same shape;
``functools.partial(bit_depth, bits=1)`` is one. ``Squeezed(model, first, second)`` puts squeezers
in front of any model. Xu, Evans and Qi 2018 (arXiv 1704.01155).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from nclib.doors import array, finite, integer, number, numbers
from nclib.training import predict

Squeezer = Callable[[Tensor], Tensor]

# Annex K of the JPEG standard (ITU T.81), in rows: luminance, chrominance.
LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 "
    "62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 "
    "98 112 100 103 99"
)
CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 "
    "99" + " 99" * 32
)


class Squeezed(nn.Module):
    """``model`` behind one or more squeezers, applied in the order given."""

    def __init__(self, model: nn.Module, *squeezers: Squeezer) -> None:
        super().__init__()
        self.model, self.squeezers = model, squeezers
        if not squeezers:
            raise ValueError("squeezers: got none; at least one function of images is needed")

    def squeeze(self, images: Tensor) -> Tensor:
        for squeezer in self.squeezers:
            images = squeezer(images)
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.squeeze(images))


@numbers
def bit_depth(images: Tensor, bits: int = 1) -> Tensor:
    """Round to ``2**bits`` grey levels per channel; halves go to the even level, as in numpy."""
    finite(images.detach(), "images")
    integer(bits, "bits", 1, 8)
    levels = 2**bits - 1
    return (images * levels).round() / levels


@numbers
def median(images: Tensor, size: int = 2) -> Tensor:
    """The median of a ``size`` x ``size`` window around each pixel, aligned as scipy does it.

    The window of an even size reaches one pixel further up and left; of an even number of values
    the upper middle one counts; the border repeats in a mirror (scipy's mode "reflect").
    """
    finite(images.detach(), "images")
    integer(size, "size", 2, min(images.shape[2:]))
    before, after = size // 2, (size - 1) // 2
    for axis in (2, 3):
        length = images.shape[axis]
        mirrored = [*range(before - 1, -1, -1), *range(length)]
        mirrored += [length - 1 - i for i in range(after)]
        images = images.index_select(axis, torch.tensor(mirrored).to(images.device))
    if size == 2:  # the second largest of four, without a sort
        a, b = images[:, :, :-1, :-1], images[:, :, :-1, 1:]
        c, d = images[:, :, 1:, :-1], images[:, :, 1:, 1:]
        larger = torch.minimum(torch.maximum(a, b), torch.maximum(c, d))
        return torch.maximum(larger, torch.maximum(torch.minimum(a, b), torch.minimum(c, d)))
    windows = images.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    return windows.sort(-1).values[..., size * size // 2]


@numbers
def non_local_means(
    images: Tensor, search: int = 13, patch: int = 3, strength: float = 2 / 255
) -> Tensor:
    """Average each pixel with those nearby whose surroundings look alike (Buades et al. 2005).

    A pixel within the ``search`` x ``search`` window weighs ``exp(-d / strength**2)``, d the mean
    squared difference of the two ``patch`` x ``patch`` surroundings, over all channels at once.
    The defaults are the paper's 13-3-2 for CIFAR-10; OpenCV's colour variant, which the paper used,
    weighs lightness and colour apart.
    """
    finite(images.detach(), "images")
    integer(search, "search", 1), integer(patch, "patch", 1), number(strength, "strength", 0)
    reach, rim = search // 2, patch // 2
    if search % 2 == 0 or patch % 2 == 0 or strength == 0:
        raise ValueError(
            f"search, patch, strength: got {search}, {patch}, {strength}; "
            "two odd sizes and a positive strength are allowed"
        )
    height, width = images.shape[2:]
    if reach + rim >= min(height, width):
        raise ValueError(
            f"search: {search} with patch {patch} needs images above {reach + rim} pixels a side; "
            f"got {height} x {width}"
        )
    wide = pad(images, [reach + rim] * 4, mode="reflect")
    inner = pad(images, [rim] * 4, mode="reflect")
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for dy in range(search):
        for dx in range(search):
            other = wide[:, :, dy : dy + height + 2 * rim, dx : dx + width + 2 * rim]
            apart = (other - inner).square().mean(1, keepdim=True)
            weight = torch.exp(-avg_pool2d(apart, patch, 1) / strength**2)
            total = total + weight * other[:, :, rim : rim + height, rim : rim + width]
            weights = weights + weight
    return total / weights


@numbers
def noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add fresh Gaussian noise of standard deviation ``sigma`` and cut at 0 and 1."""
    number(sigma, "sigma", 0)
    drawn = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + sigma * drawn.to(images.device)).clamp(0, 1)


@numbers
def jpeg(images: Tensor, quality: int = 75) -> Tensor:
    """Each image through Pillow's JPEG and back: grey for one channel, RGB for three, any size.

    What lies beyond [0, 1] is cut off.
    """
    _check_jpeg(images, quality)
    pixels = (images.detach() * 255).round().clamp(0, 255).byte()
    rows = pixels.permute(0, 2, 3, 1).cpu().numpy()
    stored = np.stack([_through_pillow(row, quality) for row in rows])
    back = torch.from_numpy(stored).permute(0, 3, 1, 2).to(images.device)
    return back.float().div_(255).contiguous()


def _through_pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(file))
    return back[..., None] if grey else back


@numbers
def jpeg_differentiable(images: Tensor, quality: int = 75) -> Tensor:
    """JPEG in torch, for an attacker: near Pillow's result, with a gradient that is not zero.

    The loss is in the rounding of the cosine coefficients; its gradient is taken as if the
    coefficient were kept (straight-through). The colour planes lose half of their resolution, as
    in Pillow. Shin and Song 2017 gave the first of these.
    """
    _check_jpeg(images, quality)
    height, width = images.shape[2:]
    levels = images * 255
    if images.shape[1] == 1:
        return (_quantised(levels - 128, quality, LUMA) + 128).clamp(0, 255) / 255
    red, green, blue = levels.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    colour = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)
    colour = pad(colour, [0, width % 2, 0, height % 2], mode="replicate")
    colour = _quantised(avg_pool2d(colour, 2), quality, CHROMA)
    colour = interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    luma = _quantised(luma[:, None] - 128, quality, LUMA)[:, 0] + 128
    cb, cr = colour[:, :, :height, :width].unbind(1)
    green = luma - (0.299 * 1.402 * cr + 0.114 * 1.772 * cb) / 0.587
    return torch.stack([luma + 1.402 * cr, green, luma + 1.772 * cb], 1).clamp(0, 255) / 255


def _check_jpeg(images: Tensor, quality: int) -> None:
    integer(quality, "quality", 1, 100)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images: got {tuple(images.shape)}; [N, 1 or 3, H, W] is allowed")
    finite(images.detach(), "images")


def _quantised(plane: Tensor, quality: int, table: str) -> Tensor:
    """Cut into 8 x 8 blocks, round the cosine coefficients to the table's steps, and go back."""
    height, width = plane.shape[2:]
    plane = pad(plane, [0, -width % 8, 0, -height % 8], mode="replicate")
    blocks = plane.unfold(2, 8, 8).unfold(3, 8, 8)  # [N, C, rows, columns, 8, 8]
    cosines, steps = (t.to(plane) for t in (_cosines(), _steps(quality, table)))
    coefficients = cosines @ blocks @ cosines.T / steps
    kept = coefficients + (coefficients.round() - coefficients).detach()
    blocks = cosines.T @ (kept * steps) @ cosines
    whole = blocks.transpose(3, 4).reshape(*plane.shape)
    return whole[:, :, :height, :width]


@lru_cache
def _cosines() -> Tensor:
    """The orthonormal 8 x 8 matrix of the cosine transform (type II)."""
    k, i = torch.arange(8.0)[:, None], torch.arange(8.0)
    return torch.cos(torch.pi * k * (2 * i + 1) / 16) * torch.where(k == 0, 0.125, 0.25).sqrt()


@lru_cache
def _steps(quality: int, table: str) -> Tensor:
    """The quantisation steps at ``quality``, scaled as libjpeg does it."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(max((int(v) * scale + 50) // 100, 1), 255) for v in table.split()]
    return torch.tensor(steps, dtype=torch.float32).reshape(8, 8)


@numbers
def joint_score(
    model: nn.Module, images: Tensor, squeezers: Iterable[Squeezer], batch_size: int = 1024
) -> Tensor:
    """How far squeezing moves the softmax ``[N]``: the largest L1 distance over the squeezers.

    0 (no squeezer changes anything) to 2; higher is more suspicious.
    """
    before = predict(model, images, batch_size).softmax(1)
    scores = [
        (predict(Squeezed(model, squeezer), images, batch_size).softmax(1) - before).abs().sum(1)
        for squeezer in squeezers
    ]
    if not scores:
        raise ValueError("squeezers: got none; at least one function of images is needed")
    return torch.stack(scores).amax(0)


@numbers
def threshold(clean_scores: Tensor, false_positives: float = 0.05) -> float:
    """The score that at most this share of the clean images exceeds."""
    if not 0 <= false_positives < 1:
        raise ValueError(f"false_positives: got {false_positives}; 0 <= share < 1 is allowed")
    finite(clean_scores := array(clean_scores, "clean_scores"), "clean_scores")
    if clean_scores.ndim != 1 or not len(clean_scores):
        raise ValueError(
            f"clean_scores: got {tuple(clean_scores.shape)}; [N] with N >= 1 is allowed"
        )
    ranked = clean_scores.sort(descending=True).values
    above = int(false_positives * len(ranked) + 1e-9)  # 0.29 * 100 is a little below 29
    return float(ranked[min(above, len(ranked) - 1)])
