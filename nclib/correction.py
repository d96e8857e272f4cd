"""Repair a poisoned training set or a poisoned model: remove, relabel, fine-tune, ETF head.

``consensus`` decides what to remove without being told how much is poisoned. Report every repair
beside ``random_removal`` of the same count and beside the oracle, which knows the poison.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nclib import activations, geometry, models, training
from nclib.data import ImageSet
from nclib.detection import margins, outliers
from nclib.detection.common import per_class

Build = Callable[[ImageSet, int], nn.Module]


@dataclass(frozen=True)
class Consensus:
    """What ``consensus`` decided; all masks are bool ``[N]`` on the CPU."""

    bad: Tensor  # to be removed: two models that never learned these samples reject the label
    core: Tensor  # the most typical samples, trusted without a question
    doubted: Tensor  # rejected by the model of the core alone, before the second look
    model: nn.Module  # trained on all that was kept after the first look

    @property
    def share(self) -> float:
        """Share of the samples to remove."""
        return float(self.bad.double().mean())


def remove(data: ImageSet, bad: Tensor | None = None, **options) -> ImageSet:
    """``data`` without the samples of the mask ``bad`` ``[N]``; None asks ``consensus``.

    ``options`` go to ``consensus``. Raises ``ValueError`` where a class would be emptied.
    """
    bad = consensus(data, **options).bad if bad is None else torch.as_tensor(bad).cpu()
    if bad.dtype != torch.bool or bad.shape != (len(data),):
        raise ValueError(f"bad: got {bad.dtype} {tuple(bad.shape)}; bool [{len(data)}] is needed")
    labels = data.labels.cpu()
    emptied = set(labels.unique().tolist()) - set(labels[~bad].unique().tolist())
    if emptied:
        raise ValueError(f"bad: nothing would be left of the classes {sorted(emptied)}")
    return data.subset((~bad).to(data.device))


def random_removal(labels: Tensor, bad: Tensor, seed: int = 0) -> Tensor:
    """The control: as many samples as ``bad`` takes from each class, drawn at random: ``[N]``."""
    labels, bad = labels.cpu(), bad.cpu()
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros_like(bad)
    for index in per_class(labels, int(labels.max()) + 1):
        drawn = torch.randperm(len(index), generator=generator)[: int(bad[index].sum())]
        mask[index[drawn]] = True
    return mask


def typicality(features: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """How odd a sample is in its class, at its worst layer: ``[N]``; 0 typical, 1 odd, > 1 wrong.

    The rank of the robust distance in the class, the largest over the layers ``{layer: [N, D]}``;
    plus 1 where at half of the layers another class mean is nearer.
    """
    labels = labels.cpu()
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


def core_of(odd: Tensor, labels: Tensor, share: float = 0.2) -> Tensor:
    """The ``share`` of each class with the lowest ``odd`` ``[N]``: a mask ``[N]``."""
    if not 0 < share < 1:
        raise ValueError(f"share: got {share}; 0 < share < 1 is allowed")
    mask, labels = torch.zeros(len(odd), dtype=torch.bool), labels.cpu()
    for index in per_class(labels, int(labels.max()) + 1):
        keep = max(2, round(share * len(index)))
        mask[index[odd[index].argsort(stable=True)[:keep]]] = True
    return mask


def consensus(
    data: ImageSet,
    *,
    features: Mapping[str, Tensor] | None = None,
    core: float = 0.2,
    early: int = 3,
    epochs: int = 12,
    build: Build | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Consensus:
    """Trust the most typical fifth of each class, and keep what a model of that fifth agrees with.

    1. ``features`` ``{layer: [N, D]}`` of a model after ``early`` epochs on everything (None:
       train one; the first layer is left out, it sees edges only).
    2. The ``core`` share of each class that is typical at every layer (``typicality``).
    3. A model trained on the core alone. A sample outside the core stays if the model predicts its
       label: the trigger means nothing to this model, so a triggered image looks like its source.
    4. A model trained on what stayed; of the rest it takes back every sample whose label it holds
       more likely than chance, 1/K.

    No rate and no threshold on a score. ``build(data, seed)`` makes a fresh model (default: the
    small CNN). Triggered images that resemble the target class can pass both looks; where several
    do, some of the backdoor stays. Fails where the poison *is* the typical part of its class
    (blended at 10%), and for clean-label poison, whose label is right.
    """
    build = build or (lambda part, seed: models.build("cnn", part, seed=seed))
    options = {"seed": seed, "progress": progress, "cache": False}
    if features is None:
        model = build(data, seed)
        training.fit(model, data, epochs=early, **options)
        features = activations.features(model, data.images, activations.layer_names(model)[1:])
    trusted = core_of(typicality(features, data.labels), data.labels, core)

    # as many steps as on the whole set would be too many for a fifth: smaller batches instead
    likely, _ = _second_opinion(data, trusted, build, epochs, 32, options)
    own = likely.gather(1, data.labels.cpu()[:, None]).squeeze(1)
    doubted = (own < likely.amax(1)) & ~trusted
    likely, model = _second_opinion(data, ~doubted, build, epochs, 128, options)
    own = likely.gather(1, data.labels.cpu()[:, None]).squeeze(1)
    return Consensus(doubted & (own < 1 / data.num_classes), trusted, doubted, model)


def _second_opinion(data, mask, build, epochs, batch_size, options) -> tuple[Tensor, nn.Module]:
    """What a model trained on the samples of ``mask`` thinks of all: probabilities ``[N, K]``."""
    part = data.subset(mask.to(data.device))
    model = build(part, options["seed"] + 1)
    training.fit(model, part, epochs=epochs, batch_size=batch_size, **options)
    return training.predict(model, data.images).softmax(1).cpu(), model


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
    is relabelled where a share ``agree`` votes for one class, and dropped where not.
    """
    if not 0 < agree <= 1:
        raise ValueError(f"agree: got {agree}; 0 < agree <= 1 is allowed")
    labels = data.labels.cpu()
    votes = sum(
        margins.out_of_fold(hidden, labels, folds=folds, seed=seed + r).argmax(1, keepdim=True)
        == torch.arange(data.num_classes)
        for hidden in features.values()
        for r in range(repeats)
    )  # [N, K]
    share, choice = (votes.double() / (len(features) * repeats)).max(1)
    kept = choice == labels
    new = replace(data, labels=torch.where(kept, labels, choice).to(data.device))
    return new.subset((kept | (share >= agree)).to(data.device))


