"""Folders as people have them: parts by other names, photographs of every kind, links, accents."""

from __future__ import annotations

import os
import unicodedata
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from nclib import data
from nclib.data import folders, pictures


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fill(root, classes="ab", count=3, shade=100):
    for c in classes:
        (root / c).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8), shade + i).save(root / c / f"{i}.png")
    return root


def load(root, **options):
    return data.load(f"folder:{root}", **options)


PARTS = [
    ("Train", "Test"),
    ("training", "testing"),
    ("TRAIN", "test"),
    ("train", "val"),
    ("Training", "Validation"),
    ("train_set", "valid"),
    ("train_images", "test images"),
    ("trainset", "testset"),
]


@pytest.mark.parametrize("names", PARTS)
def test_parts_by_other_names(tmp_path, names):
    for name, shade in zip(names, (50, 150), strict=True):
        fill(tmp_path / name, shade=shade)
    train, test = load(tmp_path)
    assert train.classes == test.classes == ("a", "b")
    assert train.images.max() < 0.5 < test.images.min()


@pytest.mark.parametrize("third", ["val", "Valid", "VALIDATION"])
def test_a_third_part_is_left_aside_with_a_word(tmp_path, third):
    for name in ("Train", "Test", third):
        fill(tmp_path / name)
    with pytest.warns(UserWarning, match=f"left out of .*: {third}/ beside Train/ and Test/"):
        train, test = load(tmp_path)
    assert (len(train), len(test)) == (6, 6)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Train"], "it needs both, or neither. Train is taken for a part"),
        (["testing", "val"], "it needs both, or neither. testing, val is taken"),
        (["train", "bus", "car"], "train is taken for a part of the set; a class needs another"),
        (["Train", "training", "test"], "has Train/ and training/, both for train"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, names, said):
    for name in names:
        fill(tmp_path / name)
    with pytest.raises(ValueError, match=said):
        load(tmp_path)


def test_parts_inside_the_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, ["Train", "Test"])
    with pytest.raises(ValueError, match=r"cat holds (Train|Test)/; .* above the classes"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["trains", "contest", "valley", "tester", "rain", "test tube"])
def test_a_class_that_sounds_like_a_part_is_none(tmp_path, name):
    fill(tmp_path, [name, "other"])
    assert sorted([name, "other"]) == list(load(tmp_path)[0].classes)


# Ink on a transparent ground


