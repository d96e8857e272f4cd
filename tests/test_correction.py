"""Corrections: what is removed, relabelled and tuned, on digits small enough for a test."""

from dataclasses import replace

import pytest
import torch

from nclib import activations, correction, data, geometry, models, poisons, training
from nclib.poisons.metrics import success


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", n_train=600, device="cpu")


@pytest.fixture(scope="module")
def backdoored(digits):
    train, _ = digits
    dirty = poisons.badnets(train, 0.05, 3, seed=1)
    return dirty, fit(dirty, 10)


def fit(train, epochs):
    model = models.build("cnn", train)
    return training.fit(
        model, train, epochs=epochs, batch_size=64, cache=False, progress=False
    ).model


def test_consensus_removes_the_trigger_and_little_else(digits, backdoored):
    _, test = digits
    dirty, model = backdoored
    before = correction.outcome(model, test, dirty)
    found = correction.consensus(dirty, epochs=10)
    bad = dirty.is_poisoned
    assert before["asr"] > 0.8
    assert float((found.bad & bad).sum() / bad.sum()) > 0.9
    assert float((found.bad & ~bad).double().mean()) < 0.02
    assert not (found.core & bad).any() and not (found.rejected & found.core).any()
    assert not (found.rejected & ~found.doubted).any() and not (found.rejected & ~found.bad).any()
    after = correction.outcome(fit(correction.remove(dirty, found.bad), 10), test, dirty)
    assert after["asr"] < 0.1 and after["accuracy"] > before["accuracy"] - 0.02
    control = correction.random_removal(dirty.labels, found.bad)
    assert torch.equal(dirty.labels[control].bincount(), dirty.labels[found.bad].bincount())


def test_consensus_with_given_features_and_a_builder(digits):
    train, _ = digits
    dirty = poisons.label_flip(train, 0.2, seed=2)
    calls = []

    def build(part, seed):
        calls.append(len(part))
        return models.build("mlp", part, seed=seed)

    features = {"pixels": train.images.flatten(1)}
    found = correction.consensus(dirty, features=features, epochs=6, build=build)
    assert len(calls) == 2 and calls[0] == int(found.core.sum())
    assert float((found.bad & dirty.is_poisoned).sum() / dirty.is_poisoned.sum()) > 0.9


def triggered(bad_share=0.3, each=60, classes=6, dim=10):
    """Gaussian classes; in class 2 a group lies off in one direction. Features, labels, bad."""
    draw = torch.Generator().manual_seed(4)
    labels = torch.arange(classes).repeat_interleave(each)
    features = torch.randn(len(labels), dim, generator=draw)
    bad = torch.zeros(len(labels), dtype=torch.bool)
    bad[(labels == 2).nonzero().flatten()[: round(bad_share * each)]] = True
    features[bad, 0] += 7
    return features, labels, bad


def test_lookalikes_completes_the_group_of_a_class_that_stands_out():
    features, labels, bad = triggered()
    known = bad & (torch.arange(len(bad)) % 3 != 0)  # two thirds of it are rejected already
    unsure = bad & ~known
    found = correction.lookalikes({"layer": features}, labels, known, bad)
    assert torch.equal(found, bad)
    found = correction.lookalikes({"layer": features}, labels, known, known)  # nobody doubts them
    assert found[unsure].all() and not found[labels != 2].any()


def test_lookalikes_leaves_alone_what_all_classes_share():
    features, labels, bad = triggered()
    every = torch.arange(len(labels)) % 5 == 0  # a fifth of each class, as flips take
    assert torch.equal(correction.lookalikes({"layer": features}, labels, every, every), every)
    nothing = torch.zeros_like(bad)
    assert not correction.lookalikes({"layer": features}, labels, nothing, bad).any()
    few = bad & (bad.cumsum(0) <= 3)  # too few to fit anything
    kept = correction.lookalikes({"layer": features}, labels, few, bad, excess=0.0)
    assert torch.equal(kept, few)


