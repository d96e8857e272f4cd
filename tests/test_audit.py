"""An audit of one's own data: what it says of planted cases, and what no file may do to it."""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import os
import re
import signal
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nclib import audit, correction, data, models, poisons
from nclib.__main__ import main
from nclib.audit import engine, looks, progress, reading, sources
from nclib.audit.named import named
from nclib.audit.page import command
from nclib.audit.result import STRANGE
from nclib.data import ImageSet

MARKUP = "<img src=x onerror=alert(1)>"
RIGHT_TO_LEFT = "תמרור \u202e עצור"


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", n_train=600, device="cpu")[0]


def plain(found):
    return ImageSet(found.images, found.labels, found.classes)


def write(found, root, suffix="png"):
    """An ImageFolder tree of the set; the names are the positions."""
    for i, (image, label) in enumerate(zip(found.images, found.labels, strict=True)):
        folder = root / found.classes[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze()).save(folder / f"{i:04}.{suffix}")
    return root


def small(classes=("a", "b"), count=8, side=12, seed=0):
    """Textures that differ by class."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), count)
    images = draw.uniform(0, 0.6, (len(labels), 1, side, side)).astype(np.float32)
    for i, label in enumerate(labels):
        images[i, 0, label % side] += 0.4
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), tuple(classes))


def state(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def run(found, labels=None, **options):
    return audit.run(found, labels, progress=False, **options)


def quick(found, labels=None, **options):
    return run(found, labels, epochs=2, **options)


def opened(found, size=None):
    one = sources.source(found)
    return reading.read(one, reading.look(one, size, None), 0, lambda: None)


# what it says


@pytest.fixture(scope="module")
def backdoored(digits, tmp_path_factory):
    dirty = poisons.blended(digits, 0.1, 3, seed=1)
    root = write(dirty, tmp_path_factory.mktemp("set") / "digits")
    before = state(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCLIB_DEVICE", "cpu")
        patch.setenv("NCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs"))
        found = run(root, seed=1)
    assert state(root) == before
    return dirty, found, root


def at(found):
    """Positions in the set that was written, by the files' names."""
    return {int(Path(found.source.names[row.at]).stem) for row in found.suspects}


def test_a_backdoor_is_named_with_its_images_and_its_trigger(backdoored, tmp_path):
    dirty, found, _ = backdoored
    assert found.call == "backdoor" and found.exit_code == 1
    assert [found.data.classes[c] for c in found.verdict.classes] == ["3"]
    bad = set(dirty.is_poisoned.nonzero().flatten().tolist())
    assert len(at(found) & bad) > 0.9 * len(bad) and len(at(found) - bad) < 0.1 * len(bad)
    page = found.save(tmp_path / "out").read_text()
    assert "Backdoor in class 3" in page and "the recovered trigger" in page
    rows = list(csv.DictReader((tmp_path / "out/suspects.csv").open(newline="")))
    assert len(rows) == len(found.suspects) and {row["label"] for row in rows} == {"3"}


def test_a_clean_copy_has_no_suspect_and_the_original_stays(backdoored, tmp_path):
    _, found, root = backdoored
    before, gone = state(root), {found.source.names[row.at] for row in found.suspects}
    left = audit.clean(found, tmp_path / "copy")
    names = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*.png")}
    assert names == set(found.source.names) - gone and left == len(names)
    assert state(root) == before
    assert audit.clean(found, tmp_path / "kept.txt") == left
    assert set((tmp_path / "kept.txt").read_text().split("\n")) - {""} == names
    for place in (root / "inside", tmp_path / "copy"):
        with pytest.raises(ValueError, match="clean: "):
            audit.clean(found, place)
    with pytest.raises(ValueError, match="out: .* lies inside"):
        found.save(root / "report")


