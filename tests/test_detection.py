"""Per-sample scores: closed cases, bad input, and ART's activation clustering and spectral."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from nclib import detection, geometry
from nclib.detection.outliers import two_means


def blobs(classes=5, each=80, dim=12, spread=1.0, distance=8.0, seed=0):
    """Gaussian classes at the corners of a simplex, labels in mixed order."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(each)
    means = distance * geometry.simplex_etf(classes, dim, seed)
    noise = torch.randn(len(labels), dim, generator=draw, dtype=torch.float64)
    return (means[labels] + spread * noise).float(), labels


def flipped(seed=0, rate=0.2):
    features, truth = blobs(seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    bad = torch.rand(len(truth), generator=draw) < rate
    shift = torch.randint(1, 5, truth.shape, generator=draw)
    return features, torch.where(bad, (truth + shift) % 5, truth), bad


def triggered(shift, seed=0, count=16):
    """A few samples labelled 0 that lie at ``shift`` from the class mean."""
    features, labels = blobs(seed=seed)
    bad = torch.zeros(len(labels), dtype=torch.bool)
    bad[(labels == 0).nonzero().flatten()[:count]] = True
    features = features + 20.0  # far from the origin, as features after a ReLU are
    features[bad] += shift
    return features, labels, bad


MARGINS = ["whitened_margin", "cosine_margin", "deep_knn", "confident_learning"]


@pytest.mark.parametrize("name", [*MARGINS, "robust_distance"])
@pytest.mark.parametrize("seed", range(3))
def test_flips_are_found(name, seed):
    features, labels, bad = flipped(seed)
    assert detection.auroc(detection.SCORES[name](features, labels), bad) > 0.97


@pytest.mark.parametrize("name", ["robust_distance", "spectral", "activation_clustering", "scan"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_shifted_group_in_one_class_is_found(name, sign):
    features, labels, bad = triggered(sign * 6.0)
    assert detection.auroc(detection.SCORES[name](features, labels), bad) > 0.95


def test_uncentred_spectral_turns_over_when_the_poison_lies_towards_the_origin():
    away, towards = triggered(6.0), triggered(-6.0)
    for features, labels, bad in (away, towards):
        assert detection.auroc(detection.spectral(features, labels), bad) > 0.99
    uncentred = [
        detection.auroc(detection.spectral(f, y, centred=False)[y == 0], b[y == 0])
        for f, y, b in (away, towards)
    ]
    assert uncentred[0] > 0.99 and uncentred[1] < 0.01


def test_whitened_margin_is_twice_the_log_odds_of_the_linear_discriminant():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels, _ = flipped()
    lda = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(features, labels)
    log_odds = torch.from_numpy(lda.decision_function(features.double().numpy()))
    log_odds -= torch.from_numpy(lda.priors_).log()  # ours leaves the class sizes out
    own = log_odds.gather(1, labels[:, None]).squeeze(1)
    other = log_odds.scatter(1, labels[:, None], -torch.inf).amax(1)
    ours = detection.whitened_margin(features, labels, shrink=0.0)
    torch.testing.assert_close(ours, 2 * (other - own), rtol=1e-2, atol=1e-2)


def test_the_mean_of_the_residual_is_nc1():
    features, labels = blobs()
    score = detection.nc1_residual(features, labels)
    assert float(score.mean()) == pytest.approx(geometry.measure(features, labels).nc1)


def test_ncc_depth_by_hand():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    good = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    crossed = torch.tensor([[0.0], [0.1], [5.0], [5.0], [5.1], [5.2]])
    depth = lambda *layers: detection.ncc_depth(dict(enumerate(layers)), labels)[2].item()  # noqa: E731
    assert depth(good, good, good) == 1
    assert depth(crossed, good, good) == 2
    assert depth(good, crossed, good) == 3  # agreement that does not last does not count
    assert depth(good, good, crossed) == 4  # never


def test_prediction_depth_is_that_of_a_vote_by_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    features, labels, _ = flipped()
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    layers = {str(s): features + s * noise for s in (6, 3, 0)}  # from muddled to clear
    agrees = []
    for layer in layers.values():
        near = NearestNeighbors(n_neighbors=7).fit(layer.numpy()).kneighbors(return_distance=False)
        votes = np.stack([(labels.numpy()[near] == c).sum(1) for c in range(5)], 1)
        own = votes[np.arange(len(labels)), labels.numpy()]
        agrees.append(own == votes.max(1))
    wanted = [
        next((d for d in (1, 2, 3) if all(a[i] for a in agrees[d - 1 :])), 4)
        for i in range(len(labels))
    ]
    found = detection.prediction_depth(layers, labels, k=7)
    assert found.tolist() == wanted and len(set(wanted)) == 4


def test_deep_knn_is_positive_where_the_plurality_differs():
    features, labels, _ = flipped()
    score = detection.deep_knn(features, labels, k=7)
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    near = labels[distance.topk(7, largest=False).indices]
    votes = torch.stack([(near == c).sum(1) for c in range(5)], 1)
    own = votes.gather(1, labels[:, None]).squeeze(1)
    other = votes.scatter(1, labels[:, None], -1).amax(1)
    assert torch.equal(score > 0, other > own)


def test_confident_learning_takes_probabilities_from_outside():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    p = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.2, 0.2])
    score = detection.confident_learning(
        torch.randn(6, 2), labels, probabilities=torch.stack([p, 1 - p], 1)
    )
    assert score.argmax() == 2 and (score > 0).sum() == 1


def test_the_robust_distance_ignores_a_third_of_the_class():
    features, labels, bad = triggered(4.0, count=27)
    robust = detection.auroc(detection.robust_distance(features, labels), bad)
    assert robust > 0.99 > detection.auroc(detection.nc1_residual(features, labels), bad)


def test_scan_and_norms_name_the_class():
    features, labels, _ = triggered(6.0, count=24)
    assert detection.scan_classes(features, labels).argmax() == 0
    assert float(detection.scan_classes(features, labels)[0]) > np.e**2
    short, labels = blobs(classes=10, dim=12)
    short[labels == 3] *= 0.6
    assert detection.class_norm_index(short, labels).argmax() == 3
    assert (labels[detection.class_norm(short, labels) > 10] == 3).all()


def test_scan_is_a_likelihood_ratio_under_scikit_learns_shrunk_covariance():
    """Twice the log likelihood of two Gaussians over that of one, per sample, in robust z."""
    from scipy.stats import median_abs_deviation, multivariate_normal
    from sklearn.covariance import ledoit_wolf

    features, labels, bad = triggered(3.0, count=24)
    h, y = features.double().numpy(), labels.numpy()
    means = np.stack([h[y == c].mean(0) for c in range(5)])
    sigma = ledoit_wolf(h - means[y], assume_centered=True)[0]
    white = (h - means[y]) @ np.linalg.inv(np.linalg.cholesky(sigma)).T
    ratios = []
    for c in range(5):
        rows = h[y == c]
        axes = np.linalg.svd(white[y == c] - white[y == c].mean(0))[2].T
        small = two_means(torch.from_numpy(white[y == c] @ axes)).numpy()
        log = lambda part: multivariate_normal(part.mean(0), sigma).logpdf(part).sum()  # noqa: E731
        ratios.append(2 * (log(rows[small]) + log(rows[~small]) - log(rows)) / len(rows))
    wanted = (ratios - np.median(ratios)) / median_abs_deviation(ratios, scale="normal")
    np.testing.assert_allclose(detection.scan_classes(features, labels), wanted, rtol=1e-3)


def test_two_means_finds_the_obvious_split():
    rows = torch.cat([torch.randn(70, 3), torch.randn(30, 3) + 20]).double()
    assert torch.equal(two_means(rows), torch.arange(100) >= 70)


@pytest.mark.parametrize("name", detection.SCORES)
def test_scores_have_one_signature(name):
    features, labels = blobs(classes=3, each=30)
    before = features.clone()
    score = detection.SCORES[name](features, labels)
    assert score.shape == (90,) and score.dtype == torch.float64 and score.isfinite().all()
    assert torch.equal(features, before)
    assert torch.equal(score, detection.SCORES[name](features, labels))  # the same every time


@pytest.mark.parametrize("name", [*detection.SCORES, "ncc_depth", "prediction_depth"])
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f, y: (f.index_fill(0, torch.tensor([3]), torch.nan), y), "NaN"),
        (lambda f, y: (f, torch.where(y == 1, 2, y)), "classes \\[1\\]"),
        (lambda f, y: (f, torch.zeros_like(y)), "at least 2"),
        (lambda f, y: (f, y[:-1]), "labels"),
        (lambda f, y: (f[:, None], y), "\\[N, D\\]"),
    ],
)
def test_bad_input_is_refused(name, spoil, word):
    features, labels = spoil(*blobs(classes=3, each=20))
    score = detection.SCORES.get(name)
    with pytest.raises(ValueError, match=word):
        if score is None:
            getattr(detection, name)({"layer": features}, labels)
        else:
            score(features, labels)


