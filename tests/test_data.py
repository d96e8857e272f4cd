"""The data room: what arrives is what the contract says, and a broken source says what to do."""

import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from nclib import data, places
from nclib.data import ImageSet, archives, folders, pictures

REAL = os.environ.get("NCLIB_DATA", "")
CIFAR_SAMPLE = Path(REAL, "cifar10-sample.tar.gz")
needs_mnist = pytest.mark.skipif(
    not REAL or not Path(REAL, "MNIST", "raw").is_dir(),
    reason="NCLIB_DATA names no data root that has MNIST/raw",
)
needs_cifar = pytest.mark.skipif(
    not REAL or not CIFAR_SAMPLE.exists(),
    reason="NCLIB_DATA names no data root that has cifar10-sample.tar.gz",
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only loopback can be reached, and never by accident: an open socket elsewhere fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "127.0.0.1":
            raise OSError("network is unreachable")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", loopback_only(socket.getaddrinfo))
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)


def loopback_only(getaddrinfo):
    def look_up(host, *args, **options):
        if host != "127.0.0.1":
            raise socket.gaierror(-2, "name or service not known")
        return getaddrinfo(host, *args, **options)

    return look_up


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")


def listing(root):
    """Every path below ``root``, with its size and time of change."""
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*"))


# The synthetic sources: IDX files, CIFAR pickles, image trees.


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    array = np.asarray(array, dtype=np.uint8)
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def idx_files(n_train=40, n_test=20):
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    return files


def idx_tree(root, folder="MNIST", **changed):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in (idx_files() | changed).items():
        (raw / name).write_bytes(content)
    return raw


def cifar_tree(root, monkeypatch):
    """A tiny CIFAR-10 in torchvision's layout, with a maker that knows its checksums."""
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        (place / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((place / name).read_bytes()).hexdigest()]

    def batch(name):
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [i % 10 for i in range(20)]})

    names = ["aeroplane", *"bcdefghij"]
    meta = write("batches.meta", {"label_names": names})
    lists = {
        "train_list": [batch("data_batch_1"), batch("data_batch_2")],
        "test_list": [batch("test_batch")],
        "meta": {"filename": meta[0], "key": "label_names", "md5": meta[1]},
    }
    maker = type("CIFAR10", (datasets.CIFAR10,), lists)
    monkeypatch.setattr(datasets, "CIFAR10", maker)
    return place