def test_a_crowd_is_told_by_where_it_comes_from(backdoored, tmp_path):
    found = copy.copy(backdoored[1])
    unknown = {"variety": 0.9, "control": torch.nan, "keeps_control": torch.nan}
    crowds = tuple(replace(f, **unknown) for f in found.verdict.findings)
    found.verdict = replace(found.verdict, findings=crowds)
    page = found.save(tmp_path).read_text()
    assert "images look like all other classes" in page and "nan%" not in page
    assert "looks like images of all other classes" in (tmp_path / "suspects.csv").read_text()


def test_a_clean_set_is_let_pass(digits):
    found = run(digits, seed=2)
    assert found.call == "clean" and found.exit_code == 0 and not found.suspects
    assert "Nothing found that I can find." in found.show().data
    assert "None of these is accused" in found.show().data


def test_wrong_labels_are_named_with_the_right_ones(digits):
    dirty = poisons.label_flip(digits, 0.2, seed=1)
    found = run(plain(dirty), seed=1)
    assert found.call == "wrong labels" and "Wrong labels: about" in repr(found)
    bad = dirty.is_poisoned
    named = [row for row in found.suspects if row.key == "label" and bad[row.at]]
    assert len(named) > 0.7 * int(bad.sum())
    right = [row.suggested == dirty.classes[int(dirty.clean_labels[row.at])] for row in named]
    assert np.mean(right) > 0.8


@pytest.mark.slow
def test_road_signs_clean_and_with_a_patch(tmp_path):
    signs = data.load("signs", n_train=600, device="cpu")[0]
    assert run(signs).call == "clean"
    dirty = poisons.badnets(signs, 0.1, 3, seed=1)
    found = run(write(dirty, tmp_path / "signs"))
    assert found.call == "backdoor"
    assert [found.data.classes[c] for c in found.verdict.classes] == [signs.classes[3]]
    bad = set(dirty.is_poisoned.nonzero().flatten().tolist())
    assert len(at(found) & bad) > 0.7 * len(at(found))


# odd sets


@pytest.mark.parametrize(
    "counts", [(5, 5), (90, 10), (5,) * 12, (9, 6, 2)], ids=["tiny", "one of 90%", "12", "one of 2"]
)
def test_small_and_lopsided_sets_get_a_page(counts, tmp_path):
    whole = small([f"class {i}" for i in range(len(counts))], max(counts))
    keep = torch.cat([(whole.labels == c).nonzero().flatten()[:n] for c, n in enumerate(counts)])
    found = quick(whole.subset(keep))
    assert found.call in ("clean", "cannot tell", "wrong labels", "backdoor")
    page = found.save(tmp_path).read_text()
    assert ("fewer than 5 images were not judged: class 2" in page) == (2 in counts)


def test_too_little_is_refused():
    with pytest.raises(ValueError, match=r"1 class\(es\) with 5"):
        quick(small(["a", "b"], 6).subset(torch.arange(8)))
    with pytest.raises(ValueError, match="labels: got none"):
        quick(np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="data: got a int"):
        quick(3)


