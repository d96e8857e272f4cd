"""CINIC-10 and Tiny ImageNet: find the unpacked tree, or fetch the archive, check and unpack it.

Where a tree lies, its files and their labels are listed without opening an image, so that a subset
costs no more than a subset. ``data.load`` reads the images.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import urllib.request
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

SILENCE = 60.0  # seconds without a byte after which an address, or a download, is given up
Files = list[tuple[Path, int]]  # image files with their labels


@dataclass(frozen=True)
class Archive:
    """What is known of one data set as its authors give it out."""

    folder: str  # where it lies in the data root, unpacked
    file: str
    size: int  # bytes
    md5: str
    addresses: tuple[str, ...]
    top: str  # the folder inside the archive; empty where it has none
    images: tuple[int, int]  # in the training part and in the test part


CINIC = Archive(
    folder="CINIC-10",
    file="CINIC-10.tar.gz",
    size=687_544_992,
    md5="6ee4d0c996905fe93221de577967a372",
    addresses=(
        "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
        "https://datashare.ed.ac.uk/server/api/core/bitstreams/"
        "e8e186cc-2688-48f1-aa5a-3fda1a43f8b6/content",
    ),
    top="",
    images=(90_000, 90_000),
)
TINY = Archive(
    folder="tiny-imagenet-200",
    file="tiny-imagenet-200.zip",
    size=248_100_043,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    addresses=(
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    top="tiny-imagenet-200",
    images=(100_000, 10_000),
)
ARCHIVES = {"cinic10": CINIC, "cinic10_imagenet": CINIC, "tiny_imagenet": TINY}


def listing(name: str, root: Path) -> tuple[Files, Files, tuple[str, ...]]:
    """Training files, test files and class names of a set of ``ARCHIVES``, fetched where needed.

    "cinic10_imagenet" is the part of CINIC-10 that does not come from CIFAR-10: the files without
    "cifar" in their names. CINIC-10's valid/ is left aside; Tiny ImageNet's test part is val/,
    because its test/ has no labels. Raises ``FileNotFoundError`` where the set is neither there nor
    to be had, and ``ValueError`` for a tree that is broken; each says what to do.
    """
    archive = ARCHIVES[name]
    place = root / archive.folder
    if not place.exists():
        _bring(name, archive, root)
    try:
        parts = _tiny(place) if archive.top == "tiny-imagenet-200" else _cinic(place)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: the files in {place} cannot be read ({error}). Delete {place} and load "
            f"{name!r} again to unpack a fresh copy."
        ) from error
    train, test, classes = parts
    for part, files, count in zip(("train", "test"), (train, test), archive.images, strict=True):
        if len(files) != count:
            warnings.warn(
                f"{name}: {place} has {len(files)} of {count} images for {part}", stacklevel=3
            )
    if name == "cinic10_imagenet":
        train, test = (
            [(file, label) for file, label in files if "cifar" not in file.name]
            for files in (train, test)
        )
    return train, test, classes


def _cinic(place: Path) -> tuple[Files, Files, tuple[str, ...]]:
    """{train,test}/CLASS/*.png."""
    classes = _folders(place / "train")
    if _folders(place / "test") != classes:
        raise ValueError("train/ and test/ have different classes")
    train, test = (
        [pair for label, c in enumerate(classes) for pair in _images(place / part / c, label)]
        for part in ("train", "test")
    )
    return train, test, classes


def _tiny(place: Path) -> tuple[Files, Files, tuple[str, ...]]:
    """train/WNID/images/*.JPEG; val/images/*.JPEG with the labels in val/val_annotations.txt."""
    ids = _folders(place / "train")
    train = [p for i, wnid in enumerate(ids) for p in _images(place / "train" / wnid / "images", i)]
    number, test = {wnid: i for i, wnid in enumerate(ids)}, []
    for line in (place / "val" / "val_annotations.txt").read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        if wnid not in number:
            raise ValueError(f"val_annotations.txt names the class {wnid}, which train/ has not")
        path = place / "val" / "images" / file
        if not path.exists():  # some people sort val/ into a folder per class
            path = place / "val" / wnid / "images" / file
        if not path.exists():
            raise ValueError(f"val_annotations.txt names {file}, which is not there")
        test.append((path, number[wnid]))
    if not test:
        raise ValueError("val_annotations.txt names no image")
    return train, sorted(test), tuple(_words(place / "words.txt").get(wnid, wnid) for wnid in ids)


def _words(path: Path) -> dict[str, str]:
    """WordNet id -> the first of its English names; nothing where the file is missing."""
    if not path.exists():
        return {}
    pairs = (line.split("\t") for line in path.read_text().splitlines() if "\t" in line)
    return {wnid: names.split(",")[0] for wnid, names, *_ in pairs}


def _folders(path: Path) -> tuple[str, ...]:
    found = tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != "."))
    if len(found) < 2:
        raise ValueError(f"{path.name}/ has {len(found)} class folder(s)")
    return found


def _images(path: Path, label: int) -> Files:
    files = sorted(path.glob("[!.]*.png")) + sorted(path.glob("[!.]*.JPEG"))
    if not files:
        raise ValueError(f"{path} holds no image")
    return [(file, label) for file in files]


def _bring(name: str, archive: Archive, root: Path) -> None:
    """Unpack the archive into a staging folder, from the root or an address; move it into place."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not root.stat().st_mode & 0o222:  # the administrator, to whom all is open, asks too
            raise PermissionError(f"{root} is read-only")
        with tempfile.TemporaryDirectory(prefix=f".incoming-{name}-", dir=root) as staging:
            source = root / archive.file
            if source.exists():
                _verify(source, archive)
            else:
                source = _fetch(name, archive, Path(staging), root)
            print(f"{name}: unpacking {archive.file} into {root}, this once")
            fresh = Path(staging, "tree")
            _unpack(source, fresh)
            if not (root / archive.folder).exists():  # another process may have been faster
                os.replace(fresh / archive.top, root / archive.folder)
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(
            f"{name}: not found in {root}, and it could not be brought there ({error}). Check the "
            f"network and try again, or put {archive.file} ({archive.size} bytes, md5 "
            f"{archive.md5}) from {archive.addresses[0]} into {root} yourself; it is unpacked at "
            f"the next call (NCLIB_DATA names another place). DATASET = 'digits' needs no download."
        ) from error


def _fetch(name: str, archive: Archive, staging: Path, root: Path) -> Path:
    """Download from the first address that gives the right file."""
    target, errors = staging / archive.file, []
    for address in archive.addresses:
        print(f"{name}: downloading {archive.size / 1e6:.0f} MB into {root}, this once")
        try:
            request = urllib.request.Request(address, headers={"User-Agent": "nclib"})
            with urllib.request.urlopen(request, timeout=SILENCE) as answer, target.open("wb") as f:
                bar = tqdm(total=archive.size, desc=archive.file, unit="B", unit_scale=True)
                with bar:
                    while block := answer.read(2**20):
                        f.write(block)
                        bar.update(len(block))
            _verify(target, archive)
            return target
        except (OSError, ValueError) as error:  # a cut connection ends in a wrong size
            errors.append(f"{address}: {error}")
    raise ValueError("; ".join(errors))


def _verify(file: Path, archive: Archive) -> None:
    """Refuse a file of another size or content."""
    size = file.stat().st_size
    if size != archive.size:
        raise ValueError(f"{file.name} has {size} bytes; {archive.size} are right")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "md5").hexdigest()
    if found != archive.md5:
        raise ValueError(f"{file.name} has the md5 {found}; {archive.md5} is right")


def _unpack(file: Path, into: Path) -> None:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as packed:
            packed.extractall(into)
    else:
        with tarfile.open(file) as packed:
            packed.extractall(into, filter="data")
