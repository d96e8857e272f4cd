"""Purification on a stand-in for a Mac's GPU: no operator without a kernel, no float64."""

import pytest
from guard import DEVICE, Guard

from experiments import certified
from experiments.photographs import baselines
from nclib import data, device
from nclib.defenses import purification as pure
from nclib.models import build


@pytest.fixture
def digits(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "available", lambda kind: kind in (DEVICE.type, "cpu"))
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    with Guard():
        yield data.load("digits", n_train=60, device="cpu")[0].to(DEVICE)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_purifiers_train_purify_and_come_back(digits, arch, tmp_path):
    quiet = {"progress": False}
    energy, denoiser = (b(arch, digits.shape) for b in (pure.build_energy, pure.build_diffusion))
    pure.train_energy(energy, digits.images, updates=2, steps=2, **quiet)
    pure.train_diffusion(denoiser, digits.images, updates=2, **quiet)
    washed = pure.naive(digits.images, energy, denoiser, steps=2, t=2, **quiet)
    assert washed.device.type == DEVICE.type
    pure.reps(digits.images, energy, denoiser, steps=2, t=2, **quiet)
    pure.save(energy, tmp_path / "x.safetensors")
    loaded, _ = pure.load(tmp_path / "x.safetensors", DEVICE)
    pure.purify(digits.images, loaded, steps=1, **quiet)


def test_the_baselines(digits):
    model = build("mlp", digits, widths=(8,))
    baselines.friendly_noise(digits.images, model, steps=2, progress=False)
    alone = baselines.isolated(baselines.loss_gradients(model, digits), digits.labels, 0.5)
    assert alone.device.type == DEVICE.type


def test_the_certificates_of_the_experiment(digits, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: (digits, digits))
    row = certified.partitioned("digits", 3, 1, 0, DEVICE)
    assert row["clean_accuracy"] == 1 and 0 <= row["poisons_0"] <= 1
    monkeypatch.setitem(certified.SIZES, "digits", (None, 1, 10, 10))
    row = certified.smoothed("digits", 0.5, 20, 0, DEVICE)
    assert 0 <= row["attacked_0.5"] <= 1 and row["images"] == 10
