"""A tree of image files with a folder per class, whole or in a part to train and one to test."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import PIL
import torch
from torch import Tensor

from nclib.data.images import ImageSet
from nclib.data.kept import cached_uint8
from nclib.data.pictures import SUFFIXES, read_bytes
from nclib.data.sampling import split

MANY = 1000  # the bytes of so many files are kept

# what people call the parts of a data set, in any capitals: "Train", "testing", "val_images"
PARTS = {"train": r"train(ing)?", "val": r"val(id|idation)?", "test": r"test(ing)?"}
_TAIL = r"([-_ ]?(set|data|images?|split))?"


def load_folder(path: Path, size: int | None, seed: int) -> tuple[ImageSet, ImageSet]:
    """An ImageFolder tree with train/ and test/ inside, or one tree split 80:20 by ``seed``.

    The parts may be called as in ``PARTS``, in any capitals; val/ is the test part where there is
    no other. What else lies beside them is left aside with a warning.
    """
    path = spelt(path)
    parts = parts_of(path)
    if parts:
        return _match(path, *(_tree(path / parts[role], size) for role in ("train", "test")))
    whole = _tree(path, size)
    count = min(round(0.8 * len(whole)), len(whole) - 1)
    if count < whole.num_classes:
        raise ValueError(
            f"folder: {path} has {len(whole)} image(s) of {whole.num_classes} classes, too few to "
            "keep one of each to train on and one to test on; add images"
        )
    first, rest = split(whole.labels, count, seed)
    return whole.subset(first.sort().values), whole.subset(rest.sort().values)


def spelt(path: Path) -> Path:
    """The folder, whether its accents are written as one sign or as two."""
    for form in (str(path), *(normalize(form, str(path)) for form in ("NFC", "NFD"))):
        if Path(form).is_dir():
            return Path(form)
    raise FileNotFoundError(
        f"folder: {path} does not exist; name a folder with one folder per class"
    )


def part_of(name: str) -> str | None:
    """ "train", "val" or "test" for a folder that is called so; None for any other name."""
    found = [p for p, word in PARTS.items() if re.fullmatch(word + _TAIL, name, re.IGNORECASE)]
    return found[0] if found else None


def parts_of(path: Path) -> dict[str, str]:
    """{"train": folder, "test": folder}; empty where no folder is called like a part."""
    names = _folders(path)
    found: dict[str, str] = {}
    for name in names:
        part = part_of(name)
        if part and part in found:
            raise ValueError(
                f"folder: {path} has {found[part]}/ and {name}/, both for {part}; one is needed"
            )
        found |= {part: name} if part else {}
    if not found:
        return {}
    if "train" not in found or len(found) == 1:
        lone = ", ".join(found.values())
        raise ValueError(
            f"folder: {path} has one of train/ and test/; it needs both, or neither. {lone} is "
            "taken for a part of the set; a class needs another name"
        )
    parts = {"train": found["train"], "test": found.get("test", found.get("val", ""))}
    aside = [f"{name}/" for name in names if name not in parts.values()]
    if aside:
        _warn(f"{path}: {', '.join(aside)} beside {parts['train']}/ and {parts['test']}/")
    return parts


def _match(path: Path, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two parts with the same classes and shapes; grey beside colour gets three equal channels."""
    if train.classes != test.classes:
        only = [sorted(set(a.classes) - set(b.classes)) for a, b in ((train, test), (test, train))]
        raise ValueError(
            f"folder: train/ and test/ in {path} need the same classes; "
            f"only in train/: {only[0]}, only in test/: {only[1]}"
        )
    if {train.shape[0], test.shape[0]} == {1, 3}:
        train, test = (
            replace(d, images=d.images.repeat(1, 3 // d.shape[0], 1, 1)) for d in (train, test)
        )
    if train.shape != test.shape:
        raise ValueError(
            f"folder: train/ is {train.shape}, test/ is {test.shape}; pass size=32, say"
        )
    return train, test


def _tree(path: Path, size: int | None) -> ImageSet:
    return ImageSet(*tree(path, size), f"folder:{path.name}")


def tree(path: Path, size: int | None = None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """All images below ``path``, one class per folder: images ``[N, C, H, W]``, labels, classes.

    Linked folders count; class names are in Unicode's composed form (NFC). A warning names what
    is left out: files without an image's suffix, images outside the class folders. Many files are
    read once: their bytes are kept in the cache for as long as no file changes. Raises
    ``ValueError`` like ``listing``, and for whatever ``pictures.read`` refuses.
    """
    files, labels, classes = listing(path)
    if len(files) < MANY:
        images = read_bytes(files, size, "folder")
    else:
        here = os.getcwd()
        stats = [(os.path.join(here, file), os.stat(file)) for file in files]
        state = "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)
        key = [state, size, PIL.__version__, read_bytes]
        made = cached_uint8(key, lambda: {"images": read_bytes(files, size, "folder")})
        images = made["images"]
    return images.float().div_(255), torch.tensor(labels), classes


def listing(path: Path) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The image files below ``path``, class by class, their labels and the classes' names.

    Raises ``ValueError`` for fewer than two folders, an empty one, and parts inside a class.
    """
    places: dict[str, list[str]] = {}
    for name in _folders(path):
        places.setdefault(normalize("NFC", name), []).append(name)
    classes = tuple(sorted(places))
    if len(classes) < 2:
        raise ValueError(
            f"folder: {path} holds {len(classes)} class folder(s); at least 2 are needed"
        )
    files: list[str] = []
    labels: list[int] = []
    other: list[str] = []
    for label, name in enumerate(classes):
        found = [_files(path / place) for place in places[name]]
        mine = sorted(file for images, _ in found for file in images)
        if not mine:
            raise ValueError(f"folder: {path / name} holds no image ({', '.join(SUFFIXES)})")
        files += mine
        labels += [label] * len(mine)
        other += [file for _, others in found for file in others]
    _tell(path, other)
    return files, labels, classes


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and _wanted(p.name))


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Images and other files below ``folder``; 60,000 in a third of a second, so without Path."""
    images: list[str] = []
    other: list[str] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            other.append(place)
            folders.clear()
            continue
        seen.add(real)
        folders[:] = filter(_wanted, folders)
        parts = [name for name in folders if part_of(name)] if place == str(folder) else []
        if parts:
            raise ValueError(
                f"folder: {place} holds {parts[0]}/; train/ and test/ are needed above the "
                "classes, each with a folder per class"
            )
        for name in filter(_wanted, names):
            fits = name.lower().endswith(SUFFIXES)
            (images if fits else other).append(os.path.join(place, name))
    return images, other


def _tell(path: Path, other: list[str]) -> None:
    """Warn of what lies in the tree and does not come along."""
    if other:
        kinds = Counter(Path(file).suffix.lower() or Path(file).name for file in other)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        first = os.path.relpath(sorted(other)[0], path)
        _warn(f"{path}: {len(other)} that are no image by their names ({named}), as {first}")
    loose = [p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES and _wanted(p.name)]
    if loose:
        _warn(f"{path}: {len(loose)} image(s) outside the class folders, as {min(loose)}")


def _warn(what: str) -> None:
    warnings.warn(f"folder: left out of {what}", stacklevel=2)


def _wanted(name: str) -> bool:
    """False for hidden files and folders, and for what Macs and Windows add."""
    return not name.startswith((".", "__MACOSX")) and name not in ("Thumbs.db", "desktop.ini")
