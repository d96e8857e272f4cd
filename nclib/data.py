"""Data sets as plain tensors: images in [0, 1] and integer labels, ready for a device.

``train, test = load("digits")`` is all that a lesson needs. The digits ship with scikit-learn, so
they work offline. The other sets are read from the data root, or downloaded into it once.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor
from torch.nn.functional import interpolate

from nclib import archives, pictures, places
from nclib.device import pick

# name: (class in torchvision.datasets, its folder)
TORCHVISION_SETS = {
    "mnist": ("MNIST", "MNIST"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
NAMES = ("digits", *TORCHVISION_SETS, *archives.ARCHIVES, "folder:PATH")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images that live on one device.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1]; ``labels`` int64 ``[N]`` in 0..K-1; ``classes``
    the K class names. Raises ``ValueError`` when one of these does not hold, and for labels on
    another device than the images.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"

    per_sample: ClassVar[tuple[str, ...]] = ("images", "labels")  # what ``subset`` selects from

    def __post_init__(self) -> None:
        check_images(self.images)
        if isinstance(self.labels, Tensor) and self.labels.device != self.images.device:
            got = f"{self.labels.device}, the images on {self.images.device}"
            raise ValueError(f"labels: on {got}; one device is needed")
        check_labels(self.labels, len(self.images), self.num_classes)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return tuple(self.images.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set, with every tensor on ``device``."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def subset(self, index: Tensor) -> ImageSet:
        """The samples that ``index`` (positions, or a boolean mask of length N) selects."""
        index = torch.as_tensor(index, device=self.device)
        if index.dtype == torch.bool and index.shape != (len(self),):
            raise ValueError(f"index: a mask of shape {tuple(index.shape)} for {len(self)} images")
        return replace(self, **{field: getattr(self, field)[index] for field in self.per_sample})

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name}: {len(self)} images of {self.shape}, "
            f"{self.num_classes} classes, on {self.device})"
        )


def check_images(images: Tensor, name: str = "images") -> None:
    """Refuse anything but finite float32 ``[N, C, H, W]`` in [0, 1] with a ``ValueError``."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.float32:
        got = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        )
        raise ValueError(f"{name}: got {got}; a float32 tensor [N, C, H, W] is needed")
    if len(images) == 0:
        raise ValueError(f"{name}: got no image at all; at least one is needed")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ValueError(f"{name}: values run from {low:.4g} to {high:.4g}; [0, 1] is allowed")


def check_labels(labels: Tensor, count: int, num_classes: int, name: str = "labels") -> None:
    """Refuse anything but int64 ``[count]`` in 0..num_classes-1 with a ``ValueError``."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        got = (
            f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels)
        )
        raise ValueError(f"{name}: got {got}; an int64 tensor [{count}] is needed")
    low, high = labels.aminmax()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name}: values run from {low} to {high}; 0..{num_classes - 1} is allowed"
        )


def data_root(root: str | Path | None = None) -> Path:
    """The data root: ``root``, else ``NCLIB_DATA``, else a checkout's data/, else the cache."""
    return Path(root).expanduser() if root else places.root("NCLIB_DATA", "data")