def ink(colour, mode):
    """A vertical stroke of ``colour`` on a transparent ground, saved in ``mode``."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((*colour, 255), (3, 1, 5, 7))
    if mode == "P":
        picture = picture.quantize()
    return picture if mode in ("RGBA", "P") else picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (250, 250, 250), (200, 30, 30)])
def test_ink_on_a_transparent_ground_is_seen(tmp_path, mode, colour):
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(3):
            ink(colour, mode).save(tmp_path / c / f"{i}.png")
    train, test = load(tmp_path)
    ground = 0 if min(colour) > 240 else 1
    for part in (train, test):
        assert part.shape[0] == (1 if mode == "LA" else 3)
        assert (part.images[..., 0] == ground).all()
        assert (part.images[:, :, 3, 3] - part.images[:, :, 3, 0]).abs().amax(1).min() > 0.5


def test_half_transparent_ink_is_mixed_with_white(tmp_path):
    fill(tmp_path)
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "a" / "9.png")
    (red,) = [x for part in load(tmp_path) for x in part.images if x[0, 0, 0] == 1]
    assert torch.allclose(red[:, 0, 0], torch.tensor([1.0, 0.5, 0.5]), atol=0.01)


def test_a_grey_png_with_a_transparent_value(tmp_path):
    fill(tmp_path)
    stroke = np.zeros((8, 8), np.uint8)
    stroke[2:6, 3] = 90
    Image.fromarray(stroke).save(tmp_path / "a" / "9.png", transparency=0)
    found = [x for part in load(tmp_path) for x in part.images if x[0, 0, 0] == 1]
    assert len(found) == 1 and abs(float(found[0][0, 3, 3]) - 90 / 255) < 0.01


# Photographs as cameras, scanners and browsers save them


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(load_sample_image("china.jpg")).resize((64, 48))


def save_turned(photo, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: shown turned by 90 degrees to the right
    photo.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=95)


def save_cmyk(photo, path):
    photo.convert("CMYK").save(path.with_suffix(".jpg"), quality=95)


def save_16_bit(photo, path):
    values = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(path.with_suffix(".png"))


def save_palette(photo, path):
    photo.quantize(256).save(path.with_suffix(".png"))


def save_animated(photo, path):
    others = [Image.new("RGB", photo.size, c) for c in ("red", "blue")]
    photo.save(path.with_suffix(".gif"), save_all=True, append_images=others)


def save_jfif(photo, path):
    photo.save(path.with_suffix(".jfif"), format="JPEG", quality=95)


def save_jfif_capitals(photo, path):
    photo.save(path.with_suffix(".JFIF"), format="JPEG", quality=95)


def save_tiff_pages(photo, path):
    photo.save(path.with_suffix(".tif"), save_all=True, append_images=[photo.convert("L")])


KINDS = [save_turned, save_cmyk, save_16_bit, save_palette, save_animated, save_jfif]
KINDS += [save_jfif_capitals, save_tiff_pages]
SEVERAL = (save_animated, save_tiff_pages)


@pytest.mark.parametrize("save", KINDS)
def test_a_photograph_of_every_kind_comes_as_it_is_seen(tmp_path, photo, save):
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(2):
            save(photo, tmp_path / c / f"{i}.x")
    if save in SEVERAL:
        with pytest.warns(UserWarning, match=r"4 file\(s\) hold several pictures, 0\.(gif|tif)"):
            train, test = load(tmp_path)
    else:
        train, test = load(tmp_path)
    grey = save is save_16_bit
    wanted = np.asarray(photo.convert("L") if grey else photo, np.float32) / 255
    wanted = torch.from_numpy(wanted.reshape(48, 64, -1)).permute(2, 0, 1)
    for part in (train, test):
        assert part.shape == wanted.shape
        assert (part.images - wanted).abs().mean() < 0.06, save.__name__
        assert (
            torch.corrcoef(torch.stack([part.images[0].flatten(), wanted.flatten()]))[0, 1] > 0.97
        )


def test_a_mixed_tree_of_photographs(tmp_path, photo):
    """One tree with all of them: nothing is lost, everything is in colour and upright."""
    for c in "ab":
        (tmp_path / c).mkdir()
        for save in KINDS:
            save(photo, tmp_path / c / f"{save.__name__}.x")
    with pytest.warns(UserWarning, match="hold several"):
        train, test = load(tmp_path)
    assert len(train) + len(test) == 2 * len(KINDS) and train.shape == test.shape == (3, 48, 64)


def test_16_bits_keep_their_orientation(tmp_path):
    path = tmp_path / "x.png"
    values = np.full((5, 6), 60_000, np.uint16)
    values[0, 0] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(path, exif=exif)
    (image,) = pictures.read([path], None, "folder")
    assert image.shape == (1, 6, 5) and image[0, 0, 4] == 0 and image.max() == 60_000 // 256 / 255


# What does not come along


def test_other_files_are_counted_by_kind(tmp_path):
    fill(tmp_path)
    for name in ("a/1.heic", "a/2.HEIC", "b/3.avif", "b/readme"):
        (tmp_path / name).touch()
    Image.new("L", (8, 8)).save(tmp_path / "loose.png")
    with pytest.warns(UserWarning) as said:
        train, test = load(tmp_path)
    words = [str(w.message) for w in said]
    assert any("4 that are no image" in w and "2 .heic, 1 .avif, 1 readme" in w for w in words)
    assert any("1 image(s) outside the class folders, as loose.png" in w for w in words)
    assert len(train) + len(test) == 6


def test_linked_folders_count_and_a_loop_is_named(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", ["more", "c"])
    root = fill(tmp_path / "root")
    os.symlink(elsewhere / "c", root / "c")
    os.symlink(elsewhere / "more", root / "a" / "more")
    train, test = load(root)
    assert train.classes == ("a", "b", "c")
    assert torch.bincount(torch.cat([train.labels, test.labels])).tolist() == [6, 3, 3]
    os.symlink(root / "a", root / "a" / "back")
    with pytest.warns(UserWarning, match=r"1 that are no image .*\(1 back\), as a/back"):
        train, test = load(root)
    assert len(train) + len(test) == 12
    os.unlink(root / "a" / "back")
    os.symlink(tmp_path / "gone", root / "b" / "gone")
    with pytest.warns(UserWarning, match=r"1 that are no image .*\(1 gone\)"):
        load(root)


# Names


def test_accents_in_one_sign_or_two_are_the_same_class(tmp_path):
    one, two = (unicodedata.normalize(form, "Zaunkönig") for form in ("NFC", "NFD"))
    fill(tmp_path / "train", [one, "b"])
    fill(tmp_path / "test", [two, "b"])
    train, test = load(tmp_path)
    assert train.classes == test.classes == ("Zaunkönig", "b") == (one, "b")
    both = fill(tmp_path / "both", [one, two, "b"])
    assert torch.bincount(torch.cat([p.labels for p in load(both)])).tolist() == [6, 3]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_path_with_accents_is_found(tmp_path, forms):
    there, asked = (unicodedata.normalize(form, "Vögel") for form in forms)
    fill(tmp_path / there)
    assert len(load(tmp_path / asked)[0]) == 5


def test_an_error_names_what_the_user_gave(tmp_path):
    fill(tmp_path, count=1)
    with pytest.raises(ValueError, match=r"^folder: .* has 2 image\(s\) of 2 classes, too few"):
        load(tmp_path)
    fill(tmp_path / "more", count=5)
    for argument in ("n_train", "n_test"):
        with pytest.raises(ValueError, match=rf"^{argument} for folder:more: got 1; 2 \(classes"):
            load(tmp_path / "more", **{argument: 1})
        with pytest.raises(ValueError, match=rf"^{argument}: got 0"):
            load(tmp_path / "more", **{argument: 0})


def test_three_images_are_enough_to_split(tmp_path):
    fill(tmp_path, "a", count=1)
    fill(tmp_path, "b", count=2)
    train, test = load(tmp_path)
    assert (len(train), len(test)) == (2, 1) and train.labels.unique().numel() == 2


def test_the_names_of_parts():
    assert [folders.part_of(n) for n in ("Train", "testing", "VAL", "val_images", "cat")] == [
        *("train", "test", "val", "val", None)
    ]