def test_broken_files_are_named_and_the_rest_is_audited(tmp_path):
    root = write(small(count=10), tmp_path / "set")
    (root / "a/broken.png").write_bytes(b"not an image")
    whole = (root / "a/0000.png").read_bytes()
    (root / "b/cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "b/list.txt").write_text("no image")
    found = quick(root)
    broken = {found.source.names[row.at] for row in found.suspects if row.key == "file"}
    assert broken == {"a/broken.png", "b/cut.png"} and found.exit_code == 1
    assert "2 file(s) cannot be read" in found.show().data and len(found.data) == 20
    why = found.reading.broken.values()
    assert not any(str(tmp_path) in w for w in why) and any("'a/broken.png'" in w for w in why)
    assert any("1 that are no image by their names" in note for note in found.notes)


def test_a_picture_under_two_labels_and_in_both_parts(tmp_path):
    photos = small(["a", "b"], 12, side=40)
    root = tmp_path / "set"
    write(photos, root / "train")
    write(small(["a", "b"], 6, side=40, seed=1), root / "test")
    Image.open(root / "train/a/0000.png").save(root / "train/b/again.png")
    Image.open(root / "train/b/0015.png").save(root / "test/b/leak.jpg", quality=90)
    found = quick(root)
    pairs = {(found.source.names[t.first], found.source.names[t.second], t.kind)
             for t in found.reading.twins}  # fmt: skip
    assert pairs == {
        ("train/a/0000.png", "train/b/again.png", "two labels"),
        ("train/b/0015.png", "test/b/leak.jpg", "train and test"),
    }
    audit.clean(found, tmp_path / "copy")
    left = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*.*")}
    assert "test/b/leak.jpg" in left and "train/b/0015.png" not in left
    assert not left & {"train/a/0000.png", "train/b/again.png"}


def test_images_that_only_resemble_each_other_are_no_copies(digits):
    assert len(opened(digits).twins) <= 3


# names are text


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_data(self, text):
        self.text += text


def test_a_name_is_text_and_never_markup(tmp_path):
    root = write(small([MARKUP, RIGHT_TO_LEFT, "c"]), tmp_path / "<b>set")
    (root / "c/<script>alert(2)<!--.png").write_bytes(b"broken")
    (root / "c/{{ 7 * 6 }}.png").write_bytes(b"broken")
    found = quick(root)
    page = found.save(tmp_path / "out").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not {"script", "iframe", "object"} & set(tags.seen)
    assert all(src.startswith("data:image/") for name, src in tags.attributes if name == "src")
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    shown = RIGHT_TO_LEFT.replace("\u202e", r"\u202e")  # a sign that turns what follows is shown
    assert "\u202e" not in page and shown in tags.text
    assert MARKUP in tags.text and "{{ 7 * 6 }}" in tags.text
    assert "<script" not in page and "<b>set" not in page


def test_the_page_is_one_small_file_that_asks_for_nothing(backdoored, tmp_path):
    page = backdoored[1].save(tmp_path).read_text()
    assert len(page) < 5_000_000 and "http://" not in page and "https://" not in page
    assert "python -m nclib audit" in page and "--seed 1" in page
    for said in ("What was not looked for", "torch ", "Triggers that differ from image to image"):
        assert said in page


# doors


def test_every_door_opens_the_same_images(tmp_path):
    datasets = pytest.importorskip("datasets", reason="make bench installs it")
    found = small(["a", "b"], 5)
    pixels = (found.images * 255).round().byte()
    names = [found.classes[i] for i in found.labels]
    root = write(found, tmp_path / "set")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "Path", "split"])
        for i, name in enumerate(names):
            rows.writerow([name, f"set/{name}/{i:04}.png", "train"])
    pictures = [Image.fromarray(x[0].numpy()) for x in pixels]
    label = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"image": datasets.Image(), "label": label})
    hugging = datasets.Dataset.from_dict(
        {"image": pictures, "label": found.labels.tolist()}, features=features
    )

    class Vision:
        classes, targets = ["a", "b"], found.labels.tolist()

        def __len__(self):
            return len(pictures)

        def __getitem__(self, i):
            return pictures[i], self.targets[i]

    doors = [
        (found,), (root,), (str(tmp_path / "list.csv"),), (pixels.numpy(), names),
        (pixels.permute(0, 2, 3, 1), names), (pixels[:, 0].numpy(), np.array(names)),
        ((found.images, names),), (hugging,), (datasets.DatasetDict(train=hugging),), (Vision(),),
    ]  # fmt: skip
    for door in doors:
        one = sources.source(*door)
        assert one.classes == ("a", "b") and list(one.labels) == found.labels.tolist()
        assert all(torch.equal(one.picture(i), x) for i, x in enumerate(pixels))


def test_grey_beside_colour_and_many_sizes(tmp_path):
    root = write(small(count=6), tmp_path / "set")
    Image.new("RGB", (30, 20), "red").save(root / "a/red.png")
    Image.new("L", (200, 300)).save(root / "b/tall.jpg")
    train = opened(root)
    assert train.train.shape == (3, 64, 64) and "resized to 64 x 64" in train.notes[0]
    assert opened(root, 16).train.shape == (3, 16, 16)