def picture(path, size=(6, 5), mode="L", value=100):
    """Write one image file of ``size`` = (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode in ("L", "1") else (value, 0, 0)
    Image.new(mode, size, colour).save(path)


def image_tree(root, counts=(("cat", 10), ("dog", 20)), **options):
    for name, count in counts:
        for i in range(count):
            picture(root / name / f"{i:03}.png", value=5 * i % 256, **options)
    return root


# Digits: the contract.


def test_digits_meet_the_contract():
    train, test = data.load("digits")
    assert (len(train), len(test)) == (1300, 497)
    for part in (train, test):
        assert part.images.dtype == torch.float32 and part.labels.dtype == torch.int64
        assert part.shape == (1, 8, 8) and part.images.is_contiguous()
        assert part.images.min() == 0 and part.images.max() == 1
        assert part.classes == tuple("0123456789") and part.num_classes == 10
        shares = torch.bincount(part.labels) / len(part)
        assert (shares - 0.1).abs().max() < 0.01
        assert part.name == "digits" and part.device.type == "cpu"


def test_digits_train_and_test_are_all_of_scikit_learns_and_share_no_image():
    from sklearn.datasets import load_digits

    parts = data.load("digits")
    rows = torch.cat(
        [torch.cat([p.labels[:, None] * 100.0, p.images.flatten(1)], 1) for p in parts]
    )
    raw = load_digits()
    expected = np.column_stack([raw.target * 100.0, raw.data / 16])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.tolist()))


def test_digits_need_no_root_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_DATA", str(tmp_path / "nowhere"))
    assert len(data.load("digits")[0]) == 1300
    assert not (tmp_path / "nowhere").exists()


def test_loading_twice_gives_equal_sets_that_share_no_memory():
    first, second = data.load("digits", n_train=50)[0], data.load("digits", n_train=50)[0]
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    first.images.zero_()
    assert second.images.sum() > 0


def test_repr_tells_what_it_is():
    assert repr(data.load("digits", n_test=20)[1]) == (
        "ImageSet(digits: 20 images of (1, 8, 8), 10 classes, on cpu)"
    )


# Arguments.


@pytest.mark.parametrize("wrong", ["MNIST", "digit", "", "folder:", "folder", None, 3])
def test_an_unknown_name_lists_the_allowed_ones(wrong):
    allowed = "signs, digits, mnist, fashion_mnist, cifar10, gtsrb, cinic10, cinic10_imagenet, "
    allowed += "tiny_imagenet, folder:PATH"
    with pytest.raises(ValueError, match=f"^name: got .*; allowed are {allowed}$"):
        data.load(wrong)


@pytest.mark.parametrize("argument", ["n_train", "n_test", "size"])
@pytest.mark.parametrize("wrong", [0, -3, 2.5, "8"])
def test_a_count_that_is_none_is_named(argument, wrong):
    with pytest.raises(ValueError, match=f"^{argument}: got {wrong!r}; a whole number from 1"):
        data.load("digits", **{argument: wrong})


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [("n_train", 9, "10 .* to 1300"), ("n_train", 1301, "1300"), ("n_test", 498, "10 .* to 497")],
)
def test_a_count_out_of_bounds_is_named_with_the_bounds(argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"^{argument} for digits: got {wrong}; .*{bounds}"):
        data.load("digits", **{argument: wrong})


@pytest.mark.parametrize("n", [10, 11, 57, 500, 1290, 1295, 1299, 1300])
def test_every_count_within_the_bounds_gives_that_many_and_all_classes(n):
    train, _ = data.load("digits", n_train=n)
    assert len(train) == n and train.labels.unique().numel() == 10


def test_numpy_counts_are_counts():
    assert [len(part) for part in data.load("digits", n_train=np.int64(30), n_test=20)] == [30, 20]


def test_the_seed_chooses_the_subset_and_only_the_subset():
    pick = partial(data.load, "digits", n_train=100)
    same, again, other = pick(seed=3)[0], pick(seed=3)[0], pick(seed=4)[0]
    assert torch.equal(same.images, again.images) and not torch.equal(same.images, other.images)
    assert torch.equal(pick(seed=3)[1].images, pick(seed=4)[1].images)


@pytest.mark.parametrize("size", [4, 12, 28])
def test_size_resizes_within_0_and_1(size):
    train, test = data.load("digits", size=size, n_train=20)
    assert train.shape == test.shape == (1, size, size)
    assert train.images.min() >= 0 and train.images.max() <= 1
    plain = data.load("digits", n_train=20)[0]
    assert (train.images.mean((1, 2, 3)) - plain.images.mean((1, 2, 3))).abs().max() < 0.08


def test_a_wrong_device_is_named_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="got 'CPU'; this machine has"):
        data.load("mnist", root=tmp_path, device="CPU")
    assert not listing(tmp_path)


# Stratified subsets.


@pytest.mark.parametrize("counts", [(50, 50), (90, 10), (70, 20, 10)])
def test_a_stratified_subset_keeps_the_proportions(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    index = data.stratified(labels, 40, seed=1)
    assert torch.equal(index, index.unique()) and index.dtype == torch.int64
    wanted = 0.4 * torch.tensor(counts)
    assert (torch.bincount(labels[index]) - wanted).abs().max() <= 1


@pytest.mark.parametrize("n", [3, 4, 10, 60, 101, 102])
def test_no_class_is_lost_even_one_of_a_single_image(n):
    labels = torch.tensor([0] * 81 + [1] * 20 + [2])
    for seed in range(5):
        index = data.stratified(labels, n, seed)
        counts = torch.bincount(labels[index], minlength=3)
        assert len(index) == n and (counts >= 1).all()
        expected = n * torch.tensor([81, 20, 1]) / 102
        assert (counts - expected.clamp_min(1)).abs().max() <= 2


def test_absent_classes_do_not_matter():
    labels = torch.tensor([2, 7] * 10)
    assert torch.bincount(labels[data.stratified(labels, 6)])[[2, 7]].tolist() == [3, 3]


# ImageSet.


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"images": torch.rand(4, 8, 8)}, "images: got torch.float32"),
        ({"images": torch.rand(4, 1, 8, 8).double()}, "images: got torch.float64"),
        ({"images": np.zeros((4, 1, 8, 8))}, "images: got <class 'numpy.ndarray'>"),
        ({"images": torch.rand(4, 1, 8, 8) * 255}, r"images: values run .*\[0, 1\]"),
        ({"images": torch.full((4, 1, 8, 8), torch.nan)}, "images: values run from nan"),
        ({"images": torch.rand(0, 1, 8, 8)}, "images: got no image"),
        ({"images": torch.rand(5, 1, 8, 8)}, r"labels: got torch.int64 \(4,\).*\[5\]"),
        ({"labels": torch.zeros(4)}, "labels: got torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 1])}, "labels: values run from 0 to 2; 0..1"),
        ({"labels": torch.tensor([0, 1, -1, 1])}, "labels: values run from -1"),
    ],
)
def test_an_image_set_refuses_what_breaks_the_contract(change, complaint):
    good = {"images": torch.rand(4, 1, 8, 8), "labels": torch.tensor([0, 1, 0, 1])}
    ImageSet(**good, classes=("a", "b"))
    with pytest.raises(ValueError, match=f"^{complaint}"):
        ImageSet(**(good | change), classes=("a", "b"))


def test_labels_elsewhere_than_the_images_and_labels_by_another_name_are_refused():
    images = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="labels: on meta, the images on cpu"):
        ImageSet(images, torch.zeros(2, dtype=torch.int64, device="meta"), ("a", "b"))
    with pytest.raises(ValueError, match="^clean_labels: got torch.float32"):
        data.check_labels(torch.zeros(2), 2, 2, "clean_labels")
    with pytest.raises(ValueError, match="^clean_labels: values run from 0 to 5"):
        data.check_labels(torch.tensor([0, 5]), 2, 2, "clean_labels")


def test_subset_takes_positions_or_a_mask_and_leaves_the_set_alone():
    whole = data.load("digits", n_test=30)[1]
    mask = whole.labels < 3
    assert torch.equal(whole.subset(mask).images, whole.subset(mask.nonzero()[:, 0]).images)
    assert whole.subset([2, 0]).labels.tolist() == whole.labels[[2, 0]].tolist()
    assert len(whole) == 30
    with pytest.raises(ValueError, match="^index: a mask of shape"):
        whole.subset(mask[:5])
    with pytest.raises(ValueError, match="no image at all"):
        whole.subset(whole.labels > 20)


# Where data are looked for.


def test_the_order_of_data_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_DATA", "~/elsewhere")
    assert data.data_root(tmp_path) == tmp_path
    assert data.data_root() == Path.home() / "elsewhere"
    monkeypatch.setenv("NCLIB_DATA", "")
    checkout = tmp_path / "checkout"
    monkeypatch.setattr(places, "__file__", str(checkout / "nclib" / "places.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data.data_root() == tmp_path / "cache" / "nclib" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.data_root() == Path.home() / ".cache" / "nclib" / "data"
    checkout.mkdir()
    (checkout / "pyproject.toml").write_text(f'[project]\nname = "{places.PROJECT}"')
    assert data.data_root() == checkout / "data"
    assert not (checkout / "data").exists()  # asking creates nothing


# torchvision's sets.


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_idx_files_are_read_as_they_lie(tmp_path, name, folder):
    idx_tree(tmp_path, folder)
    before = listing(tmp_path)
    train, test = data.load(name, root=tmp_path)
    assert (len(train), len(test)) == (40, 20) and train.shape == (1, 28, 28)
    assert train.labels.tolist() == [i % 10 for i in range(40)]
    expected = np.frombuffer(idx_files()["train-images-idx3-ubyte"][16:], np.uint8) / 255
    assert np.allclose(train.images.flatten().numpy(), expected)
    assert train.classes[3] == {"mnist": "3", "fashion_mnist": "Dress"}[name]
    assert listing(tmp_path) == before


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    idx_tree(tmp_path)
    monkeypatch.setenv("NCLIB_DATA", str(tmp_path))
    assert len(data.load("mnist", n_train=20)[0]) == 20


FILES = idx_files()
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (IMAGES, FILES[IMAGES][:-1000]),
        (IMAGES, FILES[IMAGES][:10]),
        (IMAGES, b""),
        (IMAGES, b"<html>404 not found</html>" * 99),
        (LABELS, FILES[LABELS][:-7]),
        (LABELS, idx(np.arange(33) % 10)),
        (LABELS, idx(np.full(40, 77))),
        (LABELS, FILES[IMAGES]),
        ("t10k-images-idx3-ubyte", FILES["t10k-images-idx3-ubyte"][:999]),
    ],
    ids=[
        "cut",
        "header cut",
        "empty",
        "web page",
        "labels cut",
        "fewer",
        "range",
        "swapped",
        "test",
    ],
)
def test_a_broken_idx_file_says_what_to_delete(tmp_path, file, content):
    idx_tree(tmp_path, **{file: content})
    with pytest.raises(ValueError) as caught:
        data.load("mnist", root=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"mnist: the files in {tmp_path / 'MNIST'} cannot be read (")
    assert (
        f"Delete {tmp_path / 'MNIST'} and load 'mnist' again" in message
        and "read ()" not in message
    )


def test_a_missing_idx_file_says_what_to_delete(tmp_path):
    (idx_tree(tmp_path) / LABELS).unlink()
    with pytest.raises(ValueError, match="^mnist: the files in .* cannot be read .*Delete"):
        data.load("mnist", root=tmp_path)


def test_cifar_pickles_are_read(tmp_path, monkeypatch):
    cifar_tree(tmp_path, monkeypatch)
    train, test = data.load("cifar10", root=tmp_path)
    assert (len(train), len(test)) == (40, 20) and train.shape == (3, 32, 32)
    assert train.classes[0] == "aeroplane" and train.images.is_contiguous()
    first = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_1").read_bytes())["data"][
        0
    ]
    assert np.allclose(train.images[0].flatten().numpy(), first / 255)


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "missing"])
def test_a_broken_cifar_file_says_what_to_delete(tmp_path, monkeypatch, file, harm):
    victim = cifar_tree(tmp_path, monkeypatch) / file
    content = bytearray(victim.read_bytes())
    content[40] ^= 1
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:30] if harm == "cut" else content)
    with pytest.raises(ValueError, match=r"^cifar10: the files in .* cannot be read \(.*Delete"):
        data.load("cifar10", root=tmp_path)


# Downloads.


class Server(http.server.BaseHTTPRequestHandler):
    """Serve ``files``; ``stall`` sends half of one and then waits, ``cut`` sends half and stops."""

    files: dict[str, bytes] = {}
    fault = ""
    release = threading.Event()

    def do_GET(self):
        content = self.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half] if self.fault else content)
        if self.fault == "stall":
            self.release.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A loopback host for MNIST, with archives whose checksums the maker knows."""
    archives = {f"{name}.gz": gzip.compress(raw) for name, raw in idx_files().items()}
    options = {"files": archives, "fault": "", "release": threading.Event()}
    handler = type("Handler", (Server,), options)
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    mirrors = [f"http://127.0.0.1:{host.server_port}/{part}/" for part in "ab"]
    maker = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors, "resources": resources})
    monkeypatch.setattr(datasets, "MNIST", maker)
    yield handler
    handler.release.set()
    host.shutdown()
    host.server_close()


