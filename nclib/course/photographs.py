"""Photographs that trained networks have seen: their features, kept for lessons without a GPU."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nclib import places

FILE = "photographs_features.npz"


@dataclass(frozen=True, eq=False)
class Stored:
    """What one trained network says about N of its training images; on the CPU.

    ``features`` ``{layer: [N, D]}`` in the D directions of largest variance (``variance`` is their
    share of it), the last layer's with ``weight`` ``[K, D]`` and ``bias`` ``[K]`` of the
    classifier; ``labels`` int64 ``[N]`` as the network got them, ``clean_labels`` before that,
    ``is_poisoned`` bool ``[N]``; ``images`` float32 ``[N, C, H, W]`` in [0, 1], a JPEG copy, as the
    network got them; ``accuracy`` and ``success`` on the test images (None: no trigger).
    """

    features: dict[str, Tensor]
    variance: dict[str, float]
    weight: Tensor
    bias: Tensor
    labels: Tensor
    clean_labels: Tensor
    is_poisoned: Tensor
    images: Tensor
    classes: tuple[str, ...]
    source: str
    accuracy: float
    success: float | None

    @property
    def logits(self) -> Tensor:
        """``[N, K]``, up to the directions that were left out."""
        return list(self.features.values())[-1] @ self.weight.T + self.bias


def stored(network: str = "clean") -> Stored:
    """The features of the CIFAR-10 network "clean", "badnets" (5%) or "label_flip" (10%).

    Made by ``experiments.photographs.features``. Raises ``ValueError`` for an unknown name, and
    where there is no such file yet.
    """
    path = places.tables() / FILE
    if not path.exists():
        raise ValueError(f"network: got {network!r}; {path} is not there, so none is allowed")
    with np.load(path) as file:
        known = [key.removesuffix("/weight") for key in file.files if key.endswith("/weight")]
        if network not in known:
            raise ValueError(f"network: got {network!r}; allowed are {', '.join(known)}")
        inside = [k for k in file.files if k.startswith(f"{network}/")]
        own = {key.removeprefix(f"{network}/"): file[key] for key in inside}
        common = {key: file[key] for key in ("classes", "labels", "images", "source")}
    layers = [key.removesuffix("/variance") for key in own if key.endswith("/variance")]
    labels, count = torch.from_numpy(own["labels"]).long(), len(own["labels"])
    images = _tiles(common["images"], count)
    if "altered" in own:
        altered = torch.from_numpy(own["altered"])
        images[altered] = _tiles(own["images"], int(altered.sum()))
    return Stored(
        features={k: torch.from_numpy(own[k]).float() for k in layers},
        variance={k: float(own[f"{k}/variance"]) for k in layers},
        weight=torch.from_numpy(own["weight"]),
        bias=torch.from_numpy(own["bias"]),
        labels=labels,
        clean_labels=torch.from_numpy(common["labels"]).long(),
        is_poisoned=torch.from_numpy(own["is_poisoned"]),
        images=images,
        classes=tuple(common["classes"].tolist()),
        source=str(common["source"]),
        accuracy=float(own["accuracy"]),
        success=float(own["success"]) if "success" in own else None,
    )


def _tiles(picture: np.ndarray, count: int, side: int = 32) -> Tensor:
    """The first ``count`` tiles of a JPEG, row by row: float32 ``[count, 3, side, side]``."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(picture.tobytes())).convert("RGB")))
    wide = pixels.shape[1] // side
    tiles = pixels.reshape(-1, side, wide, side, 3).permute(0, 2, 4, 1, 3)
    return tiles.reshape(-1, 3, side, side)[:count].float() / 255
