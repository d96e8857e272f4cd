"""Data sets as plain tensors: images in [0, 1] and integer labels, ready for a device.

``train, test = load("signs")`` is all that a lesson needs. The signs are drawn here and the digits
ship with scikit-learn, so both work offline. The other sets are read from the data root, or
downloaded into it once.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from nclib import places
from nclib.data import archives, folders, gtsrb, pictures, signs
from nclib.data.images import ImageSet
from nclib.data.sampling import split, stratified
from nclib.device import pick
from nclib.doors import numbers

# name: (class in torchvision.datasets, its folder)
TORCHVISION_SETS = {
    "mnist": ("MNIST", "MNIST"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
NAMES = ("signs", "digits", *TORCHVISION_SETS, "gtsrb", *archives.ARCHIVES, "folder:PATH")


def data_root(root: str | Path | None = None, holds: str = "") -> Path:
    """The data root: ``root``, else ``NCLIB_DATA``, else a checkout's data/, else the cache.

    Of the latter two the first that has ``holds``, or else takes files.
    """
    return places.expanded(root, "root") if root else places.root("NCLIB_DATA", "data", holds)


@numbers
def load(
    name: str = "signs",
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    size: int | None = None,
    seed: int = 0,
    difficulty: float | None = None,
    root: str | Path | None = None,
    device: torch.device | str | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Load a data set as ``(train, test)``.

    ``name`` is signs, digits, mnist, fashion_mnist, cifar10, gtsrb (32 pixels wide if no ``size``
    is given), cinic10, cinic10_imagenet (its part that is not CIFAR-10), tiny_imagenet or
    ``folder:PATH`` (one folder per class, under train/ and test/ or to be split 80:20).
    ``n_train`` and ``n_test`` take a stratified subset that ``seed`` fixes, and ``size`` resizes to
    size x size pixels; the signs are drawn in that number and size, anew for each ``seed`` and at
    any ``difficulty`` from 0 to 2 (None: 1). ``device=None`` means ``device.pick()``. Raises
    ``ValueError`` or ``FileNotFoundError``, each saying what to do.
    """
    for argument, value in (("n_train", n_train), ("n_test", n_test), ("size", size)):
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ValueError(
                f"{argument}: got {value!r}; a whole number from 1, or None, is allowed"
            )
    device = pick(device)
    if difficulty is not None and name != "signs":
        raise ValueError(f"difficulty: got {difficulty!r}; only signs have one, {name!r} has none")
    if name == "signs":
        train, test = signs.load(data_root(root), n_train, n_test, size, seed, difficulty)
        return train.to(device), test.to(device)
    if name == "digits":
        train, test = _digits()
    elif name in TORCHVISION_SETS:
        train, test = (
            _torchvision(name, part, data_root(root, TORCHVISION_SETS[name][1]))
            for part in (True, False)
        )
    elif name == "gtsrb":
        size = size or 32  # the photographs are of all sizes
        train, test = _files(
            name, *_gtsrb(data_root(root, gtsrb.FOLDER)), (n_train, n_test), size, seed
        )
    elif name in archives.ARCHIVES:
        parts = archives.listing(name, data_root(root, archives.ARCHIVES[name].folder))
        train, test = _files(name, *parts, (n_train, n_test), size, seed)
    elif str(name).startswith("folder:") and name != "folder:":
        path = places.expanded(name.removeprefix("folder:"), "folder")
        train, test = folders.load_folder(path, size, seed)
    else:
        raise ValueError(f"name: got {name!r}; allowed are {', '.join(NAMES)}")
    train = _resized(_sampled(train, n_train, "n_train", seed), size).to(device)
    return train, _resized(_sampled(test, n_test, "n_test", seed), size).to(device)


def _sampled(data: ImageSet, n: int | None, argument: str, seed: int) -> ImageSet:
    return data if n is None else data.subset(_chosen(data.labels, n, argument, data.name, seed))


def _chosen(labels: Tensor, n: int | None, argument: str, name: str, seed: int) -> Tensor:
    """Positions of a stratified subset; an error names the argument that the user gave."""
    try:
        return torch.arange(len(labels)) if n is None else stratified(labels, n, seed)
    except ValueError as error:
        said = str(error).removeprefix("n: ")
        raise ValueError(f"{argument} for {name}: {said}") from None