def test_a_download_lands_whole_shows_progress_and_happens_once(tmp_path, server, capsys):
    root = tmp_path / "not" / "yet"
    train, test = data.load("mnist", root=root)
    assert (len(train), len(test)) == (40, 20)
    said = capsys.readouterr()
    assert said.out == f"mnist: downloading into {root}, this once\n" and "100%" in said.err
    assert os.listdir(root) == ["MNIST"]
    assert stat.S_IMODE((root / "MNIST").stat().st_mode) & 0o500 == 0o500
    before = listing(root)
    server.files.clear()  # a second load must not ask again
    assert len(data.load("mnist", root=root)[0]) == 40
    assert listing(root) == before and capsys.readouterr().out == ""


def test_a_second_mirror_is_tried(tmp_path, server):
    datasets.MNIST.mirrors[0] = "http://127.0.0.1:9/"  # the discard port: refused
    assert len(data.load("mnist", root=tmp_path)[0]) == 40


def failed(name, root):
    """Load, which must fail with advice and leave ``root`` empty and the time-out as it was."""
    patience = socket.getdefaulttimeout()
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, root=root)
    assert not listing(root) and socket.getdefaulttimeout() == patience
    message = " ".join(str(caught.value).split())
    assert message.startswith(f"{name}: not found in {root}, and the download failed (")
    assert "Check the network" in message and "'digits' needs no download" in message
    return message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "gtsrb"])
