"""Wrong labels, their share estimated: how much of the set looks as wrong labels look here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from nclib.detection.margins import out_of_fold

PURE = 0.9  # of what is marked, so much has to be wrong
FAR, NEAR = 0.3, 0.7  # shares of the wrong labels beyond the cuts that the estimate rests on
LEVEL = 1.3  # the two may differ by this factor; fixed on digits and signs (1.06 at most)


class WrongLabels(NamedTuple):
    """What ``mislabelled`` found."""

    share: float  # of all samples; where the estimate is not plain, it is at most so much
    plain: bool  # whether the estimate is the same at all cuts
    mask: Tensor  # bool [N], CPU: those that can be told, if it is plain
    agree: float  # share of the samples whose label is the likeliest


def mislabelled(
    features: Mapping[str, Tensor], labels: Tensor, *, folds: int = 5, seed: int = 0
) -> WrongLabels:
    """The estimated share of wrong labels, and which they are.

    ``features`` is ``{layer: [N, D]}`` of an early epoch, before wrong labels are memorised. The
    margin of a label is the log odds of the likeliest other class, out of fold, under Gaussians
    with one covariance. What a wrong label looks like *in this data* is known without any: give
    each sample a random other label. Wrong labels pass a cut as often as these do, if they are
    spread over the other classes, so their share is at most (observed beyond the cut) / (random
    ones beyond it), for every cut, and the smallest such bound is the estimate (Blanchard, Lee and
    Scott 2010). Where classes overlap, right labels pass too, and the nearer the cut the more: then
    it is not ``plain``, and a bound only. Marked is everything beyond the lowest cut that ``PURE``
    of it are wrong. Raises ``ValueError`` like ``out_of_fold``.
    """
    labels = labels.cpu()
    likely = out_of_fold(torch.cat(list(features.values()), 1), labels, folds=folds, seed=seed)
    likely, count = likely.clamp_min(1e-300).log(), int(labels.max()) + 1
    shift = torch.randint(1, count, labels.shape, generator=torch.Generator().manual_seed(seed))
    seen, wrong = (_margin(likely, y) for y in (labels, (labels + shift) % count))
    cuts = wrong.sort().values[: round((1 - FAR) * len(wrong))]
    beyond = [1 - torch.searchsorted(m.sort().values, cuts) / len(m) for m in (seen, wrong)]
    ratio = beyond[0] / beyond[1]
    share = float(ratio.min())
    plain = share > 0 and float(ratio[: round((1 - NEAR) * len(wrong))].min()) <= LEVEL * share
    mask = torch.zeros_like(labels, dtype=torch.bool)
    if plain:
        pure = (share * beyond[1] >= PURE * beyond[0]).nonzero().flatten()
        mask = seen >= cuts[int(pure[0])]
    return WrongLabels(share, plain, mask, float((seen < 0).double().mean()))


def _margin(likely: Tensor, labels: Tensor) -> Tensor:
    """log p of the likeliest other class minus log p of the label: ``[N]``."""
    own = likely.gather(1, labels[:, None]).squeeze(1)
    return likely.scatter(1, labels[:, None], -torch.inf).amax(1) - own
