"""Attacks and purification of photographs: a dry run of their jobs, and their own small parts."""

import sys
import tarfile

import pytest
import torch
from PIL import Image
from torch import nn

from experiments import gpu
from experiments.photographs import attacks, photographs, purification
from experiments.table import Table
from nclib import data, training
from nclib.data import ImageSet


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Ten classes of coloured noise, 20 training and 5 test images of each."""
    root, generator = tmp_path_factory.mktemp("photos") / "tree", torch.Generator().manual_seed(0)
    for part, count in (("train", 20), ("test", 5)):
        for label in range(10):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                colour = torch.rand(32, 32, 3, generator=generator) * 80 + 17 * label
                Image.fromarray(colour.byte().numpy()).save(folder / f"{i:02}.png")
    return root


MINE = ("attacks", "certified", "purification")


def test_attacks_and_purification_in_a_dry_run(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    names = [name for name, *_ in gpu.JOBS if name.startswith(MINE)]
    archive, out = tmp_path / "in.tar", tmp_path / "out.tar.gz"
    with tarfile.open(archive, "w") as file:
        file.add(tree, arcname="photos")
    assert gpu.run(archive, out, images=200, only=names) == []
    gpu.take(out, tmp_path / "results")
    found = {
        name: list(Table(name, gpu.TABLES[name], tmp_path / "results").rows.values())
        for name in gpu.TABLES
        if name.split("_")[1] in (*MINE, "energy")
    }
    rows = found["photographs_attacks"]
    assert {r["network"] for r in rows} == set(attacks.NETWORKS)
    assert all(0 <= float(r["accuracy"]) <= 1 for r in rows)
    for network in attacks.NETWORKS:  # AutoAttack never gives an image back
        mine = {r["attack"]: float(r["accuracy"]) for r in rows if r["network"] == network}
        assert mine["AutoAttack"] <= min(v for k, v in mine.items() if k.startswith("AutoAttack,"))
    squeezed = [r for r in rows if r["network"] == "squeezed" and r["attack"] == "PGD"]
    assert all(r["vanished"] == "1" and r["float64"] for r in squeezed)  # rounding has no slope
    assert {(r["sigma"], r["n"]) for r in found["photographs_certified"]} == {
        (sigma, n) for sigma in ("0.25", "0.5") for n in ("10", "100")
    }
    rows = {r["defence"]: r for r in found["photographs_purification"]}
    wanted = (*purification.FIRST, *purification.THEN, *purification.LAST)
    assert set(rows) == set(wanted) and float(rows["none"]["moved"]) == 0
    assert float(rows["noise like the diffusion's"]["moved"]) == pytest.approx(0.12, abs=0.03)
    assert int(rows["EPIC"]["kept"]) < int(rows["energy"]["kept"]) == 100
    rows = found["photographs_energy"]
    walk = {r["at"] for r in rows if r["kind"] == "walk" and r["part"] == "photographs"}
    assert walk == {"0", "10", "25"}
    for part in ("clean", *purification.ATTACKS):
        shares = [float(r["share"]) for r in rows if r["part"] == part and r["kind"] == "histogram"]
        assert len(shares) == purification.BINS and sum(shares) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def sure():
    """A linear network so sure of its classes that its gradient vanishes in float32."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(12, 1, 4, 4, generator=generator) / 10, torch.arange(12) % 4
    images[torch.arange(12), 0, labels] += 0.4  # its own row is lighter
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    with torch.no_grad():
        model[1].weight.zero_()
        for c in range(4):
            model[1].weight[c, 4 * c : 4 * c + 4] = 200.0
    return model.eval(), ImageSet(images, labels, tuple("abcd"))


def test_float64_finds_the_way_that_float32_does_not(sure):
    model, test = sure
    x, y = test.images, test.labels
    assert attacks.masked(model, test) > 0.9 and attacks.masked(attacks.Double(model), test) == 0
    for name in ("FGSM", "PGD"):
        attack, in_double = attacks.walks(False)[name]
        assert training.accuracy(model, test, attack(model, x, y, 0.3)) > 0.6
        assert training.accuracy(model, test, in_double(attacks.Double(model), x, y, 0.3)) == 0
    logits = training.predict(model, x) / 100
    assert torch.allclose(attacks.exact(logits, y), attacks.attacks.cross_entropy(logits, y))


def test_targets_are_tried_in_turn_and_stay_within_eps(sure):
    model, test = sure
    found = attacks.targeted(model, test.images, test.labels, 0.3)
    assert (found - test.images).abs().max() <= 0.3 + 1e-6
    assert training.accuracy(model, test, found) == 0
    gentle = attacks.targeted(model, test.images, test.labels, 0.001)
    assert training.accuracy(model, test, gentle) == training.accuracy(model, test)


@pytest.mark.parametrize("package", ["as it is", "missing"])
def test_autoattack_with_and_without_its_package(sure, package, monkeypatch):
    if package == "missing":
        monkeypatch.setitem(sys.modules, "torchattacks", None)
    model, test = sure
    monkeypatch.setattr(attacks, "EPS", 0.3)
    parts = list(attacks.auto(model, test.images, test.labels, 4, dry=True))
    assert package != "missing" or all(name.startswith("ours") for name, _ in parts)
    held = [training.accuracy(model, test, found) for _, found in parts]
    assert held == sorted(held, reverse=True) and held[-1] == 0
    assert all((found - test.images).abs().max() <= 0.3 + 1e-6 for _, found in parts)


def test_a_wash_of_parts_is_the_wash_of_the_whole(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path))
    photos = photographs(f"folder:{tree}", "cpu", n_train=200, n_test=20)
    s = purification.scene(photos)
    assert not set(map(tuple, s.train.images.flatten(1)[:, :5].tolist())) & set(
        map(tuple, s.others.images.flatten(1)[:, :5].tolist())
    )
    bad, _ = purification.crafted(s, "BadNets")
    for defence in ("jpeg", "median", "main axes"):
        whole = purification.washes(s)[defence][1](bad.images)
        part = purification.defended(s, bad, defence).images
        assert torch.allclose(part, whole, atol=1e-5)
    half = purification.defended(s, bad, "filt").images
    assert (half != bad.images).flatten(1).any(1).sum() == len(bad) // 2


def test_some_test_images_are_as_many_of_each_class(tree):
    photos = photographs(f"folder:{tree}", "cpu", n_train=40, n_test=20)
    assert len(attacks.some(photos.test, 10)) == 10 and attacks.some(photos.test, 99) is photos.test
    few = attacks.some(photos.test, 10)
    assert few.labels.bincount().tolist() == [1] * 10
    assert torch.equal(
        few.labels, photos.test.subset(data.stratified(photos.test.labels, 10)).labels
    )