def test_an_unreachable_host_gets_advice_and_leaves_nothing(tmp_path, name):
    failed(name, tmp_path)


def test_a_missing_file_on_the_host_leaves_nothing(tmp_path, server):
    del server.files["t10k-labels-idx1-ubyte.gz"]  # the other three arrive
    assert "404" in failed("mnist", tmp_path)


def test_a_file_with_a_wrong_checksum_leaves_nothing(tmp_path, server):
    server.files["t10k-images-idx3-ubyte.gz"] = gzip.compress(b"something else")
    assert "corrupted" in failed("mnist", tmp_path)


def test_a_connection_cut_half_way_leaves_nothing(tmp_path, server):
    server.fault = "cut"
    failed("mnist", tmp_path)


def test_a_host_that_falls_silent_is_given_up(tmp_path, server, monkeypatch):
    monkeypatch.setattr(archives, "SILENCE", 0.2)
    server.fault = "stall"
    assert "timed out" in failed("mnist", tmp_path)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_a_download_leaves_nothing(tmp_path, monkeypatch, stop):
    def maker(root, *, train, download):
        assert download, "a half download was taken for a whole one"
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)
        (Path(root) / "MNIST" / "raw" / IMAGES).write_bytes(FILES[IMAGES][:500])
        raise stop

    monkeypatch.setattr(datasets, "MNIST", maker)
    with pytest.raises(stop):
        data.load("mnist", root=tmp_path)
    assert not listing(tmp_path) and socket.getdefaulttimeout() is None


