"""Make a course folder for nbgrader from the lessons: build/assignments.

python tools/assignments.py [NN ...]    these lessons, or all that the folder holds

source/ has the lessons with solutions and nbgrader's metadata, release/ what students get. An
exercise becomes two cells: the student's, and a locked one that checks it and gives the points. The
first question of the lesson's page in docs/guide/ comes at the end, to be graded by hand.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from notebook import CHECK, MARKER, ROOT, SOLUTION, chosen, read, unguessed

from exercises import stub

COURSE = ROOT / "build" / "assignments"
GUIDE = ROOT / "docs" / "guide"
FUNCTION, VALUE, QUESTION = 3, 1, 3  # points
BADGE = re.compile(r"(?m)^\[!\[[^\]]*\]\([^)]*colab-badge\.svg\)\]\([^)]*\)\n*")
QUESTIONS = re.compile(r"(?ms)^- \*\*(?P<question>.+?)\*\*\s+(?P<answer>.+?)(?=^- |^#|\Z)")
CONFIG = '''"""Settings of nbgrader for this course folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "neural_collapse"
c.ClearSolutions.code_stub = {"python": ""}  # the stubs stand in source/ already
c.ClearSolutions.text_stub = "Your answer here."
c.ExecutePreprocessor.timeout = 1800  # seconds for one cell
'''
GRADE = """### BEGIN HIDDEN TESTS
from nclib.course import verdict as _verdict

_state, _why = _verdict("{name}", {answer})
### END HIDDEN TESTS
{statement}
### BEGIN HIDDEN TESTS
assert _state == "correct", f"{{_state}}: {{_why}}"
### END HIDDEN TESTS"""


def assignment(path: Path) -> NotebookNode:
    """The lesson as nbgrader wants it, solutions included."""
    notebook = read(path)
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        source = MARKER.sub("", cell.source)
        if cell.cell_type == "code" and (SOLUTION.search(source) or CHECK.search(source)):
            cells += exercise(source, path.stem)
        elif cell.cell_type == "code":
            cells.append(new_code_cell(unguessed(source)))
        else:
            cells.append(new_markdown_cell(BADGE.sub("", source)))
    cells += question(path.stem[:2])
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place:03d}"
    notebook.cells = cells
    nbformat.validate(notebook)
    return notebook


def exercise(source: str, lesson: str) -> list[NotebookNode]:
    """The student's cell, then the locked one with the check, for a cell with one check.

    Raises ``ValueError`` for another number of checks, or one whose answer goes nowhere.
    """
    calls = [s for s in ast.parse(source).body if CHECK.search(ast.get_source_segment(source, s))]
    if len(calls) != 1 or not isinstance(calls[0], ast.Assign):
        raise ValueError(f"{lesson}: one 'x = check(...)' a cell is allowed: {source[:60]!r}")
    call = calls[0]
    name, answer = (ast.get_source_segment(source, part) for part in call.value.args)
    lines = source.splitlines()
    mine, rest = "\n".join(lines[: call.lineno - 1]), "\n".join(lines[call.lineno - 1 :])
    points = FUNCTION if any(part["indent"] for part in SOLUTION.finditer(mine + "\n")) else VALUE
    mine = SOLUTION.sub(lambda part: stub(part) + part[0], mine.rstrip() + "\n").rstrip()
    word = name.strip("\"'").replace(".", "_")
    checked = GRADE.format(name=name.strip("\"'"), answer=answer, statement=rest)
    return [
        new_code_cell(mine, metadata=_metadata(f"answer_{word}", solution=True)),
        new_code_cell(checked, metadata=_metadata(f"check_{word}", grade=True, points=points)),
    ]


def question(number: str, guide: Path = GUIDE) -> list[NotebookNode]:
    """The first discussion question of the lesson's page, and a cell for the answer."""
    page = guide / f"{number}.md"
    found = page.exists() and QUESTIONS.search(page.read_text(encoding="utf-8"))
    if not found:
        return []
    text = f"**Question, graded by hand.** {found['question']}"
    answer = _metadata(f"question_{number}", grade=True, solution=True, points=QUESTION)
    asks = new_markdown_cell(text, metadata=_metadata(f"asks_{number}"))
    return [asks, new_markdown_cell(found["answer"], metadata=answer)]


def _metadata(name: str, *, grade: bool = False, solution: bool = False, points: int = 0) -> dict:
    mark = {"schema_version": 3, "grade_id": name, "grade": grade, "solution": solution}
    mark |= {"locked": not solution, "task": False} | ({"points": points} if grade else {})
    return {"nbgrader": mark}


def write(paths: list[Path], course: Path = COURSE) -> None:
    """Write source/ and nbgrader's settings into an empty ``course``."""
    shutil.rmtree(course, ignore_errors=True)
    for path in paths:
        (course / "source" / path.stem).mkdir(parents=True)
        nbformat.write(assignment(path), course / "source" / path.stem / path.name)
    (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")


def grader(course: Path = COURSE) -> object:
    """nbgrader in Python, with the settings of ``course``: its answers are dicts with "success"."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import PyFileConfigLoader

    bins = str(Path(sys.executable).parent)  # nbgrader calls a program that it brings along
    os.environ["PATH"] = os.pathsep.join((bins, os.environ.get("PATH", "")))
    config = PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()
    config.CourseDirectory.root = str(course)
    return NbGraderAPI(config=config)


def main(wanted: list[str]) -> int:
    paths = chosen(wanted)
    write(paths)
    nbgrader, failed = grader(), 0
    for path in paths:
        done = nbgrader.generate_assignment(path.stem, force=True, create=True)
        good = done["success"]
        failed += not good
        if not good:
            print(done["log"])
        print(f"{path.stem:<40} {'ok' if good else 'FAILED'}", flush=True)
    print(f"{len(paths) - failed} assignments in {COURSE.relative_to(ROOT)}/release")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
