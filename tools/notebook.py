"""What the other tools share: the lessons, found by glob, and the regions of a solution."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LESSONS, STUDENTS = ROOT / "notebooks", ROOT / "exercises"
SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION\n(?P<body>.*?)^[ \t]*### END SOLUTION(?:\n|\Z)",
    re.M | re.S,
)
CHECK = re.compile(r"(?<![\w.])(?:lesson\.)?check\(\s*\"(?P<name>\d\d\.\w+)\"")
MARKER = re.compile(r"^# NBVAL_\w+\n", re.M)


def lessons(folder: Path = LESSONS) -> list[Path]:
    """The notebooks of ``folder`` in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def chosen(wanted: list[str]) -> list[Path]:
    """The lessons of these numbers or names, all for none; what there is not ends the program."""
    known = {name: path for path in lessons() for name in (path.name[:2], path.stem)}
    if unknown := [name for name in wanted if name not in known]:
        allowed = ", ".join(path.name[:2] for path in lessons())
        sys.exit(f"lesson: got {', '.join(unknown)}; allowed is {allowed}")
    return sorted({known[name] for name in wanted}) or lessons()


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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
        nbformat.write(notebook, Path(staging, path.name))
        Path(staging, path.name).replace(path)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that have something in them."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def checks(notebook: nbformat.NotebookNode) -> list[str]:
    """The names of the exercises, in order, each once."""
    names = [found["name"] for cell in code(notebook) for found in CHECK.finditer(cell.source)]
    return list(dict.fromkeys(names))


def unguessed(source: str) -> str:
    """The code with ``...`` in place of the guess in each ``predict("NN.name", guess)``."""
    lines = source.encode().splitlines(keepends=True)  # ast counts bytes
    try:
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:  # the magic of the bootstrap
        return source
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    text = source.encode()
    for call in sorted(found, key=lambda call: (-call.lineno, -call.col_offset)):
        if getattr(call.func, "id", "") == "predict" and len(call.args) == 2:
            guess = call.args[1]
            begin = starts[guess.lineno - 1] + guess.col_offset
            end = starts[guess.end_lineno - 1] + guess.end_col_offset
            text = text[:begin] + b"..." + text[end:]
    return text.decode()


def solutions(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise name -> the code that solves it, without the markers.

    A solution belongs to the first ``check("NN.name", ...)`` after it. Raises ``ValueError`` where
    there is none.
    """
    found, waiting = {}, []
    for cell in code(notebook):
        rest = cell.source + "\n"
        while name := CHECK.search(rest):
            waiting += _solved(rest[: rest.rfind("\n", 0, name.start()) + 1])
            if waiting:
                found[name["name"]], waiting = "\n\n".join(waiting), []
            rest = rest[rest.index("\n", name.end()) + 1 :]
        waiting += _solved(rest)
    if waiting:
        raise ValueError(f"no check follows the solution {waiting[0][:60]!r}")
    return found


def _solved(source: str) -> list[str]:
    """The solutions at the top level, or the whole source where one stands inside a function."""
    regions = list(SOLUTION.finditer(source))
    if any(region["indent"] for region in regions):
        whole = SOLUTION.sub(lambda region: region["body"], source)
        return [MARKER.sub("", whole).strip()]
    return [region["body"].strip() for region in regions]