def test_a_set_that_another_process_brought_meanwhile_is_kept(tmp_path, server, monkeypatch):
    maker = datasets.MNIST

    def slow(root, *, train, download):
        if download:
            idx_tree(tmp_path, **{IMAGES: idx(np.zeros((40, 28, 28)))})
        return maker(root, train=train, download=download)

    monkeypatch.setattr(datasets, "MNIST", slow)
    assert data.load("mnist", root=tmp_path)[0].images.max() == 0
    assert os.listdir(tmp_path) == ["MNIST"]


def test_a_read_only_root_is_never_written_even_by_an_administrator(tmp_path, monkeypatch, server):
    monkeypatch.setenv("NCLIB_DATA", str(tmp_path))
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(FileNotFoundError, match="read-only.*NCLIB_DATA names another place"):
            data.load("mnist")
        assert not listing(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_root_that_is_a_file_gets_advice(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="^cifar10: not found in .*download failed"):
        data.load("cifar10", root=tmp_path / "file")


# GTSRB: photographs of many sizes in torchvision's tree.


def gtsrb_tree(root, classes=43):
    """Three training files and one test file for each class, every one of another size."""
    folder = root / "gtsrb"
    (folder / "GTSRB/Final_Test/Images").mkdir(parents=True)
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(classes):
        (folder / f"GTSRB/Training/{label:05}").mkdir(parents=True)
        files = [f"Training/{label:05}/0000{i}.ppm" for i in range(3)]
        files.append(f"Final_Test/Images/{label:05}.ppm")
        for i, file in enumerate(files):
            Image.new("RGB", (20 + label, 15 + i), (5 * label, 10 * i, 0)).save(
                folder / "GTSRB" / file
            )
        rows.append(f"{label:05}.ppm;{20 + label};18;1;1;9;9;{label}")
    (folder / "GT-final_test.csv").write_text("\n".join(rows))


def test_gtsrb_is_read_from_torchvisions_tree(tmp_path):
    gtsrb_tree(tmp_path)
    train, test = data.load("gtsrb", root=tmp_path)
    assert (len(train), len(test), train.num_classes) == (129, 43, 43)
    assert train.shape == test.shape == (3, 32, 32) and train.name == "gtsrb"
    assert [train.classes[c] for c in (1, 14, 17, 42)] == [
        "speed limit 30",
        "stop",
        "no entry",
        "end of no overtaking by lorries",
    ]
    for part in (train, test):
        assert torch.equal((part.images[:, 0].mean((1, 2)) * 51).round().long(), part.labels)
    few, _ = data.load("gtsrb", root=tmp_path, n_train=43, n_test=43, size=24)
    assert few.shape == (3, 24, 24) and torch.equal(few.labels.bincount(), torch.ones(43).long())


@pytest.mark.parametrize("harm", ["classes", "table", "test", "empty"])
def test_a_broken_gtsrb_tree_says_what_to_do(tmp_path, harm):
    gtsrb_tree(tmp_path, classes=42 if harm == "classes" else 43)
    if harm == "table":
        (tmp_path / "gtsrb/GT-final_test.csv").unlink()
    elif harm == "test":
        shutil.rmtree(tmp_path / "gtsrb/GTSRB/Final_Test")
    elif harm == "empty":
        shutil.rmtree(tmp_path / "gtsrb/GTSRB")
    with pytest.raises(ValueError, match="^gtsrb: the files in .*Delete .* load 'gtsrb' again"):
        data.load("gtsrb", root=tmp_path)


# Folders of one's own images.


def test_a_tree_without_parts_is_split_80_to_20_the_same_way_each_time(tmp_path):
    image_tree(tmp_path)
    train, test = data.load(f"folder:{tmp_path}")
    assert torch.bincount(train.labels).tolist() == [8, 16]
    assert torch.bincount(test.labels).tolist() == [2, 4]
    assert train.classes == ("cat", "dog") and train.shape == (1, 5, 6)
    values = [(int(y), round(float(x.mean()) * 255)) for d in (train, test) for x, y in pairs(d)]
    assert sorted(values) == [(0, 5 * i) for i in range(10)] + [(1, 5 * i) for i in range(20)]
    again, other = (data.load(f"folder:{tmp_path}", seed=seed)[0] for seed in (0, 1))
    assert torch.equal(train.images, again.images) and not torch.equal(train.images, other.images)


def pairs(images):
    return zip(images.images, images.labels, strict=True)


def test_a_tree_with_train_and_test_is_read_as_it_lies(tmp_path):
    image_tree(tmp_path / "train")
    image_tree(tmp_path / "test", (("cat", 3), ("dog", 2)))
    train, test = data.load(f"folder:{tmp_path}", n_train=6)
    assert torch.bincount(train.labels).tolist() == [2, 4]
    assert torch.bincount(test.labels).tolist() == [3, 2]


def test_a_bar_shows_for_many_images_only(tmp_path, capsys):
    image_tree(tmp_path, (("cat", 5), ("dog", 5)))
    data.load(f"folder:{tmp_path}")
    assert capsys.readouterr().err == ""
    image_tree(tmp_path, (("emu", 995),), size=(6, 5), mode="1")
    data.load(f"folder:{tmp_path}")
    assert "reading" in capsys.readouterr().err


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(image_tree(tmp_path / "home").parent / "home"))
    assert len(data.load("folder:~")[0]) == 24


