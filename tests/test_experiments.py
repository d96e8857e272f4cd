"""What the experiments share: facts about the machine, the choice of a device, the victims."""

import csv
import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments import audit, certified, collapse, poisons, robustness, transplant
from experiments.table import Table, facts
from nclib import data, device


def test_facts_name_device_threads_and_torch(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert facts(cpu) == {"device": "cpu, 1 thread", "torch": torch.__version__.split("+")[0]}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert facts(cpu)["device"] == "cpu, 4 threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert facts(gpu)["device"] == "card 1"


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_cuda_device_with_a_number_gets_the_large_jobs(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(device, "pick", lambda: torch.device(name))
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "0"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "card")
    asked = []
    for module in (collapse, robustness):
        monkeypatch.setattr(module, "Table", lambda *args: Table(*args, folder=tmp_path))
    monkeypatch.setattr(robustness, "run", lambda job, *_: asked.append((job.dataset, job.arch)))
    robustness.main()
    assert ("cifar10", "resnet18") in asked
    asked.clear()
    monkeypatch.setattr(collapse, "measured", lambda *job: asked.append(job[:2]) or {})
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "0"])
    collapse.main()
    assert ("cifar10", "resnet18") in asked


def test_certified_says_where_its_rows_come_from(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(device, "pick", lambda: torch.device("cuda:0"))
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "0", "--datasets", "digits", "signs"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "card")
    monkeypatch.setattr(certified, "Table", lambda *args: Table(*args, folder=tmp_path))
    for name in ("partitioned", "smoothed", "unprepared"):
        monkeypatch.setattr(certified, name, lambda *_: {})
    certified.main()
    found = Table(
        "certified", ("method", "dataset", "setting", "n", "seed"), tmp_path
    ).rows.values()
    assert {row["device"] for row in found} == {"card"}
    assert {row["dataset"] for row in found if row["method"] in ("bare", "denoised")} == {"signs"}


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5])
def test_one_step_takes_the_noise_away_if_the_diffusion_knows_it(sigma):
    """A diffusion that knows the clean image, asked at the level whose noise is 2 sigma."""
    clean = torch.rand(4, 3, 8, 8)

    class Oracle(torch.nn.Module):
        alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)

        def forward(self, x, level):
            kept = self.alpha_bar[level[0]]
            return (x - kept.sqrt() * (2 * clean - 1)) / (1 - kept).sqrt()

    step = certified.Denoised(torch.nn.Identity(), Oracle(), sigma)
    noisy = clean + sigma * torch.randn(clean.shape)
    assert float((step(noisy) - clean).abs().max()) < 0.02
    assert float((noisy - clean).abs().mean()) > 0.05


def test_the_victims_are_right_and_aimed_elsewhere():
    labels = torch.arange(20) % 4
    images = labels[:, None, None, None].float().expand(-1, 1, 2, 2) / 4

    class Oracle(torch.nn.Module):  # wrong for class 3 alone
        def forward(self, x):
            return -(x[:, 0, 0, :1] * 4 - torch.tensor([0.0, 1, 2, 9])).abs()

    test = SimpleNamespace(images=images, labels=labels, num_classes=4)
    found = list(poisons.aims(Oracle(), test, 10, 0))
    classes = [int(image[0, 0, 0, 0] * 4) for image, _ in found]
    assert len(found) == 10 and 3 not in classes
    assert all(
        c != target and 0 <= target < 4 for c, (_, target) in zip(classes, found, strict=True)
    )


def test_a_benchmark_names_the_versions_of_both_sides_and_what_they_stand_on(monkeypatch):
    root = Path(__file__).resolve().parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(root))
    pairs = importlib.import_module("pairs")
    plain, art = pairs.versions(None), pairs.versions("art")
    assert plain == f"torch {torch.__version__}, numpy {np.__version__}"
    assert art.startswith(plain + ", art 1.") and "scikit-learn " in art and "scipy " in art
    monkeypatch.setitem(sys.modules, "a_folder", type("Peer", (), {"__version__": "3"}))
    assert pairs.versions("a_folder").endswith("a_folder 3")
    assert pairs.versions("nobody").endswith("nobody unknown")


def test_the_house_is_counted_and_its_commands_are_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    house = importlib.import_module("house")
    rows = {row["what"]: row["value"] for row in house.counted()}
    ground, use = (rows[f"code of {pair}"] for pair in house.size.totals())
    assert ground + use == sum(house.size.rooms().values()) - house.size.rooms()["__init__"]
    assert rows["all lessons"] == pytest.approx(sum(house.readme.minutes().values()))
    row = house.timed([sys.executable, "-c", "sum(range(10**7))"])
    assert 0 < row["value"] < 5 and row["unit"].startswith("minutes, 0.")
    with pytest.raises(subprocess.CalledProcessError):
        house.timed([sys.executable, "-c", "raise SystemExit(1)"])


