"""Act on a suspicion: remove or relabel samples, fine-tune a model, give it an ETF head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nclib import activations, geometry, training
from nclib.correction.opinions import check_mask
from nclib.correction.verdict import transplant
from nclib.data import ImageSet
from nclib.detection import margins
from nclib.detection.common import per_class
from nclib.doors import gradients, integer, numbers, seeded
from nclib.poisons import PoisonedSet, metrics


def remove(data: ImageSet, bad: Tensor | None = None, **options: Any) -> ImageSet:
    """``data`` without the samples of the mask ``bad`` ``[N]``; None asks ``transplant``.

    ``options`` go to ``transplant``. Raises ``ValueError`` where a class would be emptied.
    """
    bad = transplant(data, **options).mask if bad is None else torch.as_tensor(bad).cpu()
    check_mask(bad, len(data))
    labels = data.labels.cpu()
    emptied = set(labels.unique().tolist()) - set(labels[~bad].unique().tolist())
    if emptied:
        raise ValueError(f"bad: nothing would be left of the classes {sorted(emptied)}")
    return data.subset((~bad).to(data.device))


@numbers
def random_removal(labels: Tensor, bad: Tensor, seed: int = 0) -> Tensor:
    """The control: as many samples as ``bad`` takes from each class, at random: bool ``[N]``, CPU.

    ``labels`` int64 ``[N]``, ``bad`` bool ``[N]``; the ``seed`` fixes the draw. Raises
    ``ValueError`` for a mask of another length or type.
    """
    labels, bad = labels.cpu(), torch.as_tensor(bad).cpu()
    check_mask(bad, len(labels))
    generator = seeded(seed)
    mask = torch.zeros_like(bad)
    for index in per_class(labels, int(labels.max()) + 1):
        drawn = torch.randperm(len(index), generator=generator)[: int(bad[index].sum())]
        mask[index[drawn]] = True
    return mask


@numbers
def relabel(
    data: ImageSet,
    features: Mapping[str, Tensor],
    *,
    agree: float = 0.8,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
) -> ImageSet:
    """Give a sample the class that out-of-fold nearest centres agree on, or drop it.

    Each layer of ``features`` ``{layer: [N, D]}`` and each of ``repeats`` splits into ``folds``
    votes with its nearest whitened class mean. A sample whose plurality is its label stays; else it
    is relabelled where a share ``agree`` votes for one class, and dropped where not. Returns a new
    set, smaller by what was dropped. Raises ``ValueError`` for an ``agree`` outside (0, 1], less
    than one layer or repeat, more ``folds`` than the smallest class has samples, and features that
    do not fit. Ours; the vote out of fold is that of Northcutt et al. 2021 (arXiv 1911.00068).
    """
    if not features:
        raise ValueError("features: got no layer; {layer: [N, D]} with at least one is needed")
    integer(repeats, "repeats", 1)
    if not 0 < agree <= 1:
        raise ValueError(f"agree: got {agree}; 0 < agree <= 1 is allowed")
    labels = data.labels.cpu()
    rounds = [
        margins.out_of_fold(hidden, labels, folds=folds, seed=seed + r).argmax(1, keepdim=True)
        == torch.arange(data.num_classes)
        for hidden in features.values()
        for r in range(repeats)
    ]  # [N, K] each
    share, choice = torch.stack(rounds).double().mean(0).max(1)
    kept = choice == labels
    new = replace(data, labels=torch.where(kept, labels, choice).to(data.device))
    return new.subset((kept | (share >= agree)).to(data.device))


@gradients
def fine_tune(
    model: nn.Module, clean: ImageSet, *, epochs: int = 20, lr: float = 0.02, **options: Any
) -> training.Run:
    """Train a *copy* of ``model`` further on a small clean set, all weights; ``model`` stays.

    ``options`` go to ``training.fit``, whose ``Run`` is returned and whose ``ValueError`` for bad
    ones is raised. Liu, Dolan-Gavitt and Garg 2018 (arXiv 1805.12185) without their pruning.
    """
    return training.fit(copy.deepcopy(model), clean, epochs=epochs, lr=lr, **options)


@gradients
def etf_head(
    model: nn.Module,
    clean: ImageSet,
    *,
    epochs: int = 20,
    lr: float = 0.02,
    kind: str = "etf",
    seed: int = 0,
    **options: Any,
) -> training.Run:
    """Replace the classifier of a *copy* by a frozen simplex ETF and tune the rest on ``clean``.

    Gu et al. 2024 (arXiv 2411.12914). The rows keep the mean length of the old ones; the bias goes.
    ``kind`` "random" is the control: rows of that length in random directions.
    ``options`` go to ``training.fit``. Raises ``ValueError`` where the features have fewer than
    K - 1 dimensions, and for a classifier that ``activations.replaceable`` refuses.
    """
    model = copy.deepcopy(model)
    head = activations.replaceable(model, clean.images)
    count, dim = head.weight.shape
    if kind not in ("etf", "random"):
        raise ValueError(f"kind: got {kind!r}; allowed are etf, random")
    if kind == "etf":
        frame = geometry.simplex_etf(count, dim, seed).to(torch.float32)
    else:
        frame = normalize(torch.randn(count, dim, generator=seeded(seed)))
    length = head.weight.detach().norm(dim=1).mean()
    with torch.no_grad():
        head.weight.copy_(frame.to(head.weight.device) * length)
        if head.bias is not None:
            head.bias.zero_()
    head.requires_grad_(False)  # a weight without a gradient does not decay either
    run = training.fit(model, clean, epochs=epochs, lr=lr, seed=seed, **options)
    head.requires_grad_(True)
    return run


def outcome(model: nn.Module, test: ImageSet, poisoned: ImageSet | None = None) -> dict[str, float]:
    """``metrics.outcome`` of a repair: ``{"accuracy", "asr"}``, shares in [0, 1].

    "asr", the attack's success, is there where ``poisoned`` is a ``PoisonedSet`` with a goal (a
    trigger or victims). Raises ``ValueError`` where no image of ``test`` counts for it.
    """
    if not isinstance(poisoned, PoisonedSet):
        return {"accuracy": training.accuracy(model, test)}
    names = {"success": "asr"}
    return {names.get(k, k): v for k, v in metrics.outcome(model, None, poisoned, test).items()}
