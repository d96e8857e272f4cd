"""Labelled images that live on one device, and the checks that every door of the package asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nclib.data.factors import Factors
from nclib.doors import ordinary


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images that live on one device.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1]; ``labels`` int64 ``[N]`` in 0..K-1; ``classes``
    the K class names; ``factors`` how each image was drawn, where that is known. Raises
    ``ValueError`` when one of these does not hold, and for labels on another device than the
    images.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"
    factors: Factors | None = None

    # what ``subset`` selects from
    per_sample: ClassVar[tuple[str, ...]] = ("images", "labels", "factors")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():  # a set made in inference mode serves training, too
            object.__setattr__(self, name, ordinary(value))
        check_images(self.images)
        if isinstance(self.labels, Tensor) and self.labels.device != self.images.device:
            got = f"{self.labels.device}, the images on {self.images.device}"
            raise ValueError(f"labels: on {got}; one device is needed")
        check_labels(self.labels, len(self.images), self.num_classes)
        if self.factors is not None and len(self.factors) != len(self):
            got = f"{len(self.factors)} for {len(self)} images"
            raise ValueError(f"factors: got {got}; one for each image, or None, is allowed")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> Self:
        """The same set, with every tensor on ``device``."""
        placed: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | Factors)
        }
        return replace(self, **placed)

    def subset(self, index: Tensor) -> Self:
        """The samples that ``index`` (positions, or a boolean mask of length N) selects."""
        index = torch.as_tensor(index, device=self.device)
        if index.dtype == torch.bool and index.shape != (len(self),):
            raise ValueError(f"index: a mask of shape {tuple(index.shape)} for {len(self)} images")
        known = {field: getattr(self, field) for field in self.per_sample}
        return replace(self, **{k: v[index] for k, v in known.items() if v is not None})

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
