"""Make the student copies in exercises/ and the solutions that ``lesson.solution`` prints.

python tools/exercises.py            write exercises/*.ipynb and nclib/exercises/solutions.json
python tools/exercises.py --check    change nothing; fail where one is out of date
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import nbformat
from notebook import LESSONS, ROOT, SOLUTION, STUDENTS, code, lessons, read, solutions, write

SOLUTIONS = ROOT / "nclib" / "exercises" / "solutions.json"


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The lesson with stubs for solutions, without outputs, with its own badge."""
    student = copy.deepcopy(notebook)
    for cell in student.cells:
        cell.source = cell.source.replace("/notebooks/", "/exercises/")
    for cell in code(student):
        cell.source = SOLUTION.sub(r"\g<indent>...  # your code here\n", cell.source).rstrip("\n")
        cell.outputs, cell.execution_count = [], None
    return student


def all_solutions(folder: Path = LESSONS) -> dict[str, str]:
    """Every solution of every lesson, by exercise name."""
    return {k: v for path in lessons(folder) for k, v in sorted(solutions(read(path)).items())}


def outdated(source: Path = LESSONS, target: Path = STUDENTS) -> list[str]:
    """The names of the copies that are missing, different, or left over."""
    wanted = {path.name: student_copy(read(path)) for path in lessons(source)}
    present = {path.name: read(path) for path in lessons(target)}
    names = wanted.keys() | present.keys()
    return sorted(n for n in names if _cells(wanted.get(n)) != _cells(present.get(n)))


def _cells(notebook: nbformat.NotebookNode | None) -> list | None:
    return notebook and [(c.cell_type, c.source, c.get("outputs")) for c in notebook.cells]


def main(arguments: list[str]) -> int:
    text = json.dumps(all_solutions(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in arguments:
        old = outdated()
        if not SOLUTIONS.exists() or SOLUTIONS.read_text() != text:
            old.append(SOLUTIONS.name)
        print(f"out of date, run `make exercises`: {', '.join(old)}" if old else "up to date")
        return int(bool(old))
    STUDENTS.mkdir(exist_ok=True)
    for path in lessons(STUDENTS):
        if not (LESSONS / path.name).exists():
            path.unlink()
    for path in lessons():
        write(student_copy(read(path)), STUDENTS / path.name)
        print(f"exercises/{path.name}")
    SOLUTIONS.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
