"""Every lesson in notebooks/ keeps the lesson contract."""

import pytest
from lesson_contract import MINUTES, ROOT, RULES, Lesson, copies, tools

LESSONS = tools.lessons()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_lesson(rule, path):
    assert not (complaint := rule(Lesson(path.name, tools.read(path)))), complaint


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_wrong_answers_to_each_exercise_are_tested(path):
    tests = ROOT / "tests" / f"test_exercises{path.name[:2]}.py"
    text = tests.read_text(encoding="utf-8") if tests.exists() else ""
    assert [name for name in tools.checks(tools.read(path)) if f'"{name}"' not in text] == []


def test_every_notebook_is_a_lesson_with_a_number_of_its_own():
    assert sorted((ROOT / "notebooks").glob("**/*.ipynb")) == LESSONS
    assert len({path.name[:2] for path in LESSONS}) == len(LESSONS)


def test_the_whole_course_takes_ten_minutes():
    budgets = [MINUTES.search(tools.read(path).cells[0].source) for path in LESSONS]
    assert sum(float(budget[1]) for budget in budgets if budget) <= 10


def test_student_copies_and_solutions_are_up_to_date():
    assert copies.outdated() == [], "run `make exercises`"
