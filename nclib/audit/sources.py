"""Where a user's labelled images come from: folders, tables, arrays and data set objects."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nclib import places
from nclib.data import ImageSet, check_images, folders, pictures
from nclib.doors import array

PATHS = ("path", "file", "filename", "file_name", "image", "name")
LABELS = ("label", "class", "target", "fine_label", "y")
SPLITS = ("split", "part", "set", "subset")


@dataclass(frozen=True)
class Source:
    """Names, labels and parts of images that are opened one by one; nothing is changed."""

    name: str
    names: Sequence[str]  # a path below ``root``, or "image 17"
    labels: Sequence[int]
    classes: tuple[str, ...]
    is_test: Sequence[bool]
    picture: Callable[[int], Tensor]  # uint8 [C, H, W]; ValueError for what cannot be read
    root: Path | None = None  # of a folder tree, or the table's own file

    def __len__(self) -> int:
        return len(self.names)


def source(data: Any, labels: Any = None) -> Source:
    """The source that ``data`` is: see ``audit.run``. Raises ``ValueError`` for anything else."""
    if isinstance(data, Source):
        return data
    if isinstance(data, str) and data.startswith("hf:"):
        try:
            hub = import_module("datasets")
        except ImportError:
            raise ValueError(f"data: {data} needs the package; pip install datasets") from None
        return _rows(hub.load_dataset(data.removeprefix("hf:")), data)
    if isinstance(data, str | Path):
        path = places.expanded(data, "data")
        if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
            return _table(path)
        if path.is_file():
            raise ValueError(f"data: got the file {path}; a folder or a .csv file is allowed")
        return _folder(folders.spelt(path))
    if isinstance(data, ImageSet):
        return _arrays(data.images, data.labels.tolist(), data.classes, data.name)
    if isinstance(data, tuple) and len(data) == 2 and labels is None:
        data, labels = data
    if isinstance(data, np.ndarray | Tensor):
        if labels is None or len(labels) != len(data):
            got = "none" if labels is None else len(labels)
            raise ValueError(f"labels: got {got}; one for each of {len(data)} images is needed")
        known = labels.tolist() if hasattr(labels, "tolist") else list(labels)
        ids, classes = _numbered(known)
        return _arrays(_channels_first(array(data, "data")), ids, classes, "arrays")
    if hasattr(data, "__getitem__") and (hasattr(data, "__len__") or hasattr(data, "keys")):
        return _rows(data, type(data).__name__)
    raise ValueError(
        f"data: got a {type(data).__name__}; a folder, a .csv file, hf:NAME, arrays with labels, "
        "or a data set of torchvision or Hugging Face is allowed"
    )


def _numbered(labels: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]:
    """Labels of any kind as 0..K-1, and their names; numbers keep their order."""
    kinds = sorted(set(labels), key=lambda v: (isinstance(v, str), v))
    place = {kind: i for i, kind in enumerate(kinds)}
    return [place[v] for v in labels], tuple(map(str, kinds))


def _folder(path: Path) -> Source:
    parts = folders.parts_of(path)
    names: list[str] = []
    words: list[str] = []
    is_test: list[bool] = []
    for role, below in parts.items() or [("train", "")]:
        files, labels, classes = folders.listing(path / below)
        names += [str(Path(file).relative_to(path)) for file in files]
        words += [classes[i] for i in labels]
        is_test += [role == "test"] * len(files)
    ids, classes = _numbered(words)
    opened = partial(_file, path, names)
    return Source(path.resolve().name, names, ids, classes, is_test, opened, path)


def _file(root: Path, names: Sequence[str], i: int) -> Tensor:
    return pictures.read_bytes([root / names[i]], None, "audit")[0]


def _table(path: Path) -> Source:
    """Rows of a path (from the table's folder on) and a label; a column "split" marks the test."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        head, *rows = [row for row in lines if row] or [[]]
    words = [word.strip().lower() for word in head]
    where, label, part = (
        next((words.index(name) for name in known if name in words), None)
        for known in (PATHS, LABELS, SPLITS)
    )
    if where is None or label is None:
        raise ValueError(f"data: {path} has the columns {head}; path and label are needed")
    short = [i for i, row in enumerate(rows, 2) if len(row) != len(head)]
    if short or not rows:
        what = f", line {short[0]}: a cell is missing" if short else " holds no row below its head"
        raise ValueError(f"data: {path}{what}")
    names, (ids, classes) = ([row[where] for row in rows], _numbered([row[label] for row in rows]))
    is_test = [part is not None and folders.part_of(row[part].strip()) == "test" for row in rows]
    opened = partial(_file, path.parent, names)
    return Source(path.stem, names, ids, classes, is_test, opened, path)


def _channels_first(images: Tensor) -> Tensor:
    """``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]`` as the last."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        return images.permute(0, 3, 1, 2)
    return images


def _arrays(images: Tensor, ids: list[int], classes: tuple[str, ...], name: str) -> Source:
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        images = images.float()
        check_images(images, "data")
    elif images.ndim != 4:
        raise ValueError(f"data: got {tuple(images.shape)}; images [N, C, H, W] are needed")

    def picture(i: int) -> Tensor:
        one = images[i]
        return one if one.dtype == torch.uint8 else (one * 255).round().byte()

    names = [f"image {i}" for i in range(len(images))]
    return Source(name, names, ids, classes, [False] * len(names), picture)


def _rows(data: Any, name: str) -> Source:
    """A data set of torchvision, or of Hugging Face, with its splits or without."""
    splits = dict(data) if hasattr(data, "keys") else {"train": data}
    parts = {split: folders.part_of(split) or "train" for split in splits}
    names, words, is_test = [], [], []
    places_: list[tuple[Any, int]] = []
    for split, rows in splits.items():
        labels = _labels_of(rows)
        names += [f"{split} {i}" if len(splits) > 1 else f"image {i}" for i in range(len(rows))]
        words += labels
        is_test += [parts[split] == "test"] * len(labels)
        places_ += [(rows, i) for i in range(len(labels))]
    ids, classes = _numbered(words)
    return Source(name, names, ids, classes, is_test, lambda i: _row(*places_[i]))


def _column(features: Any, kinds: tuple[str, ...], known: tuple[str, ...]) -> str:
    """The column of a Hugging Face data set, by its type and else by its name."""
    typed = [name for name, kind in features.items() if type(kind).__name__ in kinds]
    named = [name for name in features if name.lower() in known]
    if not typed + named:
        raise ValueError(f"data: columns {list(features)}; one of {known} is needed")
    return (typed + named)[0]


def _labels_of(rows: Any) -> list[Any]:
    features = getattr(rows, "features", None)
    if features is not None:
        column = _column(features, ("ClassLabel",), LABELS)
        named, values = getattr(features[column], "names", None), list(rows[column])
        return [named[v] for v in values] if named else values
    found = getattr(rows, "targets", getattr(rows, "labels", None))
    if found is None:
        found = [rows[i][1] for i in range(len(rows))]
    values = found.tolist() if hasattr(found, "tolist") else [int(v) for v in found]
    classes = getattr(rows, "classes", None)
    return [str(classes[v]) for v in values] if classes else values


def _row(rows: Any, i: int) -> Tensor:
    features = getattr(rows, "features", None)
    picture = rows[i][0] if features is None else rows[i][_column(features, ("Image",), PATHS)]
    if isinstance(picture, Image.Image):
        grey = picture.mode in ("1", "L")
        values = torch.from_numpy(np.array(picture.convert("L" if grey else "RGB")))
        return values.unsqueeze(0) if grey else values.permute(2, 0, 1)
    values = _channels_first(torch.as_tensor(np.asarray(picture))[None])[0]
    if values.dtype == torch.uint8:
        return values
    check_images(values[None].float(), "data")
    return (values.float() * 255).round().byte()
