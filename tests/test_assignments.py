"""The course folder for nbgrader: what students get, and what the autograder makes of it."""

import copy
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import assignments  # noqa: E402
from notebook import checks, lessons, read  # noqa: E402

LESSON = lessons()[0]


def marks(notebook):
    """grade_id -> the cell, for the cells that nbgrader knows."""
    marked = [c for c in notebook.cells if "nbgrader" in c.metadata]
    return {cell.metadata.nbgrader.grade_id: cell for cell in marked}


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_every_exercise_of_a_lesson_becomes_an_answer_and_a_check_with_points(path):
    cells = marks(assignments.assignment(path))
    names = [name.replace(".", "_") for name in checks(read(path))]
    assert names
    for name in names:
        answer, check = cells[f"answer_{name}"], cells[f"check_{name}"]
        assert "### BEGIN SOLUTION" in answer.source and not answer.metadata.nbgrader.locked
        assert check.metadata.nbgrader.locked and check.metadata.nbgrader.points in (1, 3)
        assert "BEGIN SOLUTION" not in check.source and "HIDDEN TESTS" in check.source
    assert cells[f"question_{path.name[:2]}"].source.strip()
    text = "\n".join(cell.source for cell in assignments.assignment(path).cells)
    assert "NBVAL" not in text and "colab-badge" not in text


def test_the_question_to_grade_by_hand_comes_from_the_guide(tmp_path):
    page = "# x\n\n## Discussion\n\n- **Why is\n  that?** Because\n  of this.\n- **And?** So.\n"
    (tmp_path / "00.md").write_text(page)
    asked, answer = assignments.question("00", tmp_path)
    assert asked.source.endswith("Why is\n  that?") and asked.metadata.nbgrader.locked
    assert answer.source.split() == ["Because", "of", "this."]
    assert answer.metadata.nbgrader.points == 3 and answer.metadata.nbgrader.solution
    assert assignments.question("77", tmp_path) == []


@pytest.mark.parametrize(
    "source",
    [
        'a = check("00.a", a)\nb = check("00.b", b)',
        'check("00.a", a)',
        '### BEGIN SOLUTION\na = 1\n### END SOLUTION\nprint("no check")',
    ],
)
def test_a_cell_of_another_shape_is_refused_by_name(source):
    with pytest.raises(ValueError, match="00_x: one 'x = check"):
        assignments.exercise(source, "00_x")


def hand_in(course, student, notebook, name):
    folder = course / "submitted" / student / name
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def scores(course, name):
    """student -> {grade_id: points of the autograder}."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "neural_collapse") as book:
        return {
            submission.student.id: {
                g.cell.name: g.auto_score for g in submission.notebooks[0].grades
            }
            for submission in book.assignment_submissions(name)
        }


@pytest.mark.filterwarnings("ignore:Object of type:Warning")  # of nbgrader's data base
@pytest.mark.parametrize(
    "until", ["00.pick_device", pytest.param("00.calm", marks=pytest.mark.slow)]
)
def test_nbgrader_releases_a_lesson_and_grades_a_right_and_a_wrong_submission(
    until, tmp_path, monkeypatch
):
    notebook, name = read(LESSON), LESSON.stem
    last = next(i for i, c in enumerate(notebook.cells) if f'check("{until}"' in c.source)
    notebook.cells = notebook.cells[: last + 1]
    for cell in notebook.cells:  # the networks of the lesson, only smaller
        cell.source = cell.source.replace('"signs"  #', '"digits"  #').replace("(0, 1, 2)", "(0,)")
        cell.source = cell.source.replace('"epochs": 12', '"epochs": 1')
    lesson = tmp_path / "lessons" / LESSON.name
    lesson.parent.mkdir()
    nbformat.write(notebook, lesson)
    course = tmp_path / "course"
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("NCLIB_STRICT", "0")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    assignments.write([lesson], course)
    nbgrader = assignments.grader(course)
    done = nbgrader.generate_assignment(name, force=True, create=True)
    assert done["success"], done["log"]

    released = nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in released.cells)
    assert "SOLUTION" not in text and "HIDDEN" not in text and "your code here" in text
    solved = marks(nbformat.read(course / "source" / name / f"{name}.ipynb", as_version=4))
    right, wrong = copy.deepcopy(released), copy.deepcopy(released)
    for grade_id, cell in marks(right).items():
        if grade_id.startswith("answer"):
            cell.source = solved[grade_id].source
    marks(wrong)["answer_00_pick_device"].source = 'def pick_device():\n    return "cpu"'
    # Who takes the check away gains nothing: nbgrader puts locked cells back.
    marks(wrong)["check_00_pick_device"].source = "print('correct')"
    for student, handed_in in {"ada": right, "bob": wrong}.items():
        hand_in(course, student, handed_in, name)
        done = nbgrader.autograde(name, student)
        assert done["success"], done["log"]

    points = scores(course, name)
    full = {g: c.metadata.nbgrader.points for g, c in solved.items() if g.startswith("check")}
    assert {g: points["ada"][g] for g in full} == full and full["check_00_pick_device"] == 3
    assert not any(points["bob"][g] for g in full)
    graded = nbformat.read(course / "autograded" / "bob" / name / f"{name}.ipynb", as_version=4)
    said = str(marks(graded)["check_00_pick_device"].outputs)
    assert "it returns the text" in said
    shutil.rmtree(course)
