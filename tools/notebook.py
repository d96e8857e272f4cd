"""What the other tools share: the lessons, found by glob, and the regions of a solution."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LESSONS, STUDENTS = ROOT / "notebooks", ROOT / "exercises"
SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION\n(?P<body>.*?)^[ \t]*### END SOLUTION\n?", re.M | re.S
)
CHECK = re.compile(r"(?<![\w.])check\(\s*\"(?P<name>\d\d\.\w+)\"")


def lessons(folder: Path = LESSONS) -> list[Path]:
    """The notebooks of ``folder`` in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Save with stable cell ids, the plain kernel and no widget state; whole or not at all."""
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:03d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    draft = path.with_suffix(".part")
    nbformat.write(notebook, draft)
    draft.replace(path)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that have something in them."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def solutions(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise name -> the code that solves it, without the markers.

    A solution belongs to the first ``check("NN.name", ...)`` after it. Raises ``ValueError`` where
    there is none, or where one solution follows another before a check.
    """
    found, waiting = {}, None
    for cell in code(notebook):
        region = SOLUTION.search(cell.source)
        if region:
            if waiting is not None:
                raise ValueError(f"no check follows the solution in: {waiting[:60]!r}")
            waiting = _solved(cell.source) if region["indent"] else region["body"].strip()
        name = CHECK.search(cell.source, region.end() if region else 0)
        if name and waiting is not None:
            found[name["name"]], waiting = waiting, None
    if waiting is not None:
        raise ValueError(f"no check follows the solution in: {waiting[:60]!r}")
    return found


def _solved(source: str) -> str:
    """A cell without the markers and without what comes from its check on."""
    lines = SOLUTION.sub(lambda region: region["body"], source).split("\n")
    end = next((i for i, line in enumerate(lines) if CHECK.search(line)), len(lines))
    return "\n".join(lines[:end]).strip()