def test_a_limit_takes_a_sample_and_says_so():
    found = quick(small(["a", "b"], 30), limit=20)
    assert len(found.data) == 20 and "20 of 60 training images were trained on" in repr(
        found.reading.notes
    )


def test_features_from_elsewhere_and_a_model_of_ones_own(tmp_path):
    found = small(["a", "b", "c"], 30)
    draw = np.random.default_rng(0)
    flipped = torch.from_numpy(draw.permutation(90)[:6])
    wrong = found.labels.clone()
    wrong[flipped] = (wrong[flipped] + 1 + torch.from_numpy(draw.integers(0, 2, 6))) % 3
    far = np.eye(3)[found.labels] * 8 + draw.normal(size=(90, 3))
    order = draw.permutation(90)
    names = np.array([f"image {i}" for i in order])
    np.savez(tmp_path / "f.npz", penultimate=far[order], names=names)
    dirty = ImageSet(found.images, wrong, found.classes)
    audited = quick(dirty, features=tmp_path / "f.npz")
    assert audited.call in ("wrong labels", "cannot tell")
    doubts = {row.at for row in audited.doubtful(6)}
    assert doubts == set(flipped.tolist()) and audited.geometry.whose == "your features"
    own = quick(found, model=models.build("mlp", found))
    assert own.geometry.whose == "your model" and 0 <= own.accuracy <= 1
    np.savez(tmp_path / "short.npz", penultimate=far[:9])
    with pytest.raises(ValueError, match="features: "):
        quick(dirty, features=tmp_path / "short.npz")


def test_planted_controls_are_counted_on_the_page():
    found = quick(small(["a", "b", "c"], 40), build="mlp", controls=1)
    assert found.planted is not None and found.planted.accused[1] > 0
    page = found.show().data
    assert "How often the audit is right here" in page and "was not measured" not in page
    wronged, of = found.planted.accused
    assert f"accused {wronged} times of {of} (a rate of" in page


def test_odds_have_an_interval_and_count_the_classes(backdoored):
    counts = {"5% patch": (3, 3), "10% of wrong labels": (1, 3)}
    planted = correction.Planted(counts, (0, 97), (0, 10), 21, 1.0)
    found = dataclasses.replace(backdoored[1], planted=planted)
    page = found.show().data
    assert "A 5% patch was found 3 times of 3 (a rate of 29% to 100%)" in page
    assert "10% of wrong labels were found 1 times of 3 (a rate of 1% to 91%)" in page
    assert "finds a 5% patch 3 times of 3, finds 10% of wrong labels 1 times of 3" in str(planted)
    assert "accused 0 times of 97 (a rate of 0.0% to 3.7%)" in page
    assert (
        "with 10 classes and no trigger, is accused of some with a probability of 0% to 32%" in page
    )


def test_a_group_that_nobody_knows_stands_beside_no_clean_verdict(backdoored, tmp_path):
    found = backdoored[1]
    finding = found.verdict.findings[0]
    for keeps, call in ((0.0, "cannot tell"), (0.5, "clean")):
        odd = dataclasses.replace(finding, call="honest", keeps=keeps, keeps_control=0.9)
        verdict = dataclasses.replace(found.verdict, call="clean", classes=(), findings=(odd,))
        other = dataclasses.replace(found, verdict=verdict)
        assert other.call == call
        grouped = [row for row in other.suspects if row.key == "group"]
        assert len(grouped) == (int(finding.group.sum()) if call == "cannot tell" else 0)
        page = other.save(tmp_path / call).read_text()
        assert ("no model gives that never met it" in page) == (call == "cannot tell")
        assert "images whose label nobody else gives: " in page


