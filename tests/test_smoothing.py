"""Smoothing against golden values, exact radii and simulation; partitions against brute force."""

import os
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from scipy.stats import beta, binomtest, norm
from torch import nn

from nclib import data
from nclib.defenses import partition, smoothing
from nclib.defenses.smoothing import ABSTAIN, Smooth, least_hits, lower_bound, radius
from nclib.journal import Journal

OPTIONS = {"n0": 50, "n": 1000, "alpha": 0.05, "progress": False}


class HalfSpace(nn.Module):
    """Two classes, cut by a plane at a known distance: the smoothed radius is that distance."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        self.bias, self.rows = bias, 0

    def forward(self, images):
        self.rows += len(images)
        side = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-side, side], 1)


def at_distance(distances):
    """Images [N, 1, 2, 2] whose signed distance from the plane of ``plane()`` is as given."""
    images = torch.full((len(distances), 1, 2, 2), 0.5)
    images[:, 0, 0, 0] += torch.as_tensor(distances, dtype=torch.float32)
    return images


def plane():
    return HalfSpace([2.0, 0, 0, 0], -1.0)


def test_golden_values():
    for n, golden in ((1000, 2.46326), (10_000, 3.19858), (100_000, 3.81146)):
        assert radius(lower_bound(n, n, 0.001), 1.0) == pytest.approx(golden, abs=5e-6)
    assert lower_bound(990, 1000, 0.001) == pytest.approx(0.976036, abs=5e-7)
    assert lower_bound(0, 10, 0.1) == 0 and radius(0.3, 1.0) == 0


def test_bound_agrees_with_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="make test installs it")
    for hits in (1, 37, 99, 100):
        theirs = proportion.proportion_confint(hits, 100, alpha=0.02, method="beta")[0]
        assert lower_bound(hits, 100, 0.01) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.7, 0.97])
def test_bound_covers(share):
    hits = np.random.default_rng(0).binomial(200, share, 20_000)
    false = (lower_bound(hits, 200, 0.05) > share).mean()
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20_000)


def test_least_hits_is_the_edge():
    for n, alpha, share in ((100, 0.001, 0.5), (1000, 0.01, 0.9), (10, 0.001, 0.99)):
        k = least_hits(n, alpha, share)
        assert k == n + 1 or lower_bound(k, n, alpha) > share
        assert lower_bound(k - 1, n, alpha) <= share


def test_radius_grows_with_n_and_sigma():
    by_n = [radius(lower_bound(n, n, 0.001), 0.5) for n in (10, 100, 1000, 10_000)]
    by_sigma = [radius(0.9, sigma) for sigma in (0.12, 0.25, 0.5, 1.0)]
    by_hits = radius(lower_bound(np.arange(1001), 1000, 0.001), 0.5)
    assert (np.diff(by_n) > 0).all() and (np.diff(by_sigma) > 0).all()
    assert (np.diff(by_hits) >= 0).all()


def test_linear_classifier_has_the_exact_radius():
    distances = torch.tensor([0.05, 0.2, 0.4, -0.2, -0.4])
    found = Smooth(plane(), 2, 0.25).certify(at_distance(distances), 100, 20_000, progress=False)
    assert found.labels.tolist() == [1, 1, 1, 0, 0]
    gap = distances.abs() - found.radii
    assert (gap > 0).all() and (gap < 0.03).all()  # below the truth, and close to it


@pytest.mark.parametrize("target", [None, 0.15, 0.2])
def test_radius_is_rarely_above_the_truth(target):
    """2000 certificates of one image, its distance .2: at most 5% may claim more."""
    images = at_distance([0.2]).repeat(2000, 1, 1, 1)
    found = Smooth(plane(), 2, 0.2).certify(
        images, n0=20, n=500, alpha=0.05, target=target, progress=False
    )
    false = (found.radii > 0.2 + 1e-6) | (found.labels == 0)
    assert false.double().mean() <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    assert found.radii.mean() > 0.1  # and not by always claiming nothing


def test_early_abstention_is_the_full_answer():
    """What stops early abstains, and would have abstained after all draws."""
    images = at_distance(np.linspace(-0.02, 0.02, 60))
    model = plane()
    early = Smooth(model, 2, 0.5).certify(images, **OPTIONS)
    used, model.rows = model.rows, 0
    whole = [(OPTIONS["n"], OPTIONS["alpha"])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_looks", lambda n, alpha, target: whole)
        full = Smooth(model, 2, 0.5).certify(images, **OPTIONS)
    assert used == early.draws.sum() and model.rows == full.draws.sum() == 60 * 1050
    stopped = early.draws < full.draws
    assert (early.labels[stopped] == ABSTAIN).all()
    assert stopped.any() and (full.draws == 1050).all()
    # Different blocks of noise, so compare what does not depend on the draw of the noise:
    assert ((early.labels == ABSTAIN) == (early.radii == 0)).all()


def test_curtailment_never_contradicts_the_draws_to_come():
    """Brute force over every sequence end: too few hits now means an abstention at the end."""
    n, alpha = 40, 0.05
    enough = least_hits(n, alpha, 0.5)
    for drawn in range(n + 1):
        for hits in range(drawn + 1):
            best = radius(lower_bound(hits + n - drawn, n, alpha), 1.0)
            assert (hits + n - drawn < enough) == (best == 0)


@pytest.mark.parametrize("target", [None, 0.1])
def test_looks_share_the_doubt(target):
    for n in (1, 7, 100, 100_000):
        looks = smoothing._looks(n, 0.001, target)
        assert looks[-1][0] == n and looks[-1][1] > 0
        assert sum(doubt for _, doubt in looks) <= 0.001 + 1e-12
        assert [look for look, _ in looks] == sorted({look for look, _ in looks})


def test_target_saves_draws_and_keeps_the_verdict():
    images = at_distance([0.0, 0.01, 0.1, 0.2, 0.6, 0.8])
    smooth = Smooth(plane(), 2, 0.25)
    full = smooth.certify(images, 100, 10_000, progress=False)
    quick = smooth.certify(images, 100, 10_000, target=0.15, progress=False)
    assert ((quick.radii >= 0.15) == (full.radii >= 0.15)).all()
    assert quick.draws.sum() < full.draws.sum() / 3


def test_answer_is_the_same_in_any_company():
    """A larger batch, or fewer images beside it, changes nothing for an image."""
    images = at_distance(np.linspace(0, 0.5, 12))
    smooth = Smooth(plane(), 2, 0.25)
    one = smooth.certify(images, batch_size=1000, **OPTIONS)
    two = smooth.certify(images, batch_size=7000, **OPTIONS)
    few = smooth.certify(images[:3], batch_size=1000, **OPTIONS)
    assert torch.equal(one.radii, two.radii) and torch.equal(one.radii[:3], few.radii)
    assert not torch.equal(one.radii, smooth.certify(images, seed=1, **OPTIONS).radii)


def test_resume_after_a_kill(tmp_path, monkeypatch):
    images = at_distance(np.linspace(0, 0.5, 12))
    model, path = plane(), tmp_path / "deep" / "certificates"
    smooth = Smooth(model, 2, 0.25)
    whole = smooth.certify(images, **OPTIONS)

    calls = smooth._certified

    def dies_after_five(*args):
        for i, row in enumerate(calls(*args)):
            if i == 5:
                raise KeyboardInterrupt
            yield row

    smooth._certified, model.rows = dies_after_five, 0
    with pytest.raises(KeyboardInterrupt):
        smooth.certify(images, path=path, **OPTIONS)
    smooth._certified = calls
    assert len(Journal(path, "certificates").read()[1]) == 5
    model.rows = 0
    again = smooth.certify(images, path=path, **OPTIONS)
    assert torch.equal(again.labels, whole.labels) and torch.equal(again.radii, whole.radii)
    assert model.rows < whole.draws.sum()
    assert sorted(map(int, Journal(path, "certificates").read()[1])) == list(range(12))
    model.rows = 0
    model.requires_grad_(False)
    monkeypatch.setattr(torch, "__version__", "99.0")  # it is the same model
    third = smooth.certify(images, path=path, **OPTIONS)
    assert model.rows == 0 and torch.equal(third.draws, whole.draws)
    with pytest.raises(ValueError, match=r"something else \(sigma: 0.25 there, 0.3 here\)"):
        Smooth(model, 2, 0.3).certify(images, path=path, **OPTIONS)
    with pytest.raises(ValueError, match=r"\(images: "):
        smooth.certify(images + 0.01, path=path, **OPTIONS)


@pytest.mark.parametrize(
    "text", ["only copy", "name,grade\nAda,1\n", "index,label,radius,draws,key"]
)
def test_a_file_that_holds_no_certificates_stays_byte_for_byte(tmp_path, text):
    path = tmp_path / "typed wrong.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="path: .* is no journal"):
        Smooth(plane(), 2, 0.25).certify(at_distance([0.1]), path=path, **OPTIONS)
    assert path.read_text() == text and os.listdir(tmp_path) == [path.name]


def test_a_full_disk_takes_certificates_whole_and_says_so(tmp_path, monkeypatch):
    images = at_distance(np.linspace(0, 0.5, 12))
    model, path, add = plane(), tmp_path / "log", Journal.add
    smooth, calls = Smooth(model, 2, 0.25), []

    def fills(book, entries, **options):
        calls.append(len(entries))
        if len(calls) > 1:
            raise OSError("no room; nothing of this entry was written")
        add(book, entries, **options)

    monkeypatch.setattr(Journal, "add", fills)
    with pytest.raises(OSError, match="no room"):
        smooth.certify(images, path=path, **OPTIONS)
    monkeypatch.undo()
    assert len(Journal(path, "certificates").read()[1]) == calls[0]
    model.rows = 0
    resumed = smooth.certify(images, path=path, **OPTIONS)
    assert torch.equal(resumed.radii, smooth.certify(images, **OPTIONS).radii)


def test_predict_is_the_binomial_test():
    images = at_distance([0.0, 0.02, 0.5, -0.5])
    smooth = Smooth(plane(), 2, 0.25)
    found = smooth.predict(images, n=300, alpha=0.01)
    counts = smooth._counts(images, range(4), 300, "predict", 1000, 0)
    for label, row in zip(found.tolist(), counts, strict=True):
        top = int(row.argmax())
        doubt = binomtest(int(row[top]), int(row.sum()), 0.5).pvalue
        assert label == (top if doubt <= 0.01 else ABSTAIN)
    assert found[2:].tolist() == [1, 0] and found[0] == ABSTAIN


def test_accuracy_curve():
    found = smoothing.Certificates(
        torch.tensor([0, 1, ABSTAIN, 0]), torch.tensor([0.1, 0.3, 0, 0.5]), torch.ones(4)
    )
    curve = found.accuracy(torch.tensor([0, 1, 1, 1]), [0, 0.2, 0.4])
    assert curve.tolist() == [0.5, 0.25, 0.0]


def test_model_is_left_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    Smooth(model, 2, 0.5).certify(at_distance([0.1]), **OPTIONS)
    assert model.training and model[1].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_noise_is_gaussian_with_sigma():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(images.clone())
            return torch.zeros(len(images), 2)

    Smooth(Spy(), 2, 0.3)._counts(at_distance([0, 0]), range(2), 2000, "test", 1000, 0)
    drawn = torch.cat(seen) - at_distance([0])
    assert drawn.shape == (4000, 1, 2, 2)
    assert drawn.mean().abs() < 0.01 and drawn.std() == pytest.approx(0.3, abs=0.01)
    assert not torch.equal(drawn[:2000], drawn[2000:])  # each image has its own
    assert len(drawn.unique()) > 15_900  # and no block comes twice


def test_gaussian_augment_repeats():
    images = at_distance([0.0] * 5)
    draws = [smoothing.gaussian(0.2)(images, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draws) and not torch.equal(draws[0], images)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Smooth(plane(), 2, 0.0),
        lambda: Smooth(plane(), 1, 0.5),
        lambda: Smooth(plane(), 2, 0.5).certify(at_distance([0])[0]),
        lambda: Smooth(plane(), 2, 0.5).certify(at_distance([0]), n=0),
        lambda: Smooth(plane(), 2, 0.5).certify(at_distance([0]), alpha=1.0),
        lambda: Smooth(plane(), 2, 0.5).certify(at_distance([0]), target=-0.1),
        lambda: lower_bound(11, 10, 0.05),
        lambda: partition.parts(at_distance([0]), 0),
        lambda: partition.votes([None], at_distance([0]), 2),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_agrees_with_art():
    estimators = pytest.importorskip(
        "art.estimators.certification.randomized_smoothing", reason="make test installs it"
    )
    images = at_distance([0.1, 0.2, 0.3, -0.3])
    theirs = estimators.PyTorchRandomizedSmoothing(
        plane(),
        nn.CrossEntropyLoss(),
        (1, 2, 2),
        2,
        sample_size=100,
        scale=0.25,
        alpha=0.001,
        device_type="cpu",
    )
    np.random.seed(0)
    labels, radii = theirs.certify(images.numpy(), n=5000, batch_size=1000)
    ours = Smooth(plane(), 2, 0.25).certify(images, 100, 5000, progress=False)
    assert ours.labels.tolist() == labels.tolist()
    assert np.abs(ours.radii.numpy() - radii).max() < 0.03


# Deep partition aggregation


def test_part_depends_on_the_image_alone():
    images = torch.rand(50, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    where = partition.parts(images, 7)
    assert torch.equal(partition.parts(images.flip(0), 7).flip(0), where)
    assert torch.equal(partition.parts(images[10:20], 7), where[10:20])
    assert set(where.tolist()) == set(range(7))


def overturned(votes, label, poisons):
    """Brute force: can so many turned votes change the winner?"""
    moves = [(a, b) for a in range(len(votes)) for b in range(len(votes)) if a != b]
    for chosen in combinations_with_replacement(moves, poisons):
        changed = votes.clone()
        for a, b in chosen:
            changed[a] -= 1
            changed[b] += 1
        if changed.min() >= 0 and int(changed.argmax()) != label:
            return True
    return False


def test_certificate_is_tight():
    for row in ([5, 1, 0], [1, 5, 0], [3, 3, 0], [0, 4, 3], [2, 2, 2], [0, 0, 6], [4, 0, 1]):
        votes = torch.tensor(row)
        labels, tolerated = partition.certificate(votes[None])
        count = int(tolerated)
        assert int(labels) == int(votes.argmax()) and count >= 0
        assert not overturned(votes, int(labels), count)
        assert overturned(votes, int(labels), count + 1)


def nearest_mean(part, number):
    """A learner that needs no luck: the class whose mean is nearest."""
    flat = part.images.flatten(1)
    classes = part.labels.unique()
    means = torch.stack([flat[part.labels == c].mean(0) for c in classes])
    return lambda images: classes[torch.cdist(images.flatten(1), means).argmin(1)]


def test_poisons_within_the_certificate_do_nothing():
    train, test = data.load("digits", device="cpu")
    k = 15
    base = partition.train(train, k, nearest_mean)
    votes = partition.votes(base, test.images, 10)
    labels, tolerated = partition.certificate(votes)
    assert (labels == test.labels).float().mean() > 0.8
    # relabel 3 random samples, retrain everything: no label certified for 3 moves
    generator = torch.Generator().manual_seed(0)
    changed = train.labels.clone()
    chosen = torch.randperm(len(train), generator=generator)[:3]
    changed[chosen] = (changed[chosen] + 1) % 10
    poisoned = data.ImageSet(train.images, changed, train.classes)
    after = partition.votes(partition.train(poisoned, k, nearest_mean), test.images, 10).argmax(1)
    held = tolerated >= 3
    assert held.any() and torch.equal(after[held], labels[held])
    dropped = train.subset(torch.arange(len(train)) != chosen[0])
    models = partition.train(dropped, k, nearest_mean)
    same = [(a(test.images) == b(test.images)).all() for a, b in zip(base, models, strict=True)]
    assert sum(map(bool, same)) >= k - 1


def test_order_of_the_samples_does_not_matter():
    train, test = data.load("digits", n_train=200, device="cpu")
    mixed = train.subset(torch.randperm(200, generator=torch.Generator().manual_seed(0)))
    first = partition.train(train, 5, lambda part, i: part.images)
    second = partition.train(mixed, 5, lambda part, i: part.images)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_predictor_of_a_finite_aggregation_sees_its_parts():
    seers = partition.reach(5, 3, seed=1)
    assert seers.shape == (15, 3)
    assert all(len(set(row)) == 3 for row in seers.tolist())  # each part reaches three predictors
    assert (torch.bincount(seers.flatten(), minlength=15) == 3).all()  # and each sees three parts
    train, _ = data.load("digits", n_train=300, device="cpu")
    where = partition.parts(train.images, 15, seed=1)
    seen = partition.train(train, 5, lambda part, i: part, spread=3, seed=1)
    for i, part in enumerate(seen):
        wanted = torch.isin(where, torch.where((seers == i).any(1))[0])
        assert len(part) == int(wanted.sum())
        assert torch.equal(
            part.images.sum((1, 2, 3)).sort().values,
            train.images[wanted].sum((1, 2, 3)).sort().values,
        )
    assert torch.equal(partition.reach(5)[:, 0], torch.arange(5))  # disjoint parts


def test_the_seed_moves_the_parts():
    images = torch.rand(50, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    first, second = (partition.parts(images, 7, seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(partition.parts(images, 7, 1), second)


def test_without_a_spread_the_finite_certificate_is_that_of_the_votes():
    draw = torch.Generator().manual_seed(0)
    said = torch.randint(4, (200, 9), generator=draw)
    counts = torch.nn.functional.one_hot(said, 4).sum(1)
    labels, tolerated = partition.certificate(counts)
    again, finite = partition.finite_certificate(said, partition.reach(9), 4)
    assert torch.equal(labels, again)
    short = counts.gather(1, labels[:, None])[:, 0] <= tolerated  # no vote of the first is left
    assert torch.equal(finite[~short], tolerated[~short]) and (finite >= tolerated).all()


def test_the_finite_certificate_holds_against_brute_force():
    draw = torch.Generator().manual_seed(0)
    seers, classes = partition.reach(3, 2, seed=2), 3
    said = torch.randint(-1, classes, (150, 6), generator=draw).clamp_min(-1)
    said[:, 0] = said[:, 0].clamp_min(0)
    labels, tolerated = partition.finite_certificate(said, seers, classes)
    for row, label, count in zip(said, labels.tolist(), tolerated.tolist(), strict=True):
        for chosen in combinations_with_replacement(range(6), count):
            for rival in set(range(classes)) - {label}:
                changed = row.clone()
                changed[seers[list(chosen)].flatten()] = rival
                votes = torch.bincount(changed[changed >= 0], minlength=classes)
                assert int(votes.argmax()) == label


def test_poisons_within_the_finite_certificate_do_nothing():
    train, test = data.load("digits", device="cpu")
    options = {"spread": 2, "seed": 3}
    said = partition.named(partition.train(train, 10, nearest_mean, **options), test.images, 10)
    labels, tolerated = partition.finite_certificate(said, partition.reach(10, **options), 10)
    assert (labels == test.labels).float().mean() > 0.8
    changed = train.labels.clone()
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:2]
    changed[chosen] = (changed[chosen] + 1) % 10
    poisoned = data.ImageSet(train.images, changed, train.classes)
    experts = partition.train(poisoned, 10, nearest_mean, **options)
    after = partition.votes(experts, test.images, 10).argmax(1)
    held = tolerated >= 2
    assert held.any() and torch.equal(after[held], labels[held])


def test_norm_is_scipys():
    assert radius(0.8, 2.0) == pytest.approx(2 * norm.ppf(0.8))
    assert beta.ppf(0.01, 5, 6) == pytest.approx(lower_bound(5, 10, 0.01))


@pytest.mark.parametrize("option, value", [("batch_size", 0), ("seed", -1)])
def test_bad_options_are_named(option, value):
    smooth, images = Smooth(plane(), 2, 0.25), at_distance([0.1])
    for call in (smooth.predict, smooth.certify):
        with pytest.raises(ValueError, match=f"^{option}: got {value}"):
            call(images, n=10, **{option: value})


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_a_bad_sigma_is_named(sigma):
    for make in (smoothing.gaussian, lambda sigma: Smooth(plane(), 2, sigma)):
        with pytest.raises(ValueError, match=f"^sigma: got {sigma}"):
            make(sigma)


def test_the_least_hits_are_found_once_for_all_images(monkeypatch):
    asked, bound = [], smoothing.lower_bound
    monkeypatch.setattr(smoothing, "lower_bound", lambda *a: asked.append(a) or bound(*a))
    options = {"n0": 10, "n": 1003, "batch_size": 20, "progress": False}
    Smooth(plane(), 2, 0.25).certify(at_distance([0.1] * 6), **options)  # three groups
    assert sum(np.size(hits) == 1004 for hits, *_ in asked) == 1