def _resized(data: ImageSet, size: int | None) -> ImageSet:
    if size is None or data.shape[1:] == (size, size):
        return data
    images = interpolate(data.images, (size, size), mode="bilinear", antialias=True)
    return replace(data, images=images.clamp(0, 1))


def _digits() -> tuple[ImageSet, ImageSet]:
    """1300 training and 497 test digits of 8 x 8 pixels (UCI, through scikit-learn)."""
    raw = load_digits()
    images = torch.from_numpy(raw.images / 16).float().unsqueeze(1)
    labels = torch.from_numpy(raw.target).long()
    whole = ImageSet(images, labels, tuple(map(str, range(10))), "digits")
    first, rest = split(labels, 1300, seed=0)
    return whole.subset(first.sort().values), whole.subset(rest.sort().values)


def _torchvision(name: str, train: bool, root: Path) -> ImageSet:
    """One of torchvision's sets from ``root``; a missing one is downloaded there first."""
    from torchvision import datasets  # slow to load, and the digits do without

    kind, folder = TORCHVISION_SETS[name]
    maker, place = getattr(datasets, kind), root / folder
    if not place.exists():
        _download(name, partial(maker, train=True, download=True), root, folder)
    try:
        return _as_image_set(maker(root, train=train, download=False), name)
    except Exception as error:  # torchvision raises whatever the broken file provokes
        raise ValueError(
            f"{name}: the files in {place} cannot be read ({str(error) or type(error).__name__}). "
            f"Delete {place} and load {name!r} again to download a fresh copy."
        ) from error


def _as_image_set(raw: Any, name: str) -> ImageSet:
    """What a ``torchvision.datasets`` class read."""
    images, labels = torch.as_tensor(raw.data), torch.as_tensor(raw.targets).long()
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    classes = tuple(c.split(" - ")[0] if name == "mnist" else c for c in raw.classes)
    return ImageSet(images.float().div_(255).contiguous(), labels, classes, name)


def _download(name: str, fetch: Callable[[str], object], root: Path, folder: str) -> None:
    """Fetch into a staging folder and move it into place, so that no half file looks finished."""
    patience = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not root.stat().st_mode & 0o222:  # the administrator, to whom all is open, asks too
            raise PermissionError(f"{root} is read-only")
        with tempfile.TemporaryDirectory(prefix=f".incoming-{name}-", dir=root) as staging:
            print(f"{name}: downloading into {root}, this once")
            socket.setdefaulttimeout(archives.SILENCE)
            fetch(staging)
            if not (root / folder).exists():  # another process may have been faster
                os.replace(Path(staging, folder), root / folder)
    except Exception as error:
        raise FileNotFoundError(
            f"{name}: not found in {root}, and the download failed ({error}). Check the network "
            f"and try again, or put torchvision's folder {folder!r} into {root} yourself "
            f"(NCLIB_DATA names another place). DATASET = 'digits' needs no download."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _gtsrb(root: Path) -> tuple[archives.Files, archives.Files, tuple[str, ...]]:
    if not (root / gtsrb.FOLDER).exists():
        _download("gtsrb", gtsrb.fetch, root, gtsrb.FOLDER)
    train, test = gtsrb.listing(root)
    return train, test, gtsrb.CLASSES


def _files(
    name: str,
    train: archives.Files,
    test: archives.Files,
    classes: tuple[str, ...],
    counts: tuple[int | None, int | None],
    size: int | None,
    seed: int,
) -> tuple[ImageSet, ImageSet]:
    """A set of many image files: the subset is chosen by its labels before any file is opened."""

    def chosen(files: archives.Files, n: int | None, argument: str) -> ImageSet:
        labels = torch.tensor([label for _, label in files])
        index = _chosen(labels, n, argument, name, seed)
        images = pictures.read([files[i][0] for i in index], size, name, "RGB")
        return ImageSet(images, labels[index], classes, name)

    return chosen(train, counts[0], "n_train"), chosen(test, counts[1], "n_test")
