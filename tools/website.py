"""Build the readers' site, offline, into build/site-html; a warning is an error.

python tools/website.py [--no-build]    with --no-build only build/site-source is written

The pages keep the places that they have in the repository, so their links hold in both: docs/,
notebooks/ with the saved outputs, data/README.md. Written here: api/ from the package, and the
tables of docs/results.md from data/results/*.csv, those of docs/claims.md from the lessons, the
cards of the front page, and the folds and choices of a lesson (lesson_pages.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import claims
import front_page
import lesson_pages
import nbformat
import pages
import tables
from links import COLAB, address
from notebook import LESSONS, MARKER, ROOT, STUDENTS, lessons

SOURCE, HTML = ROOT / "build" / "site-source", ROOT / "build" / "site-html"
FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "LICENSE-text",
    "CITATION.cff",
    "data/README.md",
)
BADGE = re.compile(r"(?m)^\[!\[[^\]]*\]\([^)]*colab-badge\.svg\)\]\([^)]*\)$")


def gather(source: Path = SOURCE) -> None:
    """Write every page and every file that a page offers into an empty ``source``."""
    shutil.rmtree(source, ignore_errors=True)
    ignored = shutil.ignore_patterns("_build", "__pycache__", "*.py")
    shutil.copytree(ROOT / "docs", source / "docs", ignore=ignored)
    (source / "docs" / "index.md").unlink()
    front_page.write(source)
    for name in FILES:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(STUDENTS, source / "exercises", ignore=shutil.ignore_patterns(".*"))
    (source / "notebooks").mkdir()
    for path in lessons():
        write_lesson(path, source / "notebooks" / path.name)
    shutil.copytree(ROOT / "data" / "results", source / "data" / "results")
    page = source / "docs" / "results.md"
    page.write_text(tables.fill(page.read_text(encoding="utf-8"), source / "data" / "results"))
    page = source / "docs" / "claims.md"
    page.write_text(claims.fill(page.read_text(encoding="utf-8")), encoding="utf-8")
    write_api(source / "api")


def write_lesson(path: Path, target: Path) -> None:
    """A copy of the lesson; links to Colab and to the two notebooks take the place of the badge."""
    notebook = lesson_pages.page(path)
    first = notebook.cells[0]
    first.source = BADGE.sub(lambda _: buttons(path.name), first.source, count=1)
    for cell in notebook.cells:
        cell.source = MARKER.sub("", cell.source)
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(claims.CLAIM, None)  # it is on the page of the claims
    nbformat.write(notebook, target)


def buttons(name: str) -> str:
    """The line of links under a lesson's title."""
    repo, tag = address()
    places = {"Lesson": LESSONS.name}
    if (STUDENTS / name).exists():
        places["Exercise"] = STUDENTS.name
    links = []
    for label, folder in places.items():
        there = f"{COLAB}/github/{repo}/blob/{tag}/{folder}/{name}"
        links.append(f"[{label} in Colab]({there}){{.button}}")
        links.append(f"{{download}}`{label}, download <../{folder}/{name}>`")
    return " ".join(links)


def write_api(folder: Path) -> None:
    """One page per room of the package, with the files of the room."""
    folder.mkdir()
    rooms: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nclib").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        # not the checks of a lesson, which are its answers, nor a room's command, which would run
        if not re.search(r"\.lesson\d\d$|^nclib$|^nclib\.\w+\.__main__$", name):
            rooms.setdefault(name.split(".")[1], []).append(name)
    for room, names in rooms.items():
        page = [f"# nclib.{room}".replace("__", r"\_\_"), _automodule(names[0])]
        for name in names[1:]:
            page += [f"## {name}", _automodule(name)]
        (folder / f"{room}.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")


def _automodule(name: str) -> str:
    """The docstrings of what ``name`` defines itself; what it takes from its files stands there."""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n   :ignore-module-all:\n```"


def build(source: Path = SOURCE, html: Path = HTML) -> int:
    """Run Sphinx over ``source``; its exit status."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going"]
    command += ["-c", ROOT / "docs", "-d", html.with_name("site-doctrees"), source, html]
    status = subprocess.run(command, cwd=ROOT).returncode
    page = Path("docs", "playground")  # a page of its own, which Sphinx does not write
    shutil.copytree(source / page, html / page, dirs_exist_ok=True)
    return status


def main(arguments: list[str]) -> int:
    gather()
    if "--no-build" in arguments:
        return 0
    for stale in (HTML, HTML.with_name("site-doctrees")):
        shutil.rmtree(stale, ignore_errors=True)
    if build():
        print("the site has warnings, see above")
        return 1
    print(f"the site is in {HTML.relative_to(ROOT)}")
    return pages.main([str(HTML)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
