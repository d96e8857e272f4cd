"""Slides of a lesson from its own figures, claims and predictions: one file, nothing to fetch.

python tools/deck.py [NN ...]    into build/kit/deck-NN.html

The slides are turned by reveal.js, whose files come with sphinx-revealjs: arrow keys, space, the
buttons or a swipe, "o" shows all. A slider on a slide moves, as it does in the lesson. Printed,
each slide is a page.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from digest import KIT, Lesson, Step, render
from markupsafe import Markup
from notebook import chosen
from quiz import questions

CLAIMS = 3  # on a slide with a picture, and twice as many without


def slides(path: Path) -> list[dict[str, Any]]:
    """What stands on each slide between the hook and the end."""
    asked = {question["name"]: question for question in questions(path)}
    found: list[dict[str, Any]] = []
    for step in Lesson(path).steps():
        found += [{"section": step.section, "ask": asked[name]} for name in step.asks]
        found += _shown(step)
        found += [{"section": step.section, "answer": asked[name]} for name in step.reveals]
    return found


def _shown(step: Step) -> list[dict[str, Any]]:
    """The picture with its first claims, and the other claims behind it."""
    first = CLAIMS if step.picture else 2 * CLAIMS
    if not step.picture and not step.claims:
        return []
    parts = [step.claims[:first]]
    parts += [step.claims[i : i + 2 * CLAIMS] for i in range(first, len(step.claims), 2 * CLAIMS)]
    pictures = [step.picture, *[None] * (len(parts) - 1)]
    return [
        {"section": step.section, "picture": picture, "claims": claims}
        for picture, claims in zip(pictures, parts, strict=True)
    ]


def deck(path: Path) -> str:
    """The slides of a lesson as one page."""
    return render("deck.html", lesson=Lesson(path), slides=slides(path), reveal=reveal())


def reveal() -> dict[str, Markup]:
    """The style and the script of reveal.js, to stand in the page itself."""
    package = find_spec("sphinx_revealjs")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no reveal.js here: pip install sphinx-revealjs")
    files = Path(package.origin).with_name("_static") / "revealjs" / "dist"
    parts = {"css": "reveal.css", "script": "reveal.js"}
    return {
        name: Markup((files / file).read_text(encoding="utf-8")) for name, file in parts.items()
    }


def main(wanted: list[str]) -> int:
    paths = chosen(wanted)
    KIT.mkdir(parents=True, exist_ok=True)
    for path in paths:
        text = deck(path)
        (KIT / f"deck-{path.name[:2]}.html").write_text(text, encoding="utf-8")
        print(f"deck-{path.name[:2]}.html: {text.count('<section>')} slides")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