def test_the_sets_of_the_audit_are_what_they_say():
    for name, shape, classes in (("faces", (1, 32, 32), 40), ("100 numbers", (1, 8, 16), 100)):
        train, test = audit.loaded(name, 0)
        assert (
            train.shape == shape
            and 0 <= float(train.images.min()) <= float(train.images.max()) <= 1
        )
        assert train.labels.bincount().tolist() == [10] * classes
        assert test.labels.bincount().tolist() == [5] * classes
        assert not torch.equal(train.images, audit.loaded(name, 1)[0].images)
    train, _ = audit.loaded("one of 90%", 0)
    assert train.labels.bincount().tolist() == [495] + [6] * 9


def test_a_row_of_the_audit_counts_what_was_named(tmp_path, monkeypatch):
    train, test = data.load("digits", n_train=100, n_test=50, device="cpu")
    monkeypatch.setattr(audit, "loaded", lambda name, seed: (train, test))
    monkeypatch.setattr(audit, "EPOCHS", 2)
    monkeypatch.setattr(audit, "apart", lambda work, *given: work(*given))
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    if not all(map(find_spec, ("cleanlab", "cleanvision"))):  # only ``make bench`` installs them
        flagged = dict.fromkeys(("datalab_labels", "datalab_other", "cleanvision"), 5)
        hits = {f"{name}_hit": 2 for name in flagged}
        monkeypatch.setattr(audit, "peers", lambda *given: flagged | hits)
    audit.run(("digits", "badnets", 0.1, 0), tmp_path)
    row = next(iter(Table("audit", audit.KEY, tmp_path).rows.values()))
    assert (int(row["images"]), int(row["classes"]), int(row["poisoned"])) == (100, 10, 10)
    assert 0 <= int(row["hit"]) <= 10 and 0 <= float(row["success"]) <= 1
    for peer in ("datalab_labels", "datalab_other", "cleanvision"):
        assert 0 <= int(row[f"{peer}_hit"]) <= min(10, int(row[peer]))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- trials: x -->\nold\n<!-- /trials -->\nafter\n")
    counted = {"dataset": "digits", "kind": "accused", "times": "0", "of": "97"}
    assert "| 0 of 97 | 0% to 4% |" in audit.odds([counted])
    clean = row | {"poison": "clean", "rate": "0.0", "call": "clean", "right": "1"}
    accused = clean | {"seed": "1", "call": "backdoor", "right": "0", "accused": "3"}
    audit.put("trials", audit.report([row, clean, accused]), page)
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert (
        "| set | planted |" not in text
        and "| digits | badnets | 10% |" in text
        and "right / backdoor in 3" in text
    )


def test_planted_controls_are_rows_of_counts_and_are_measured_once(tmp_path, monkeypatch):
    calls = []

    def planted(train, **options):
        calls.append((len(train), options))
        return transplant.correction.Planted({"1% patch": (2, 3)}, (1, 7), (0, 10), 20, 30.0)

    monkeypatch.setattr(transplant.correction, "planted", planted)
    for _ in range(2):
        transplant.controls("digits", 4, tmp_path)
    assert len(calls) == 1 and calls[0][1] == {"runs": 1, "seed": 4, "epochs": 12}
    rows = Table("transplant_controls", ("dataset", "seed", "kind"), tmp_path).rows
    assert rows["digits", "4", "1% patch"]["share"] == "0.666667"
    assert rows["digits", "4", transplant.INNOCENT]["of"] == "7"
    assert rows["digits", "4", transplant.SHUFFLED]["times"] == "0" and len(rows) == 3


def test_the_aim_of_the_transplant_test_is_counted():
    """What docs/results.md says of its rows: success after .05 at most, for a point of accuracy."""
    met = {}
    root = Path(__file__).parents[1]
    with (root / "data" / "results" / "transplant.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["asr"] and float(row["asr"]) >= 0.5:
            lost = float(row["accuracy"]) - float(row["accuracy_after"])
            reached = float(row["asr_after"]) <= 0.05 and lost <= 0.01
            met.setdefault(row["dataset"], []).append(reached)
    words = " ".join((root / "docs" / "results.md").read_text(encoding="utf-8").split())
    pattern = r"(\d+) of (\d+) such runs on digits .*? (\d+) of (\d+) on signs, (\d+) of \d+ on"
    said = re.search(pattern, words)
    assert said is not None
    counted = [n for name in ("digits", "signs") for n in (sum(met[name]), len(met[name]))]
    assert [int(n) for n in said.groups()] == [*counted, sum(met["cifar10-jpeg"])]
