"""Where to cut a score when nobody knows how much is poisoned: each rule returns a mask ``[N]``.

The scores rank well; the cut is the weak link. These rules look at the scores alone. What trains
again, ``correction.transplant``, does better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from nclib.detection.common import per_class, robust_z
from nclib.doors import array, classes, finite, number, numbers


@numbers
def mad(score: Tensor, labels: Tensor, *, limit: float = 5.0) -> Tensor:
    """Further than ``limit`` robust deviations above the class median (Iglewicz and Hoaglin 1993).

    Nothing in a class whose MAD is 0: where more than half of the scores are equal, there is no
    scale to measure by.
    """

    number(limit, "limit")

    def cut(s: Tensor) -> Tensor:
        return (robust_z(s, _nothing(s)) > limit) & ((s - s.median()).abs().median() > 0)

    return _by_class(score, labels, cut)


@numbers
def mixture(score: Tensor, labels: Tensor, *, evidence: float = 10.0) -> Tensor:
    """The upper of two Gaussians on the log score of the class, where two are clearly better.

    Two are clearly better when BIC falls by ``evidence`` and the means lie two deviations apart
    (Ashman, Bird and Zepf 1994).
    """

    number(evidence, "evidence")

    def cut(s: Tensor) -> Tensor:
        logs = s.clamp_min(_nothing(s)).log()
        rows = (logs - logs.median())[:, None].numpy()
        one = GaussianMixture(1, random_state=0).fit(rows)
        two = GaussianMixture(2, n_init=2, random_state=0).fit(rows)
        means, spread = two.means_.ravel(), two.covariances_.ravel()
        apart = abs(means[1] - means[0]) / ((spread.sum() / 2) ** 0.5)
        if one.bic(rows) - two.bic(rows) < evidence or apart < 2:
            return torch.zeros(len(s), dtype=torch.bool)
        upper = torch.from_numpy(two.predict(rows) == means.argmax())
        return upper & (s > s.median())

    return _by_class(score, labels, cut)


@numbers
def gap(score: Tensor, labels: Tensor, *, factor: float = 12.0) -> Tensor:
    """Everything above the widest gap in the upper half of the class's log scores.

    A gap counts times the number of samples above it: for an exponential tail these products have
    one mean (Renyi 1953). It has to be ``factor`` times their median over log 2.
    """

    number(factor, "factor", 0)

    def cut(s: Tensor) -> Tensor:
        rows = s.clamp_min(_nothing(s)).log()
        tail = rows.sort().values[len(rows) // 2 :]
        spacing = (tail[1:] - tail[:-1]) * torch.arange(len(tail) - 1, 0, -1)
        usual = spacing.median() / torch.log(torch.tensor(2.0))
        if len(spacing) == 0 or spacing.max() < factor * usual:
            return torch.zeros(len(s), dtype=torch.bool)
        return rows > tail[int(spacing.argmax())]

    return _by_class(score, labels, cut)


@numbers
def agreement(
    scores: Mapping[str, Tensor], labels: Tensor, *, limit: float = 3.0, share: float = 0.75
) -> Tensor:
    """Above ``limit`` robust deviations in the class at a ``share`` of ``{layer: [N]}``."""
    number(share, "share", 0, 1)
    votes = torch.stack([mad(s, labels, limit=limit) for s in scores.values()])
    return votes.double().mean(0) >= share


@numbers
def known_rate(score: Tensor, rate: float, *, factor: float = 1.5) -> Tensor:
    """The oracle's cut: the top ``factor * rate`` of all samples. Nobody has the rate.

    ``score`` ``[N]``. Raises ``ValueError`` for a rate outside [0, 1], a factor below 0 and a score
    that is not finite.
    """
    number(rate, "rate", 0, 1)
    number(factor, "factor", 0)
    score = finite(array(score, "score"), "score")
    mask = torch.zeros(len(score), dtype=torch.bool)
    count = min(len(score), round(factor * rate * len(score)))
    mask[score.cpu().argsort(descending=True, stable=True)[:count]] = True
    return mask


def _nothing(score: Tensor) -> Tensor:
    """What is as good as 0 beside the scores of a class: they may have any unit."""
    return (1e-12 * score.abs().max()).clamp_min(torch.finfo(score.dtype).tiny)


RULES: dict[str, Callable[..., Tensor]] = {
    "mad": mad,
    "mixture": mixture,
    "gap": gap,
}  # of one score; ``agreement`` takes several


def _by_class(score: Tensor, labels: Tensor, cut: Callable[[Tensor], Tensor]) -> Tensor:
    score, labels = array(score, "score").detach().cpu().double(), classes(labels).cpu()
    if score.ndim != 1 or not len(score) or score.shape != labels.shape:
        raise ValueError(f"score: got {tuple(score.shape)}; {tuple(labels.shape)} is needed")
    finite(score, "score")
    mask = torch.zeros(len(score), dtype=torch.bool)
    for index in per_class(labels, int(labels.max()) + 1):
        if len(index) > 3:
            mask[index] = cut(score[index])
    return mask
