"""Make the student copies in exercises/ and the solutions that ``solution`` prints.

python tools/exercises.py            write exercises/*.ipynb and solutions.json
python tools/exercises.py --check    change nothing; fail where one is out of date
"""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from pathlib import Path

import nbformat
from notebook import (
    LESSONS,
    ROOT,
    SOLUTION,
    STUDENTS,
    code,
    lessons,
    read,
    solutions,
    unguessed,
    write,
)

SOLUTIONS = ROOT / "nclib" / "course" / "exercises" / "solutions.json"
HERE = "  # your code here\n"


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The lesson with stubs for solutions, without outputs, with its own badge."""
    student = copy.deepcopy(notebook)
    for cell in student.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(/github/\S+)/notebooks/", r"\1/exercises/", cell.source)
    for cell in code(student):
        cell.source = SOLUTION.sub(stub, cell.source).rstrip("\n")
        cell.source = unguessed(cell.source.replace("# NBVAL_CHECK_OUTPUT\n", ""))
        cell.outputs, cell.execution_count = [], None
    return student


def stub(region: re.Match) -> str:
    """``...`` in a function; at the top level ``name = ...`` for each name nothing has set yet."""
    if region["indent"]:
        return f"{region['indent']}...{HERE}"
    new = [n for n in _names(region["body"]) if n not in _names(region.string[: region.start()])]
    return "".join(f"{name} = ...{HERE}" for name in new) or HERE.lstrip()


def _names(source: str) -> list[str]:
    """The names that ``source`` assigns or defines at its top level, in order."""
    found = []
    for statement in ast.parse(SOLUTION.sub(lambda region: region["body"], source)).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found.append(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            parts = [part for part in ast.walk(statement) if isinstance(part, ast.Name)]
            found += [part.id for part in parts if isinstance(part.ctx, ast.Store)]
    return list(dict.fromkeys(found))


def all_solutions(folder: Path = LESSONS) -> dict[str, str]:
    """Every solution of every lesson, by exercise name."""
    return {k: v for path in lessons(folder) for k, v in solutions(read(path)).items()}


def outdated(source: Path = LESSONS, target: Path = STUDENTS, told: Path = SOLUTIONS) -> list[str]:
    """The names of the copies that are missing, different, or left over."""
    wanted = {path.name: student_copy(read(path)) for path in lessons(source)}
    present = {path.name: read(path) for path in lessons(target)}
    names = sorted(wanted.keys() | present.keys())
    old = [name for name in names if _cells(wanted.get(name)) != _cells(present.get(name))]
    if not told.exists() or told.read_text(encoding="utf-8") != _text(source):
        old.append(told.name)
    return old


def _cells(notebook: nbformat.NotebookNode | None) -> list | None:
    return notebook and [(c.cell_type, c.source, c.get("outputs")) for c in notebook.cells]


def _text(folder: Path = LESSONS) -> str:
    return json.dumps(all_solutions(folder), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        old = outdated()
        print(f"out of date, run `make exercises`: {', '.join(old)}" if old else "up to date")
        return int(bool(old))
    STUDENTS.mkdir(exist_ok=True)
    for path in lessons(STUDENTS):
        if not (LESSONS / path.name).exists():
            path.unlink()
    for path in lessons():
        write(student_copy(read(path)), STUDENTS / path.name)
        print(f"exercises/{path.name}")
    SOLUTIONS.write_text(_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
