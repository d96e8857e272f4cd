"""Experiments on photographs: a dry run of the ten minutes of a GPU, on a CPU and 200 images."""

import tarfile

import pytest
import torch
from PIL import Image

from experiments import gpu
from experiments.photographs import collapse, photographs, speed
from experiments.table import Table


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


def test_the_ten_minutes_of_a_gpu_in_a_dry_run(tree, tmp_path):
    archive, out = tmp_path / "in.tar", tmp_path / "out.tar.gz"
    with tarfile.open(archive, "w") as file:
        file.add(tree, arcname="photos")
    assert gpu.run(archive, out, minutes=10, images=200) == []
    gpu.take(out, tmp_path / "results")
    (row,) = Table("photographs_speed", speed.KEY, tmp_path / "results").rows.values()
    assert float(row["tflop"]) == pytest.approx(0.14, abs=0.01)  # 200 images, .71 GFLOP each
    rows = Table("photographs_collapse", collapse.KEY, tmp_path / "results").rows.values()
    assert {row["source"] for row in rows} == {"JPEG copies"}
    assert {row["arch"] for row in rows} == {"fast", "resnet18"}
    last = [r for r in rows if r["epoch"] == "1" and r["layer"] == "penultimate"]
    assert len(last) == 2 * 2 and all(float(r["nc1"]) > 0 and float(r["nc4"]) >= 0 for r in last)


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
