"""The attacks on the stand-in for a Mac's GPU: no operator that MPS lacks, no float64."""

import functools

import pytest
import torch
from guard import DEVICE, Guard

from nclib import attacks, data, device, models

CALLS = {
    "fgsm": attacks.fgsm,
    "pgd": functools.partial(attacks.pgd, steps=2, restarts=2),
    "pgd_l2": functools.partial(attacks.pgd, steps=2, norm="L2"),
    "margin_pgd": functools.partial(attacks.margin_pgd, steps=2),
    "square": functools.partial(attacks.square, queries=4),
    "cw_l2": lambda model, x, y, eps: attacks.cw_l2(model, x, y, steps=20, search_steps=5, lr=0.1),
    "bpda": lambda model, x, y, eps: attacks.fgsm(attacks.bpda(model, torch.round), x, y, eps),
    "eot": lambda model, x, y, eps: attacks.fgsm(attacks.eot(model, 2), x, y, eps),
}


@pytest.fixture
def victim(monkeypatch):
    """Model, images and labels on a machine whose only device beside the CPU is the stand-in."""
    monkeypatch.setattr(device, "KINDS", (DEVICE.type, "cpu"))
    monkeypatch.setattr(device, "available", lambda kind: kind in device.KINDS)
    monkeypatch.delenv("NCLIB_DEVICE", raising=False)
    with Guard() as guard:
        train, _ = data.load("digits", n_train=20, n_test=10)
        model = models.build("cnn", train)
        guard.seen.clear()
        yield model, train.images, train.labels
        assert len(guard.seen) > 10  # not vacuous: the operators did pass through the guard


@pytest.mark.parametrize("name", CALLS)
def test_the_attack_stays_on_the_device(victim, name):
    attacked = CALLS[name](*victim, 0.1)
    assert attacked.device == DEVICE
    assert torch.isfinite(attacked.cpu()).all()


def test_the_checklist_stays_on_the_device(victim):
    assert len(attacks.masking_report(*victim, 0.1, steps=2, queries=3, samples=2)) == 6
