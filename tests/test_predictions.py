"""A guess is noted, not graded; after the experiment it stands beside what came out."""

import pytest
import torch

from nclib.course import DoesNotHold, predict, predictions, reveal
from nclib.course.exercises import PREDICTIONS, prediction


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Predictions of a lesson 90; not strict unless a test says so."""
    monkeypatch.delenv("NCLIB_STRICT", raising=False)
    known = dict(PREDICTIONS)
    reasons = {(None, 2): "zero error is not zero loss", 5: "watch the log scale"}
    prediction("90.factor", "How many times smaller?", usual=reasons, above=10, unit="times")
    prediction("90.layers", "NC1 by layer?", usual={"flat": "it is not"}, reading="falls")
    prediction("90.which", "Which set?", usual={"test": "it was not fitted"}, reading="train")
    yield
    PREDICTIONS.clear()
    PREDICTIONS.update(known)
    predictions._guesses.clear()


@pytest.fixture
def shown(monkeypatch):
    tables = []
    monkeypatch.setattr(predictions, "display", tables.append)
    return tables


def test_a_guess_is_noted_and_not_graded(capsys):
    for name, guess, said in [
        ("90.factor", 1, "1 times"),
        ("90.factor", torch.tensor(20.0), "20 times"),
        ("90.layers", [3, 2, 1], "3, 2, 1 (falls)"),
        ("90.layers", torch.tensor([1.0, 1.0]), "1, 1 (flat)"),
        ("90.which", " test ", "test"),
        ("90.factor", "no idea", "no idea"),
    ]:
        assert predict(name, guess) is None
        assert capsys.readouterr().out == f"{name}: noted, {said}\n"


@pytest.mark.parametrize("guess", [None, ..., [1, ...], (None, 2)])
def test_without_a_guess_the_lesson_goes_on(guess, shown, capsys):
    predict("90.factor", 3)
    predict("90.factor", guess)
    assert "90.factor: no guess yet" in capsys.readouterr().out
    reveal("90.factor", 60)
    assert shown[-1].rows[0] == ("you guessed", "nothing yet")


@pytest.mark.parametrize("guess", [float("nan"), True, {"a": 1}, []])
def test_what_is_no_guess_is_refused(guess):
    with pytest.raises(ValueError, match="guess: got"):
        predict("90.factor", guess)


@pytest.mark.parametrize(
    ("guess", "reasons"),
    [
        (1.5, {"below 2 times"}),
        (5.1, {"about 5 times"}),
        (30, {"below 2 times", "about 5 times"}),  # it tells about every usual guess
        (2, {"below 2 times", "about 5 times"}),  # the ends are not part of it
        ("many", {"below 2 times", "about 5 times"}),
    ],
)
def test_it_says_what_speaks_against_the_usual_guess(guess, reasons, shown):
    predict("90.factor", guess)
    reveal("90.factor", [58, 64])
    rows = dict(shown[-1].rows)
    assert rows["it came out"] == "61 times (58 to 64, 2 values)"
    assert {row[8:] for row in rows if row.startswith("why not ")} == reasons
    assert shown[-1].caption == "How many times smaller?" and "the text says" not in rows


def test_a_sketch_and_a_word_are_compared_with_what_was_measured(shown):
    predict("90.layers", [1, 1, 1.01])
    reveal("90.layers", torch.tensor([0.9, 0.5, 0.001]))
    assert [text for _, text in shown[-1].rows] == [
        *("1, 1, 1.01 (flat)", "0.9, 0.5, 0.001 (falls)", "it is not")
    ]
    predict("90.which", "Test")
    reveal("90.which", "train")
    assert ("why not test", "it was not fitted") in shown[-1].rows


def test_what_came_out_here_is_no_wrong_guess_here(shown):
    predict("90.factor", 1)
    reveal("90.factor", [1.4, 1.6])
    assert [row[0] for row in shown[-1].rows if "why" in row[0]] == ["why not about 5 times"]
    reveal("90.layers", [1, 1])
    assert not any("why" in row[0] for row in shown[-1].rows)


def test_a_text_that_is_not_so_here_says_it(shown):
    predict("90.factor", 3)
    reveal("90.factor", 4)
    assert shown[-1].rows[-1] == ("the text says", "above 10 times; not so here")
    assert shown[-1].good is False


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("90.factor", [9, 12], 10), ("90.layers", [3, 1], [1, 3]), ("90.which", "Train", "test")],
)
def test_a_test_fails_where_the_text_no_longer_fits_the_result(
    name, right, wrong, shown, monkeypatch
):
    monkeypatch.setenv("NCLIB_STRICT", "1")
    with pytest.raises(DoesNotHold, match="nothing was predicted"):
        reveal(name, right)
    predict(name, 1)
    reveal(name, right)
    with pytest.raises(DoesNotHold, match="the text says"):
        reveal(name, wrong)
    lesson = {"reveal": reveal, "DATASET": "mnist", "name": name, "wrong": wrong}
    exec("reveal(name, wrong)", lesson)  # another data set may have another result
    assert "not so here" in str(shown[-1])


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ([1, 2, 3], "rises"),
        ([1, 2, 1.99, 3], "rises"),
        ([3, 1, 0], "falls"),
        ([5, 5, 5.1], "flat"),
        ([0, 0], "flat"),
        ([1, 3, 1.5], "peaks"),
        ([3, 1, 2], "dips"),
        ([1, 3, 1, 3], "wavers"),
    ],
)
def test_the_shape_of_a_sketch(row, word):
    assert predictions.shape(row) == word


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"usual": {1: "no"}}, "reading: got None"),
        ({"usual": {1: "no"}, "above": 1, "reading": "falls"}, "reading: got 'falls'"),
        ({"usual": {}, "above": 1}, "usual: got"),
        ({"usual": {1: ""}, "above": 1}, "usual: got"),
        ({"usual": {(3, 1): "no"}, "above": 1}, "nothing lies between"),
    ],
)
def test_a_malformed_declaration_is_refused(options, word):
    with pytest.raises(ValueError, match=word):
        prediction("90.bad", "What?", **options)
    with pytest.raises(ValueError, match="name: got"):
        prediction("bad", "What?", usual={1: "no"}, above=1)


@pytest.mark.parametrize("call", [predict, reveal])
def test_an_unknown_name_is_answered_with_the_known_ones(call):
    with pytest.raises(ValueError, match="predictions of lesson 90 are: 90.factor, 90.layers"):
        call("90.other", 1)
