"""Image files on the disk as tensors: a list of files, or a tree with a folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from nclib.data.images import ImageSet
from nclib.data.kept import cached_uint8
from nclib.data.sampling import split

MANY = 1000  # from so many files on there is a bar, and their bytes are kept

# what torchvision's ImageFolder takes for an image
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def load_folder(path: Path, size: int | None, seed: int) -> tuple[ImageSet, ImageSet]:
    """An ImageFolder tree with train/ and test/ inside, or one tree split 80:20 by ``seed``."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"folder: {path} does not exist; name a folder with one folder per class"
        )
    if (path / "train").is_dir() != (path / "test").is_dir():
        raise ValueError(f"folder: {path} has one of train/ and test/; it needs both, or neither")
    if (path / "train").is_dir():
        train, test = _tree(path / "train", size), _tree(path / "test", size)
        if train.classes != test.classes:
            only = [
                sorted(set(a.classes) - set(b.classes)) for a, b in ((train, test), (test, train))
            ]
            raise ValueError(
                f"folder: train/ and test/ in {path} need the same classes; "
                f"only in train/: {only[0]}, only in test/: {only[1]}"
            )
        if {train.shape[0], test.shape[0]} == {1, 3}:  # one is grey: give it three equal channels
            train, test = (
                replace(d, images=d.images.repeat(1, 3 // d.shape[0], 1, 1)) for d in (train, test)
            )
        if train.shape != test.shape:
            raise ValueError(
                f"folder: train/ is {train.shape}, test/ is {test.shape}; pass size=32, say"
            )
        return train, test
    whole = _tree(path, size)
    first, rest = split(whole.labels, round(0.8 * len(whole)), seed)
    return whole.subset(first.sort().values), whole.subset(rest.sort().values)


def _tree(path: Path, size: int | None) -> ImageSet:
    return ImageSet(*tree(path, size), f"folder:{path.name}")


def tree(path: Path, size: int | None = None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """All images below ``path``, one class per folder: images ``[N, C, H, W]``, labels, classes.

    Many files are read once: their bytes are kept in the cache for as long as no file changes.
    Raises ``ValueError`` for fewer than two folders, an empty one, and whatever ``read`` refuses.
    """
    classes = tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and _wanted(p.name)))
    if len(classes) < 2:
        raise ValueError(
            f"folder: {path} holds {len(classes)} class folder(s); at least 2 are needed"
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _files(path / name)
        if not found:
            raise ValueError(f"folder: {path / name} holds no image ({', '.join(SUFFIXES)})")
        files += found
        labels += [label] * len(found)
    if len(files) < MANY:
        images = _bytes(files, size, "folder")
    else:
        here = os.getcwd()
        stats = [(os.path.join(here, file), os.stat(file)) for file in files]
        state = "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)
        key = [state, size, PIL.__version__, _bytes]
        images = cached_uint8(key, lambda: {"images": _bytes(files, size, "folder")})["images"]
    return images.float().div_(255), torch.tensor(labels), classes


def _files(folder: Path) -> list[str]:
    """The images below ``folder``; 60,000 of them in a third of a second, and so without Path."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = filter(_wanted, folders)
        images = (n for n in names if n.lower().endswith(SUFFIXES) and _wanted(n))
        found += [os.path.join(place, name) for name in images]
    return sorted(found)


def read(
    files: Sequence[Path | str], size: int | None, name: str, mode: str | None = None
) -> Tensor:
    """Image files as float32 ``[N, C, H, W]`` in [0, 1], of ``size`` x ``size`` pixels if given.

    ``mode`` is "L" or "RGB"; None: grey only where every image is grey. ``name`` is what an error
    speaks of. Raises ``ValueError`` for a file that is no image, and for images of mixed sizes.
    """
    return _bytes(files, size, name, mode).float().div_(255)


def _bytes(
    files: Sequence[Path | str], size: int | None, name: str, mode: str | None = None
) -> Tensor:
    """What ``read`` returns, as uint8 in 0..255."""
    few = len(files) < MANY  # no bar for a moment's work
    bar = tqdm(files, desc=f"reading {name}", leave=False, disable=few)
    pictures = [_picture(file, size, name) for file in bar]
    mode = mode or ("RGB" if any(p.mode != "L" for p in pictures) else "L")
    arrays = [np.asarray(p.convert(mode)) for p in pictures]
    sizes = {a.shape[:2] for a in arrays}
    if len(sizes) > 1:
        raise ValueError(
            f"{name}: images of mixed sizes, among them {sorted(sizes)[:3]}; pass size=32, say"
        )
    images = torch.from_numpy(np.stack(arrays))
    return images.unsqueeze(1) if mode == "L" else images.permute(0, 3, 1, 2).contiguous()


def _wanted(name: str) -> bool:
    """False for hidden files and folders, and for what a Mac adds to an archive."""
    return not name.startswith((".", "__MACOSX"))


def _picture(file: Path | str, size: int | None, name: str) -> Image.Image:
    """One image file, upright; ``size`` resizes it, grey stays grey, the rest becomes RGB."""
    try:
        with Image.open(file) as stored:
            if stored.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel; save it with 8")
            picture = ImageOps.exif_transpose(stored)  # a phone stores how it was held
            picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    except Exception as error:  # Pillow raises whatever the broken file provokes
        raise ValueError(
            f"{name}: {file} cannot be read as an image ({error}); mend or remove it"
        ) from error
    return picture.resize((size, size), Image.Resampling.BILINEAR) if size else picture
