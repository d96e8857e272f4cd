"""Checks, hints, solutions and controls: what a student sees."""

import contextlib
import importlib
import json
from importlib.resources import files

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
import torch

from nclib.course import exercises, lesson
from nclib.course.exercises import (
    EXERCISES,
    NotAttempted,
    Wrong,
    choice,
    close,
    exercise,
    expect,
    number,
)
from nclib.course.lesson import check, hint, interact, results, solution, start, verdict

LESSONS = sorted(path.stem for path in files(exercises).iterdir() if path.stem.startswith("lesson"))
for name in LESSONS:
    with contextlib.suppress(Exception):  # its own test below says what is wrong with it
        importlib.import_module(f"nclib.course.exercises.{name}")
DECLARED = sorted(EXERCISES)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Exercises of a lesson 90; not strict unless a test says so."""
    monkeypatch.delenv("NCLIB_STRICT", raising=False)
    known = dict(EXERCISES)

    @exercise("90.square", hints=("vague", "plain"), reference=square)
    def _(answer):
        expect(answer(torch.tensor(2.0)) != 8, "that is the cube")
        close(answer(torch.tensor([2.0, -3.0])), [4.0, 9.0], "the square")

    number("90.angle", 110, 130, reference=120, hints=("a", "b"), unit="degrees")
    choice("90.rises", "yes", ("yes", "no"), hints=("a", "b"), why={"no": "look again"})
    yield
    EXERCISES.clear()
    EXERCISES.update(known)


def square(x):
    return x * x


def empty(x):
    """A stub."""
    ...


def unwritten(x):
    raise NotImplementedError("write me")


def broken(x):
    return x / "2"


def sometimes(x):
    return x * x if x.ndim == 0 else None


def test_a_right_answer_comes_back(capsys):
    def mine(x):
        return x**2

    assert check("90.square", mine) is mine
    assert capsys.readouterr().out == "90.square: correct\n"


@pytest.mark.parametrize("answer", [None, ..., empty, unwritten, lambda x: ...])
def test_no_answer_is_not_a_wrong_answer(answer, capsys):
    assert check("90.square", answer) is square
    out = capsys.readouterr().out
    assert out.startswith("90.square: not attempted") and 'lesson.hint("90.square")' in out


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda x: x**3, "that is the cube"),
        (lambda x: x + x, "differs from what is expected by up to 15"),
        (lambda x: (x * x).sum(), "shape (2,), not ()"),
        (lambda x: x * float("nan"), "finite"),
        (lambda x: "four", "numbers, not str"),
        (broken, "it raised TypeError: unsupported operand"),
        (sometimes, "returns nothing for some inputs"),
        (3, "'int' object is not callable"),
        (lambda: 4, "takes 0 positional arguments"),
    ],
)
def test_a_wrong_answer_is_told_why_and_the_lesson_goes_on(answer, word, capsys):
    assert check("90.square", answer) is square
    out = capsys.readouterr().out
    assert out.startswith("90.square: wrong") and word in out and "Traceback" not in out


@pytest.mark.parametrize("answer", [None, empty, broken, lambda x: x])
def test_strict_mode_raises_for_anything_but_right(answer, monkeypatch):
    monkeypatch.setenv("NCLIB_STRICT", "1")
    with pytest.raises(lesson.NotCorrect, match="90.square"):
        check("90.square", answer)
    assert check("90.square", square) is square


def test_a_check_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("it asks the network"))
    check("90.square", square)
    check("90.angle", 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "state", "word"),
    [
        (120, "correct", ""),
        (torch.tensor(119.0), "correct", ""),
        (100, "wrong", "100 degrees is too low"),
        (140.5, "wrong", "too high"),
        ("120", "wrong", "a number is asked for"),
        (True, "wrong", "a number is asked for"),
        (float("nan"), "wrong", "a number is asked for"),
        ([1, 2], "wrong", "a number is asked for"),
        (None, "not attempted", ""),
    ],
)
def test_a_predicted_number(answer, state, word):
    assert verdict("90.angle", answer)[0] == state
    assert word in verdict("90.angle", answer).message


@pytest.mark.parametrize(
    ("answer", "state", "word"),
    [
        ("yes", "correct", ""),
        (" Yes", "correct", ""),
        ("no", "wrong", "look again"),
        ("perhaps", "wrong", "choose one of 'yes', 'no'"),
        (1, "wrong", "choose one of"),
        (..., "not attempted", ""),
    ],
)
def test_a_predicted_choice(answer, state, word):
    assert verdict("90.rises", answer)[0] == state
    assert word in verdict("90.rises", answer).message


def test_a_container_with_a_gap_is_not_attempted():
    exercise("90.pair", hints=("a", "b"), reference=(1, 2))(lambda answer: expect(False, "no"))
    for answer in ((1, None), [..., 2], {"a": None}, ((1, 2), (3, None))):
        assert verdict("90.pair", answer).state == "not attempted"
    assert verdict("90.pair", (torch.zeros(2), 2)).state == "wrong"


@pytest.mark.parametrize("name", LESSONS)
def test_every_file_of_exercises_declares_some_of_its_own(name):
    importlib.import_module(f"nclib.course.exercises.{name}")
    assert [word for word in DECLARED if word[:2] == name.removeprefix("lesson")]


@pytest.mark.parametrize("name", DECLARED)
def test_every_exercise_accepts_its_reference_and_has_hints(name):
    assert verdict(name, EXERCISES[name].reference) == ("correct", "")
    assert len(EXERCISES[name].hints) >= 2 and all(EXERCISES[name].hints)


@pytest.mark.parametrize("name", DECLARED)
def test_every_exercise_fails_strictly_where_there_is_a_stub(name, monkeypatch):
    stub = (lambda *a, **k: ...) if callable(EXERCISES[name].reference) else None
    assert verdict(name, stub).state == "not attempted"
    monkeypatch.setenv("NCLIB_STRICT", "1")
    with pytest.raises(lesson.NotCorrect, match="not attempted"):
        check(name, stub)


def test_every_solution_prints_and_has_an_exercise(capsys):
    told = json.loads((files(exercises) / "solutions.json").read_text(encoding="utf-8"))
    assert set(told) <= set(DECLARED)
    for name in told:
        solution(name)
        assert capsys.readouterr().out == told[name] + "\n"
    with pytest.raises(ValueError, match="no notebook has its solution"):
        solution("90.square")


def test_hints_go_from_vague_to_plain(capsys):
    hint("90.square")
    hint("90.square", level=2)
    assert capsys.readouterr().out == "Hint 1 of 2: vague\nHint 2 of 2: plain\n"
    with pytest.raises(ValueError, match="level: got 3; 90.square has hints 1 to 2"):
        hint("90.square", 3)


@pytest.mark.parametrize("call", [lambda name: check(name, 1), hint, solution])
def test_an_unknown_name_is_answered_with_the_known_ones(call):
    with pytest.raises(ValueError, match="'90.cube'.*90.angle, 90.rises, 90.square"):
        call("90.cube")
    with pytest.raises(ValueError, match="lesson 77 are: none"):
        call("77.any")


@pytest.mark.parametrize("wrong", ["square", "9.square", "90.", "90.a b", "ab.c"])
def test_a_malformed_declaration_is_refused(wrong):
    with pytest.raises(ValueError, match="name: got"):
        exercise(wrong, hints=("a", "b"), reference=1)
    for hints in (("one",), "a string"):
        with pytest.raises(ValueError, match="hints: got"):
            exercise("90.fine", hints=hints, reference=1)


def test_a_check_may_say_itself_that_there_is_no_answer():
    @exercise("90.own", hints=("a", "b"), reference=1)
    def _(answer):
        raise NotAttempted if answer == 0 else Wrong("x")

    assert [verdict("90.own", a).state for a in (0, 1)] == ["not attempted", "wrong"]


def test_the_start_says_what_runs_and_may_run_twice(capsys):
    assert start("01") is None and start("01") is None
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and torch.__version__ in first and "device" in first
    with pytest.raises(ValueError, match="two digits"):
        start("1")


def test_results_are_the_committed_tables():
    assert {"source", "dataset", "nc1"} <= set(results("collapse").columns)
    with pytest.raises(ValueError, match="name: got 'nothing'; the tables are: .*collapse"):
        results("nothing")


@pytest.fixture
def shown(monkeypatch):
    """What ``interact`` displays, and the values its figure is drawn with."""
    boxes, drawn = [], []
    monkeypatch.setattr(lesson, "display", boxes.append)

    def draw(**values):
        drawn.append(values)
        plt.plot([0, 1])

    yield boxes, drawn, draw
    plt.close("all")


def test_a_control_draws_at_once_and_on_every_move(shown):
    boxes, drawn, draw = shown
    assert interact(draw, epoch=[0, 1, 5], rate=(0.0, 1.0, 0.5), k=(2, 9), log=False) is None
    epoch, rate, k, log, _ = boxes[-1].children
    assert drawn == [{"epoch": 0, "rate": 0.0, "k": 2, "log": False}]
    epoch.value, log.value = 5, True
    assert drawn[-1] == {"epoch": 5, "rate": 0.0, "k": 2, "log": True} and len(drawn) == 3
    assert (k.step, k.max, rate.step, k.continuous_update) == (1, 9, 0.5, False)
    assert plt.get_fignums() == []  # no figure left that the cell would show a second time


def test_a_figure_that_was_open_stays_open(shown):
    figure = plt.figure()
    interact(lambda k: plt.figure(), k=(0, 1))
    assert plt.get_fignums() == [figure.number]


def test_an_error_in_the_drawing_surfaces(shown):
    def draw(k):
        if k == 3:
            raise KeyError("no epoch 3")

    boxes, _, _ = shown
    with pytest.raises(KeyError, match="epoch 3"):
        interact(draw, k=(3, 5))
    interact(draw, k=(0, 3))
    with pytest.raises(KeyError, match="epoch 3"):
        boxes[-1].children[0].value = 3


def test_strict_mode_visits_both_ends(shown, monkeypatch):
    monkeypatch.setenv("NCLIB_STRICT", "1")
    boxes, drawn, draw = shown
    interact(draw, k=(0, 3), epoch=[1, 2, 9])
    assert {(d["k"], d["epoch"]) for d in drawn} == {(0, 1), (3, 1), (0, 9)}
    assert [part.value for part in boxes[-1].children[:2]] == [0, 1]

    def fails_late(k):
        assert k < 3

    with pytest.raises(AssertionError):
        interact(fails_late, k=(0, 3))


@pytest.mark.parametrize("given", [(3, 1), (1,), (1, 2, 3, 4), "word", None, [], 5])
def test_a_malformed_control_is_refused(given):
    with pytest.raises(ValueError, match="k: got"):
        interact(lambda k: None, k=given)


def test_only_what_ipywidgets_7_7_has_is_used(shown):
    """Colab has 7.7: no widget that came with 8, and no option but these."""
    boxes, _, draw = shown
    interact(draw, a=[1], b=(0, 1), c=(0.0, 1.0), d=True, e=widgets.Dropdown(options=[1, 2]))
    old = {"SelectionSlider", "IntSlider", "FloatSlider", "Checkbox", "Dropdown", "Output", "VBox"}
    assert {type(part).__name__ for part in [boxes[-1], *boxes[-1].children]} <= old
    options = set(boxes[-1].children[0].trait_values()) & {"tooltip", "tabbable"}
    assert all(boxes[-1].children[0].trait_values()[name] is None for name in options)
