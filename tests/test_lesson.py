"""Checks, hints, solutions and controls: what a student sees."""

import base64
import contextlib
import importlib
import io
import json
import math
import os
import re
import subprocess
import sys
from importlib.resources import files

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from nclib import course
from nclib.course import (
    check,
    checks,
    controls,
    exercises,
    frames,
    hint,
    interact,
    results,
    solution,
    start,
    verdict,
)
from nclib.course.exercises import (
    EXERCISES,
    NotAttempted,
    Wrong,
    close,
    exercise,
    expect,
    number,
)

LESSONS = sorted(path.stem for path in files(exercises).iterdir() if path.stem.startswith("lesson"))
for name in LESSONS:
    with contextlib.suppress(Exception):  # its own test below says what is wrong with it
        importlib.import_module(f"nclib.course.exercises.{name}")
DECLARED = sorted(EXERCISES)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Exercises of a lesson 90; not strict unless a test says so."""
    monkeypatch.delenv("NCLIB_STRICT", raising=False)
    monkeypatch.delenv("NCLIB_FRAMES", raising=False)
    checks._shown.clear()
    known = dict(EXERCISES)

    @exercise("90.square", hints=("vague", "plain"), reference=square)
    def _(answer):
        expect(answer(torch.tensor(2.0)) != 8, "that is the cube")
        close(answer(torch.tensor([2.0, -3.0])), [4.0, 9.0], "the square")

    number("90.angle", 110, 130, reference=120, hints=("a", "b"))
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
    assert out.startswith("90.square: not attempted") and 'hint("90.square")' in out
    assert "vague" not in out  # nobody has tried yet


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


def test_each_wrong_answer_gets_the_next_hint_and_a_right_one_begins_anew(capsys):
    def hints():
        check("90.square", broken)
        return [line for line in capsys.readouterr().out.splitlines() if line[:4] == "Hint"]

    given = [hints() for _ in range(3)]
    assert given == [["Hint 1 of 2: vague"], ["Hint 2 of 2: plain"], ["Hint 2 of 2: plain"]]
    check("90.square", empty)
    assert "Hint" not in capsys.readouterr().out
    check("90.square", square)
    capsys.readouterr()
    assert hints() == ["Hint 1 of 2: vague"]


@pytest.mark.parametrize("off", ["0", "", "false", "False", "no", "off", " 0 "])
def test_strict_mode_can_be_switched_off_in_words(off, monkeypatch):
    monkeypatch.setenv("NCLIB_STRICT", off)
    assert not course.strict() and check("90.square", broken) is square
    for on in ("1", "true", "yes"):
        monkeypatch.setenv("NCLIB_STRICT", on)
        assert course.strict()


@pytest.mark.parametrize("answer", [None, empty, broken, lambda x: x])
def test_strict_mode_raises_for_anything_but_right(answer, monkeypatch):
    monkeypatch.setenv("NCLIB_STRICT", "1")
    with pytest.raises(checks.NotCorrect, match="90.square"):
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
        (100, "wrong", "100 is too low"),
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
    assert verdict(name, "no such answer").state == "wrong"
    assert len(EXERCISES[name].hints) >= 2 and all(EXERCISES[name].hints)


@pytest.mark.parametrize("name", DECLARED)
def test_every_exercise_fails_strictly_where_there_is_a_stub(name, monkeypatch):
    stub = (lambda *a, **k: ...) if callable(EXERCISES[name].reference) else None
    assert verdict(name, stub).state == "not attempted"
    monkeypatch.setenv("NCLIB_STRICT", "1")
    with pytest.raises(checks.NotCorrect, match="not attempted"):
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
    for _ in range(3):
        hint("90.square")
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["Hint 1 of 2: vague", "Hint 2 of 2: plain"]
    assert told[2].startswith('solution("90.square")') and told[1:3] == told[3:]
    hint("90.square", level=1)
    assert capsys.readouterr().out == "Hint 1 of 2: vague\n"
    with pytest.raises(ValueError, match="level: got 3; 90.square has hints 1 to 2"):
        hint("90.square", 3)


@pytest.mark.parametrize("call", [lambda name: check(name, 1), hint, solution])
def test_an_unknown_name_is_answered_with_the_known_ones(call):
    with pytest.raises(ValueError, match="'90.cube'.*90.angle, 90.square"):
        call("90.cube")
    with pytest.raises(ValueError, match="lesson 77 are: none"):
        call("77.any")
    with pytest.raises(ValueError, match="got '1.nc1'; write '01.nc1'"):
        call("1.nc1")
    with pytest.raises(ValueError, match="allowed is a lesson and a word"):
        call("nc1")


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

    def display(what):
        boxes.extend([what] if isinstance(what, (widgets.VBox, frames.Page)) else [])

    monkeypatch.setattr(controls, "display", display)

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


@pytest.fixture
def saving(monkeypatch):
    """As the lesson is run to be saved."""
    monkeypatch.setenv("NCLIB_FRAMES", "1")


def titled(**values):
    figure, ax = plt.subplots(figsize=(2, 1.5))
    ax.set_title(f"<{sorted(values.values())}>")


def told(page):
    """What the script of a page is given."""
    return json.loads(re.search(r'\)\("nclib-\w+", (.*)\);</script>', page.data)[1])


def test_a_saved_lesson_has_frames_in_place_of_the_control(shown, saving):
    boxes, _, _ = shown
    interact(titled, epoch=[0, 1, 5], log=True)
    page = boxes[-1]
    data = told(page)
    assert data["texts"] == [["0", "1", "5"], ["no", "yes"]] and data["start"] == 1
    assert len(data["frames"]) == len(set(data["frames"])) == 6
    assert data["alts"][4] == "epoch 5, log no: <[False, 5]>"
    picture = Image.open(io.BytesIO(base64.b64decode(data["frames"][0])))
    assert picture.format == "WEBP" and picture.width > 100
    assert "controls" in repr(page) and plt.get_fignums() == []
    # without the script the frame of the start stands, with its words; the dead sliders do not
    assert page.data.count("<img") == 1 and 'alt="epoch 0, log yes: &lt;' in page.data
    assert data["frames"][1] in page.data.split("<script>")[0]
    assert "<div hidden>" in page.data and page.data.count('type="range"') == 2


def test_a_control_of_many_values_is_thinned_and_keeps_its_ends_and_its_start():
    row = list(range(101))
    long = frames.Control("k", [str(v) for v in row], row, 33)
    (few,) = frames.thinned([long], 24)
    assert len(few.values) == 24 and {0, 33, 100} <= set(few.values)
    assert few.values == sorted(few.values) and few.values[few.start] == 33
    steps = [b - a for a, b in zip(few.values, few.values[1:], strict=False)]
    assert max(steps) <= 7
    several = frames.thinned([long, long, long, long, long, long], 24)
    assert math.prod(len(control.values) for control in several) <= 24
    assert all(control.values[control.start] == 33 for control in several)


def test_frames_fit_their_bytes(monkeypatch):
    monkeypatch.setattr(frames, "BYTES", 9_000)
    noise = np.random.default_rng(0).integers(0, 255, (9, 60, 80, 3), dtype=np.uint8)
    texts = frames._encoded([Image.fromarray(picture) for picture in noise])
    assert len(texts) == 9 and sum(map(len, texts)) <= 9_000


def test_where_nothing_is_drawn_the_control_itself_is_saved(shown, saving):
    boxes, _, _ = shown
    interact(lambda k: print(k), k=(0, 2))
    assert isinstance(boxes[-1], widgets.VBox)


def test_an_error_in_a_frame_surfaces(shown, saving):
    def draw(k):
        assert k < 2
        plt.figure()

    with pytest.raises(AssertionError):
        interact(draw, k=(0, 3))


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given, kept):
    """OpenMP reads its policy when torch loads, so the package says it before."""
    code = "import os, sys, nclib; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    clean = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    env = clean | ({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == f"{kept} False\n", done.stderr
