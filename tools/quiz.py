"""The predictions of a lesson as a quiz: a page, which prints as a sheet for class, and JSON.

python tools/quiz.py [NN ...]    into build/kit/: quiz-NN.html, and quiz-NN.json for jupyterquiz

``questions`` and ``form`` serve every page that asks a prediction; the quiz is not the only one.
What is right, and what speaks against each usual wrong guess, is declared once, beside the
exercises of the lesson; what came out is read from the lesson's saved outputs.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from digest import ASKED, KIT, Lesson, named, plain, render
from notebook import chosen, code, read

from nclib.course import exercises
from nclib.course.exercises import Prediction
from nclib.course.predictions import in_words
from nclib.course.ranges import Range, short

CAME = re.compile(r"(?m)^\s*it came out\s{2,}(?P<told>.+?)\s*$")
SHAPES = ("rises", "falls", "flat", "peaks", "dips")
FAR = 1e308  # an end that is open, for jupyterquiz


def questions(path: Path) -> list[dict[str, Any]]:
    """The predictions of a lesson, in its order.

    Each has ``name``, ``question``, ``unit``, ``kind`` ("number", "shape" or "word"), the ``right``
    answer and the ``usual`` wrong ones (as ``_answer`` writes them), and what ``came`` out. A guess
    that is of both kinds is right where the right answer is exact, and else the usual wrong one:
    "above 5" is what the lesson insists on, and 500 may be too much all the same.
    """
    cells = code(read(path))
    names = dict.fromkeys(m["name"] for cell in cells for m in ASKED.finditer(cell.source))
    shown = [out.data.get("text/plain", "") for c in cells for out in c.outputs if "data" in out]
    return [_question(exercises.prediction_of(name), shown) for name in names]


def _question(asked: Prediction, shown: list[str]) -> dict[str, Any]:
    found = (CAME.search(text) for text in shown if text.startswith(asked.question + "\n"))
    came = next((match["told"] for match in found if match), "")
    kind = "number" if isinstance(asked.reading, Range) else "word"
    kind = "shape" if asked.reading in SHAPES else kind
    usual = [_answer(key, asked) | {"why": _sentence(why)} for key, why in asked.usual.items()]
    told = {"name": asked.name, "question": plain(asked.question), "unit": asked.unit, "kind": kind}
    return told | {"right": _answer(asked.reading, asked), "usual": usual, "came": came}


def _answer(key: Range | str, asked: Prediction) -> dict[str, Any]:
    """What to call an answer (``text``), and, for numbers, which ones it covers."""
    text = in_words(key, asked)
    if isinstance(key, str):
        return {"text": text}
    low, high = (key.near[0] - key.near[1], sum(key.near)) if key.near else (key.above, key.below)
    return {"text": text, "low": low, "high": high, "ends": bool(key.near)}


def _sentence(text: str) -> str:
    text = plain(text)
    return text if text.endswith(("?", ".", "!")) else f"{text}."


def options(question: dict[str, Any]) -> list[str]:
    """What to choose from: all shapes, or the words in alphabetical order; none for a number."""
    if question["kind"] == "shape":
        return list(SHAPES)
    words = [answer["text"] for answer in (question["right"], *question["usual"])]
    return sorted(words) if question["kind"] == "word" else []


def choices(question: dict[str, Any]) -> dict[str, float]:
    """Ranges to choose from, where typing a number asks too much: each with a number that it holds.

    From small to large. One that has no end stops where another one begins. What lies between two
    ranges is a choice of its own, neither right nor a usual mistake.
    """
    if question["kind"] != "number":
        return {}
    answers = [question["right"], *question["usual"]]
    if not any(answer["ends"] for answer in answers):
        ranges = sorted(_open(answer, answers) for answer in answers)
        for (_, low), (high, _) in zip(ranges, ranges[1:], strict=False):
            if low < high:
                answers.append({"low": low, "high": high, "ends": False})
    found = [_choice(answer, answers, question["unit"]) for answer in answers]
    return dict(sorted(found, key=lambda pair: pair[1]))


def _open(answer: dict[str, Any], answers: list[dict[str, Any]]) -> tuple[float, float]:
    """Where the range of the answer begins and stops, beside the others."""
    low, high = answer["low"], answer["high"]
    bottom, top = (-math.inf if low is None else low), (math.inf if high is None else high)
    for other in (one for one in answers if not one["ends"]):
        if other["high"] is None and low is not None and low < other["low"] < top:
            top = other["low"]
        if other["low"] is None and high is not None and bottom < other["high"] < high:
            bottom = other["high"]
    return bottom, top


def _choice(answer: dict[str, Any], answers: list[dict[str, Any]], unit: str) -> tuple[str, float]:
    low, high = answer["low"], answer["high"]
    if answer["ends"]:
        return f"about {short((low + high) / 2)} {unit}".rstrip(), (low + high) / 2
    bottom, top = _open(answer, answers)
    rest = any(o["ends"] and bottom < o["low"] and o["high"] < top for o in answers)
    if top == math.inf:
        words, number = f"above {short(bottom)}", bottom + abs(bottom) + 1
    elif bottom == -math.inf:
        words, number = f"below {short(top)}", top - abs(top) - 1
    else:
        words, number = f"{short(bottom)} to {short(top)}", (bottom + top) / 2
    return f"{words} {unit}".rstrip() + (", another number" if rest else ""), number


def form(question: dict[str, Any], choose: bool = False) -> str:
    """A fieldset that asks; a page with one needs ``script()`` once. Answers open without it.

    With ``choose`` a number is asked for as a choice of ranges.
    """
    offered = choices(question) if choose else {}
    offered = offered or {word: word for word in options(question)}
    return render("quiz-form.html", q=question, options=offered, told=json.dumps(question))


def script() -> str:
    """The script that answers a guess, to stand once on a page with forms."""
    return named("quiz.js").read_text(encoding="utf-8")


def jupyterquiz(question: dict[str, Any]) -> dict[str, Any]:
    """The question as jupyterquiz reads it."""
    right, usual = question["right"], question["usual"]
    good = f"So it is in the lesson: {question['came'] or right['text']}."
    text = f"{question['question']} ({question['unit']})" if question["unit"] else ""
    text = text or question["question"]
    if question["kind"] == "number":
        answers = [_interval(answer, False, answer["why"]) for answer in usual]
        answers.insert(0 if right["ends"] else len(usual), _interval(right, True, good))
        answers.append({"type": "default", "feedback": "Run the lesson, and read its figure."})
        return {"question": text, "type": "numeric", "answers": answers}
    why = {answer["text"]: answer["why"] for answer in usual}
    rows = [
        {"answer": word, "correct": word == right["text"], "feedback": why.get(word, good)}
        for word in options(question)
        if word in why or word == right["text"]
    ]
    return {"question": text, "type": "multiple_choice", "answers": rows}


def _interval(answer: dict[str, Any], correct: bool, feedback: str) -> dict[str, Any]:
    low, high = answer["low"], answer["high"]
    if low == high:
        return {"type": "value", "value": low, "correct": correct, "feedback": feedback}
    ends = [-FAR if low is None else low, FAR if high is None else high]
    return {"type": "range", "range": ends, "correct": correct, "feedback": feedback}


def page(path: Path) -> str:
    """The quiz of a lesson, whole: it fetches nothing."""
    forms = [form(question) for question in questions(path)]
    return render("quiz.html", lesson=Lesson(path), forms=forms, script=script())


def main(wanted: list[str]) -> int:
    paths = chosen(wanted)
    KIT.mkdir(parents=True, exist_ok=True)
    for path in paths:
        number = path.name[:2]
        told = [jupyterquiz(question) for question in questions(path)]
        text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
        (KIT / f"quiz-{number}.html").write_text(page(path), encoding="utf-8")
        (KIT / f"quiz-{number}.json").write_text(text, encoding="utf-8")
        print(f"quiz-{number}.html: {len(told)} questions")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
