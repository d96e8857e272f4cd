"""One pass over all files: what cannot be read, what is there twice, and a sample that fits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.functional import resize
from tqdm.auto import tqdm

from nclib.audit.sources import Source
from nclib.audit.stopping import Stopped
from nclib.data import ImageSet, stratified
from nclib.detection.neighbours import nearest

NATIVE = 64  # larger images, and those of mixed sizes, become this wide
MEMORY = 2**29  # bytes of float32 images that are trained on; a few copies of them come on top
THUMB = 16
PAIRS = 20_000  # images whose nearest neighbours are searched: the search is quadratic
CLOSE, CLOSER = (0.01, 0.1)  # near-duplicates differ by less, and so much less than is usual here
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


def read(source: Source, size: int | None, limit: int | None, seed: int, progress: bool) -> Reading:
    """Open every image once; keep ``limit`` of the training part (None: what memory allows)."""
    shape, notes = _shape(source, size)
    labels = torch.tensor(source.labels)
    train = torch.tensor([i for i, test in enumerate(source.is_test) if not test])
    if not len(train):
        raise ValueError("data: no image to train on")
    room = max(1, MEMORY // (12 * shape[0] * shape[1]))
    count = min(len(train), room if limit is None else limit)
    count = max(count, len(labels[train].unique()))
    chosen = set(train[stratified(labels[train], count, seed)].tolist())
    if count < len(train):
        notes.append(
            f"{count:,} of {len(train):,} training images were trained on, drawn class by class "
            "in proportion, so that they fit into memory; the files were all opened"
        )
    kept, broken, read_, digests, thumbs, stopped = {}, {}, [], [], [], False
    bar = tqdm(range(len(source)), "reading", unit="image", disable=not progress)
    try:
        for i in bar:
            try:
                raw = source.picture(i)
            except (ValueError, OSError) as error:
                broken[i] = str(error)
                continue
            image = _fitted(raw, shape)
            digests.append(hashlib.blake2b(bytes(raw.numpy().tobytes()), digest_size=16).digest())
            thumbs.append(resize(image, [THUMB, THUMB], antialias=True).float().mean(0).byte())
            read_.append(i)
            if i in chosen:
                kept[i] = image
    except Stopped:
        stopped = True
        notes.append(f"stopped after {len(read_):,} of {len(source):,} images were read")
    if not read_:
        raise ValueError(f"data: none of the {len(source)} images can be read; {broken.get(0)}")
    twins = _twins(source, read_, digests, torch.stack(thumbs), notes, seed)
    data, index = (None, torch.arange(0)) if stopped else _sample(source, kept, notes)
    return Reading(data, index, broken, twins, tuple(notes), stopped)


def _shape(source: Source, size: int | None) -> tuple[tuple[int, int], list[str]]:
    """Height and width of the audit: ``size``, or what all images have where that is small."""
    if size is not None:
        return (size, size), []
    seen: set[tuple[int, int]] = set()
    for i in torch.linspace(0, len(source) - 1, min(50, len(source))).long().tolist():
        try:
            height, width = source.picture(i).shape[1:]
            seen.add((height, width))
        except (ValueError, OSError):
            continue
    if len(seen) == 1 and max(next(iter(seen))) <= NATIVE:
        return next(iter(seen)), []
    wide = min(NATIVE, max((max(one) for one in seen), default=NATIVE))
    return (wide, wide), [
        f"images were resized to {wide} x {wide}: a trigger of a few pixels in a large image "
        "may be lost by that; --size takes another width"
    ]


def _fitted(image: Tensor, shape: tuple[int, int]) -> Tensor:
    return image if tuple(image.shape[1:]) == shape else resize(image, list(shape), antialias=True)


def _sample(source: Source, kept: dict[int, Tensor], notes: list[str]) -> tuple[ImageSet, Tensor]:
    """The kept images as one set; grey becomes colour where both are, tiny classes stay out."""
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
    images = [kept[i] for i in index.tolist()]
    most = max(len(image) for image in images)
    images = [
        i if len(i) == most else i.mean(0, True, dtype=torch.float).byte().expand(most, -1, -1)
        for i in images
    ]
    classes = tuple(source.classes[c] for c in judged)
    stack = torch.stack(images).float().div_(255)
    return ImageSet(stack, place[torch.tensor(source.labels)[index]], classes, source.name), index


def _twins(
    source: Source,
    rows: list[int],
    digests: list[bytes],
    thumbs: Tensor,
    notes: list[str],
    seed: int,
) -> tuple[Twin, ...]:
    """Equal pixels among all; nearly equal ones by small grey copies, among ``PAIRS`` of them."""
    first: dict[bytes, int] = {}
    twins, single = [], []
    for at, (i, digest) in enumerate(zip(rows, digests, strict=True)):
        if digest in first:
            twins.append(Twin(first[digest], i, 1.0, _kind(source, first[digest], i)))
        else:
            first[digest] = i
            single.append(at)
    flat = thumbs[torch.tensor(single)].flatten(1).float()
    flat = flat - flat.mean(1, keepdim=True)
    spread = flat.norm(dim=1)
    alive = (spread > 1).nonzero().flatten()  # a blank image resembles nothing
    if len(alive) > PAIRS:
        draw = torch.Generator().manual_seed(seed)
        alive = alive[torch.randperm(len(alive), generator=draw)[:PAIRS]].sort().values
        notes.append(f"near-duplicates were searched among {PAIRS:,} images drawn at random")
    if len(alive) < 3:
        return tuple(twins)
    flat = flat[alive] / spread[alive, None]
    where = [rows[single[a]] for a in alive.tolist()]
    near = nearest(flat, min(3, len(flat) - 1), device=torch.device("cpu"))
    apart = 1 - (flat[near] * flat[:, None]).sum(2)
    cut = min(CLOSE, CLOSER * float(apart.amin(1).median()))
    for a, b in (apart < cut).nonzero().tolist():
        i, j = where[a], where[int(near[a, b])]
        if i < j or a not in near[near[a, b]]:
            likeness = round(1 - float(apart[a, b]), 4)
            twins.append(Twin(min(i, j), max(i, j), likeness, _kind(source, i, j)))
    return tuple(dict.fromkeys(twins))


def _kind(source: Source, i: int, j: int) -> str:
    if source.labels[i] != source.labels[j]:
        return "two labels"
    return "copy" if source.is_test[i] == source.is_test[j] else "train and test"