def test_more_dimensions_than_samples():
    features, labels = blobs(classes=4, each=10, dim=200)
    for score in detection.SCORES.values():
        assert score(features, labels).isfinite().all()


def test_auroc_agrees_with_scikit_learn_also_with_ties():
    draw = torch.Generator().manual_seed(0)
    bad = torch.rand(500, generator=draw) < 0.2
    for score in (torch.rand(500, generator=draw), torch.randint(0, 4, (500,), generator=draw)):
        assert detection.auroc(score, bad) == pytest.approx(roc_auc_score(bad, score))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_copies_that_fill_half_of_a_class_leave_the_distances_finite(value):
    features, labels = blobs(classes=3, each=20)
    copies = (labels == 0).nonzero().flatten()[:15]
    features[copies] = value
    score = detection.robust_distance(features, labels)
    assert score.isfinite().all() and float(score.max()) <= 1e9
    rest = (labels == 0) & ~torch.isin(torch.arange(60), copies)
    assert float(score[rest].min()) > float(score[copies].max())
    assert detection.combine({"a": score, "b": score}).isfinite().all()


@pytest.mark.parametrize("shrink", [5, -0.1, float("nan")])
def test_a_share_of_shrinkage_outside_0_to_1_is_refused(shrink):
    with pytest.raises(ValueError, match="shrink"):
        detection.whitened_margin(*blobs(), shrink=shrink)