def test_hidden_files_and_a_macs_leftovers_are_passed_over(tmp_path):
    image_tree(tmp_path)
    (tmp_path / "cat" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".DS_Store").touch()
    picture(tmp_path / "__MACOSX" / "cat" / "000.png")
    picture(tmp_path / "dog" / ".ipynb_checkpoints" / "000.png")
    picture(tmp_path / ".git" / "000.png")
    with pytest.warns(UserWarning, match=r"left out of .*: 1 that are no image .*\(1 .txt\)"):
        train, test = data.load(f"folder:{tmp_path}")
    assert train.classes == ("cat", "dog") and len(train) + len(test) == 30


def test_grey_stays_grey_and_one_colour_image_makes_all_rgb(tmp_path):
    image_tree(tmp_path)
    assert data.load(f"folder:{tmp_path}")[0].shape[0] == 1
    picture(tmp_path / "cat" / "colour.png", mode="RGB", value=255)
    train, test = data.load(f"folder:{tmp_path}")
    assert train.shape == test.shape == (3, 5, 6)
    whole = torch.cat([train.images, test.images])
    grey = (whole == whole[:, :1]).flatten(1).all(1)
    assert grey.sum() == 30 and torch.equal(whole[~grey][0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("modes", [("L", "RGB"), ("RGB", "L")])
def test_a_grey_part_beside_a_colour_part_becomes_rgb(tmp_path, modes):
    for part, mode in zip(("train", "test"), modes, strict=True):
        image_tree(tmp_path / part, mode=mode)
    assert [d.shape for d in data.load(f"folder:{tmp_path}")] == [(3, 5, 6)] * 2


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".bmp", ".webp", ".png"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1"])
def test_the_usual_formats_are_read(tmp_path, suffix, mode):
    image_tree(tmp_path, mode="RGB")
    extra = Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode)
    keeps = suffix.lower() in (".png", ".bmp")
    (extra if keeps else extra.convert("RGB")).save(tmp_path / "cat" / f"extra{suffix}")
    train, test = data.load(f"folder:{tmp_path}")
    brightest = torch.cat([train.images, test.images]).flatten(1).mean(1).max()
    assert len(train) + len(test) == 31 and brightest > 0.98


def test_a_photograph_stands_upright(tmp_path):
    image_tree(tmp_path, mode="RGB")
    sideways = Image.new("RGB", (5, 6))
    sideways.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    sideways.save(tmp_path / "cat" / "phone.png", exif=exif)
    train, test = data.load(f"folder:{tmp_path}")
    phone = max(torch.cat([train.images, test.images]), key=lambda x: x[1].max())
    assert phone[:, 0, 5].tolist() == [1, 1, 1]


def test_mixed_sizes_ask_for_size_and_size_mends_them(tmp_path):
    image_tree(tmp_path)
    picture(tmp_path / "dog" / "wide.png", size=(12, 5))
    with pytest.raises(ValueError, match=r"mixed sizes.*\(5, 6\), \(5, 12\).*pass size="):
        data.load(f"folder:{tmp_path}")
    assert data.load(f"folder:{tmp_path}", size=8)[0].shape == (1, 8, 8)


def test_parts_of_different_sizes_ask_for_size_and_size_mends_them(tmp_path):
    image_tree(tmp_path / "train")
    image_tree(tmp_path / "test", size=(7, 7))
    with pytest.raises(ValueError, match="pass size="):
        data.load(f"folder:{tmp_path}")
    assert {d.shape for d in data.load(f"folder:{tmp_path}", size=4)} == {(1, 4, 4)}


@pytest.mark.parametrize("harm", ["cut", "text", "empty", "12 bit", "32 bit", "png damaged"])
def test_a_broken_image_is_named(tmp_path, harm):
    image_tree(tmp_path)
    bad = tmp_path / "dog" / ("007.png" if "png" in harm else "bad.jpg")
    if harm == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[:400])
    elif "bit" in harm:  # 12 of 16 are all but black
        bad = bad.with_suffix(".png" if harm == "12 bit" else ".tif")
        kind = np.uint16 if harm == "12 bit" else np.float32
        Image.fromarray(np.full((5, 6), 3_000, kind)).save(bad)
    elif harm == "png damaged":
        content = bytearray(bad.read_bytes())
        content[len(content) // 2] ^= 0xFF
        bad.write_bytes(content)
    else:
        bad.write_text("" if harm == "empty" else "this is no picture")
    with pytest.raises(
        ValueError, match=f"^folder: {bad} cannot be read as an image .*mend or rem"
    ):
        data.load(f"folder:{tmp_path}")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^folder: {tmp_path / 'no'} does not exist; name"):
        data.load(f"folder:{tmp_path / 'no'}")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="^folder: "):
        data.load(f"folder:{tmp_path / 'file'}")


