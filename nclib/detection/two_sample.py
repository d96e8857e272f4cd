"""Are two batches of features from one distribution? The layer-wise MMD test (LADIS).

Maximum mean discrepancy: Gretton et al., JMLR 13, 2012. ``natural`` is known to be clean and
``suspect`` is tested. It fires on *any* shift; a batch that fires is no verdict on one sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nclib.doors import array, finite, integer, numbers, seeded

NULLS = ("permutation", "wild")


def kernel(rows: Tensor, columns: Tensor | None = None, median: float | None = None) -> Tensor:
    """Sum over f = -2..2 of exp(-|a - b|^2 / (m 4^f)) for rows ``[N, D]``: ``[N, M]``, float64.

    m is the median squared distance of all pairs of different rows, or ``median``.
    """
    rows = finite(array(rows, "features").detach().cpu().double().flatten(1), "features")
    columns = rows if columns is None else array(columns, "features").detach().cpu()
    columns = finite(columns.double().flatten(1), "features")
    centre = rows.mean(0)  # distances of rows far from the origin would drown in rounding
    rows, columns = rows - centre, columns - centre
    norms = rows.square().sum(1)[:, None] + columns.square().sum(1)
    distance = torch.addmm(norms, rows, columns.T, alpha=-2).clamp_min_(0)
    median = median_distance(rows) if median is None else median
    power = distance.mul_(-1 / (16 * median)).exp_()
    total = power.clone()
    for _ in range(4):  # exp(-u/4) is exp(-u/16)^4: one exponential serves all five widths
        total += power.square_().square_()
    return total


def median_distance(rows: Tensor, most: int = 1000) -> float:
    """Median squared distance between different rows ``[N, D]`` (of the first ``most``, spread).

    Where more than half of the pairs are equal, up to the rounding of float32, the median of those
    that are not; 1 where all are: a collapsed class has no width to measure by.
    """
    rows = rows.detach().cpu().double().flatten(1)
    rows = rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]
    apart = torch.pdist(rows).square()
    least = 1e-13 * float(apart.max()) if len(apart) else 0.0
    if len(apart) and apart.median() > least:
        return float(apart.median())
    apart = apart[apart > least]
    return float(apart.median()) if len(apart) else 1.0


def mmd(natural: Tensor, suspect: Tensor) -> float:
    """The biased squared MMD between ``[n, D]`` and ``[m, D]``: 0 for equal samples.

    Raises ``ValueError`` for an empty sample, other shapes, and samples of different D.
    """
    natural, suspect = _samples(natural, suspect, 1)
    n = len(natural)
    k = kernel(torch.cat([natural, suspect]))
    return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())


@numbers
def mmd_test(
    natural: Tensor,
    suspect: Tensor,
    *,
    permutations: int = 200,
    null: str = "permutation",
    seed: int = 0,
) -> float:
    """The p-value in (0, 1] of the biased MMD^2 between ``[n, D]`` and ``[m, D]``.

    ``null="permutation"`` is exact: p = (1 + #{T_b >= T}) / (B + 1). ``"wild"`` is the published
    bootstrap with Gaussian weights and the diagonal kept (equal n only): far too careful.
    """
    natural, suspect = _check(natural, suspect, permutations, null)
    n, m = len(natural), len(suspect)
    k = kernel(torch.cat([natural, suspect]))
    weights = _weights(n, m, 1, permutations, null, seeded(seed))
    return float(_p_values(k[None], weights)[0])


@numbers
def rate_p_values(
    natural: Tensor,
    suspect: Tensor | None,
    *,
    tests: int = 100,
    n: int = 100,
    permutations: int = 200,
    null: str = "permutation",
    seed: int = 0,
) -> Tensor:
    """p-values ``[tests]``: each test draws ``n`` natural against ``n`` suspect samples.

    ``suspect=None`` is the A/A control: both halves come from ``natural``, disjoint. One kernel of
    everything serves all tests, and each null distribution is one matrix product. The tests share
    a pool, so they are not independent. Raises ``ValueError`` where a pool has too few samples.
    """
    natural, other = _check(natural, natural if suspect is None else suspect, permutations, null)
    suspect = None if suspect is None else other
    own = 2 * n if suspect is None else n  # draws from the naturals
    need = {"natural": (len(natural), own)}
    need |= {} if suspect is None else {"suspect": (len(suspect), n)}
    for name, (have, want) in need.items():
        if have < integer(want, "n") or n < 2 or integer(tests, "tests") < 1:
            raise ValueError(f"{name}: {have} samples; {want} for each of {tests} tests with n={n}")
    generator = seeded(seed)
    pool = natural if suspect is None else torch.cat([natural, suspect])
    k = kernel(pool)
    # one set of random splits serves every test: a split knows nothing of the data
    weights = _weights(n, n, 1, permutations, null, generator)
    found = []
    for start in range(0, tests, 20):  # 20 blocks of 2n x 2n at a time
        count = min(20, tests - start)
        index = _draw(len(natural), own, count, generator)
        if suspect is not None:
            other = _draw(len(suspect), n, count, generator) + len(natural)
            index = torch.cat([index, other], 1)
        blocks = k[index[:, :, None], index[:, None, :]]
        found.append(_p_values(blocks, weights))
    return torch.cat(found)


@numbers
def layer_rates(
    natural: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor] | None,
    *,
    level: float = 0.05,
    **options: Any,
) -> dict[str, float]:
    """Detection rate per layer, and of the layers together: ``{layer: rate, "any layer": rate}``.

    The rate is the share of the tests of ``rate_p_values`` with p <= ``level``. "any layer" uses
    Bonferroni's bound (``bonferroni``); all layers see the same draws.
    """
    check_resolution(len(natural), options.get("permutations", 200), level)
    p = layer_p_values(natural, suspect, **options)
    rates = {name: float((row <= level).double().mean()) for name, row in p.items()}
    joint = bonferroni(torch.stack(list(p.values())))
    return rates | {"any layer": float((joint <= level).double().mean())}


def layer_p_values(
    natural: Mapping[str, Tensor], suspect: Mapping[str, Tensor] | None, **options: Any
) -> dict[str, Tensor]:
    """``rate_p_values`` for each layer, with the same draws: ``{layer: [tests]}``."""
    if suspect is not None and list(suspect) != list(natural):
        raise ValueError(f"suspect: layers {list(suspect)}; {list(natural)} are needed")
    return {
        name: rate_p_values(rows, None if suspect is None else suspect[name], **options)
        for name, rows in natural.items()
    }


@numbers
def check_resolution(layers: int, permutations: int, level: float) -> None:
    """Refuse permutations so few that no joint p-value of ``layers`` tests can reach ``level``."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; 0 < level < 1 is allowed")
    if layers / (permutations + 1) > level:
        least = math.ceil(layers / level) - 1
        raise ValueError(
            f"permutations: got {permutations}; {layers} layers at level {level} need {least}"
        )


