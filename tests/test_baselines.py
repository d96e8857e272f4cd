"""Friendly noise and EPIC, which the experiment on photographs puts beside the purifiers."""

import pytest
import torch

from experiments.photographs import baselines
from nclib import data
from nclib.models import build
from nclib.training import fit

QUIET = {"progress": False}


@pytest.fixture(autouse=True)
def cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))


def test_friendly_noise_is_large_and_leaves_the_answers_alone():
    train = data.load("digits", n_train=100)[0]
    model = build("mlp", train, widths=(16,), batchnorm=False)
    before = [p.clone() for p in model.parameters()]
    friendly = baselines.friendly_noise(train.images, model, eps=0.3, weight=0.1, **QUIET)
    again = baselines.friendly_noise(train.images, model, eps=0.3, weight=0.1, chunk=30, **QUIET)
    assert torch.allclose(friendly, again, atol=1e-5)
    random = baselines.friendly_noise(train.images, model, eps=0.3, steps=0, **QUIET)
    assert (friendly - train.images).abs().max() <= 0.3 + 1e-6
    assert friendly.min() >= 0 and friendly.max() <= 1

    @torch.no_grad()
    def moved(x):
        return float((model(x).softmax(1) - model(train.images).softmax(1)).abs().sum(1).mean())

    def size(x):
        return float((x - train.images).square().mean())

    assert moved(friendly) < 0.7 * moved(random) and size(friendly) > 0.9 * size(random)
    assert all(map(torch.equal, before, model.parameters())) and model.training
    with pytest.raises(ValueError, match="^(eps|weight|steps|chunk): got"):
        baselines.friendly_noise(train.images, model, eps=2)


def test_random_noise_is_fresh_and_bounded():
    draw, augment = torch.Generator().manual_seed(0), baselines.random_noise(0.1)
    images = torch.rand(10, 1, 8, 8, generator=draw)
    first, second = augment(images, draw), augment(images, draw)
    assert not torch.equal(first, second) and (first - images).abs().max() <= 0.1 + 1e-6
    assert first.min() >= 0 and first.max() <= 1
    with pytest.raises(ValueError, match="^amount: got 2"):
        baselines.random_noise(2)


def test_isolated_finds_the_loners_of_each_class():
    crowd = 0.01 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    crowd[7], crowd[31] = torch.tensor([5.0, 0, 0]), torch.tensor([0, 5.0, 0])
    labels = torch.arange(40) // 20
    alone = baselines.isolated(crowd, labels, share=0.15)
    assert alone[7] and alone[31] and alone.sum() <= 4
    assert not baselines.isolated(torch.zeros(10, 2), torch.zeros(10).long(), share=0.1).any()
    with pytest.raises(ValueError, match="^share: got 0"):
        baselines.isolated(crowd, labels, share=0)
    with pytest.raises(ValueError, match="^gradients: got"):
        baselines.isolated(crowd[0], labels)


def test_a_class_never_loses_its_last_two_samples(monkeypatch):
    train = data.load("digits", n_train=40)[0]
    model = build("mlp", train, widths=(8,))
    monkeypatch.setattr(baselines, "isolated", lambda g, *_: torch.ones(len(g), dtype=torch.bool))
    assert not baselines.to_drop(model, train).any()
    left = (train.labels == 3).nonzero()[:2, 0]

    def others(gradients, *_):
        alone = train.labels == 3
        alone[left] = False
        return alone

    monkeypatch.setattr(baselines, "isolated", others)
    found = baselines.to_drop(model, train)
    assert torch.equal(found, others(None)) and found.any()


def test_epic_keeps_most_and_every_class():
    train = data.load("digits", n_train=120)[0]
    model, seen = build("mlp", train, widths=(32,)), []

    def learn(part, turn):
        seen.append((turn, len(part)))
        return fit(model, part, epochs=2, seed=turn, cache=False, **QUIET).model

    last, kept = baselines.epic(train, learn, rounds=2, share=0.5)
    assert last is model and kept.shape == (120,)
    assert 60 <= kept.sum() < 120 and train.labels[kept].unique().numel() == 10
    assert [turn for turn, _ in seen] == [0, 1, 2] and seen[0][1] == 120  # the last one on the rest
    assert 120 > seen[1][1] >= seen[2][1] == kept.sum()
    with pytest.raises(ValueError, match="^rounds: got 0"):
        baselines.epic(train, learn, rounds=0)