def test_jitter_moves_each_image_a_little_and_repeats(digits):
    images = digits[0].images[:50]
    moved, again = (correction.jitter(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(moved, again) and moved.shape == images.shape
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    change = (moved - images).abs().mean((1, 2, 3))
    assert float(change.max()) < 0.3 and float(change.median()) > 0.01
    assert torch.allclose(moved.mean(), images.mean(), rtol=0.15)


def test_the_core_is_a_share_of_every_class():
    labels = torch.arange(4).repeat_interleave(torch.tensor([10, 20, 30, 4]))
    core = correction.core_of(torch.arange(64.0), labels, 0.25)
    assert labels[core].bincount().tolist() == [2, 5, 8, 2]
    with pytest.raises(ValueError, match="share"):
        correction.core_of(torch.arange(64.0), labels, 1.5)
    with pytest.raises(ValueError, match="odd"):
        correction.core_of(torch.arange(63.0), labels)


def test_remove_keeps_the_truth_and_refuses_to_empty_a_class(digits):
    dirty = poisons.label_flip(digits[0], 0.1)
    kept = correction.remove(dirty, dirty.is_poisoned)
    assert type(kept) is type(dirty) and not kept.is_poisoned.any()
    with pytest.raises(ValueError, match=r"classes \[4\]"):
        correction.remove(dirty, dirty.labels == 4)
    with pytest.raises(ValueError, match="bool"):
        correction.remove(dirty, dirty.labels)
    for mask in (dirty.is_poisoned[:5], torch.ones(len(dirty) + 1).bool(), dirty.labels):
        with pytest.raises(ValueError, match=rf"bad: .*bool \[{len(dirty)}\]"):
            correction.random_removal(dirty.labels, mask)


def test_no_layer_is_refused_by_name(digits):
    train, _ = digits
    for call in (
        lambda: correction.relabel(train, {}),
        lambda: correction.typicality({}, train.labels),
        lambda: correction.relabel(train, {"x": train.images.flatten(1)}, repeats=0),
    ):
        with pytest.raises(ValueError, match="features|repeats"):
            call()
    with pytest.raises(ValueError, match="doubted"):
        mask = torch.zeros(len(train)).bool()
        correction.lookalikes({"x": train.images.flatten(1)}, train.labels, mask, mask[1:])


def test_relabel_restores_separable_classes_and_drops_the_unclear(digits):
    train, _ = digits
    dirty = poisons.label_flip(train, 0.2, seed=0)
    model = fit(dirty, 3)
    new = correction.relabel(dirty, activations.features(model, dirty.images))
    wrong = float((new.labels != new.clean_labels).double().mean())
    assert wrong < 0.03 and len(new) > 0.9 * len(dirty)
    assert torch.equal(dirty.labels, poisons.label_flip(train, 0.2, seed=0).labels)
    with pytest.raises(ValueError, match="agree"):
        correction.relabel(dirty, {"pixels": train.images.flatten(1)}, agree=0.0)


def test_the_etf_head_is_an_etf_and_stays_one(digits, backdoored):
    _, test = digits
    dirty, model = backdoored
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run = correction.etf_head(
        model, test.subset(torch.arange(100)), epochs=30, batch_size=20, cache=False
    )
    rows = run.model.fc.weight.detach()
    assert geometry.measure(rows, torch.arange(10)).nc2_max_angle < 1e-4
    assert not run.model.fc.bias.any() and run.model.fc.weight.requires_grad
    assert training.accuracy(run.model, test) > 0.8
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # a copy


def test_the_options_of_the_optimiser_reach_the_etf_head(digits, backdoored):
    clean, options = digits[1].subset(torch.arange(60)), {"epochs": 2, "cache": False}
    usual, still, stiff = (
        dict(correction.etf_head(backdoored[1], clean, **options, **more).model.named_parameters())
        for more in ({}, {"momentum": 0.0}, {"weight_decay": 0.5})
    )
    first = next(iter(usual))
    assert not torch.equal(usual[first], still[first])
    assert not torch.equal(usual[first], stiff[first])
    assert torch.equal(usual["fc.weight"], stiff["fc.weight"])  # frozen weights do not decay


def test_fine_tuning_works_on_a_copy(digits, backdoored):
    dirty, model = backdoored
    before = model.fc.weight.clone()
    run = correction.fine_tune(model, digits[1].subset(torch.arange(60)), epochs=2, cache=False)
    assert torch.equal(model.fc.weight, before) and not torch.equal(run.model.fc.weight, before)


def test_the_asr_counts_other_classes_only(digits):
    _, test = digits
    dirty = poisons.badnets(digits[0], 0.1, 3)

    class Always3(torch.nn.Module):
        def forward(self, images):
            return torch.eye(10)[3].expand(len(images), 10)

    found = correction.outcome(Always3(), test, dirty)
    assert found["asr"] == 1 and found["accuracy"] == pytest.approx(
        float((test.labels == 3).double().mean())
    )
    assert found["asr"] == success(Always3(), dirty, test)
    assert "asr" not in correction.outcome(Always3(), test, test)
    assert "asr" not in correction.outcome(Always3(), test, poisons.label_flip(digits[0]))
    aimed = replace(dirty, trigger=None, victims=test.images[:2])
    assert correction.outcome(Always3(), test, aimed)["asr"] == 1
    with pytest.raises(ValueError, match="test: every image has the label 3"):
        success(Always3(), dirty, test.subset(test.labels == 3))