@pytest.mark.parametrize(
    ("kin", "why"), [(0.5, "looks like one other class"), (np.nan, "controls do not say why")]
)
def test_it_says_why_it_cannot_tell(kin, why, backdoored):
    found = backdoored[1]
    odd = dataclasses.replace(found.verdict.findings[0], call="unclear", kin=kin)
    unsure = dataclasses.replace(found.verdict, call="cannot tell", classes=(), findings=(odd,))
    said = repr(dataclasses.replace(found, verdict=unsure))
    assert "Cannot tell" in said and why in said and " 3 " in said


# networks by name


class Timm:
    """What ``named`` asks of timm."""

    @staticmethod
    def create_model(name, pretrained=False, num_classes=4):
        if name != "net":
            raise RuntimeError("Unknown model")
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, num_classes))
        facts = {"input_size": (3, 8, 8), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
        model.pretrained_cfg = facts | {
            "label_names": ["c", "b_1", "A", "z"],
            "fixed_input_size": True,
        }
        return model


def test_a_network_by_its_name_in_timm(monkeypatch):
    found = small(["a", "b 1", "c"], 12)
    monkeypatch.setitem(sys.modules, "timm", Timm)
    fresh = [named("timm:net", found, trained=False, seed=s) for s in (1, 1, 2)]
    first, again, other = (net(found.images[:5]) for net in fresh)
    assert first.shape == (5, 3) and torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(0)
    body = Timm.create_model("net")
    sized = torch.nn.functional.interpolate(
        found.images[:5], (8, 8), mode="bilinear", antialias=True
    )
    shift = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    expected = body((sized.expand(-1, 3, -1, -1) - shift) / 0.2)[:, [2, 1, 0]]
    trained = named("timm:net", found, trained=True)
    assert torch.allclose(trained(found.images[:5]), expected, atol=1e-5)
    audited = quick(found, model="timm:net")
    assert (
        audited.geometry.whose == "your model" and list(audited.geometry.nc1)[-1] == "penultimate"
    )
    assert command(audited) == "audit.run(data, epochs=2, model='timm:net')"
    assert quick(found, build="timm:net").verdict is not None
    for name, wanted in (("timm:other", "Unknown"), ("torch:net", "allowed"), ("hf:", "allowed")):
        with pytest.raises(ValueError, match=f"model: .*{wanted}"):
            named(name, found, trained=False)
    with pytest.raises(ValueError, match="knows 4 classes .c, b_1, A, .* the 2 of this set"):
        named("timm:net", small(["x", "y"]), trained=True)


def test_a_network_by_its_name_in_transformers(monkeypatch):
    words = {0: "b", 1: "a"}

    class Body(torch.nn.Module):
        def __init__(self, count=2):
            super().__init__()
            self.head = torch.nn.Linear(3 * 144, count)
            self.config = SimpleNamespace(id2label=words)

        def forward(self, images):
            return SimpleNamespace(logits=self.head(images.flatten(1)))

    kind = SimpleNamespace(
        from_pretrained=lambda name: Body(), from_config=lambda config: Body(config)
    )
    sizes = SimpleNamespace(size={"height": 12}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    package = SimpleNamespace(
        AutoModelForImageClassification=kind,
        AutoConfig=SimpleNamespace(from_pretrained=lambda name, num_labels: num_labels),
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name: sizes),
    )
    monkeypatch.setitem(sys.modules, "transformers", package)
    found = small(["a", "b"])
    trained = named("hf:owner/net", found, trained=True, seed=3)
    torch.manual_seed(3)
    expected = Body()(found.images.expand(-1, 3, -1, -1)).logits.flip(1)
    assert torch.allclose(trained(found.images), expected, atol=1e-6)
    assert named("hf:net", small(list("abc")), trained=False)(found.images).shape == (16, 3)


def test_the_hub_wants_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="data: hf:mnist needs the package; pip install datasets"):
        quick("hf:mnist")


