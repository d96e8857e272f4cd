"""Every lesson in notebooks/ keeps the lesson contract."""

import pytest
from lesson_contract import NEW, OLD_FORM, ROOT, Lesson, copies, rules, tools

LESSONS = tools.lessons()
PAIRS = [(path, rule) for path in LESSONS for rule in rules(path.stem)]


@pytest.mark.parametrize(
    ("path", "rule"), PAIRS, ids=[f"{path.stem}-{rule.__name__}" for path, rule in PAIRS]
)
def test_lesson(path, rule):
    assert not (complaint := rule(Lesson(path.name, tools.read(path)))), complaint


def test_the_list_of_the_old_form_names_lessons_that_are_still_in_it():
    """A lesson that keeps the new rules, or is gone, leaves the list."""
    there = {path.stem: path for path in LESSONS}
    assert set(there) >= OLD_FORM
    for stem in sorted(OLD_FORM):
        lesson = Lesson(f"{stem}.ipynb", tools.read(there[stem]))
        assert any(rule(lesson) for rule in NEW), f"{stem} is in the new form: take it off the list"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_wrong_answers_to_each_exercise_are_tested(path):
    tests = ROOT / "tests" / f"test_exercises{path.name[:2]}.py"
    text = tests.read_text(encoding="utf-8") if tests.exists() else ""
    assert [name for name in tools.checks(tools.read(path)) if f'"{name}"' not in text] == []


def test_every_notebook_is_a_lesson_with_a_number_of_its_own():
    assert sorted((ROOT / "notebooks").glob("**/*.ipynb")) == LESSONS
    assert len({path.name[:2] for path in LESSONS}) == len(LESSONS)


def test_student_copies_and_solutions_are_up_to_date():
    assert copies.outdated() == [], "run `make exercises`"
