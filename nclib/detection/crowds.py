"""Is it a crowd of strangers? Poison looks like all other classes, honest images like a neighbour.

Whatever an attacker adds - a warp, a noise of each image's own, a patch that roams - his images are
those of other classes, of all of them. What is odd in an honest class looks like a neighbour or
two. This asks nothing of the trigger, so it sees what no mean image shows.

Where a group looks like one class only, it may be poison from that class, or honest images that
happen to look so from afar. Then its mean is taken away, and with it the trigger: poison still
varies as the images do from which it was made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nclib.detection.common import class_means, main_axes, whitener

AXES = 40


def resembled(hidden: Tensor, labels: Tensor) -> Tensor:
    """The class whose mean is nearest to each sample, its own left out: int64 ``[N]``, CPU.

    ``hidden`` ``[N, D]`` are features, whitened by their pooled Sigma_W, or pixels; ``labels`` is
    int64 ``[N]``. Linear in the samples.
    """
    hidden, labels = hidden.detach().cpu().flatten(1).double(), labels.cpu()
    count = int(labels.max()) + 1
    means = class_means(hidden, labels, count)
    root = whitener(hidden - means[labels])
    away = torch.cdist(hidden @ root, means @ root).nan_to_num(torch.inf)  # no mean: an empty class
    return away.scatter(1, labels[:, None], torch.inf).argmin(1)


def variety(members: Tensor, seen: Tensor, sizes: Tensor) -> Tensor:
    """How evenly groups come from all the classes that they might come from: ``[G]`` in [0, 1].

    The exponential of the entropy of ``seen`` ``[n]``, the class that each sample looks like, in
    each of the groups ``members`` ``[G, n]``, over that of the ``sizes`` ``[K]``, 0 for the groups'
    own class: 1 for a sample of the whole set, 1/(K - 1) where all members look alike.
    """
    rows = members.double() @ one_hot(seen, len(sizes)).double()
    return breadth(rows) / breadth(sizes.double()[None])


def kinship(group: Tensor, other: Tensor, own: Tensor) -> float:
    """The share of a group that varies as another class does, and not as the rest of its own.

    0 where one of the two has fewer than ``AXES`` images, for then it is not known how it varies.

    Of ``group``, ``other`` and ``own``, images ``[n, ...]``, the means are taken away. Which of two
    Gaussians, with the covariances of ``other`` and ``own`` on their first ``AXES`` axes, has each
    image of the group rather come from? Both are fitted to as many images: to as many as the
    smaller has, for more of them fit what they never met better.
    """
    group, other, own = (x.detach().cpu().flatten(1).double() for x in (group, other, own))
    size = min(len(other), len(own))
    if size < AXES:
        return 0.0
    other, own = (x[torch.linspace(0, len(x) - 1, size).long()] for x in (other, own))
    group, other, own = (x - x.mean(0) for x in (group, other, own))
    axes = main_axes(torch.cat([other, own]), AXES)
    roots = [whitener(x @ axes) for x in (other, own)]
    as_other, as_own = (
        root.slogdet().logabsdet - (group @ axes @ root).square().sum(1) / 2 for root in roots
    )
    return float((as_other > as_own).double().mean())


def breadth(rows: Tensor) -> Tensor:
    """The effective number of classes in counts ``[G, K]``, exp of their entropy: ``[G]``.

    1 where all are of one class, and for none.
    """
    part = rows / rows.sum(1, keepdim=True).clamp_min(1)
    return torch.special.entr(part).sum(1).exp()