@pytest.mark.parametrize(("name", "package"), [("timm:net", "timm"), ("hf:net", "transformers")])
def test_a_name_without_its_package_says_what_to_install(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"needs the package {package}; pip install {package}"):
        quick(small(), build=name)
    root = write(small(), tmp_path / "set")
    assert main(["audit", str(root), "--model", name, "--quiet"]) == 2


# the command


def test_exit_codes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write(small(count=10), tmp_path / "set")
    arguments = ["audit", str(root), "--epochs", "2", "--quiet"]
    for call, suspects, code in (("clean", [], 0), ("clean", [1], 1), ("cannot tell", [], 1)):
        with monkeypatch.context() as patch:
            patch.setattr(audit.Audit, "call", call)
            rows = [audit.Suspect(i, "", "why", 1.0, "twin") for i in suspects]
            patch.setattr(audit.Audit, "suspects", rows)
            assert main(arguments) == code
    assert (tmp_path / "audit-set/report.html").exists()
    monkeypatch.chdir(root)
    main(arguments)  # from inside the set: the page goes beside it
    assert sorted(p.name for p in root.iterdir()) == ["a", "b"]
    capsys.readouterr()
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    (tmp_path / "head.csv").write_text("path,label\n")
    (tmp_path / "none.csv").write_text("")
    for said, *bad in (
        ("nowhere", str(tmp_path / "nowhere")),
        ("path and label are needed", str(tmp_path / "bad.csv")),
        ("holds no row", str(tmp_path / "head.csv")),
        ("path and label are needed", str(tmp_path / "none.csv")),
        ("lies inside", str(root), "--out", str(root / "report")),
        ("is there already", str(root), "--clean", str(root)),
    ):
        assert main(["audit", *bad, "--epochs", "2", "--quiet"]) == 2
        assert re.search(said, capsys.readouterr().err)


