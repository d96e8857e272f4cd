"""Colab: everything the package needs is preinstalled there, and installing it moves nothing.

colab-constraints.txt lists what a Colab runtime of August 2026 has (Python 3.13).
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("uv", reason="make test installs it")
PINS = Path(__file__).with_name("colab-constraints.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def versions(text):
    """Name -> version from lines ``name==version``."""
    lines = re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)
    return {canonicalize_name(name): version for name, version in lines}


COLAB = versions(PINS.read_text())


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_colab_has_every_dependency_so_no_deps_is_right(line):
    needed = Requirement(line)
    assert canonicalize_name(needed.name) in COLAB
    assert COLAB[canonicalize_name(needed.name)] in needed.specifier


def test_no_dependency_has_an_upper_bound_but_ipywidgets():
    capped = [
        line for line in PROJECT["dependencies"] if re.search(r"[<=]=?\s*\d", line.split(">=")[1])
    ]
    assert all(">=" in line for line in PROJECT["dependencies"])
    assert [Requirement(line).name for line in capped] == ["ipywidgets"]


def test_the_import_name_is_free_and_the_distribution_name_is_another():
    assert "nclib" not in COLAB and PROJECT["name"] not in COLAB
    assert PROJECT["name"] != "nclib"


def resolve(requirements):
    """What uv would install for these lines on Colab's Python under Colab's pins."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "-c", PINS]
    command += ["--python-version=3.13", "--python-platform=linux", "--no-header", "--no-annotate"]
    run = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True)
    if run.returncode and re.search(
        r"(?i)failed to fetch|error sending request|dns error", run.stderr
    ):
        pytest.skip("the package index cannot be reached")
    return run


def test_the_dependencies_resolve_with_every_pin_of_colab_unmoved():
    run = resolve(PROJECT["dependencies"])
    assert run.returncode == 0, run.stderr
    found = versions(run.stdout)
    assert {"torch", "numpy", "ipywidgets"} <= set(found)
    assert {n: v for n, v in found.items() if n in COLAB} == {
        n: COLAB[n] for n in found if n in COLAB
    }
    missing = {name for name in found if name not in COLAB}
    # Colab's list leaves out torch's CUDA libraries, and jedi, which IPython runs without.
    assert all(re.match(r"(nvidia-|cuda-|triton$|jedi$)", name) for name in missing), missing


@pytest.mark.slow
def test_a_dependency_that_would_move_a_pin_is_found():
    run = resolve(["numpy>=2.2"])
    assert run.returncode != 0 and "numpy" in run.stderr
