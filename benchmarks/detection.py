"""Detection beside ART, a plain layer test, and hyppo's MMD: seconds and verdicts.

The features are Gaussian clusters of a trained network's size.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from pairs import compare, installed

from nclib import detection
from nclib.detection import two_sample
from nclib.detection.neighbours import nearest


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

    features, labels, _ = poisoned()
    parts = [features[labels == c].numpy() for c in range(10)]

    def clusters():
        flags = torch.zeros(len(labels), dtype=torch.bool)
        for c, rows in enumerate(parts):
            reduced = reduce_dimensionality(rows, nb_dims=10, reduce="PCA")
            found = KMeans(2, n_init=10, random_state=0).fit_predict(reduced)
            try:
                clean = ClusteringAnalyzer().analyze_by_relative_size([found], 0.35)[0]
            except ValueError:  # ART 1.20 stumbles with NumPy 2 where no cluster is small
                continue
            flags[labels == c] = torch.from_numpy(np.asarray(clean[0], dtype=float) == 0)
        return flags

    compare(
        "activation clustering",
        lambda: detection.activation_clustering(features, labels),
        clusters,
        "art",
        outcome=lambda ours, theirs: (
            f"same verdict on {((ours > 0) == theirs).double().mean():.3f} of the samples"
        ),
    )

    def signatures():
        score = art_spectral.SpectralSignatureDefense.spectral_signature_scores
        found = torch.empty(len(labels))
        for c, rows in enumerate(parts):
            found[labels == c] = torch.from_numpy(np.abs(score(rows)).ravel()).float()
        return found

    compare(
        "spectral signatures, not centred",
        lambda: detection.spectral(features, labels, centred=False),
        signatures,
        "art",
        outcome=lambda ours, theirs: (
            f"largest relative gap {(ours.sqrt() / theirs - 1).abs().max():.1e}"
        ),
    )


def plain_layer_test(natural, suspect, tests: int, n: int, permutations: int, seed: int = 0):
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


def against_plain_layer_test(tests: int = 20) -> None:
    draw = torch.Generator().manual_seed(0)
    natural = torch.randn(500, 128, generator=draw)
    for shift in (0.0, 0.1, 0.3):
        suspect = torch.randn(500, 128, generator=draw) + shift
        arrays = natural.numpy(), suspect.numpy()
        size = {"tests": tests, "n": 100, "permutations": 200}
        compare(
            f"layer test, {tests} tests, shift {shift}",
            lambda s=suspect, size=size: detection.rate_p_values(natural, s, **size),
            lambda arrays=arrays, size=size: plain_layer_test(*arrays, **size),
            outcome=lambda ours, theirs: (
                f"rate {(ours <= 0.05).double().mean():.2f}; plain {(theirs <= 0.05).mean():.2f}"
            ),
            rounds=3,
        )


def against_neighbour_searches(n: int = 10_000, dim: int = 512, k: int = 50) -> None:
    """The neighbours of ``deep_knn`` beside scikit-learn's exact search and pynndescent's guess."""
    from sklearn.neighbors import NearestNeighbors

    def exact(rows):
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows.numpy())
        return torch.from_numpy(search.kneighbors(return_distance=False))

    def guess(rows):
        from pynndescent import NNDescent

        graph = NNDescent(rows.numpy(), n_neighbors=k + 1, n_jobs=1, random_state=0).neighbor_graph
        return torch.from_numpy(graph[0][:, 1:]).long()

    def shared(ours, theirs):
        pairs = zip(ours, theirs, strict=True)
        share = np.mean([torch.isin(a, b).double().mean().item() for a, b in pairs])
        return f"{share:.4f} of the neighbours are the same"

    draw = torch.Generator().manual_seed(0)
    labels, means = torch.arange(n) % 10, torch.randn(10, dim, generator=draw)
    spread = torch.linspace(1.5, 0.05, dim) * torch.randn(n, dim, generator=draw)
    for kind, width in (("overlapping", 1.0), ("collapsed", 0.1)):
        rows = means[labels] + width * spread
        for package, peer in (("sklearn", exact), ("pynndescent", guess)):
            if installed(package):
                compare(
                    f"{k} neighbours, {n:,} {kind} samples",
                    lambda rows=rows: nearest(rows, k, labels),
                    lambda rows=rows, peer=peer: peer(rows),
                    package,
                    outcome=shared,
                    rounds=2,
                )


def against_hyppo() -> None:
    if not installed("hyppo"):
        return
    from hyppo.ksample import MMD

    draw = torch.Generator().manual_seed(1)
    for shift in (0.0, 0.15, 0.5):
        x = torch.randn(100, 32, generator=draw)
        y = torch.randn(100, 32, generator=draw) + shift
        gamma = 1 / two_sample.median_distance(torch.cat([x, y]))
        peer = MMD(compute_kernel="rbf", gamma=gamma)
        arrays = x.double().numpy(), y.double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hyppo asks for 1000 permutations
            compare(
                f"MMD, 200 permutations, shift {shift}",
                lambda x=x, y=y: detection.mmd_test(x, y, permutations=200),
                lambda peer=peer, arrays=arrays: peer.test(*arrays, reps=200, auto=False)[1],
                "hyppo",
                outcome=lambda ours, theirs: f"p {ours:.3f}; peer {theirs:.3f}",
            )


if __name__ == "__main__":
    against_art()
    against_neighbour_searches()
    against_plain_layer_test()
    against_hyppo()
