"""The quiz of a lesson: what it asks, what it calls right, and jupyterquiz's form of it."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import pages  # noqa: E402
import quiz  # noqa: E402
from notebook import lessons  # noqa: E402

LESSONS = lessons()


def covers(answer, number):
    low = float("-inf") if answer["low"] is None else answer["low"]
    high = float("inf") if answer["high"] is None else answer["high"]
    return low <= number <= high if answer["ends"] else low < number < high


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_quiz_asks_every_prediction_and_knows_what_came_out(path):
    asked = quiz.questions(path)
    assert len(asked) >= 2 and all(q["name"][:2] == path.name[:2] for q in asked)
    for q in asked:
        assert q["came"], f"{q['name']}: nothing was revealed in the saved lesson"
        assert q["usual"] and all(answer["why"][-1] in ".?!" for answer in q["usual"])
        if q["kind"] != "number":
            assert q["right"]["text"] in quiz.options(q)
        elif not q["right"]["ends"]:  # what came out is no usual wrong guess
            came = float(q["came"].split()[0].replace(",", ""))
            assert covers(q["right"], came), q["name"]
            assert not any(covers(usual, came) for usual in q["usual"]), q["name"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_jupyterquiz_gets_one_right_answer_a_question(path):
    for asked in quiz.questions(path):
        q = quiz.jupyterquiz(asked)
        assert q["type"] in ("numeric", "multiple_choice") and q["question"]
        assert sum(answer.get("correct", False) for answer in q["answers"]) == 1
        assert all(answer["feedback"] for answer in q["answers"])
        for answer in q["answers"]:
            assert answer.get("type") != "range" or answer["range"][0] < answer["range"][1]
        json.dumps(q, allow_nan=False)


def test_the_page_holds_every_question_as_data_and_fetches_nothing(tmp_path):
    (tmp_path / "quiz.html").write_text(quiz.page(LESSONS[2]))
    assert pages.complaints(tmp_path) == []
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(json.loads(v) for k, v in attributes if k == "data-told")

    Reader().feed(quiz.page(LESSONS[2]))
    assert found == quiz.questions(LESSONS[2])
    assert {q["kind"] for q in found} == {"number"} and found[0]["unit"] == "images"


def test_a_shape_offers_all_shapes_and_a_word_its_own():
    kinds = {}
    for path in LESSONS:
        for q in quiz.questions(path):
            kinds.setdefault(q["kind"], q)
    assert quiz.options(kinds["shape"]) == list(quiz.SHAPES)
    words = quiz.options(kinds["word"])
    assert words == sorted(words) and len(words) >= 3
    assert 'type="radio"' in quiz.form(kinds["word"]) and "radio" not in quiz.form(kinds["number"])


def test_ranges_to_choose_from_do_not_overlap():
    (asked,) = (q for q in quiz.questions(LESSONS[2]) if q["name"] == "02.how_few")
    found = quiz.choices(asked)
    assert list(found) == ["below 6 images", "6 to 100 images", "above 100 images"]
    assert 6 < found["6 to 100 images"] < 100


def test_between_two_ranges_there_is_a_choice_too():
    asked = {q["name"]: q for path in LESSONS for q in quiz.questions(path)}
    found = quiz.choices(asked["14.combination"])
    assert list(found) == ["below 0.1", "0.1 to 0.5", "0.5 to 0.95", "above 0.95"]
    assert 0.1 < found["0.1 to 0.5"] < 0.5


def test_an_exact_answer_comes_before_the_usual_guess_beside_it_and_a_bound_after_it():
    asked = {q["name"]: quiz.jupyterquiz(q) for p in LESSONS for q in quiz.questions(p)}
    shuffles, logits = asked["08.shuffles"]["answers"], asked["10.factor"]["answers"]
    assert shuffles[0]["correct"] and shuffles[0]["range"] == [98.5, 99.5]
    assert [answer["correct"] for answer in logits[:-1]] == [False, False, True]
