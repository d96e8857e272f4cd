"""Image files as tensors: whatever a camera or a drawing program saved, upright and in 8 bits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

FEW = 1000  # no bar for a moment's work

# what torchvision's ImageFolder takes for an image, and a JPEG and a GIF by the names it forgets
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".jfif", ".gif"),
)


def read(
    files: Sequence[Path | str], size: int | None, name: str, mode: str | None = None
) -> Tensor:
    """Image files as float32 ``[N, C, H, W]`` in [0, 1], of ``size`` x ``size`` pixels if given.

    ``mode`` is "L" or "RGB"; None: grey only where every image is grey. A photograph stands as it
    was held. What is transparent becomes white, or black in an image that white would leave blank.
    Grey values of 16 bits keep their upper 8; of several pictures in a file the first is taken, and
    a warning says so. ``name`` is what an error speaks of. Raises ``ValueError`` for a file that is
    no image, and for images of mixed sizes.
    """
    return read_bytes(files, size, name, mode).float().div_(255)


def read_bytes(
    files: Sequence[Path | str], size: int | None, name: str, mode: str | None = None
) -> Tensor:
    """What ``read`` returns, as uint8 in 0..255."""
    several: list[str] = []
    bar = tqdm(files, desc=f"reading {name}", leave=False, disable=len(files) < FEW)
    pictures = [_picture(file, size, name, several) for file in bar]
    if several:
        warnings.warn(
            f"{name}: {len(several)} file(s) hold several pictures, {several[0]} among them; the "
            "first of each is taken",
            stacklevel=2,
        )
    mode = mode or ("RGB" if any(p.mode != "L" for p in pictures) else "L")
    arrays = [np.asarray(p.convert(mode)) for p in pictures]
    sizes = {a.shape[:2] for a in arrays}
    if len(sizes) > 1:
        raise ValueError(
            f"{name}: images of mixed sizes, among them {sorted(sizes)[:3]}; pass size=32, say"
        )
    images = torch.from_numpy(np.stack(arrays))
    return images.unsqueeze(1) if mode == "L" else images.permute(0, 3, 1, 2).contiguous()


def _picture(file: Path | str, size: int | None, name: str, several: list[str]) -> Image.Image:
    """One image file, upright; ``size`` resizes it, grey stays grey, the rest becomes RGB."""
    try:
        with Image.open(file) as stored:
            if getattr(stored, "n_frames", 1) > 1:
                several.append(os.path.basename(file))
            picture = ImageOps.exif_transpose(stored)  # a phone stores how it was held
            picture = _opaque(_eight_bits(picture))
    except Exception as error:  # Pillow raises whatever the broken file provokes
        raise ValueError(
            f"{name}: {file} cannot be read as an image ({error}); mend or remove it"
        ) from error
    return picture.resize((size, size), Image.Resampling.BILINEAR) if size else picture


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits by its upper 8; ``ValueError`` for more, or where they would say nothing."""
    if picture.mode[0] not in "IF":
        return picture
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("more than 16 bits a channel; save it with 8")
    if 0 < values.max() < 4096:
        raise ValueError(
            f"its brightest value is {values.max()} of 65535, all but black; stretch the values "
            "and save it with 8 bits"
        )
    return Image.fromarray((values // 256).astype(np.uint8))


def _opaque(picture: Image.Image) -> Image.Image:
    """Grey or RGB, on white; on black where white would leave the image blank."""
    if not picture.has_transparency_data:
        return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    ink = picture.convert("RGBA")
    grey = picture.mode in ("1", "L", "LA", "La")
    on = [
        Image.alpha_composite(Image.new("RGBA", ink.size, ground), ink).convert("RGB")
        for ground in ("white", "black")
    ]
    contrast = [int(np.ptp(np.asarray(image), (0, 1)).max()) for image in on]
    best = on[int(contrast[0] < 32 and contrast[1] > contrast[0])]
    return best.convert("L") if grey else best
