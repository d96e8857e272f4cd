"""The teacher's guide and the glossary say what the lessons say."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import guide  # noqa: E402

LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
PAGES = sorted(ROOT.glob("docs/guide/*.md"))
TERMS = re.split(r"(?m)^## ", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"))[1:]
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")  # the last digits differ between versions


def test_the_table_of_lessons_is_up_to_date():
    assert guide.main(["--check"]) == 0


def test_a_table_that_is_out_of_date_is_found_and_mended(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "notebooks").mkdir()
    first = {"cell_type": "markdown", "source": "# 06 A: b\n\n**Prerequisites:** x.\n"}
    (tmp_path / "notebooks/07_a.ipynb").write_text(json.dumps({"cells": [first]}))
    path = tmp_path / guide.GUIDE
    path.write_text(f"before\n{guide.BEGIN}old\n{guide.END}\nafter\n")
    assert guide.main(["--check"], tmp_path) == 1 and "make readme" in capsys.readouterr().out
    assert guide.main([], tmp_path) == guide.main(["--check"], tmp_path) == 0
    assert "| 06 A |  | x | 0 |" in path.read_text()
    assert path.read_text().startswith("before\n") and path.read_text().endswith("\nafter\n")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_a_page_with_wrong_answers_and_questions(lesson):
    text = guide.page(lesson.name[:2]).read_text(encoding="utf-8")
    assert text.startswith(f"# {lesson.name[:2]} ")
    for part in ("**The point.**", "**If time is short,**", "## Expected wrong", "## Discussion"):
        assert part in text, part
    assert len(re.findall(r"(?m)^- \*\*", text.split("## Discussion")[1])) >= 3
    answers = re.findall(r'^check\("(\d\d\.\w+)"', text, re.M)
    assert len(set(answers)) >= 3 and set(answers) <= set(guide.exercises(lesson))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_checks_say_to_wrong_answers_what_the_guide_says_they_say(path):
    text = path.read_text(encoding="utf-8")
    now = guide.answered(text)
    assert NUMBER.sub("#", now) == NUMBER.sub("#", text), "run: python tools/guide.py --answers"
    verdicts = re.findall(r"(?m)^check\(.*\n# (\w[\w ]*):", text)
    assert verdicts and set(verdicts) == {"wrong"}
    assert "it raised" not in text


def test_an_answer_that_is_right_or_says_something_else_is_noticed():
    stale = '```python\ncheck("01.cosines", (-1 / 2, -1 / 3))\n# wrong: no\n```\n'
    assert guide.answered(stale).splitlines()[2] == "# correct:"


def test_the_glossary_is_in_order():
    names = [term.splitlines()[0] for term in TERMS]
    assert len(names) > 40 and names == sorted(names, key=str.casefold)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.splitlines()[0])
def test_a_term_has_one_sentence_a_formula_and_its_lesson(term):
    _, sentence, formula, lesson = term.strip().split("\n\n")
    sentence = " ".join(sentence.split())
    assert sentence.endswith(".") and not re.search(r"[.?!] ", sentence)
    assert formula.startswith("$") and formula.endswith("$")
    linked = re.fullmatch(r"\[Lesson (\d\d)\]\(\.\./(notebooks/\1_\w+\.ipynb)\)", lesson)
    assert linked and (ROOT / linked[2]).exists()