def load(
    name: str = "digits",
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    size: int | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    device: torch.device | str | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Load a data set as ``(train, test)``.

    ``name`` is digits, mnist, fashion_mnist, cifar10, cinic10, cinic10_imagenet (its part that is
    not CIFAR-10), tiny_imagenet or ``folder:PATH`` (one folder per class, under train/ and test/ or
    to be split 80:20). ``n_train`` and ``n_test`` take a stratified
    subset that ``seed`` fixes. ``size`` resizes to size x size pixels. ``device=None`` means
    ``device.pick()``. Raises ``ValueError`` or ``FileNotFoundError``, each saying what to do.
    """
    for argument, value in (("n_train", n_train), ("n_test", n_test), ("size", size)):
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ValueError(
                f"{argument}: got {value!r}; a whole number from 1, or None, is allowed"
            )
    device = pick(device)
    if name == "digits":
        train, test = _digits()
    elif name in TORCHVISION_SETS:
        train, test = (_torchvision(name, part, data_root(root)) for part in (True, False))
    elif name in archives.ARCHIVES:
        train, test = _archive(name, data_root(root), (n_train, n_test), size, seed)
    elif str(name).startswith("folder:") and name != "folder:":
        train, test = _folder(Path(name.removeprefix("folder:")).expanduser(), size, seed)
    else:
        raise ValueError(f"name: got {name!r}; allowed are {', '.join(NAMES)}")
    parts = [(train, n_train, "n_train"), (test, n_test, "n_test")]
    return tuple(_resized(_sampled(*part, seed), size).to(device) for part in parts)


def stratified(labels: Tensor, n: int, seed: int = 0) -> Tensor:
    """Positions ``[n]`` of a random subset that keeps the class proportions, in rising order.

    Every class is in it. Raises ``ValueError`` where ``n`` is below the number of classes or above
    ``len(labels)``.
    """
    return _split(labels, n, seed)[0].sort().values


def _split(labels: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A stratified choice of ``n`` positions, and the rest."""
    labels = labels.cpu()
    present, counts = labels.unique(return_counts=True)
    if not len(present) <= n <= len(labels):
        raise ValueError(
            f"n: got {n}; {len(present)} (classes) to {len(labels)} (images) is allowed"
        )
    if n == len(labels):
        return torch.arange(n), torch.arange(0)
    rest = len(labels) - n
    if counts.min() < 2 or rest < len(present) or counts.min() * n < len(labels):
        order = _spread(labels, seed)  # scikit-learn refuses, or may lose the smallest class
        return order[:n], order[n:]
    chooser = StratifiedShuffleSplit(1, train_size=int(n), test_size=int(rest), random_state=seed)
    return tuple(map(torch.from_numpy, next(chooser.split(np.zeros(len(labels)), labels.numpy()))))


def _spread(labels: Tensor, seed: int) -> Tensor:
    """A random order whose every beginning holds each class in proportion, and all classes soon."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty(len(labels))
    for c in labels.unique():
        mine = labels[order] == c
        turn[mine] = torch.arange(int(mine.sum())) / mine.sum()
    return order[turn.argsort(stable=True)]


def _sampled(data: ImageSet, n: int | None, argument: str, seed: int) -> ImageSet:
    if n is None:
        return data
    try:
        return data.subset(stratified(data.labels, n, seed))
    except ValueError as error:
        raise ValueError(f"{argument} for {data.name}: {error}") from None


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
    first, rest = _split(labels, 1300, seed=0)
    return whole.subset(first.sort().values), whole.subset(rest.sort().values)


def _torchvision(name: str, train: bool, root: Path) -> ImageSet:
    """One of torchvision's sets from ``root``; a missing one is downloaded there first."""
    from torchvision import datasets  # slow to load, and the digits do without

    kind, folder = TORCHVISION_SETS[name]
    maker, place = getattr(datasets, kind), root / folder
    if not place.exists():
        _download(name, maker, root, folder)
    try:
        return _as_image_set(maker(root, train=train, download=False), name)
    except Exception as error:  # torchvision raises whatever the broken file provokes
        raise ValueError(
            f"{name}: the files in {place} cannot be read ({str(error) or type(error).__name__}). "
            f"Delete {place} and load {name!r} again to download a fresh copy."
        ) from error


def _as_image_set(raw, name: str) -> ImageSet:
    """What a ``torchvision.datasets`` class read."""
    images, labels = torch.as_tensor(raw.data), torch.as_tensor(raw.targets).long()
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    classes = tuple(c.split(" - ")[0] if name == "mnist" else c for c in raw.classes)
    return ImageSet(images.float().div_(255).contiguous(), labels, classes, name)


def _download(name: str, maker: Callable, root: Path, folder: str) -> None:
    """Fetch into a staging folder and move it into place, so that no half file looks finished."""
    patience = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not root.stat().st_mode & 0o222:  # the administrator, to whom all is open, asks too
            raise PermissionError(f"{root} is read-only")
        with tempfile.TemporaryDirectory(prefix=f".incoming-{name}-", dir=root) as staging:
            print(f"{name}: downloading into {root}, this once")
            socket.setdefaulttimeout(archives.SILENCE)
            maker(staging, train=True, download=True)
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


def _archive(
    name: str, root: Path, counts: tuple[int | None, int | None], size: int | None, seed: int
) -> tuple[ImageSet, ImageSet]:
    """A set of many image files: the subset is chosen by its labels before any file is opened."""
    *parts, classes = archives.listing(name, root)
    whole = []
    for files, n, argument in zip(parts, counts, ("n_train", "n_test"), strict=True):
        labels = torch.tensor([label for _, label in files])
        try:
            index = torch.arange(len(files)) if n is None else stratified(labels, n, seed)
        except ValueError as error:
            raise ValueError(f"{argument} for {name}: {error}") from None
        images = pictures.read([files[i][0] for i in index], size, name, "RGB")
        whole.append(ImageSet(images, labels[index], classes, name))
    return tuple(whole)


def _folder(path: Path, size: int | None, seed: int) -> tuple[ImageSet, ImageSet]:
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
    first, rest = _split(whole.labels, round(0.8 * len(whole)), seed)
    return whole.subset(first.sort().values), whole.subset(rest.sort().values)


def _tree(path: Path, size: int | None) -> ImageSet:
    return ImageSet(*pictures.tree(path, size), f"folder:{path.name}")