def bonferroni(p: Tensor) -> Tensor:
    """One valid p-value from one per layer: min(1, L min p), ``[L, ...]`` -> ``[...]``."""
    p = array(p, "p")
    if not ((p >= 0) & (p <= 1)).all():  # NaN is neither
        raise ValueError("p: values outside [0, 1]; p-values are needed")
    return (len(p) * p.amin(0)).clamp_max(1)


def witness(natural: Tensor, suspect: Tensor) -> Tensor:
    """How much closer each suspect is to the other suspects than to the naturals: ``[m]``.

    witness(t) = mean over j != t of k(y_j, t) - mean over i of k(x_i, t), one bandwidth for all.
    The sign, which the published score drops, tells a natural among the suspects from an odd one.
    """
    natural, suspect = _check(natural, suspect, 1, "permutation")
    pool = torch.cat([natural, suspect])
    k = kernel(suspect, pool, median_distance(pool))
    near = k[:, len(natural) :]
    own = (near.sum(1) - near.diagonal()) / max(1, len(suspect) - 1)
    return own - k[:, : len(natural)].mean(1)


@numbers
def top(score: Tensor, count: int = 100) -> Tensor:
    """Positions of the ``count`` highest scores (all, where there are fewer), highest first.

    Raises ``ValueError`` for a score that is not finite: NaN has no rank.
    """
    integer(count, "count", 0)
    score = finite(array(score, "score"), "score")
    return score.argsort(descending=True, stable=True)[:count]


@numbers
def disjoint_halves(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two disjoint random halves of 0..count-1: naturals from one, attacked ones from the other.

    An image and its own adversarial copy in the two samples would lower the power.
    """
    order = torch.randperm(count, generator=seeded(seed))
    return order[: count // 2].sort().values, order[count // 2 :].sort().values


def _draw(pool: int, n: int, tests: int, generator: torch.Generator) -> Tensor:
    """For each test ``n`` different positions of the pool: ``[tests, n]``."""
    return torch.rand(tests, pool, generator=generator).topk(n, dim=1).indices


def _weights(
    n: int, m: int, tests: int, permutations: int, null: str, generator: torch.Generator
) -> Tensor:
    """Rows a with T = a k a^T: the true split first, then the null's: ``[tests, B + 1, n + m]``."""
    truth = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()
    if null == "permutation":
        shuffle = torch.rand(tests, permutations, n + m, generator=generator)
        rest = truth[shuffle.argsort(2)]
    else:
        gauss = torch.randn(tests, permutations, n, generator=generator).double()
        rest = torch.cat([gauss / n, -gauss / n], 2)
    return torch.cat([truth.expand(tests, 1, n + m), rest], 1)


def _p_values(blocks: Tensor, weights: Tensor) -> Tensor:
    """p per test from kernels ``[tests, s, s]`` and weights ``[tests, B + 1, s]``."""
    statistic = ((weights @ blocks) * weights).sum(2)
    truth = statistic[:, :1]
    slack = 1e-12 * blocks.abs().amax((1, 2))[:, None]  # a tie must not be lost to rounding
    return (1 + (statistic[:, 1:] >= truth - slack).sum(1)) / statistic.shape[1]


def _check(natural: Tensor, suspect: Tensor, permutations: int, null: str) -> tuple[Tensor, Tensor]:
    if null not in NULLS:
        raise ValueError(f"null: got {null!r}; 'permutation' or 'wild' is allowed")
    integer(permutations, "permutations", 1)
    natural, suspect = _samples(natural, suspect, 2)
    if null == "wild" and len(natural) != len(suspect):
        raise ValueError(f"suspect: {len(suspect)} samples; 'wild' needs {len(natural)}, as many")
    return natural, suspect


def _samples(natural: Tensor, suspect: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both as tensors on the CPU, or a ``ValueError``."""
    natural, suspect = array(natural, "natural").cpu(), array(suspect, "suspect").cpu()
    for name, rows in (("natural", natural), ("suspect", suspect)):
        if rows.ndim != 2 or len(rows) < least or not rows.is_floating_point():
            got = f"{rows.dtype} {tuple(rows.shape)}"
            raise ValueError(f"{name}: got {got}; floats [n >= {least}, D] are needed")
        finite(rows, name)
    if natural.shape[1] != suspect.shape[1]:
        raise ValueError(f"suspect: {suspect.shape[1]} features; {natural.shape[1]} are needed")
    return natural, suspect