def fine_tune(
    model: nn.Module, clean: ImageSet, *, epochs: int = 20, lr: float = 0.02, **options
) -> training.Run:
    """Train a *copy* of ``model`` further on a small clean set; ``options`` go to ``fit``."""
    return training.fit(copy.deepcopy(model), clean, epochs=epochs, lr=lr, **options)


def etf_head(
    model: nn.Module,
    clean: ImageSet,
    *,
    epochs: int = 20,
    lr: float = 0.02,
    seed: int = 0,
    **options,
) -> training.Run:
    """Replace the classifier of a *copy* by a frozen simplex ETF and tune the rest on ``clean``.

    Gu et al. 2024 (arXiv 2411.12914). The rows keep the mean length of the old ones; the bias goes.
    Raises ``ValueError`` where the features have fewer than K - 1 dimensions.
    """
    model = copy.deepcopy(model)
    head = activations.classifier(model)[1]
    count, dim = head.weight.shape
    frame = geometry.simplex_etf(count, dim, seed).to(torch.float32)
    length = head.weight.detach().norm(dim=1).mean()
    with torch.no_grad():
        head.weight.copy_(frame.to(head.weight.device) * length)
        if head.bias is not None:
            head.bias.zero_()
    head.requires_grad_(False)
    run = training.fit(
        model, clean, epochs=epochs, lr=lr, optimizer=_without_head(lr), seed=seed, **options
    )
    head.requires_grad_(True)
    return run


def _without_head(lr: float):
    """SGD over what still asks for a gradient; a frozen weight must not decay either."""
    return lambda parameters: torch.optim.SGD(
        [p for p in parameters if p.requires_grad],
        lr=lr,
        momentum=0.9,
        weight_decay=1e-2,
        nesterov=True,
    )


def outcome(model: nn.Module, test: ImageSet, poisoned: ImageSet | None = None) -> dict[str, float]:
    """Accuracy on ``test``, and the ASR where ``poisoned`` has a trigger.

    The attack success rate counts triggered test images of *other* classes that get the label the
    attacker wants.
    """
    found = {"accuracy": training.accuracy(model, test)}
    trigger = getattr(poisoned, "trigger", None)
    if trigger is not None:
        goal = poisoned.goal(test.labels)
        other = goal != test.labels
        predicted = training.predict(model, trigger(test.images[other])).argmax(1)
        found["asr"] = float((predicted == goal[other]).float().mean())
    return found
