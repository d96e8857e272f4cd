"""The neighbour search beside scikit-learn's exact one, and cluster starts from a sample."""

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from nclib import detection
from nclib.detection import neighbours
from nclib.detection.common import main_axes
from nclib.detection.outliers import two_means


def cloud(n=400, dim=24, spread=1.0, shift=0.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(4, dim, generator=draw)
    noise = torch.randn(n, dim, generator=draw, dtype=torch.float64)
    return (means[torch.arange(n) % 4] + shift + spread * noise).double()


def outlier():
    features = cloud()
    features[7] *= 1e6
    return features


CLOUDS = {
    "plain": cloud(),
    "collapsed": cloud(spread=1e-5),  # float32 cannot order these neighbours
    "far from the origin": cloud(shift=1e4),
    "huge": cloud() * 1e200,
    "tiny": cloud() * 1e-200,
    "an outlier": outlier(),
    "copies": cloud(n=40).repeat(10, 1),
    "one point": torch.ones(50, 3).double(),
    "few": cloud(n=12),
}


def lengths(features, near):
    """Distances to the neighbours, rising: equal for any choice among ties."""
    return (features[near] - features[:, None]).norm(dim=2).sort(1).values


@pytest.fixture(params=["torch", "faiss"])
def library(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(neighbours, "_faiss_index", lambda hidden: None)
    else:
        pytest.importorskip("faiss", reason="make growth installs it")


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("cells", [None, "right", "wrong"])
def test_neighbours_are_exact(name, k, cells, library):
    features = CLOUDS[name]
    draw = torch.Generator().manual_seed(1)
    right = torch.arange(len(features)) % 4
    wrong = right[torch.randperm(len(right), generator=draw)] * 7  # with gaps
    labels = {"right": right, "wrong": wrong}.get(cells)
    unit = features / features.abs().max()  # the oracle squares its numbers
    exact = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(unit).kneighbors()[0]
    near = neighbours.nearest(features, k, labels, device=torch.device("cpu"))
    assert not (near == torch.arange(len(features))[:, None]).any()
    assert (near.sort(1).values.diff(dim=1) > 0).all()  # each neighbour once
    torch.testing.assert_close(lengths(unit, near), torch.from_numpy(exact), rtol=1e-9, atol=1e-12)


def test_float32_alone_would_choose_others():
    features = CLOUDS["collapsed"]
    single = features.float()
    squares = single.square().sum(1)
    distance = (squares - 2 * single @ single.T).fill_diagonal_(torch.inf)
    naive = lengths(features, distance.topk(9, largest=False).indices)
    exact = lengths(features, neighbours.nearest(features, 9))
    assert (naive.sum(1) > 1.01 * exact.sum(1)).float().mean() > 0.5


@pytest.mark.parametrize("spread, searched", [(0.05, 4 * 100**2), (1.0, 400**2)])
def test_collapsed_classes_are_searched_one_by_one(spread, searched, monkeypatch):
    features, labels, pairs = cloud(spread=spread), torch.arange(400) % 4, []
    among = neighbours._among

    def counted(hidden, rows, members, k, device):
        pairs.append(len(rows) * len(members))
        return among(hidden, rows, members, k, device)

    monkeypatch.setattr(neighbours, "_among", counted)
    neighbours.nearest(features, 9, labels)
    assert sum(pairs) == searched if spread < 1 else sum(pairs) > searched


def test_all_others_are_neighbours_and_k_is_checked():
    features = cloud(n=6)
    near = neighbours.nearest(features, 5).sort(1).values
    assert near.tolist() == [[j for j in range(6) if j != i] for i in range(6)]
    for k in (0, 6):
        with pytest.raises(ValueError, match="k: got"):
            neighbours.nearest(features, k)


def test_deep_knn_counts_the_votes_of_the_exact_neighbours(library):
    features = cloud(spread=0.8, seed=1)
    draw = torch.Generator().manual_seed(2)
    labels = torch.where(
        torch.rand(400, generator=draw) < 0.3,
        torch.randint(4, (400,), generator=draw),
        torch.arange(400) % 4,
    )
    near = NearestNeighbors(n_neighbors=15, algorithm="kd_tree").fit(features)
    votes = torch.nn.functional.one_hot(labels[near.kneighbors(return_distance=False)]).sum(1)
    own = votes.gather(1, labels[:, None]).squeeze(1)
    other = votes.scatter(1, labels[:, None], -1).amax(1)
    expected = (other - own).double() / 15
    torch.testing.assert_close(detection.deep_knn(features, labels, k=15), expected)


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (30, 30)])
def test_main_axes_are_those_of_pca(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    rows = rows - rows.mean(0)
    theirs = torch.from_numpy(PCA(5).fit(rows.numpy()).components_)
    cosines = (main_axes(rows, 5).T * theirs).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(5).double())


def test_main_axes_end_where_the_rank_ends():
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).double()
    axes = main_axes(rows - rows.mean(0), 4)  # rank 3
    assert axes.norm(dim=0)[:3].allclose(torch.ones(3).double()) and not axes[:, 3].any()


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_cluster_starts_from_a_sample_end_where_all_rows_lead(share):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(3000, 6, generator=draw).double() * torch.linspace(1, 0.4, 6)
    apart = torch.rand(3000, generator=draw) < share
    rows[apart, 0] += 9
    assert torch.equal(two_means(rows, sample=200), apart)
    assert torch.equal(two_means(rows, sample=200), two_means(rows, sample=3000))
