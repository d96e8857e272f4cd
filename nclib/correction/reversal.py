"""Neural Cleanse: the smallest patch that turns all images into a class, and a class that gives in.

The name has nothing to do with neural collapse.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import training
from nclib.activations import evaluating
from nclib.correction.repair import fine_tune
from nclib.data import ImageSet
from nclib.doors import gradients, integer, seeded

ANOMALOUS = 2.0  # of the paper: median absolute deviations below the median


@dataclass(frozen=True)
class Reversed:
    """The patches of ``reverse``, and which classes give in too easily."""

    masks: Tensor  # [K, 1, H, W] in [0, 1]
    patterns: Tensor  # [K, C, H, W] in [0, 1]
    index: Tensor  # [K]: deviations of the mask's size from the median; negative: smaller
    success: Tensor  # [K]: share of the clean images that the patch turns

    @property
    def classes(self) -> tuple[int, ...]:
        """The accused, the smallest mask first."""
        order = self.index.argsort().tolist()
        return tuple(c for c in order if self.index[c] < -ANOMALOUS and self.success[c] > 0.75)

    def stamp(self, images: Tensor, label: int) -> Tensor:
        """``images`` ``[N, C, H, W]`` under the patch of a class."""
        return images + self.masks[label] * (self.patterns[label] - images)


@gradients
def reverse(
    model: nn.Module, clean: ImageSet, *, steps: int = 150, lr: float = 0.1, weight: float = 0.1
) -> Reversed:
    """For each class the patch of least area that turns ``clean`` images into it.

    Mask and pattern are optimised together (Adam, ``steps`` of ``lr``, all clean images a step) on
    cross-entropy plus ``weight`` times the mask's L1 norm per sqrt(pixels). Wang et al. 2019,
    without their schedule for the weight.
    """
    integer(steps, "steps", 1)
    count, (channels, high, wide) = clean.num_classes, clean.shape
    draw = seeded(0)
    place: dict[str, Any] = {"device": clean.device, "requires_grad": True}
    found = []
    with evaluating(model):
        for label in range(count):
            raw = torch.full((1, high, wide), -2.0, **place)
            pattern = torch.randn(channels, high, wide, generator=draw).to(clean.device)
            pattern.requires_grad_(True)
            goal = torch.full((len(clean),), label, device=clean.device)
            optimiser = torch.optim.Adam([raw, pattern], lr)
            for _ in range(steps):
                mask, paint = raw.sigmoid(), pattern.sigmoid()
                stamped = clean.images + mask * (paint - clean.images)
                loss = cross_entropy(model(stamped), goal)
                loss = loss + weight * mask.sum() / (high * wide) ** 0.5
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            found.append((raw.detach().sigmoid(), pattern.detach().sigmoid()))
    masks, patterns = (torch.stack(part) for part in zip(*found, strict=True))
    size = masks.flatten(1).sum(1).double().cpu()
    spread = 1.4826 * (size - size.median()).abs().median().clamp_min(1e-9)
    made = Reversed(masks, patterns, (size - size.median()) / spread, torch.zeros(count))
    success = [
        (training.predict(model, made.stamp(clean.images, c)).argmax(1) == c).float().mean()
        for c in range(count)
    ]
    return Reversed(masks, patterns, made.index, torch.stack(success).cpu())


@gradients
def neural_cleanse(
    model: nn.Module, clean: ImageSet, found: Reversed, *, share: float = 0.2, **options: Any
) -> nn.Module:
    """A copy of ``model`` tuned to ignore the patches of the accused classes.

    A ``share`` of the ``clean`` images is stamped, and keeps its right labels. ``options`` go to
    ``fine_tune``; a model without an accused class comes back as it is.
    """
    if not found.classes:
        return copy.deepcopy(model)
    images = clean.images.clone()
    order = torch.randperm(len(clean), generator=seeded(0))[: round(share * len(clean))]
    for label, index in zip(found.classes, order.chunk(len(found.classes)), strict=False):
        index = index.to(clean.device)
        images[index] = found.stamp(images[index], label)
    stamped = ImageSet(images, clean.labels, clean.classes, clean.name)
    return fine_tune(model, stamped, **options).model
