"""The purifiers that come with the course, how they are made, and the experiment's plumbing."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from experiments import purification, purifiers
from experiments import purification_settings as settings
from nclib import cache, data
from nclib.data import ImageSet
from nclib.defenses import purification as pure
from nclib.defenses.purification import pretrained, store


@pytest.fixture(autouse=True)
def cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_the_committed_weights_are_small_and_say_how_they_were_made(name):
    for kind, options in zip(pretrained.KINDS, pretrained.OPTIONS[name], strict=True):
        file = pretrained.WEIGHTS / f"{name}-{kind}.safetensors"
        assert file.stat().st_size < purifiers.LIMIT
        made = store.load(file)[1]
        assert "make purifiers" in made["command"] and made["seed"] == 0
        assert made["data"].startswith(name) and {k: made[k] for k in options} == options


def test_the_committed_purifiers_know_the_digits():
    energy, diffusion = pure.purifiers("digits")
    train, _ = data.load("digits", size=pretrained.SIZE)
    images = pure.halves(train)[1].images[:64]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    real, odd = (pure.energies(x, energy) for x in (images, noise))
    assert real.max() < odd.min()
    harmed = (images + 0.2 * (2 * noise - 1)).clamp(0, 1)
    washed = pure.purify(harmed, diffusion, t=30, progress=False)
    assert (washed - images).square().mean() < 0.5 * (harmed - images).square().mean()
    with pytest.raises(ValueError, match="^name: got 'cifar10'"):
        pure.purifiers("cifar10")


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_the_committed_weights_fill_the_networks(name):
    energy, diffusion = pure.purifiers(name)
    fresh = pure.build_diffusion(**diffusion.recipe)
    assert set(fresh.state_dict()) == set(diffusion.state_dict())  # the schedule is no weight
    images = torch.rand(4, 1, pretrained.SIZE, pretrained.SIZE)
    for strength in ({"model": energy, "steps": 2}, {"model": diffusion, "t": 2}):
        assert pure.purify(images, progress=False, **strength).isfinite().all()


def test_the_halves_share_no_image():
    train, _ = data.load("digits")
    numbered = replace(train, labels=torch.arange(len(train)), classes=tuple(map(str, range(1300))))
    first, second = pure.halves(numbered)
    assert sorted([*first.labels.tolist(), *second.labels.tolist()]) == list(range(1300))
    assert len(first) == 650


def test_a_tiny_purifier_is_trained_end_to_end(tmp_path, capsys):
    command = ["--datasets", "digits", "--updates", "3", "--folder", str(tmp_path)]
    assert purifiers.main(command) == 0
    for kind in pretrained.KINDS:
        model, made = store.load(tmp_path / f"digits-{kind}.safetensors")
        assert made["updates"] == 3 and made["images"] == 650
        strength = {"steps" if kind == "energy" else "t": 2}
        images = torch.rand(3, 1, pretrained.SIZE, pretrained.SIZE)
        assert pure.purify(images, model, progress=False, **strength).isfinite().all()
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}
    assert purifiers.main(command) == 0 and "kept" in capsys.readouterr().out
    assert purifiers.main([*command, "--again"]) == 0  # and the seed makes the same weights
    assert before == {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}


def test_a_borrowed_unet_counts_its_levels_from_zero():
    class Unet(nn.Module):
        def forward(self, x, t):
            return SimpleNamespace(sample=x + t[:, None, None, None])

    x = torch.zeros(2, 3, 4, 4)
    out = pure.Diffusion(pure.Borrowed(Unet()))(x, torch.tensor([1, 75]))
    assert out[:, 0, 0, 0].tolist() == [0, 74]


def photographs(name, *, n_test=None, size=None, seed=0, device=None, **_):
    """Random colour images under the name of CIFAR-10; CINIC-10 is missing."""
    if name == settings.OTHER:
        raise FileNotFoundError("no network")
    draw = torch.Generator().manual_seed(seed)
    sets = []
    for count in (500, 60):
        images = torch.rand(count, 3, 8, 8, generator=draw)
        labels = torch.arange(count) % 10
        sets.append(ImageSet(images, labels, tuple(map(str, range(10))), name))
    return tuple(sets)


def rows(folder):
    with (folder / "purification.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_cifar10_recipe_runs_and_goes_on_after_a_kill(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", photographs)
    command, trained = ["--datasets", "cifar10", "--seeds", "0", "--tiny"], []
    train = pure.train_diffusion
    monkeypatch.setattr(
        pure, "train_diffusion", lambda *a, **k: trained.append(1) or train(*a, **k)
    )
    row = purification.row

    def killed(made, *rest):
        if made[0].attack == "bullseye_polytope":
            raise KeyboardInterrupt
        return row(made, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(purification, "row", killed)
        with pytest.raises(KeyboardInterrupt):
            purification.main(command, tmp_path)
    assert "half of cifar10" in capsys.readouterr().out
    first = rows(tmp_path)
    assert {r["attack"] for r in first} == {"clean_label_backdoor", "narcissus"}
    purification.main(command, tmp_path)
    done = rows(tmp_path)
    assert [r for r in done if r in first] == first and trained == [1]  # nothing is done twice
    attacks = {r["attack"] for r in done}
    assert attacks == {
        *("clean_label_backdoor", "narcissus", "bullseye_polytope"),
        *("gradient_matching", "badnets"),
    }
    for attack in attacks:
        defences = {r["defence"] for r in done if r["attack"] == attack}
        assert defences == {
            *("none", "jpeg", "friendly", "epic", "energy", "diffusion"),
            *("naive", "reps", "filt"),
        }
    assert all(0 <= float(r["success"]) <= 1 and r["control_success"] for r in done)
    assert {r["purifier_data"] for r in done} == {"other half of cifar10"}


def test_a_diverged_energy_leaves_its_rows_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", photographs)
    setting = replace(settings.tiny(settings.SETTINGS["cifar10"]), energy={"limit": 1e-12})
    with pytest.warns(RuntimeWarning, match="diverged"):
        energy, diffusion, _ = settings.purifiers("cifar10", setting, torch.device("cpu"))
    assert energy is None and diffusion is not None and "no rows" in capsys.readouterr().out
    names = [name for name, *_ in purification.washers(setting, None, diffusion, False)]
    assert names == ["none", "jpeg", "diffusion"]
    assert cache.cache_root().exists()
