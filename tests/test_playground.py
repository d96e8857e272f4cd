"""The playground: its weights are what the package computes, and its page is whole.

In a browser: tests/browser/test_playground_page.py. With node at hand the same checks run here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

import javascript  # noqa: E402
import pages  # noqa: E402

from experiments import playground  # noqa: E402
from nclib import attacks, poisons, training  # noqa: E402

FOLDER = playground.FILE.parent
PAGE = playground.load()
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def node():
    """``ask`` in node: what an expression gives, with the page's arithmetic and data."""
    if NODE is None:
        pytest.skip("no node here; the browser's tests ask the same")
    text = playground.FILE.read_text()
    start = f"const Net = require({json.dumps(str(FOLDER / 'network.js'))});\n{text}\n"

    def ask(expression: str) -> object:
        script = f"{start}console.log(JSON.stringify({expression}));"
        done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return ask


@pytest.fixture(scope="module", params=list(PAGE["sets"]))
def half(request):
    """Name, entry, attack and test images of one half of the page."""
    train, test = playground.sets(request.param)
    return request.param, PAGE["sets"][request.param], playground.poisoned(train), test


def test_the_file_is_small_and_says_how_it_was_made():
    assert playground.FILE.stat().st_size < playground.LIMIT
    assert PAGE["command"] == "make playground" and PAGE["seed"] == playground.SEED
    assert f"\n{PAGE['command'].removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
    with pytest.raises(ValueError, match="path: got"):
        playground.load(FOLDER / "page.js")


def test_the_images_are_test_images_and_the_sticker_is_that_of_the_training(half):
    name, entry, attack, test = half
    few = test.subset(playground.chosen(test))
    images = playground.unpacked(entry["images"], np.uint8).reshape(few.images.shape) / 255
    assert entry["labels"] == few.labels.tolist()
    assert (images - few.images).abs().max() <= (0.51 if name == "digits" else 1e-3) / 255
    assert entry["target"] == attack.target
    assert entry["poisons"] == int(attack.is_poisoned.sum()) < 0.06 * len(attack)


def test_the_networks_in_the_file_are_as_good_and_as_bad_as_it_says(half):
    name, entry, attack, test = half
    some = test.subset(torch.arange(min(500, len(test))))
    assert entry["eps"] == playground.EPS[name]
    found = {}
    for kind, half_entry in entry["networks"].items():
        model = playground.network(half_entry, test.num_classes)
        said = half_entry["measured"]
        stepped = attacks.fgsm(model, some.images, some.labels, entry["eps"])
        found[kind] = {
            "accuracy": training.accuracy(model, test),
            "sticker": poisons.metrics.success(model, attack, test),
            "fgsm": training.accuracy(model, some, stepped),
        }
        for what, share in found[kind].items():
            assert share == pytest.approx(said[what], abs=0.01), (kind, what)
        assert said["pgd"] <= said["fgsm"] < said["accuracy"] and 0 <= said["certified"] <= 1
    # one sticker, two networks: one turns and the other does not
    assert found["poisoned"]["sticker"] > 0.9 and found["clean"]["sticker"] < 0.1
    assert min(network["accuracy"] for network in found.values()) > 0.95
    assert entry["networks"]["noisy"]["measured"]["certified"] > 0.7


def test_deeper_layers_lie_nearer_to_their_corners(half):
    _, entry, _, test = half
    corners = playground.corners(test.num_classes)
    for kind, half_entry in entry["networks"].items():
        means = playground.unpacked(half_entry["means"], np.float32)
        means = means.reshape(-1, test.num_classes, 2)
        far = (means - corners).norm(dim=2).mean(1)
        assert far[0] > 2 * far[-1] and far[-1] < 0.2, (kind, far)


@pytest.mark.parametrize(("name", "kind"), javascript.CASES)
@pytest.mark.parametrize("what", ["forward", "backward", "attack"])
def test_javascript_computes_what_torch_computes(what, name, kind, node):
    getattr(javascript, what)(node, name, kind)


@pytest.mark.parametrize("name", list(PAGE["sets"]))
@pytest.mark.parametrize("what", ["squeeze", "sticker"])
def test_javascript_changes_pictures_as_the_package_does(what, name, node):
    getattr(javascript, what)(node, name)


@pytest.mark.parametrize("what", ["certificate", "digits"])
def test_javascript_certifies_and_takes_drawings(what, node):
    getattr(javascript, what)(node)


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    page = (FOLDER / "index.html").read_text()
    shutil.copytree(FOLDER, tmp_path / "docs" / "playground")
    (tmp_path / "index.html").write_text("<p>the site</p>")
    assert pages.complaints(tmp_path) == []
    script = (FOLDER / "page.js").read_text()
    ids = set(re.findall(r'\bid="([\w-]+)"', page))
    assert set(re.findall(r'byId\("([\w-]+)"\)', script)) <= ids
    assert set(re.findall(r'getElementById\("(\w+)"\)', script)) <= ids
    everything = "".join(path.read_text() for path in FOLDER.glob("*.js"))
    for word in ("http:", "https:", "fetch(", "import "):
        assert word not in everything, word


@pytest.mark.parametrize("number", ["01", "02", "06", "12"])
@pytest.mark.parametrize("folder", ["notebooks", "exercises"])
def test_lessons_lead_to_the_page(folder, number):
    (path,) = (ROOT / folder).glob(f"{number}_*.ipynb")
    asked = re.search(r"\.\./docs/playground/index\.html(?:#(\w+))?", path.read_text())
    assert asked and f'id="{asked[1] or "intro"}"' in (FOLDER / "index.html").read_text()


def test_the_front_page_leads_to_it():
    assert "docs/playground/index.html" in (ROOT / "docs" / "index.md").read_text()


def test_the_page_explains_itself_in_under_fifty_words():
    page = (FOLDER / "index.html").read_text()
    told = re.findall(r'<p id="(?:intro|legend)">(.*?)</p>', page, re.S)
    assert len(told) == 2 and len(" ".join(told).split()) < 50


def test_a_reduced_export_is_read_back_as_it_was_measured(tmp_path):
    """The way from a model with batch normalisation to the file loses an eighth bit, not more."""
    train, test = playground.sets("digits")
    model = playground.models.build("cnn", train, widths=(8, 8), strides=(1, 2), seed=1)
    training.fit(model, train, epochs=1, progress=False, cache=False)
    small = playground.exported(model, train)
    entry = json.loads(json.dumps(playground.written(small, train)))
    back = playground.network(entry, 10)
    x = test.images[:50]
    assert torch.allclose(back(x), small(x), atol=1e-4)
    assert torch.allclose(back.places(x), small.places(x), atol=1e-4)
    whole = training.predict(model, x)
    assert (small(x) - whole).abs().max() < 0.05 * whole.abs().max()
    with pytest.raises(ValueError, match="too many"):
        playground.network(entry | {"layers": [[1, 8, 1]]}, 10)
