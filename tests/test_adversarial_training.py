"""Adversarial training: the inner attack, the losses in closed form, and what training buys."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from nclib import data, models, training
from nclib.defenses.adversarial_training import (
    ascend,
    fast_training,
    noise,
    noisy_fast_training,
    pgd_training,
    trades,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


def attacked(model, part, eps, steps=20):
    def objective(x):
        return cross_entropy(model(x), part.labels, reduction="sum")

    x = ascend(model, objective, part.images, part.images, eps, 2.5 * eps / steps, steps)
    return float((training.predict(model, x).argmax(1) == part.labels).float().mean())


def test_one_step_on_a_linear_objective_is_the_corner_of_the_ball():
    images = torch.full((2, 1, 2, 2), 0.5)
    weight = torch.tensor([1.0, -1.0, 2.0, 0.0]).reshape(1, 1, 2, 2)
    found = ascend(nn.Identity(), lambda x: (weight * x).sum(), images, images, 0.1, 0.1, 1)
    torch.testing.assert_close(found - images, 0.1 * weight.sign().expand_as(images))


def test_ascent_keeps_the_ball_and_the_range_and_the_model(digits):
    train, test = digits
    model = models.build("cnn", train).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = test.images[:50]
    found = ascend(model, lambda x: model(x)[:, 0].sum(), images, images, 0.1, 0.05, 5)
    assert (found - images).abs().max() <= 0.1 + 1e-6
    assert found.min() >= 0 and found.max() <= 1
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_without_a_budget_every_loss_is_the_clean_one(digits):
    train, _ = digits
    model = models.build("mlp", train, widths=(16,)).eval()
    x, y = train.images[:64], train.labels[:64]
    clean = cross_entropy(model(x), y)
    for loss in (
        pgd_training(0.0),
        fast_training(0.0),
        noisy_fast_training(0.0),
        trades(0.0),
        trades(0.3, beta=0.0),
    ):
        torch.testing.assert_close(loss(model, x, y), clean)


def test_trades_is_its_formula_on_its_own_hostile_images(digits):
    train, _ = digits
    model = models.build("mlp", train, widths=(16,)).eval()
    x, y = train.images[:64], train.labels[:64]
    seen = []
    model.register_forward_hook(lambda _, inputs, output: seen.append(output))
    value = trades(0.2, beta=3.0)(model, x, y)
    clean, hostile = seen[-2], seen[-1]
    p, q = log_softmax(clean, 1), log_softmax(hostile, 1)
    divergence = kl_div(q, p, reduction="sum", log_target=True) / 64
    assert divergence > 1e-3
    torch.testing.assert_close(value, cross_entropy(clean, y) + 3.0 * divergence)


def test_the_noise_repeats_for_a_batch_and_changes_with_it_and_with_the_seed(digits):
    x = digits[0].images
    assert torch.equal(noise(x[:8]), noise(x[:8]))
    assert not torch.equal(noise(x[:8]), noise(x[8:16]))
    assert not torch.equal(noise(x[:8]), noise(x[:8], seed=1))
    assert noise(x).min() < -0.99 and noise(x).max() > 0.99


def test_pgd_training_buys_robustness_that_clean_training_lacks(digits):
    train, test = digits
    found = {}
    for name, loss in (("clean", None), ("pgd", pgd_training(0.15, steps=3))):
        model = models.build("mlp", train, widths=(64,))
        training.fit(model, train, epochs=6, loss=loss, cache=False, progress=False)
        found[name] = (training.accuracy(model, test), attacked(model, test, 0.1))
    assert found["pgd"][0] > 0.85
    assert found["pgd"][1] > found["clean"][1] + 0.15


def test_a_run_with_these_losses_repeats_and_is_kept(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path))
    train = digits[0].subset(torch.arange(200))
    for loss in (pgd_training, fast_training, noisy_fast_training, trades):
        runs = []
        for cache in (False, True, True):
            model = models.build("mlp", train, widths=(8,))
            options = {"epochs": 1, "cache": cache, "progress": False}
            runs.append(training.fit(model, train, loss=loss(0.1), **options))
        assert [run.cached for run in runs] == [False, False, True]
        assert torch.equal(runs[0].model.fc.weight, runs[2].model.fc.weight)


@pytest.mark.parametrize("maker", [pgd_training, fast_training, noisy_fast_training, trades])
@pytest.mark.parametrize("options", [{"eps": -0.1}, {"eps": float("nan")}, {"eps": 1, "alpha": -1}])
def test_bad_sizes_are_refused(maker, options):
    with pytest.raises(ValueError, match="eps|alpha"):
        maker(**options)


def test_bad_steps_and_beta_are_refused():
    for maker in (pgd_training, trades):
        with pytest.raises(ValueError, match="steps: got 0"):
            maker(0.1, steps=0)
    with pytest.raises(ValueError, match="beta: got -1"):
        trades(0.1, beta=-1)
