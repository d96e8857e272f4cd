"""CINIC-10 and Tiny ImageNet on small trees of the same shape: found, fetched, checked, read."""

import hashlib
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace

import pytest
import torch
from PIL import Image

from nclib import data
from nclib.data import archives

CLASSES = ("airplane", "automobile", "bird")
IDS = ("n01443537", "n01629819", "n02085620")
pytestmark = pytest.mark.filterwarnings("ignore:.* images for t")


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")


def picture(path, value, mode="RGB", size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), (value, 0, 0) if mode == "RGB" else value).save(path)


def cinic_tree(place, per_class=6):
    """Half of each class from CIFAR-10, half from ImageNet, named as in the original."""
    for part in ("train", "valid", "test"):
        for c, name in enumerate(CLASSES):
            for i in range(per_class):
                own = f"cifar10-{part}-{i}" if i % 2 else f"n0{c}00_{i}"
                picture(place / part / name / f"{own}.png", 60 * c + i)
    (place / "README.md").write_text("CINIC-10")
    return place


def tiny_tree(place, per_class=4, mode="RGB"):
    lines = []
    for c, wnid in enumerate(IDS):
        for i in range(per_class):
            picture(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 80 * c, mode)
        (place / "train" / wnid / f"{wnid}_boxes.txt").write_text("0\t0\t9\t9")
    for i in range(6):
        c = (i * 2) % 3  # the order of the files is not the order of the classes
        picture(place / "val" / "images" / f"val_{i}.JPEG", 80 * c, mode)
        lines.append(f"val_{i}.JPEG\t{IDS[c]}\t0\t32\t44\t62")
    (place / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    picture(place / "test" / "images" / "test_0.JPEG", 9)
    (place / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\n"
        "n01629819\tEuropean fire salamander, Salamandra salamandra\n"
    )
    return place


TREES = {"cinic10": cinic_tree, "tiny_imagenet": tiny_tree}
both = pytest.mark.parametrize("name", TREES)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Pack a small tree, let the table point to it: ``host(name) -> (root, archive file)``."""

    def pack(name):
        shelf, root = tmp_path / "shelf", tmp_path / "root"
        tree = TREES[name](shelf / "tree" / archives.ARCHIVES[name].folder)
        known = archives.ARCHIVES[name]
        file = shelf / known.file
        if file.suffix == ".zip":
            with zipfile.ZipFile(file, "w") as packed:
                for path in sorted(tree.rglob("*")):
                    packed.write(path, path.relative_to(tree.parent))
        else:
            with tarfile.open(file, "w:gz") as packed:
                for path in sorted(tree.iterdir()):
                    packed.add(path, path.name)
        content = file.read_bytes()
        md5 = hashlib.md5(content).hexdigest()
        away = (shelf / "gone").as_uri()
        small = replace(known, size=len(content), md5=md5, addresses=(away, file.as_uri()))
        monkeypatch.setitem(archives.ARCHIVES, name, small)
        return root, file

    return pack


# What is in the trees.


def test_cinic_is_read_as_it_lies(tmp_path):
    cinic_tree(tmp_path / "CINIC-10")
    train, test = data.load("cinic10", root=tmp_path)
    assert train.classes == CLASSES and train.name == "cinic10" and train.shape == (3, 8, 8)
    for part in (train, test):
        assert torch.bincount(part.labels).tolist() == [6, 6, 6]
        reds = (part.images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(reds // 60, part.labels) and part.images[:, 1:].max() == 0


def test_the_imagenet_part_of_cinic_has_no_cifar(tmp_path):
    cinic_tree(tmp_path / "CINIC-10")
    train, test = data.load("cinic10_imagenet", root=tmp_path)
    for part in (train, test):
        assert torch.bincount(part.labels).tolist() == [3, 3, 3]
        assert ((part.images[:, 0, 0, 0] * 255).round().long() % 60 % 2 == 0).all()


def test_tiny_imagenets_val_has_its_own_labels(tmp_path):
    tiny_tree(tmp_path / "tiny-imagenet-200")
    train, test = data.load("tiny_imagenet", root=tmp_path)
    assert train.classes == test.classes
    assert train.classes == ("goldfish", "European fire salamander", "n02085620")
    assert torch.bincount(train.labels).tolist() == [4, 4, 4]
    assert test.labels.tolist() == [0, 2, 1, 0, 2, 1]
    for part in (train, test):
        reds = part.images[:, 0].mean((1, 2)) * 255
        assert (reds - 80 * part.labels).abs().max() < 6  # JPEG


def test_a_val_that_somebody_sorted_is_read_too(tmp_path):
    place = tiny_tree(tmp_path / "tiny-imagenet-200")
    before = data.load("tiny_imagenet", root=tmp_path)[1]
    for line in (place / "val" / "val_annotations.txt").read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        target = place / "val" / wnid / "images" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place / "val" / "images" / file, target)
    after = data.load("tiny_imagenet", root=tmp_path)[1]
    assert sorted(after.labels.tolist()) == sorted(before.labels.tolist())
    assert ((after.images[:, 0].mean((1, 2)) * 255 - 80 * after.labels).abs() < 6).all()


def test_grey_images_become_rgb(tmp_path):
    tiny_tree(tmp_path / "tiny-imagenet-200", mode="L")
    assert data.load("tiny_imagenet", root=tmp_path)[0].shape == (3, 8, 8)


def test_a_subset_opens_no_more_files_than_it_needs(tmp_path):
    place = cinic_tree(tmp_path / "CINIC-10", per_class=20)
    options = {"n_train": 9, "n_test": 6, "size": 5, "root": tmp_path}
    train, test = data.load("cinic10", **options)
    assert torch.bincount(train.labels).tolist() == [3, 3, 3] and train.shape == (3, 5, 5)
    assert len(test) == 6 and torch.equal(data.load("cinic10", **options)[0].images, train.images)
    assert not torch.equal(data.load("cinic10", seed=1, **options)[0].images, train.images)
    used = {round(float(x) * 255) for x in train.images[:, 0, 0, 0]}
    for c, name in enumerate(CLASSES):  # break every file that the subset does not hold
        for file in (place / "train" / name).iterdir():
            if 60 * c + int(file.stem.replace("_", "-").split("-")[-1]) not in used:
                file.write_bytes(b"broken")
    assert torch.equal(data.load("cinic10", **options)[0].images, train.images)
    with pytest.raises(ValueError, match="^n_train for cinic10: got 2; 3"):
        data.load("cinic10", n_train=2, root=tmp_path)


def test_a_tree_that_is_not_whole_is_told(tmp_path):
    cinic_tree(tmp_path / "CINIC-10")
    with pytest.warns(UserWarning, match="CINIC-10 has 18 of 90000 images for train"):
        data.load("cinic10", root=tmp_path)


# Fetching.


@both
def test_an_archive_is_fetched_checked_unpacked_once(name, host, capsys):
    root, file = host(name)
    train, _ = data.load(name, root=root)
    folder = archives.ARCHIVES[name].folder
    assert os.listdir(root) == [folder] and train.num_classes == 3
    said = capsys.readouterr()
    assert f"{name}: downloading" in said.out and f"{name}: unpacking" in said.out
    assert "100%" in said.err
    file.unlink()
    assert torch.equal(data.load(name, root=root)[0].images, train.images)
    assert capsys.readouterr().out == ""


@both
def test_an_archive_laid_into_the_root_by_hand_is_used_and_kept(name, host, capsys):
    root, file = host(name)
    root.mkdir()
    shutil.move(file, root)
    assert data.load(name, root=root)[0].num_classes == 3
    assert sorted(os.listdir(root)) == sorted([file.name, archives.ARCHIVES[name].folder])
    assert "downloading" not in capsys.readouterr().out


def failed(name, root):
    """Load, which must fail with the manual step and leave no folder behind."""
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, root=root)
    known, message = archives.ARCHIVES[name], str(caught.value)
    assert message.startswith(f"{name}: not found in {root}, and it could not be brought there (")
    for part in (known.file, known.md5, str(known.size), known.addresses[0], "NCLIB_DATA"):
        assert part in message
    assert [p for p in os.listdir(root) if p != known.file] == []
    return message


@both
@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "web page"])
def test_a_wrong_download_leaves_nothing(name, host, harm):
    root, file = host(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "gone":
        file.unlink()
    else:
        cut = content[: len(content) // 2]
        file.write_bytes({"cut": cut, "changed": content, "web page": b"<html>"}[harm])
    message = failed(name, root)
    assert {"changed": "has the md5", "gone": "No such file"}.get(harm, "bytes; ") in message


def test_a_wrong_archive_laid_by_hand_is_named_and_left(host):
    root, file = host("tiny_imagenet")
    root.mkdir()
    (root / file.name).write_bytes(b"half")
    assert "tiny-imagenet-200.zip has 4 bytes; " in failed("tiny_imagenet", root)
    assert (root / file.name).read_bytes() == b"half"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_while_unpacking_leaves_nothing(host, monkeypatch, stop):
    root, _ = host("cinic10")

    def half(file, into):
        cinic_tree(into, per_class=1)
        raise stop

    monkeypatch.setattr(archives, "_unpack", half)
    with pytest.raises(stop):
        data.load("cinic10", root=root)
    assert os.listdir(root) == []


def test_a_read_only_root_is_never_written(tmp_path, host):
    root, _ = host("cinic10")
    root.mkdir(mode=0o555)
    assert "read-only" in failed("cinic10", root)


def test_the_published_facts():
    assert archives.CINIC.size == 687_544_992 and archives.TINY.size == 248_100_043
    for known in (archives.CINIC, archives.TINY):
        assert len(known.md5) == 32 and len(known.addresses) >= 2
        assert all(a.startswith("http") for a in known.addresses)


# Broken trees.


@pytest.mark.parametrize(
    ("name", "harm", "complaint"),
    [
        ("cinic10", lambda p: shutil.rmtree(p / "test"), "No such file"),
        ("cinic10", lambda p: shutil.rmtree(p / "test" / "bird"), "different classes"),
        ("cinic10", lambda p: [f.unlink() for f in (p / "test" / "bird").iterdir()], "no image"),
        ("cinic10", lambda p: shutil.rmtree(p / "train"), "No such file"),
        ("tiny_imagenet", lambda p: (p / "val" / "val_annotations.txt").unlink(), "No such file"),
        ("tiny_imagenet", lambda p: (p / "val" / "val_annotations.txt").write_text(""), "no image"),
        ("tiny_imagenet", lambda p: (p / "val" / "val_annotations.txt").write_text("x"), "unpack"),
        ("tiny_imagenet", lambda p: (p / "val" / "images" / "val_3.JPEG").unlink(), "val_3.JPEG"),
        ("tiny_imagenet", lambda p: shutil.rmtree(p / "train" / IDS[0]), f"class {IDS[0]}"),
    ],
)
def test_a_broken_tree_says_what_to_delete(tmp_path, name, harm, complaint):
    place = TREES[name](tmp_path / archives.ARCHIVES[name].folder)
    harm(place)
    with pytest.raises(ValueError) as caught:
        data.load(name, root=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: the files in {place} cannot be read (")
    assert f"Delete {place} and load {name!r} again" in message and complaint in message


def test_a_broken_image_is_named(tmp_path):
    place = cinic_tree(tmp_path / "CINIC-10")
    bad = next((place / "train" / "bird").iterdir())
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"^cinic10: {bad} cannot be read as an image"):
        data.load("cinic10", root=tmp_path)