@pytest.mark.parametrize("counts", [(), (("cat", 5),)])
def test_one_class_or_none_is_refused(tmp_path, counts):
    image_tree(tmp_path, counts)
    with pytest.raises(ValueError, match=f"holds {len(counts)} class folder.*at least 2"):
        data.load(f"folder:{tmp_path}")


def test_an_empty_class_is_named_with_the_suffixes(tmp_path):
    image_tree(tmp_path)
    (tmp_path / "emu").mkdir()
    with pytest.raises(ValueError, match=r"emu holds no image \(.jpg, .*\.png"):
        data.load(f"folder:{tmp_path}")


def test_one_part_alone_is_refused(tmp_path):
    image_tree(tmp_path / "train")
    with pytest.raises(ValueError, match="has one of train/ and test/; it needs both"):
        data.load(f"folder:{tmp_path}")


def test_parts_with_different_classes_name_the_difference(tmp_path):
    image_tree(tmp_path / "train", (("cat", 2), ("dog", 2), ("emu", 2)))
    image_tree(tmp_path / "test", (("cat", 2), ("dog", 2), ("fox", 2)))
    with pytest.raises(ValueError, match=r"only in train/: \['emu'\], only in test/: \['fox'\]"):
        data.load(f"folder:{tmp_path}")


