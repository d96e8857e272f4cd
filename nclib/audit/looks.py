"""What a training says of the labels and of the geometry, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nclib import activations, geometry, training
from nclib.audit.sources import Source
from nclib.correction import Build
from nclib.data import ImageSet
from nclib.detection import confident_learning, out_of_fold
from nclib.detection.mislabelled import WrongLabels, mislabelled
from nclib.doors import finite

Layers = Mapping[str, Tensor]  # {layer: [N, D]}, shallow to deep


@dataclass(frozen=True)
class Labels:
    """How doubtful each label of the sample is, and what it might be; tensors [N] on the CPU."""

    wrong: WrongLabels
    margin: Tensor  # log odds of the likeliest other class, out of fold; > 0: it is likelier
    other: Tensor  # which class that is
    confident: Tensor  # the score of confident learning; > 0: another class clears its threshold


@dataclass(frozen=True)
class Geometry:
    """The within-class spread by layer, and how far each class mean lies out at the last one."""

    nc1: dict[str, float]
    norms: Tensor  # [K], relative to the median class
    whose: str  # the network or the file it was measured on


def trained(data: ImageSet, build: Build, epochs: int, seed: int) -> tuple[Layers, Layers]:
    """Features of a fresh model after its first epoch and its last: two ``Layers``."""
    images = data.images
    look = {"layer": lambda model: activations.features(model, images)}
    run = training.fit(
        *(build(data, seed), data),
        epochs=epochs,
        batch_size=min(128, max(8, len(data) // 10)),
        probes=look,
        probe_at=(1, epochs),
        seed=seed,
        progress=False,
    )
    columns = {k.removeprefix("layer/"): v for k, v in run.history.items() if "layer/" in k}
    return {k: v[0] for k, v in columns.items()}, {k: v[-1] for k, v in columns.items()}


def of_model(model: nn.Module, data: ImageSet) -> Layers:
    """Features of the user's model by layer, the last of them what enters its classifier."""
    try:
        layers = activations.features(model, data.images)
    except ValueError:  # layers that are no single tensors
        layers = {}
    last = activations.penultimate(model, data.images)
    if not layers or not torch.equal(list(layers.values())[-1], last):
        layers[activations.PENULTIMATE] = last
    return {k: v.cpu() for k, v in layers.items()}


def of_file(path: Path | str, source: Source, index: Tensor) -> Layers:
    """Features from a .npz: arrays ``[N, D]`` in the source's order, or by an array ``names``."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = arrays.pop("names", None)
    order = index
    if names is not None:
        place = {str(name): i for i, name in enumerate(names.tolist())}
        lost = [source.names[i] for i in index.tolist() if source.names[i] not in place]
        if lost:
            raise ValueError(f"features: {len(lost)} images have no row, {lost[0]!r} among them")
        order = torch.tensor([place[source.names[i]] for i in index.tolist()])
    rows = len(source) if names is None else len(names)
    layers = {k: torch.from_numpy(v) for k, v in arrays.items() if v.ndim == 2 and len(v) == rows}
    if not layers:
        shapes = {k: v.shape for k, v in arrays.items()}
        raise ValueError(f"features: {path} holds {shapes}; an array [{rows}, D] is needed")
    return {k: finite(v.float()[order], "features") for k, v in layers.items()}


def labels(layers: Layers, given: Tensor) -> Labels:
    """Wrong labels by what is known early: of several layers the first sees edges only."""
    given = given.cpu()
    used = dict(list(layers.items())[1:]) or dict(layers)
    joined = torch.cat(list(used.values()), 1)
    likely = out_of_fold(joined, given)
    logs = likely.clamp_min(1e-300).log()
    own = logs.gather(1, given[:, None]).squeeze(1)
    best, other = logs.scatter(1, given[:, None], -torch.inf).max(1)
    confident = confident_learning(joined, given, probabilities=likely)
    return Labels(mislabelled(used, given), best - own, other, confident)


def shape_of(layers: Layers, given: Tensor, whose: str) -> Geometry:
    """NC1 of every layer, and the class means' distances from the centre at the last."""
    measured: dict[str, Any] = geometry.by_layer(layers, given.cpu())
    norms = list(measured.values())[-1].norms
    relative = norms / norms.median().clamp_min(1e-300)
    return Geometry({k: m.nc1 for k, m in measured.items()}, relative, whose)
