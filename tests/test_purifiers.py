"""The purifiers that come with the course, how they are made, and the experiment's plumbing."""

import csv
from dataclasses import replace

import pytest
import torch

from experiments import purification, purifiers
from nclib import data
from nclib.defenses import purification as pure
from nclib.defenses.purification import pretrained, store


@pytest.fixture(autouse=True)
def cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("NCLIB_DATA", str(tmp_path / "data"))


def signs(count=40, seed=5):
    return data.load("signs", n_train=count, n_test=10, seed=seed)[0].images


@pytest.mark.parametrize("kind", pretrained.KINDS)
def test_the_committed_weights_are_small_and_say_how_they_were_made(kind):
    file = pretrained.WEIGHTS / f"signs-{kind}.safetensors"
    assert file.stat().st_size < purifiers.LIMIT
    made = store.load(file)[1]
    assert "make purifiers" in made["command"] and made["share"] == 1
    options = pretrained.OPTIONS[kind]
    assert str(purifiers.IMAGES) in made["data"] and {k: made[k] for k in options} == options


def test_the_committed_purifiers_know_the_signs():
    images = signs()
    energy, diffusion = (pure.purifier(kind, "signs", images) for kind in pretrained.KINDS)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    real, odd = (pure.energies(x, energy) for x in (images, noise))
    assert real.median() < odd.median()
    harmed = (images + 0.2 * (2 * noise - 1)).clamp(0, 1)
    washed = pure.purify(harmed, diffusion, t=30, progress=False)
    assert (washed - images).square().mean() < 0.7 * (harmed - images).square().mean()


@pytest.mark.parametrize("kind", pretrained.KINDS)
def test_another_data_set_gets_a_small_purifier_of_its_own(kind, monkeypatch):
    monkeypatch.setitem(pretrained.SHARE, kind, 1e-9)
    images = data.load("digits", n_train=20)[0].images
    model = pure.purifier(kind, "digits", images, progress=False)
    strength = {"steps" if kind == "energy" else "t": 2}
    assert pure.purify(images, model, progress=False, **strength).isfinite().all()
    with pytest.raises(ValueError, match="^kind: got 'flow'"):
        pure.purifier("flow", "digits", images)


def test_the_halves_share_no_image():
    train, _ = data.load("digits")
    numbered = replace(train, labels=torch.arange(len(train)), classes=tuple(map(str, range(1300))))
    first, second = pure.halves(numbered)
    assert sorted([*first.labels.tolist(), *second.labels.tolist()]) == list(range(1300))
    assert len(first) == 650


def test_a_tiny_purifier_is_trained_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(purifiers, "IMAGES", 30)
    command = ["--share", "1e-9", "--folder", str(tmp_path)]
    assert purifiers.main(command) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}
    assert sorted(before) == ["signs-diffusion.safetensors", "signs-energy.safetensors"]
    assert purifiers.main(command) == 0 and "kept" in capsys.readouterr().out
    assert purifiers.main([*command, "--again"]) == 0  # and the seed makes the same weights
    assert before == {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}


def test_the_experiment_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(purification.training, "fit", lambda *_, **__: None)
    monkeypatch.setattr(purification, "AXES", 20)
    washes = purification.washes

    def few(others):
        found = washes(others)
        return {name: found[name] for name in ("none", "noise like the diffusion's", "main axes")}

    monkeypatch.setattr(purification, "washes", few)
    command, row, made = ["--seeds", "0", "--images", "100"], purification.row, []

    def killed(*args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return row(*args)

    with monkeypatch.context() as patched:
        patched.setattr(purification, "row", killed)
        with pytest.raises(KeyboardInterrupt):
            purification.main(command, tmp_path)
    first = rows(tmp_path)
    purification.main(command, tmp_path)
    done = rows(tmp_path)
    assert len(first) == 2 and [r for r in done if r in first] == first and len(done) == 6
    assert {r["defence"] for r in done} == {"none", "noise like the diffusion's", "main axes"}
    contrast = {(r["attack"], r["defence"]): float(r["contrast"]) for r in done}
    assert contrast["wave", "main axes"] < contrast["wave", "none"]


def test_every_wash_keeps_the_contract(monkeypatch):
    monkeypatch.setattr(purification, "AXES", 20)
    images = signs(100)
    for name, wash in purification.washes(images).items():
        out = wash(images[:3])
        assert out.shape == (3, 3, 32, 32) and out.min() >= 0 and out.max() <= 1, name


def rows(folder):
    with (folder / "purification.csv").open() as file:
        return list(csv.DictReader(file))
