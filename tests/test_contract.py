"""Every lesson in notebooks/ keeps the lesson contract."""

from functools import cache

import pytest
from lesson_contract import ROOT, RULES, Lesson, copies, tools

LESSONS = tools.lessons()
PAIRS = [(path, rule) for path in LESSONS for rule in RULES]


@cache  # no rule changes what it reads
def lesson(path):
    return Lesson(path.name, tools.read(path))


@pytest.mark.parametrize(
    ("path", "rule"), PAIRS, ids=[f"{path.stem}-{rule.__name__}" for path, rule in PAIRS]
)
def test_lesson(path, rule):
    assert not (complaint := rule(lesson(path))), complaint


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_wrong_answers_to_each_exercise_are_tested(path):
    tests = ROOT / "tests" / f"test_exercises{path.name[:2]}.py"
    text = tests.read_text(encoding="utf-8") if tests.exists() else ""
    assert [name for name in tools.checks(lesson(path).notebook) if f'"{name}"' not in text] == []


def test_every_notebook_is_a_lesson_with_a_number_of_its_own():
    assert sorted((ROOT / "notebooks").glob("**/*.ipynb")) == LESSONS
    assert len({path.name[:2] for path in LESSONS}) == len(LESSONS)


def test_student_copies_and_solutions_are_up_to_date():
    assert copies.outdated() == [], "run `make exercises`"