def test_the_median_rule_says_nothing_where_more_than_half_are_equal():
    score, labels = torch.zeros(40, dtype=torch.float64), torch.arange(40) // 20
    score[[3, 5, 7]] = 1e-9
    assert not detection.RULES["mad"](score, labels).any()
    score[20:] = torch.linspace(0, 1, 20)
    score[39] = 50.0
    assert detection.RULES["mad"](score, labels).nonzero().flatten().tolist() == [39]


def test_operating_points_by_hand():
    score = torch.arange(100.0)
    bad = torch.zeros(100, dtype=torch.bool)
    bad[[99, 97, 50]] = True
    assert detection.tpr_at_fpr(score, bad, 0.01) == pytest.approx(1 / 3)
    assert detection.tpr_at_fpr(score, bad, 0.05) == pytest.approx(2 / 3)
    clean = torch.arange(101.0)  # 29 of the 100 clean ones above the threshold, not 28
    assert detection.tpr_at_fpr(torch.where(clean == 100, 70.5, clean), clean == 100, 0.29) == 1
    assert detection.precision_at(score, bad, 3) == pytest.approx(2 / 3)
    assert detection.precision_at(torch.zeros(100), bad, 10) == pytest.approx(0.03)  # all tied
    control = detection.auroc(detection.random_score(torch.zeros(20000)), torch.arange(20000) < 500)
    assert abs(control - 0.5) < 0.05
    with pytest.raises(ValueError, match="both kinds"):
        detection.auroc(score, torch.zeros(100, dtype=torch.bool))


def test_combining_layers():
    a, b = torch.arange(50.0), torch.arange(50.0).flip(0)
    b[7] = 300
    layers = {"a": a, "b": b}
    assert detection.combine(layers, "max").argmax() == 7
    assert detection.combine(layers, "min").argmax() != 7
    assert (
        0 <= detection.combine(layers, "rank").min() <= detection.combine(layers, "rank").max() <= 1
    )
    tied = detection.combine({"a": torch.zeros(6), "b": torch.tensor([0.0, 1, 1, 1, 1, 5])}, "rank")
    torch.testing.assert_close(tied, torch.tensor([1, 2, 2, 2, 2, 3]).double() / 4)
    with pytest.raises(ValueError, match="rule"):
        detection.combine(layers, "vote")
    with pytest.raises(ValueError, match="scores"):
        detection.combine({}, "max")


@pytest.mark.parametrize(("name", "most"), [("mad", 0.03), ("mixture", 0.03), ("gap", 0.15)])
def test_rules_take_the_far_group_and_little_else(name, most):
    features, labels = blobs(classes=4, each=100)
    found = detection.RULES[name](detection.robust_distance(features, labels), labels)
    assert float(found.double().mean()) <= most
    features, labels, bad = triggered(12.0)
    found = detection.RULES[name](detection.robust_distance(features, labels), labels)
    assert found[bad].all() and float(found[~bad].double().mean()) <= most


def test_agreement_needs_most_layers_and_the_known_rate_cuts_by_count():
    features, labels, bad = triggered(12.0)
    odd = detection.robust_distance(features, labels)
    dull = detection.random_score(labels)
    three = {"a": odd, "b": odd, "c": odd, "d": dull}
    assert detection.agreement(three, labels)[bad].all()
    assert not detection.agreement({"a": odd, "b": dull, "c": dull}, labels).any()
    assert int(detection.known_rate(odd, 0.1).sum()) == 60


# ART 1.20. Its spectral score projects features that are *not* centred; ours offers both.


def test_activation_clustering_agrees_with_art():
    art = pytest.importorskip(
        "art.defences.detector.poison.clustering_analyzer", reason="make test installs it"
    )
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    features, labels, bad = triggered(6.0)
    ours = (detection.activation_clustering(features, labels) > 0)[labels == 0]
    # the poisoned class only: for a class with nothing suspicious ART's report fails on NumPy 2
    reduced = PCA(10).fit_transform(features[labels == 0].numpy())
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(reduced)
    assigned, *_ = art.ClusteringAnalyzer().analyze_by_relative_size([clusters], 0.35)
    theirs = torch.from_numpy(assigned[0].astype(float)) == 0  # 1 is clean there
    assert torch.equal(theirs, ours)
    assert torch.equal(theirs, bad[labels == 0])


def test_spectral_agrees_with_art():
    spectral = pytest.importorskip(
        "art.defences.detector.poison.spectral_signature_defense", reason="make test installs it"
    )
    score_of = spectral.SpectralSignatureDefense.spectral_signature_scores
    features, labels, _ = triggered(6.0)
    for c in range(3):
        theirs = score_of(features[labels == c].double().numpy()).ravel()
        ours = detection.spectral(features, labels, centred=False)[labels == c].sqrt().numpy()
        np.testing.assert_allclose(ours, np.abs(theirs), rtol=1e-6)