def test_a_class_of_one_image_stays_in_the_training_part(tmp_path):
    image_tree(tmp_path, (("cat", 1), ("dog", 9), ("emu", 10)))
    for seed in range(5):
        train, test = data.load(f"folder:{tmp_path}", seed=seed)
        assert (len(train), len(test)) == (16, 4) and train.labels.unique().numel() == 3


# The real files, where they lie.


@needs_mnist
def test_the_real_mnist_is_read_and_left_alone():
    before = listing(Path(REAL))
    train, test = data.load("mnist")
    assert (len(train), len(test)) == (60_000, 10_000) and train.shape == (1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert abs(train.images.mean() - 0.1307) < 1e-4 and abs(train.images.std() - 0.3081) < 1e-4
    assert train.classes == tuple("0123456789")
    assert listing(Path(REAL)) == before


@needs_mnist
def test_a_subset_of_the_real_mnist_keeps_the_proportions():
    train, test = data.load("mnist", n_train=5000, n_test=1000, size=14)
    assert (len(train), len(test)) == (5000, 1000) and train.shape == (1, 14, 14)
    assert abs(torch.bincount(train.labels)[1] - 5000 * 6742 / 60_000) <= 1


@pytest.fixture(scope="session")
def cifar_sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    with tarfile.open(CIFAR_SAMPLE) as archive:
        archive.extractall(root, filter="data")
    return root / "cifar10"


@needs_cifar
def test_the_cifar_sample_is_read_as_a_folder(cifar_sample):
    train, test = data.load(f"folder:{cifar_sample}")
    assert (len(train), len(test)) == (10_000, 2_000) and train.shape == (3, 32, 32)
    assert train.classes == tuple(
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    )
    assert torch.bincount(train.labels).tolist() == [1000] * 10
    known = torch.tensor([0.4914, 0.4822, 0.4465])  # the published channel means of CIFAR-10
    assert (train.images.mean((0, 2, 3)) - known).abs().max() < 0.01


# What is loaded, and what is taken for an image.


def test_the_digits_and_the_small_networks_do_not_load_torchvision():
    """Whoever asks for no such data and no ResNet need not wait for it."""
    code = "import sys, nclib.course, nclib.data, nclib.models, nclib.training"
    code += ", nclib.correction; nclib.data.load('digits'); print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", done.stdout


def test_the_suffixes_of_images_are_those_of_torchvisions_image_folder_and_two_more():
    assert set(pictures.SUFFIXES) == {*datasets.folder.IMG_EXTENSIONS, ".jfif", ".gif"}


def test_a_large_tree_is_read_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "MANY", 4)
    name = f"folder:{image_tree(tmp_path / 'tree')}"
    first, _ = data.load(name)
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    again, _ = data.load(name)
    assert not opened and torch.equal(again.images, first.images)
    data.load(name, size=4)
    assert len(opened) == 30  # another size is another reading
    opened.clear()
    picture(tmp_path / "tree" / "cat" / "000.png", value=77)
    changed = data.load(name)
    assert len(opened) == 30 and any((part.images == 77 / 255).any() for part in changed)
