"""Defensive distillation: the tempered loss, the soft labels, and the gradients that vanish."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax

from nclib import data, models, training
from nclib.defenses.distillation import distil, soft_labels, tempered, vanished


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


def net(train, seed=0):
    return models.build("mlp", train, seed=seed, widths=(128, 128), batchnorm=False)


def adamw(parameters):
    return torch.optim.AdamW(parameters, 5e-3, weight_decay=0)


def test_the_loss_is_the_cross_entropy_of_divided_logits(digits):
    train, _ = digits
    model, x, y = net(train), train.images[:32], train.labels[:32]
    torch.testing.assert_close(tempered(1)(model, x, y), cross_entropy(model(x), y))
    torch.testing.assert_close(tempered(20)(model, x, y), cross_entropy(model(x) / 20, y))
    soft = softmax(model(x).detach(), 1)
    by_hand = -(soft * (model(x) / 7).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(tempered(7)(model, x, soft), by_hand)


def test_soft_labels_are_probabilities_that_flatten_with_the_temperature(digits):
    train, _ = digits
    model = net(train)
    sharp, flat = (soft_labels(model, train.images, t) for t in (1, 1e6))
    torch.testing.assert_close(sharp.sum(1), torch.ones(len(train)))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.1))
    assert torch.equal(sharp.argmax(1), training.predict(model, train.images).argmax(1))


def test_distillation_makes_gradients_vanish_at_temperature_1(digits):
    train, test = digits
    options = {"epochs": 30, "optimizer": adamw, "cache": False, "progress": False}
    plain = training.fit(net(train), train, **options).model
    teacher, student = distil(lambda: net(train), train, 50, **options)
    assert training.accuracy(student, test) > 0.93
    lost = {m: vanished(m, test.images, test.labels).float().mean() for m in (plain, student)}
    assert lost[student] > lost[plain] + 0.3
    scale = [training.predict(m, test.images).std() for m in (plain, student)]
    assert scale[1] > 5 * scale[0]  # the reason: logits that fit at T = 50 are huge at T = 1
    assert teacher is not student


def test_vanished_finds_exact_zeros_only():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0], [-1.0]]).expand(2, 4).contiguous()
    images = torch.stack([torch.full((1, 2, 2), v) for v in (0.0, 0.1, 50.0)])
    assert vanished(model, images, torch.zeros(3, dtype=torch.int64)).tolist() == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_bad_temperatures_are_refused(digits, temperature):
    train, _ = digits
    with pytest.raises(ValueError, match="temperature: got"):
        tempered(temperature)
    with pytest.raises(ValueError, match="temperature: got"):
        soft_labels(net(train), train.images[:2], temperature)
