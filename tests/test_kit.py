"""Slides and one-page summaries: they hold what the lesson holds, and fetch nothing."""

import re
import sys
from html import escape, unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import deck  # noqa: E402
import handouts  # noqa: E402
import pages  # noqa: E402
from claims import claims  # noqa: E402
from digest import Lesson, told  # noqa: E402
from notebook import checks, code, lessons, read  # noqa: E402
from quiz import questions  # noqa: E402

EVERY = pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)


def words(page):
    """What a reader sees, in one line; markup and data are left out."""
    bare = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]+>", " ", page)
    return " ".join(unescape(bare).split())


def squeezed(text):
    return "".join(text.split())


@EVERY
def test_a_deck_shows_every_figure_claim_and_prediction_in_the_order_of_the_lesson(path):
    slides, notebook = deck.slides(path), read(path)
    drawn = [o for c in code(notebook) for o in c.outputs if "image/png" in o.get("data", {})]
    moving = [o for c in code(notebook) for o in c.outputs if "nclib-frames" in str(o.get("data"))]
    pictures = [s["picture"] for s in slides if s.get("picture")]
    assert len(pictures) == len(drawn) + len(moving) and all(p.alt for p in pictures)
    assert [c for s in slides for c in s.get("claims", ())] == claims(path)
    asked = [s["ask"]["name"] for s in slides if "ask" in s]
    assert asked == [q["name"] for q in questions(path)]
    for name in asked:  # nobody reads the answer before the question
        (at,) = (i for i, s in enumerate(slides) if s.get("ask", {}).get("name") == name)
        (answer,) = (i for i, s in enumerate(slides) if s.get("answer", {}).get("name") == name)
        assert at < answer
    assert all(len(s.get("claims", ())) <= 2 * deck.CLAIMS for s in slides)


@EVERY
def test_a_handout_has_the_question_figure_terms_claims_and_exercises(path, tmp_path):
    page, lesson = handouts.handout(path), Lesson(path)
    (tmp_path / "handout.html").write_text(page)
    (tmp_path / "deck.html").write_text(deck.deck(path))
    assert pages.complaints(tmp_path) == []
    text = squeezed(words(page))
    assert squeezed(lesson.question) in text and page.count("<img ") == 1
    chosen = handouts.claims(lesson)
    assert len(chosen) >= 3 and set(map(repr, chosen)) <= set(map(repr, claims(path)))
    for record in chosen:
        assert all(squeezed(part) in text for part in told(record))
    names = [name for name, task in lesson.exercises() if task]
    assert names == checks(read(path))
    assert all(escape(term) in page for term, _ in lesson.terms())
    assert all(squeezed(q["question"]) in text for q in questions(path))
    assert len(lesson.remember()) > 100


def test_the_first_claim_of_a_section_is_its_headline_with_number_and_control():
    record = {"sentence": "s", "values": [1.0, 2.0, 3.0], "control": [["raw", [5.0]], ["b", [1.0]]]}
    assert told(record) == ("s", "2 (1 to 3)", "raw 5")
    assert told(record | {"values": [0.25], "control": []}) == ("s", "0.25", "")


def test_a_figure_that_no_caption_or_several_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    lesson = Lesson(lessons()[2])
    monkeypatch.setattr(handouts, "ROOT", tmp_path)
    for text, count in (("no such words", "0"), ("the", r"\d+")):
        (tmp_path / "docs/slides.toml").write_text(f'02 = "{text}"\n')
        with pytest.raises(ValueError, match=f"is in {count} captions of 02_"):
            handouts.figure(lesson)
    (tmp_path / "docs/slides.toml").write_text("")
    assert handouts.figure(lesson)[0] == lesson.hook[1]
