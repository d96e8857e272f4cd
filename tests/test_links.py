"""One address: badges, bootstrap cells and citation agree with pyproject.toml."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import links  # noqa: E402

LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture
def small(tmp_path):
    """A repository of one lesson, one page and the real pyproject."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": links.badge("notebooks/00_a.ipynb")},
            {"cell_type": "code", "source": links.bootstrap("00").splitlines(keepends=True)},
        ]
    }
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00_a.ipynb").write_text(json.dumps(notebook, indent=1))
    repo, _ = links.address()
    (tmp_path / "README.md").write_text(
        f"{links.badge('exercises/00_a.ipynb')}\n`git clone https://github.com/{repo}`\n"
    )
    (tmp_path / "CITATION.cff").write_text(f'repository-code: "https://github.com/{repo}"\n')
    return tmp_path


def test_everything_here_agrees_with_pyproject():
    assert links.differing() == []


def test_every_badge_here_points_at_a_file_that_exists():
    repo, tag = links.address()
    here = re.escape(f"{links.COLAB}/github/{repo}/blob/{tag}/")
    for path in links.files():
        for target in re.findall(here + r'([^)\s"]+)', path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists() or "NN" in target, f"{path.name}: {target}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_its_own_badge_and_the_one_bootstrap(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert links.badge(f"notebooks/{path.name}") in "".join(cells[0]["source"])
    first_code = next(cell for cell in cells if cell["cell_type"] == "code")  # after the hook
    assert "".join(first_code["source"]).strip() == links.bootstrap(path.name[:2])


def test_a_copy_that_differs_in_one_place_is_found_and_mended(small):
    assert links.differing(small) == []
    _, tag = links.address(small)  # of a fork, too
    for name, wrong in [
        ("notebooks/00_a.ipynb", (f"@{tag}", f"@{tag}-other")),
        ("notebooks/00_a.ipynb", (f"/blob/{tag}", f"/blob/feature/{tag}")),
        ("README.md", ("colab.research.google.com/github/", "colab.research.google.com/github/x")),
        ("README.md", ("clone https://github.com/", "clone https://github.com/x")),
        ("CITATION.cff", ("github.com/", "github.com/x")),
    ]:
        path = small / name
        good = path.read_text()
        assert wrong[0] in good
        path.write_text(good.replace(*wrong, 1))
        assert links.differing(small) == [path]
        assert links.main(["--check"], small) == 1
        assert links.main([], small) == 0
        assert path.read_text() == good


def test_a_fork_gets_its_own_address_everywhere_and_twice_is_once(small):
    assert links.main(["--repo", "Some-One/my.fork", "--tag", "feature/x-1"], small) == 0
    assert links.address(small) == ("Some-One/my.fork", "feature/x-1")
    texts = [path.read_text() for path in links.files(small)]
    old, _ = links.address()
    assert not any(old in text for text in texts)
    assert "git clone https://github.com/Some-One/my.fork`" in "".join(texts)
    cell = json.loads((small / "notebooks/00_a.ipynb").read_text())["cells"][1]
    assert "".join(cell["source"]) == links.bootstrap("00", small)
    links.main(["--repo", "Some-One/my.fork", "--tag", "feature/x-1"], small)
    assert texts == [path.read_text() for path in links.files(small)]


@pytest.mark.parametrize(
    "wrong", ["no-slash", "a/b/c", "a b/c", "https://github.com/a/b", "a/b.git", ""]
)
def test_a_malformed_address_changes_nothing(small, wrong, capsys):
    before = (small / "pyproject.toml").read_text()
    with pytest.raises(SystemExit):
        links.main(["--repo", wrong], small)
    assert "owner/name" in capsys.readouterr().err
    assert (small / "pyproject.toml").read_text() == before


def test_the_bootstrap_is_python_and_installs_only_on_colab_and_only_once():
    """Run the cell with the magic replaced by a recorder: twice on Colab, and elsewhere."""
    cell = re.sub(r"%pip (.*)", r"pip('''\1''')", links.bootstrap("00"))
    stub = """
import sys, types
nclib, course = map(types.ModuleType, ("nclib", "nclib.course"))
course.start = lambda number: None
def pip(line):
    print(line)
    nclib.__spec__ = types.SimpleNamespace()
    sys.modules |= {"nclib": nclib, "nclib.course": course}
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda n: sys.modules.get(n) if n == "nclib" else real(n)
"""
    on_colab = 'sys.modules["google.colab"] = types.ModuleType("google.colab")\n'
    elsewhere = "pip('local')\n"
    for head, count in ((on_colab, 1), (elsewhere, 0)):
        code = stub + head + cell + "\n" + cell
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        lines = [line for line in out.stdout.splitlines() if line.startswith("install")]
        assert len(lines) == count
        assert all(line.startswith("install -q --no-deps ") for line in lines)
