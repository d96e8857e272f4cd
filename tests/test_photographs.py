"""Experiments on photographs: a dry run of the ten minutes of a GPU, on a CPU and 200 images."""

import os
import tarfile

import pytest
import torch
from PIL import Image

from experiments import gpu
from experiments.photographs import (
    collapse,
    features,
    layers,
    photographs,
    poisons,
    speed,
)
from experiments.table import Table
from nclib import detection, models, places, scoreboard, training
from nclib.course import photographs as kept
from nclib.course import stored


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Ten classes of coloured noise, 20 training and 20 test images of each."""
    root, generator = tmp_path_factory.mktemp("photos") / "tree", torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for label in range(10):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(20):
                colour = torch.rand(32, 32, 3, generator=generator) * 80 + 17 * label
                Image.fromarray(colour.byte().numpy()).save(folder / f"{i:02}.png")
    return root


def test_the_ten_minutes_of_a_gpu_in_a_dry_run(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    archive, out = tmp_path / "in.tar", tmp_path / "out.tar.gz"
    with tarfile.open(archive, "w") as file:
        file.add(tree, arcname="photos")
    elsewhere = ("attacks", "certified", "purification")  # test_gpu_attacks.py runs these
    names = [name for name, *_ in gpu.JOBS if not name.startswith(elsewhere)]
    assert gpu.run(archive, out, minutes=60, images=200, only=names) == []
    gpu.take(out, tmp_path / "results")
    rows = scoreboard.Store(tmp_path / "results" / "scoreboard.csv").rows.values()
    assert {(r["dataset"], r["poison"], r["method"]) for r in rows} == {
        ("cifar10_whole", poison, method)
        for poison in ("badnets", "adaptive_blend")
        for method in ("none", "oracle")
    }
    assert {r["source"] for r in rows} == {"JPEG copies"} and "NCLIB_CIFAR10" not in os.environ
    (row,) = Table("photographs_speed", speed.KEY, tmp_path / "results").rows.values()
    assert float(row["tflop"]) == pytest.approx(0.14, abs=0.01)  # 200 images, .71 GFLOP each
    rows = Table("photographs_collapse", collapse.KEY, tmp_path / "results").rows.values()
    assert {row["source"] for row in rows} == {"JPEG copies"}
    assert {row["arch"] for row in rows} == {"fast", "resnet18"}
    last = [r for r in rows if r["epoch"] == "1" and r["layer"] == "penultimate"]
    assert len(last) == 2 * 2 and all(float(r["nc1"]) > 0 and float(r["nc4"]) >= 0 for r in last)
    layer_tests(Table("photographs_layers", layers.KEY, tmp_path / "results"))
    poison_rows(Table("photographs_poisons", poisons.KEY, tmp_path / "results"))
    monkeypatch.setattr(places, "tables", lambda: tmp_path / "results")
    features_of_three_networks()


def layer_tests(table):
    """Ten layers and their union, nine suspects, two networks."""
    rows = list(table.rows.values())
    assert len(rows) == 11 * 9 * 2 and {r["arch"] for r in rows} == {"fast", "resnet18"}
    assert all(0 <= float(r["rate"]) <= 1 and float(r["depth"]) <= 11 for r in rows)
    pgd = {r["eps"] for r in rows if r["suspect"] == "PGD" and r["null"] == "wild"}
    assert pgd == {"0.003"}
    loud = [r for r in rows if r["suspect"] == "noise" and r["eps"] == "0.0313725"]
    assert max(float(r["rate"]) for r in loud) > 0  # a test that never fires would not be one


def poison_rows(table):
    rows = list(table.rows.values())
    count = {name: [r for r in rows if r["attack"] == name] for name in {r["attack"] for r in rows}}
    found = {name: len(part) for name, part in count.items()}
    single = {"gradient_matching": 3, "bullseye_polytope": 3}  # scratch, two boxes
    shown = {"badnets": 2, "blended": 1, "wanet": 1, "sig": 1, "hardened": 4, "narcissus": 6}
    assert found == shown | single
    numbers = ("accuracy", "control_accuracy", "success", "control_success")
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in numbers)
    share = {r["variant"]: int(r["poisons"]) for r in count["badnets"]}
    assert share == {"10%": 20, "1%": 2}


def features_of_three_networks():
    clean, badnets, flips = map(stored, ("clean", "badnets", "label_flip"))
    assert [int(s.is_poisoned.sum()) for s in (clean, badnets, flips)] == [0, 10, 20]
    assert clean.images.shape == (200, 3, 32, 32) and list(clean.features)[-1] == "penultimate"
    assert clean.success is None and 0 <= badnets.success <= 1
    changed = (badnets.images != clean.images).flatten(1).any(1)
    assert torch.equal(changed, badnets.is_poisoned) and torch.equal(flips.images, clean.images)
    patch = (badnets.images - clean.images)[changed].abs().mean((0, 1))
    assert patch[28:31, 28:31].mean() > 5 * patch[:16].mean()  # a JPEG blurs it a little
    assert torch.equal(flips.labels != flips.clean_labels, flips.is_poisoned)
    assert clean.logits.shape == (200, 10) and clean.source == "JPEG copies"
    with pytest.raises(ValueError, match="network: got 'nosuch'; allowed are clean, badnets"):
        stored("nosuch")


def test_the_stored_photographs_show_a_backdoor_and_flips():
    """The committed file: small enough for the wheel, and of use to a lesson."""
    assert (places.tables() / features.NAME).stat().st_size < 4e6
    found = {}
    for name in ("badnets", "label_flip"):
        net = stored(name)
        assert all(rows.shape == (5000, 30) for rows in net.features.values())
        assert net.logits.argmax(1).eq(net.labels).float().mean() > 0.8
        last = net.features["penultimate"]
        for score in (detection.robust_distance, detection.whitened_margin):
            value = score(last, net.labels)
            found[name, score.__name__] = detection.auroc(value, net.is_poisoned)
    assert found["badnets", "robust_distance"] > 0.99 > 0.6 > found["badnets", "whitened_margin"]
    assert found["label_flip", "whitened_margin"] > 0.97


def test_what_is_kept_gives_the_logits_back(tree):
    photos = photographs(f"folder:{tree}", "cpu", n_train=200, n_test=20)
    model = models.build("fast", photos.train, widths=(8, 16, 16))  # fewer channels than are kept
    own = {k: torch.from_numpy(v) for k, v in features.kept(model, photos.train).items()}
    found = own["penultimate"].float() @ own["weight"].T + own["bias"]
    expected = training.predict(model, photos.train.images)
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))
    assert own["block1/variance"] == pytest.approx(1)


def test_a_picture_holds_the_images_in_their_order(tree):
    photos = photographs(f"folder:{tree}", "cpu", n_train=60, n_test=20)
    back = kept._tiles(features.picture(photos.train.images), 60)
    assert (back - photos.train.images).abs().mean() < 0.1
    far = torch.cdist(back.mean((2, 3)), photos.train.images.mean((2, 3)))
    assert far.diagonal().mean() < far.mean() / 5


def test_a_folder_serves_as_well_as_the_archive(tree, tmp_path, monkeypatch):
    ran = []
    jobs = [(name, 1, lambda *_, name=name: ran.append(name)) for name in ("a", "b")]
    monkeypatch.setattr(gpu, "JOBS", jobs)
    assert gpu.run(tree.parent, tmp_path / "out.tar.gz", images=40, only=["b"]) == []
    assert ran == ["b"]


def test_operations_are_counted():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    images = torch.rand(8, 3, 2, 2)
    before = model[1].weight.clone()
    # forward 2 x 12 x 2; backward as many, for the weights alone: the images need no gradient
    assert speed.flops(model, images) == 2 * (2 * 12 * 2)
    assert torch.equal(model[1].weight, before) and model[1].weight.grad is None


def test_jobs_run_by_value_fail_alone_and_stop_with_the_time(tree, tmp_path, monkeypatch):
    archive, out, ran = tmp_path / "in.tar.gz", tmp_path / "out.tar.gz", []
    with tarfile.open(archive, "w:gz") as file:
        file.add(tree, arcname="photos")

    def broken(photos, folder, left):
        raise RuntimeError("no memory")

    jobs = [("low", 1, lambda *_: ran.append("low")), ("broken", 3, broken)]
    monkeypatch.setattr(gpu, "JOBS", [*jobs, ("high", 2, lambda *_: ran.append("high"))])
    assert gpu.run(archive, out, images=40) == ["broken"] and ran == ["high", "low"]
    with tarfile.open(out) as file:
        assert b"no memory" in file.extractfile("results/errors.txt").read()
    assert gpu.run(archive, out, minutes=0, images=40) == [] and ran == ["high", "low"]


def test_a_finished_run_is_not_run_again(tree, tmp_path, capsys):
    photos = photographs(f"folder:{tree}", "cpu", n_train=40, n_test=20)
    rows = collapse.table(tmp_path)
    collapse.run(photos, rows, n_train=40, epochs=1, batch_size=20)
    first = rows.path.read_text()
    assert {row["epoch"] for row in rows.rows.values()} == {"0", "1"}
    capsys.readouterr()
    collapse.run(photos, collapse.table(tmp_path), n_train=40, epochs=1, batch_size=20)
    assert rows.path.read_text() == first and not capsys.readouterr().out
