"""What to remove when nobody knows how much is poisoned: ``consensus``, in three looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from nclib import activations, models, training
from nclib.data import ImageSet
from nclib.detection import margins, outliers
from nclib.detection.common import discriminant, per_class
from nclib.doors import array, classes, finite, gradients, numbers

Build = Callable[[ImageSet, int], nn.Module]
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Consensus:
    """What ``consensus`` decided; all masks are bool ``[N]`` on the CPU."""

    bad: Tensor  # to be removed
    core: Tensor  # the most typical samples, trusted without a question
    doubted: Tensor  # first look: rejected by the model of the core
    rejected: Tensor  # second look: rejected by the better model, too
    model: nn.Module  # the better model, trained on all that was not doubted

    @property
    def share(self) -> float:
        """Share of the samples to remove."""
        return float(self.bad.double().mean())


def typicality(features: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """How odd a sample is in its class, at its worst layer: ``[N]``; 0 typical, 1 odd, > 1 wrong.

    The rank of the robust distance in the class, the largest over the layers ``{layer: [N, D]}``;
    plus 1 where at half of the layers another class mean is nearer. Raises ``ValueError`` for no
    layer and for what ``robust_distance`` refuses.
    """
    if not features:
        raise ValueError("features: got no layer; {layer: [N, D]} with at least one is needed")
    labels = classes(labels).cpu()
    count, ranks, crossed = int(labels.max()) + 1, [], []
    for hidden in features.values():
        distance = outliers.robust_distance(hidden, labels)
        rank = torch.empty_like(distance)
        for index in per_class(labels, count):
            rank[index] = distance[index].argsort().argsort().double() / len(index)
        ranks.append(rank)
        crossed.append(margins.whitened_margin(hidden, labels) > 0)
    wrong = torch.stack(crossed).double().mean(0) >= 0.5
    return torch.stack(ranks).amax(0) + wrong.double()


@numbers
def core_of(odd: Tensor, labels: Tensor, share: float = 0.2) -> Tensor:
    """The ``share`` of each class with the lowest ``odd``, at least 2 samples: bool ``[N]``, CPU.

    ``odd`` ``[N]`` is what ``typicality`` returns, ``labels`` is int64 ``[N]``. Of ties the first
    stay. Raises ``ValueError`` for a share outside (0, 1) and for other lengths.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: got {share}; 0 < share < 1 is allowed")
    odd, labels = finite(array(odd, "odd"), "odd"), classes(labels)
    if odd.shape != labels.shape:
        raise ValueError(f"odd: got {tuple(odd.shape)}; {tuple(labels.shape)} is needed")
    odd, labels = odd.cpu(), labels.cpu()
    mask = torch.zeros(len(odd), dtype=torch.bool)
    for index in per_class(labels, int(labels.max()) + 1):
        keep = max(2, round(share * len(index)))
        mask[index[odd[index].argsort(stable=True)[:keep]]] = True
    return mask


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn by up to 9 degrees and shift by up to a tenth of the width, each image its own way.

    A model of few images learns shapes this way, and trips less over a patch it has never seen.
    """
    draw = 2 * torch.rand(3, len(images), generator=generator, device=images.device) - 1
    cosine, sine = (0.15 * draw[0]).cos(), (0.15 * draw[0]).sin()
    rows = (cosine, -sine, 0.2 * draw[1], sine, cosine, 0.2 * draw[2])
    matrix = torch.stack(rows, 1).reshape(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).clamp(0, 1)


@gradients
def consensus(
    data: ImageSet,
    *,
    features: Mapping[str, Tensor] | None = None,
    core: float = 0.2,
    early: int = 3,
    epochs: int = 12,
    augment: Augment | None = jitter,
    build: Build | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Consensus:
    """Trust the most typical fifth of each class, and look three times at the rest.

    0. ``features`` ``{layer: [N, D]}`` of a model after ``early`` epochs on everything (None:
       train one; the first layer is left out, it sees edges only). The ``core`` share of each class
       that is typical at every layer (``typicality``) is trusted.
    1. A model trained on the core alone. A sample outside the core is *doubted* if the model does
       not predict its label: the trigger means nothing to it, so the image looks like its source.
    2. A better model, trained on all that is not doubted. It takes back every doubted sample whose
       label it holds more likely than chance, 1/K; the others are *rejected*.
    3. A class that loses a tenth more of its samples than the median class has a backdoor. What
       looks like its rejected samples in ``features`` goes, too (``lookalikes``).

    Nobody has to know the rate. ``augment`` serves both models; ``build(data, seed)`` makes a fresh
    one (default: the small CNN). Fails where the poison *is* the typical part of its class (blended
    at 10% on MNIST), for clean-label poison, whose label is right, and, in look 3, where most
    classes are targets.
    """
    build = build or (lambda part, seed: models.build("cnn", part, seed=seed))
    labels = data.labels.cpu()
    options: dict[str, Any] = {"seed": seed, "progress": progress, "cache": False}
    if features is None:
        model = build(data, seed)
        training.fit(model, data, epochs=early, **options)
        features = activations.features(
            model, data.images, activations.layer_names(model, data.images)[1:]
        )
    trusted = core_of(typicality(features, labels), labels, core)

    options["augment"] = augment
    # a fifth of the samples: smaller batches and more epochs, for about as many steps
    likely, _ = _opinion(data, trusted, build, {**options, "epochs": 2 * epochs, "batch_size": 32})
    own = likely.gather(1, labels[:, None]).squeeze(1)
    doubted = (own < likely.amax(1)) & ~trusted
    likely, model = _opinion(data, ~doubted, build, {**options, "epochs": epochs})
    own = likely.gather(1, labels[:, None]).squeeze(1)
    rejected = doubted & (own < 1 / data.num_classes)
    bad = lookalikes(features, labels, rejected, doubted)
    return Consensus(bad, trusted, doubted, rejected, model)


@numbers
def lookalikes(
    features: Mapping[str, Tensor],
    labels: Tensor,
    rejected: Tensor,
    doubted: Tensor,
    *,
    excess: float = 0.1,
    rounds: int = 3,
    folds: int = 5,
) -> Tensor:
    """``rejected`` and what resembles it, in the classes that lost far more: bool ``[N]``, CPU.

    Such a class has a share of rejected samples ``excess`` above the median class. There a linear
    discriminant on the standardised ``features`` ``{layer: [N, D]}`` is fitted to tell rejected
    from undoubted samples, and each sample is judged by the fit of the other ``folds``. A trigger
    is one direction, so this finds also the triggered images that both models took for their
    label. Repeated for ``rounds``, because the group grows. ``labels`` is int64, ``rejected`` and
    ``doubted`` are bool, all ``[N]``. Ours, after the idea of Tran, Li and Madry 2018 (arXiv
    1811.00636) that poison leaves one direction in feature space. Raises ``ValueError`` for masks
    that do not fit.
    """
    for name, mask in (("rejected", rejected), ("doubted", doubted)):
        check_mask(mask, len(labels), name)
    rejected, doubted, labels = rejected.cpu().clone(), doubted.cpu(), labels.cpu()
    size = labels.bincount().clamp_min(1)
    share = labels[rejected].bincount(minlength=len(size)) / size
    rows = [array(h, "features").detach().cpu().double() for h in features.values()]
    hidden = finite(torch.cat(rows, 1), "features")
    hidden = (hidden - hidden.mean(0)) / hidden.std(0).clamp_min(1e-6)
    for c in (share > share.median() + excess).nonzero().flatten().tolist():
        index = (labels == c).nonzero().flatten()
        for _ in range(rounds):
            group = rejected[index]
            sure = group | ~doubted[index]
            if min(int(group.sum()), int((sure & ~group).sum())) < folds:
                break
            more = _resembles(hidden[index], group, sure, folds)
            if not (more & ~group).any():
                break
            rejected[index[more]] = True
    return rejected


def check_mask(mask: Tensor, count: int, name: str = "bad") -> None:
    """Refuse anything but a bool tensor ``[count]`` with a ``ValueError``."""
    if mask.dtype != torch.bool or mask.shape != (count,):
        raise ValueError(f"{name}: got {mask.dtype} {tuple(mask.shape)}; bool [{count}] is needed")


def _resembles(hidden: Tensor, group: Tensor, sure: Tensor, folds: int) -> Tensor:
    """Out of fold: which rows ``[n, D]`` lie on the side of ``group`` and not of sure & ~group."""
    fold = margins.fold_of(group.long(), folds)
    found = torch.zeros_like(group)
    for f in range(folds):
        fit = sure & (fold != f)
        normal, middle = discriminant(hidden[fit], group[fit])
        found[fold == f] = (hidden[fold == f] - middle) @ normal > 0
    return found


def _opinion(
    data: ImageSet, mask: Tensor, build: Build, options: dict[str, Any]
) -> tuple[Tensor, nn.Module]:
    """What a model trained on the samples of ``mask`` thinks of all: probabilities ``[N, K]``."""
    part = data.subset(mask.to(data.device))
    model = build(part, options["seed"] + 1)
    training.fit(model, part, **options)
    return training.predict(model, data.images).softmax(1).cpu(), model