@pytest.fixture(autouse=True)
def heard():
    """A shell that starts the tests in its background has ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)


STAGES = {
    "before the files": (engine, "look"),
    "files": (reading, "resize"),
    "near copies": (reading, "_near"),
    "labels": (looks, "labels"),
    "triggers": (engine.correction, "transplant"),
    "geometry": (looks, "shape_of"),
    "controls": (engine.correction, "planted"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_control_c_leaves_what_is_done_and_the_next_call_goes_on(stage, tmp_path, monkeypatch):
    found, before = small(["a", "b", "c"], 12), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage], press)
        half = quick(found, build="mlp", controls=1)
    assert signal.getsignal(signal.SIGINT) is before
    assert half.stopped and half.planted is None and half.exit_code in (0, 1)
    done = [half.reading, half.labels, half.verdict, half.geometry]
    count = {"before the files": 0, "labels": 1, "triggers": 2, "geometry": 3, "controls": 4}
    assert sum(part is not None for part in done) == count.get(stage, 1)
    assert half.verdict is not None or half.call == "cannot tell"
    page = half.save(tmp_path).read_text()
    assert "The audit was stopped" in page and "not done" in page
    assert (tmp_path / "suspects.csv").exists() and "audit.run(data" in page
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = quick(found, build="mlp")
    assert not whole.stopped and whole.verdict is not None


def test_control_c_amid_a_training_and_amid_the_files(tmp_path, monkeypatch):
    found, calls = small(["a", "b", "c"], 12), []

    def build(part, seed):
        calls.append(seed)
        if len(calls) == 3:  # the first was a trial
            press()
        return models.build("mlp", part, seed=seed)

    half = quick(found, build=build)
    assert half.stopped and half.labels is not None and half.verdict is None
    root = write(small(count=30), tmp_path / "set")
    (root / "a/0000.png").write_bytes(b"broken")
    one = sources.source(root)
    asked = iter(range(1000))
    picture = lambda i: press() if next(asked) == 80 else one.picture(i)  # noqa: E731
    half = quick(dataclasses.replace(one, picture=picture))
    assert half.stopped and list(half.reading.broken) == [0] and len(half.suspects) == 1
    assert "of 60 images were read" in half.save(tmp_path / "out").read_text()
    monkeypatch.setattr("nclib.audit.page.save", lambda *_: press())
    assert main(["audit", str(root), "--epochs", "2", "--quiet"]) == 2


def test_one_bar_says_how_long_the_rest_may_take(monkeypatch, capsys):
    bars, left = [], []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name in ("PATIENCE", "OFTEN"):
        monkeypatch.setattr(progress, name, -1)

    class Bar(progress.tqdm):
        def __init__(self, *given, **options):
            bars.append(self)
            super().__init__(*given, **options)

        def refresh(self, *given, **options):
            left.append((self.n, self.postfix))
            super().refresh(*given, **options)

    monkeypatch.setattr(progress, "tqdm", Bar)
    audit.run(small(["a", "b", "c"], 12), epochs=2, build="mlp", controls=1)
    assert len(bars) == 1 and "training:" not in capsys.readouterr().err
    done, told = zip(*left, strict=True)
    assert list(done) == sorted(done) and 90 <= done[-1] <= 100
    assert "at most about 1 min to go" in told


@pytest.mark.parametrize("seldom", [30, -1])
def test_a_log_gets_a_line_for_each_stage_and_seldom_more(seldom, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SELDOM", seldom)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    audit.run(small(["a", "b", "c"], 12), epochs=2, build="mlp")
    said = capsys.readouterr().err
    lines = said.splitlines()
    stages = list(dict.fromkeys(line.split()[1].strip(":") for line in lines))
    assert stages == ["files", "labels", "triggers", "geometry"] and "\r" not in said
    assert len(lines) == 4 if seldom > 0 else len(lines) > 40


def test_what_is_left_is_counted_in_images_and_their_pace():
    bar = progress.Progress({}, False)
    bar.todo = {"files": 90, "labels": 100, "triggers": 700}
    bar.tried(True, 2.0, 10)
    bar.tried(False, 1.0, 4)
    assert bar.left() == pytest.approx(90 * 0.2 + 800 * 0.25)
    with bar("labels"):
        bar.tick(50)
        assert bar.todo["labels"] == 50
    assert not bar.todo["labels"] and bar.seconds["labels"] >= 0
    assert bar.left() == pytest.approx(18 + 700 * bar.spent[False][0] / 54)


def test_a_fault_of_the_program_is_an_error_and_not_a_suspicion(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("nclib.audit.command.run", broken)
    assert main(["audit", "anything"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("the audit broke, which tells nothing")
    )
    monkeypatch.setitem(sys.modules, "nclib.audit.command", None)  # a package is missing
    monkeypatch.delattr("nclib.audit.command")
    assert main(["audit", "anything"]) == 2 and "audit: " in capsys.readouterr().err


def test_what_the_page_says_of_strange_groups_is_counted():
    """Groups of at most half a class, of poison in sets called clean, and honest ones anywhere."""
    folder = Path(__file__).parents[1] / "data" / "results"
    calls, counts = {}, {"poison": [], "honest": []}
    with (folder / "transplant.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            calls[row["dataset"], row["attack"], float(row["rate"]), row["seed"]] = row["call"]
    with (folder / "transplant_groups.csv").open(encoding="utf-8") as file:
        for group in csv.DictReader(file):
            if not group["keeps_control"] or float(group["part"]) > 0.5:
                continue
            key = group["dataset"], group["attack"], float(group["rate"]), group["seed"]
            kind = "poison" if float(group["purity"]) > 0.5 else "honest"
            if kind == "honest" or calls[key] == "clean":
                cut = STRANGE * float(group["keeps_control"])
                counts[kind].append(float(group["keeps"]) <= cut)
    saw, of, wrong, honest = (
        count(counts[kind]) for kind in ("poison", "honest") for count in (sum, len)
    )
    page = (folder.parents[1] / "nclib" / "audit" / "templates" / "body.html").read_text("utf-8")
    assert f"saw {saw} of {of} such groups and held {wrong} of {honest} honest ones" in page
