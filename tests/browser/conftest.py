"""A browser and a JupyterLab for every setting; LESSONS=all takes every lesson."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(Path(__file__).parent)]

from handouts import FLAGS, chromium  # noqa: E402
from lab import serve, stop_kernels  # noqa: E402
from notebook import LESSONS, STUDENTS, lessons  # noqa: E402

STAYING: list[str] = []  # the addresses that serve several tests
SHOTS = ROOT / "build" / "browser"


def chosen() -> list[Path]:
    """Lessons 00 and 01; all of them, or those that LESSONS names: LESSONS="03 07"."""
    wanted = os.environ.get("LESSONS", "").split() or ["00", "01"]
    return [path for path in lessons() if wanted == ["all"] or path.name[:2] in wanted]


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    if path is None:
        pytest.fail("no chromium here: apt install chromium, or name one in CHROMIUM")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        driven = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield driven
        driven.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    yield page
    address = page.url.partition("/lab")[0]
    page.close()
    if address in STAYING:
        stop_kernels(address)


def _copies(folder: Path) -> Path:
    """Lessons and student copies to open: JupyterLab saves what it opens."""
    for source in (LESSONS, STUDENTS):
        target = folder / source.name
        target.mkdir(parents=True)
        for path in lessons(source):
            shutil.copy(path, target)
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """The address of a JupyterLab whose kernels take the package from this checkout."""
    os.environ.setdefault("NCLIB_CACHE", str(ROOT / "build" / "cache"))
    private = tmp_path_factory.mktemp("checkout")
    with serve(_copies(private / "root"), private) as address:
        STAYING.append(address)
        yield address


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The same without a checkout: the wheel alone, in an environment that blocks the network."""
    os.environ.setdefault("NCLIB_CACHE", str(ROOT / "build" / "cache"))
    private = tmp_path_factory.mktemp("wheel")
    found = spec_from_file_location("tools_nbval", ROOT / "tools" / "nbval.py")
    tool = module_from_spec(found)  # the plugin of pytest has the same name
    found.loader.exec_module(tool)
    tool.BUILD, tool.SITE = private, private / "site"
    tool.install()
    pythonpath = tool.environment()["PYTHONPATH"]
    with serve(_copies(private / "root"), private, pythonpath) as address:
        STAYING.append(address)
        yield address
