"""Detection beside its peers: ART, a naive LADIS, and hyppo's MMD where it is installed.

``python benchmarks/detection.py`` prints seconds, the ratio, and whether the verdicts agree.
The features are Gaussian clusters of a trained network's size; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import time
import warnings

import numpy as np
import torch

from nclib import detection
from nclib.detection import two_sample


def timed(function, repeats: int = 1):
    """The result, and the best of ``repeats`` wall times in seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return result, best


def show(name: str, ours: float, theirs: float, verdict: str) -> None:
    print(f"{name:34s} {ours:8.3f} s {theirs:9.3f} s {theirs / ours:8.1f}x  {verdict}", flush=True)


def poisoned(n: int = 2000, dim: int = 128, classes: int = 10):
    """Features of ``classes`` clusters; in class 0 a fifth lies apart."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    features = 6 * torch.randn(classes, dim, generator=draw)[labels] + 10
    features += torch.randn(n, dim, generator=draw)
    bad = torch.zeros(n, dtype=torch.bool)
    bad[(labels == 0).nonzero().flatten()[: n // classes // 5]] = True
    features[bad] += 1.5
    return features, labels, bad


def against_art() -> None:
    """Activation clustering (2-means of 10 components per class) and spectral signatures."""
    from art.defences.detector.poison import spectral_signature_defense as art_spectral
    from art.defences.detector.poison.activation_defence import reduce_dimensionality
    from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer
    from sklearn.cluster import KMeans

    features, labels, bad = poisoned()
    parts = [features[labels == c].numpy() for c in range(10)]

    def theirs():
        flags = np.zeros(len(labels), dtype=bool)
        for c, rows in enumerate(parts):
            reduced = reduce_dimensionality(rows, nb_dims=10, reduce="PCA")
            clusters = KMeans(2, n_init=10, random_state=0).fit_predict(reduced)
            try:
                clean = ClusteringAnalyzer().analyze_by_relative_size([clusters], 0.35)[0]
            except ValueError:  # ART 1.20 stumbles with NumPy 2 where no cluster is small
                continue
            flags[(labels == c).numpy()] = np.asarray(clean[0], dtype=float) == 0
        return flags

    flags, slow = timed(theirs)
    score, fast = timed(lambda: detection.activation_clustering(features, labels))
    same = float((torch.from_numpy(flags) == (score > 0)).double().mean())
    show("activation clustering, ART", fast, slow, f"same verdict on {same:.3f} of the samples")

    scores_of = art_spectral.SpectralSignatureDefense.spectral_signature_scores
    theirs_s, slow = timed(lambda: [np.abs(scores_of(rows)).ravel() for rows in parts], 3)
    ours, fast = timed(lambda: detection.spectral(features, labels, centred=False), 3)
    gap = max(
        np.abs(ours[labels == c].sqrt().numpy() / s - 1).max() for c, s in enumerate(theirs_s)
    )
    show("spectral signatures, ART", fast, slow, f"largest relative gap {gap:.1e}")
    centred = detection.auroc(detection.spectral(features, labels)[labels == 0], bad[labels == 0])
    print(f"{'':34s} (centred, as in the paper: AUROC {centred:.3f} in the poisoned class)")


def naive_ladis(natural, suspect, tests: int, n: int, permutations: int, seed: int = 0):
    """The layer test as one writes it first: a kernel per test, a statistic per permutation."""
    rng, p = np.random.default_rng(seed), []
    for _ in range(tests):
        x = natural[rng.choice(len(natural), n, replace=False)]
        y = suspect[rng.choice(len(suspect), n, replace=False)]
        z = np.concatenate([x, y])
        squared = ((z[:, None] - z[None]) ** 2).sum(2)
        m = np.median(squared[squared > 0])
        k = sum(np.exp(-squared / (m * 4.0**f)) for f in range(-2, 3))

        def statistic(a, b, k=k):
            across = k[np.ix_(a, b)].mean()
            return k[np.ix_(a, a)].mean() + k[np.ix_(b, b)].mean() - 2 * across

        truth, larger = statistic(np.arange(n), np.arange(n, 2 * n)), 0
        for _ in range(permutations):
            order = rng.permutation(2 * n)
            larger += statistic(order[:n], order[n:]) >= truth
        p.append((1 + larger) / (permutations + 1))
    return np.array(p)


def against_naive_ladis(tests: int = 10) -> None:
    draw = torch.Generator().manual_seed(0)
    natural = torch.randn(500, 128, generator=draw)
    for shift in (0.0, 0.1, 0.3):
        suspect = torch.randn(500, 128, generator=draw) + shift
        theirs, slow = timed(
            lambda s=suspect: naive_ladis(natural.numpy(), s.numpy(), tests, 100, 200)
        )
        ours, fast = timed(
            lambda s=suspect: detection.rate_p_values(
                natural, s, tests=100, n=100, permutations=200
            )
        )
        rates = f"rate {(ours <= 0.05).double().mean():.2f}, naive {(theirs <= 0.05).mean():.2f}"
        show(f"layer test, 100 tests, shift {shift}", fast, slow * 100 / tests, rates)
    print(f"{'':34s} (naive: {tests} tests timed, scaled to 100)")


def against_hyppo() -> None:
    if importlib.util.find_spec("hyppo") is None:
        print("hyppo is not installed; its MMD is left out (the extra is called bench)")
        return
    from hyppo.ksample import MMD

    draw = torch.Generator().manual_seed(1)
    for shift in (0.0, 0.15, 0.5):
        x = torch.randn(100, 32, generator=draw)
        y = torch.randn(100, 32, generator=draw) + shift
        gamma = 1 / two_sample.median_distance(torch.cat([x, y]))
        peer = MMD(compute_kernel="rbf", gamma=gamma)
        pair = x.double().numpy(), y.double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hyppo asks for 1000 permutations
            peer.test(*pair, reps=2, auto=False)  # numba compiles at the first call
            (_, p), slow = timed(lambda: peer.test(*pair, reps=200, auto=False))  # noqa: B023
        ours, fast = timed(lambda: detection.mmd_test(x, y, permutations=200), 3)  # noqa: B023
        same = "same verdict" if (ours <= 0.05) == (p <= 0.05) else "verdicts differ"
        verdict = f"p {ours:.3f}, theirs {p:.3f}: {same}"
        show(f"MMD, 200 permutations, hyppo, {shift}", fast, slow, verdict)


if __name__ == "__main__":
    print(
        f"{'':34s} {'ours':>10s} {'theirs':>11s} {'ratio':>9s}  ({torch.get_num_threads()} threads)"
    )
    against_art()
    against_naive_ladis()
    against_hyppo()
