"""The layer test: exact level, an independent MMD, the published null, the signed witness."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from nclib import detection
from nclib.detection import two_sample


def gauss(n, dim=6, shift=0.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=draw) + shift


def naive_mmd(x, y):
    """The definition, loop by loop, in numpy."""
    z = np.concatenate([x, y]).astype(float)
    squared = ((z[:, None] - z[None]) ** 2).sum(2)
    m = np.median(squared[~np.eye(len(z), dtype=bool)])
    k = sum(np.exp(-squared / (m * 4.0**f)) for f in range(-2, 3))
    n = len(x)
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_mmd_agrees_with_the_definition(shift):
    x, y = gauss(41), gauss(60, shift=shift, seed=1)
    assert detection.mmd(x, y) == pytest.approx(naive_mmd(x.numpy(), y.numpy()), rel=2e-2)


def test_the_kernel_is_the_stated_sum():
    x = gauss(30)
    squared = torch.cdist(x.double(), x.double()).square()
    wanted = sum(torch.exp(-squared / (2.5 * 4.0**f)) for f in range(-2, 3))
    torch.testing.assert_close(two_sample.kernel(x, median=2.5), wanted)


def test_the_statistic_and_p_agree_with_an_independent_permutation_test():
    from scipy.stats import permutation_test

    x, y = gauss(25), gauss(25, shift=0.35, seed=3)
    z = torch.cat([x, y])
    k = two_sample.kernel(z).numpy()

    def statistic(a, b):
        a, b = a.astype(int), b.astype(int)
        return k[np.ix_(a, a)].mean() + k[np.ix_(b, b)].mean() - 2 * k[np.ix_(a, b)].mean()

    theirs = permutation_test(
        (np.arange(25.0), np.arange(25.0, 50.0)),
        statistic,
        n_resamples=1999,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    ours = detection.mmd_test(x, y, permutations=1999)
    assert theirs.statistic == pytest.approx(detection.mmd(x, y), rel=1e-9)
    assert abs(ours - theirs.pvalue) < 0.03


def test_a_a_rate_lies_in_its_binomial_interval():
    """1000 independent tests of equal distributions, 5% level: the test is exact."""
    pool = gauss(40 * 1000, dim=4).reshape(1000, 40, 4)
    p = [detection.mmd_test(z[:20], z[20:], permutations=99, seed=i) for i, z in enumerate(pool)]
    rejected = sum(value <= 0.05 for value in p)
    low, high = binom.interval(0.99, 1000, 0.05)
    assert low <= rejected <= high
    assert min(p) > 0 and max(p) <= 1


def test_the_fast_tests_have_the_level_too():
    rates = [
        detection.layer_rates({"x": gauss(400, seed=s)}, None, n=50, permutations=99, seed=s)["x"]
        for s in range(10)
    ]
    assert 0.02 < np.mean(rates) < 0.09  # 1000 tests, those of one pool not independent


def test_power_and_the_joint_verdict():
    natural = {"same": gauss(300), "moved": gauss(300, seed=1)}
    suspect = {"same": gauss(300, seed=2), "moved": gauss(300, shift=1.0, seed=3)}
    rates = detection.layer_rates(natural, suspect, tests=40, permutations=99, n=50)
    assert rates["moved"] == 1 and rates["any layer"] == 1 and rates["same"] < 0.3
    p = torch.tensor([[0.01, 0.5], [0.04, 0.7]])
    torch.testing.assert_close(detection.bonferroni(p), torch.tensor([0.02, 1.0]))


def test_the_published_null_is_conservative():
    """D = 512, n = 100, shift 0.1 in every feature: only one of the two finds it."""
    x, y = gauss(300, dim=512), gauss(300, dim=512, shift=0.1, seed=1)
    options = {"tests": 20, "n": 100, "permutations": 99}
    permutation = detection.rate_p_values(x, y, **options)
    wild = detection.rate_p_values(x, y, null="wild", **options)
    assert (permutation <= 0.05).double().mean() > 0.9
    assert (wild <= 0.05).double().mean() < 0.1


def test_the_signed_witness_ranks_the_odd_ones_first():
    natural = gauss(200)
    suspect = torch.cat([gauss(160, seed=1), gauss(40, shift=3.0, seed=2)])
    bad = torch.arange(200) >= 160
    score = detection.witness(natural, suspect)
    assert detection.auroc(score, bad) > 0.99
    assert bad[detection.top(score, 30)].all()
    y = torch.cat([natural, suspect])
    k = two_sample.kernel(y)
    by_hand = (k[207, 200:].sum() - k[207, 207]) / 199 - k[207, :200].mean()
    assert float(score[7]) == pytest.approx(float(by_hand))


def test_the_witness_builds_no_kernel_of_the_naturals(monkeypatch):
    shapes, kernel = [], two_sample.kernel
    monkeypatch.setattr(
        two_sample, "kernel", lambda *a: shapes.append(kernel(*a).shape) or kernel(*a)
    )
    detection.witness(gauss(50), gauss(10, seed=1))
    assert shapes == [(10, 60)]


def test_disjoint_halves():
    a, b = detection.disjoint_halves(101)
    assert torch.equal(torch.cat([a, b]).sort().values, torch.arange(101))


def test_constant_features_give_no_alarm():
    flat = torch.ones(50, 3)
    assert detection.mmd_test(flat, flat) == 1.0


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: detection.mmd_test(gauss(9), gauss(9), null="bootstrap"), "null"),
        (lambda: detection.mmd_test(gauss(9), gauss(8), null="wild"), "as many"),
        (lambda: detection.mmd_test(gauss(9), gauss(9, dim=3)), "suspect"),
        (lambda: detection.mmd_test(gauss(9) * torch.nan, gauss(9)), "NaN"),
        (lambda: detection.mmd_test(gauss(1), gauss(9)), "natural"),
        (lambda: detection.mmd_test(gauss(9), gauss(9), permutations=0), "permutations"),
        (lambda: detection.mmd(gauss(9), gauss(0)), "suspect"),
        (lambda: detection.mmd(gauss(0), gauss(9)), "natural"),
        (lambda: detection.mmd(gauss(9), gauss(9, dim=3)), "3 features; 6"),
        (lambda: detection.top(torch.arange(10.0), count=-2), "count"),
        (lambda: detection.layer_rates({"x": gauss(99)}, None, n=50), "natural"),
        (lambda: detection.layer_rates({"x": gauss(99)}, None, permutations=9), "permutations"),
        (lambda: detection.layer_rates({"x": gauss(200)}, {"y": gauss(200)}), "layers"),
    ],
)
def test_bad_input_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()
