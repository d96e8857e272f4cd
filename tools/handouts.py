"""A summary of each lesson on one printed page: build/kit/handout-NN.html, and .pdf by chromium.

python tools/handouts.py [--html] [NN ...]    with --html no browser is needed

The question, one figure, a claim of each section with its number and its control, the terms, the
predictions and the exercises, and what to remember. Everything is read from the lesson.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

from digest import KIT, Lesson, Picture, render
from notebook import ROOT, chosen
from quiz import questions

SENTENCE = re.compile(r"\S.*?[.?!](?=\s|$)")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def handout(path: Path) -> str:
    """The page of a lesson as HTML."""
    lesson = Lesson(path)
    picture, caption = figure(lesson)
    parts = {"picture": picture, "caption": caption, "claims": claims(lesson)}
    parts |= {"terms": lesson.terms(), "asked": questions(path)}
    return render("handout.html", lesson=lesson, **parts)


def figure(lesson: Lesson) -> tuple[Picture, str]:
    """The figure that docs/slides.toml names by words of its caption; else that of the hook.

    Raises ``ValueError`` where the words are in no caption, or in several.
    """
    text = (ROOT / "docs" / "slides.toml").read_text(encoding="utf-8")
    words = tomllib.loads(text).get(lesson.number)
    if words is None:
        _, picture, _ = lesson.hook
        return picture, ""
    found = [s.picture for s in lesson.steps() if s.picture and words in s.picture.alt]
    if len(found) != 1:
        count = len(found)
        raise ValueError(
            f"docs/slides.toml: {words!r} is in {count} captions of {lesson.path.name}"
        )
    return found[0], " ".join(SENTENCE.findall(found[0].alt)[:2])


def claims(lesson: Lesson) -> list[dict[str, Any]]:
    """The first claim of each section that makes one: its headline."""
    found: dict[str, dict[str, Any]] = {}
    for step in lesson.steps():
        for record in step.claims:
            found.setdefault(step.section, record)
    return list(found.values())


def chromium() -> str | None:
    """The browser of the system, or the one that CHROMIUM names."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def printed(pages: list[Path], browser: Any) -> list[Path]:
    """The pages as PDF, beside them."""
    sheet = browser.new_page()
    for page in pages:
        sheet.goto(page.resolve().as_uri())
        sheet.pdf(path=page.with_suffix(".pdf"), prefer_css_page_size=True)
    sheet.close()
    return [page.with_suffix(".pdf") for page in pages]


def main(arguments: list[str]) -> int:
    paths = chosen([argument for argument in arguments if argument != "--html"])
    KIT.mkdir(parents=True, exist_ok=True)
    made = [KIT / f"handout-{path.name[:2]}.html" for path in paths]
    for path, page in zip(paths, made, strict=True):
        page.write_text(handout(path), encoding="utf-8")
    print(f"{len(made)} pages in {KIT.relative_to(ROOT)}")
    if "--html" in arguments:
        return 0
    program = chromium()
    if program is None:
        print("no chromium here: install it, or name one in CHROMIUM; or print the pages yourself")
        return 1
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        print(f"{len(printed(made, browser))} of them as PDF")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
