"""One pass over all files: what cannot be read, what is there twice, and a sample that fits."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from nclib.audit.sources import Source
from nclib.audit.stopping import Stopped
from nclib.data import ImageSet, stratified
from nclib.detection.neighbours import nearest

NATIVE = 64  # larger images, and those of mixed sizes, become this wide
MEMORY = 2**29  # bytes of float32 images that are trained on; a few copies of them come on top
THUMB = 16
PAIRS = 20_000  # images whose nearest neighbours are searched: the search is quadratic
CLOSE, CLOSER = (0.01, 0.1)  # near-duplicates differ by less, and so much less than is usual here
FIRST = 50  # images that are looked at before the others
FEWEST = 5  # images of a class that can be judged


class Twin(NamedTuple):
    """Two images that are the same, or nearly."""

    first: int
    second: int
    likeness: float  # 1: the same pixels
    kind: str  # "two labels", "train and test" or "copy"


@dataclass(frozen=True)
class Reading:
    """What the pass found; numbers are positions in the source."""

    train: ImageSet | None  # the sample; None where the pass was stopped
    index: Tensor  # int64 [N], CPU: the positions of the sample
    broken: dict[int, str]
    twins: tuple[Twin, ...]
    notes: tuple[str, ...]
    stopped: bool = False


class Look(NamedTuple):
    """A first look at a few images: what the audit will train on, and what reading costs."""

    images: Tensor  # float [n, C, H, W] of [0, 1]
    seconds: float  # that opening them took
    most: int  # images to train on
    notes: tuple[str, ...]


def look(source: Source, size: int | None, limit: int | None) -> Look:
    """Open ``FIRST`` images: the width is ``size``, or that of all of them where it is small."""
    start, seen = time.perf_counter(), []
    for i in torch.linspace(0, len(source) - 1, min(FIRST, len(source))).long().tolist():
        with contextlib.suppress(ValueError, OSError):
            seen.append(source.picture(i))
    shapes, notes = {(image.shape[1], image.shape[2]) for image in seen}, []
    wide = min(NATIVE, max((max(shape) for shape in shapes), default=NATIVE))
    shape = (size, size) if size else (wide, wide)
    if size is None and len(shapes) == 1 and max(next(iter(shapes))) <= NATIVE:
        shape = next(iter(shapes))
    elif size is None:
        notes.append(
            f"images were resized to {wide} x {wide}: a trigger of a few pixels in a large image "
            "may be lost by that; --size takes another width"
        )
    images = _together([_fitted(image, shape) for image in seen] or [torch.zeros(1, *shape)])
    seconds = time.perf_counter() - start
    total = len(source) - sum(source.is_test)
    room = max(1, MEMORY // (12 * shape[0] * shape[1]))
    count = min(total, room if limit is None else limit)
    if count < total:
        notes.append(
            f"{count:,} of {total:,} training images were trained on, drawn class by class "
            "in proportion, so that they fit into memory; the files were all opened"
        )
    return Look(images.float() / 255, seconds, count, tuple(notes))


def read(source: Source, first: Look, seed: int, tick: Callable[[], None]) -> Reading:
    """Open every image once, ``tick()`` after each; keep a sample of the training part."""
    height, width = first.images.shape[2:]
    notes = list(first.notes)
    labels = torch.tensor(source.labels)
    train = torch.tensor([i for i, test in enumerate(source.is_test) if not test])
    if not len(train):
        raise ValueError("data: no image to train on")
    count = max(first.most, len(labels[train].unique()))
    chosen = set(train[stratified(labels[train], count, seed)].tolist())
    kept: dict[int, Tensor] = {}
    broken: dict[int, str] = {}
    digests: list[bytes] = []
    read_: list[int] = []
    stopped = False
    thumbs = torch.zeros(len(source), THUMB, THUMB, dtype=torch.uint8)
    near: list[Twin] = []
    try:
        for i in range(len(source)):
            tick()
            try:
                raw = source.picture(i)
            except (ValueError, OSError) as error:
                broken[i] = _why(error, source)
                continue
            image = _fitted(raw, (height, width))
            thumbs[len(read_)] = resize(image, [THUMB, THUMB], antialias=True).float().mean(0)
            digests.append(hashlib.blake2b(raw.numpy().tobytes(), digest_size=16).digest())
            read_.append(i)
            if i in chosen:
                kept[i] = image
        if not read_:
            raise ValueError(f"data: none of {len(source)} images can be read; {broken.get(0)}")
        near = _near(source, read_, digests, thumbs, notes, seed)
    except Stopped:
        stopped = True
        notes.append(f"stopped: {len(read_):,} of {len(source):,} images were read")
    twins = tuple(dict.fromkeys((*_copies(source, read_, digests), *near)))
    data, index = (None, torch.arange(0)) if stopped else _sample(source, kept, notes)
    return Reading(data, index, broken, twins, tuple(notes), stopped)


def _why(error: Exception, source: Source) -> str:
    """What went wrong in one line, without the folders of this machine."""
    inner = re.search(r"cannot be read as an image \((.*)\)", str(error), re.DOTALL)
    told = (inner[1] if inner else str(error)).replace("\n", " ")
    for place in (source.root, source.root.parent) if source.root else ():
        told = told.replace(f"{place}{os.sep}", "")
    return told


def _fitted(image: Tensor, shape: tuple[int, int]) -> Tensor:
    return image if tuple(image.shape[1:]) == shape else resize(image, list(shape), antialias=True)


def _together(images: list[Tensor]) -> Tensor:
    """Images ``[C, H, W]`` as one tensor; grey becomes colour where both are."""
    most = max(len(image) for image in images)
    return torch.stack(
        [
            i if len(i) == most else i.mean(0, True, dtype=torch.float).byte().expand(most, -1, -1)
            for i in images
        ]
    )


def _sample(source: Source, kept: dict[int, Tensor], notes: list[str]) -> tuple[ImageSet, Tensor]:
    """The kept images as one set; tiny classes stay out."""
    labels = torch.tensor([source.labels[i] for i in kept])
    counts = labels.bincount(minlength=len(source.classes))
    judged = (counts >= FEWEST).nonzero().flatten()
    few = [source.classes[c] for c in ((counts > 0) & (counts < FEWEST)).nonzero().flatten()]
    if few:
        notes.append(
            f"{len(few)} class(es) with fewer than {FEWEST} images were not judged: "
            + ", ".join(few[:10])
        )
    if len(judged) < 2:
        raise ValueError(
            f"data: {len(judged)} class(es) with {FEWEST} readable images or more; 2 are needed"
        )
    place = torch.full_like(counts, -1)
    place[judged] = torch.arange(len(judged))
    index = torch.tensor(list(kept))[place[labels] >= 0]
    classes = tuple(source.classes[c] for c in judged)
    stack = _together([kept[i] for i in index.tolist()]).float().div_(255)
    return ImageSet(stack, place[torch.tensor(source.labels)[index]], classes, source.name), index


def _copies(source: Source, rows: list[int], digests: list[bytes]) -> list[Twin]:
    """Images whose pixels are equal to those of an earlier one."""
    first: dict[bytes, int] = {}
    twins = []
    for i, digest in zip(rows, digests, strict=True):
        if first.setdefault(digest, i) != i:
            twins.append(Twin(first[digest], i, 1.0, _kind(source, first[digest], i)))
    return twins


def _near(
    source: Source,
    rows: list[int],
    digests: list[bytes],
    thumbs: Tensor,
    notes: list[str],
    seed: int,
) -> list[Twin]:
    """Nearly equal images by small grey copies, among ``PAIRS`` of those whose pixels differ."""
    single = torch.tensor(list({digest: at for at, digest in enumerate(digests)}.values()))
    flat = thumbs[single].flatten(1).float()
    flat = flat - flat.mean(1, keepdim=True)
    spread = flat.norm(dim=1)
    alive = (spread > 1).nonzero().flatten()  # a blank image resembles nothing
    if len(alive) > PAIRS:
        draw = torch.Generator().manual_seed(seed)
        alive = alive[torch.randperm(len(alive), generator=draw)[:PAIRS]].sort().values
        notes.append(f"near-duplicates were searched among {PAIRS:,} images drawn at random")
    if len(alive) < 3:
        return []
    flat = flat[alive] / spread[alive, None]
    where, twins = [rows[a] for a in single[alive].tolist()], []
    near = nearest(flat, min(3, len(flat) - 1), device=torch.device("cpu"))
    apart = 1 - (flat[near] * flat[:, None]).sum(2)
    cut = min(CLOSE, CLOSER * float(apart.amin(1).median()))
    for a, b in (apart < cut).nonzero().tolist():
        i, j = where[a], where[int(near[a, b])]
        if i < j or a not in near[near[a, b]]:
            likeness = round(1 - float(apart[a, b]), 4)
            twins.append(Twin(min(i, j), max(i, j), likeness, _kind(source, i, j)))
    return twins


def _kind(source: Source, i: int, j: int) -> str:
    if source.labels[i] != source.labels[j]:
        return "two labels"
    return "copy" if source.is_test[i] == source.is_test[j] else "train and test"
