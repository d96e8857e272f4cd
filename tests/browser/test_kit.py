"""What a teacher prints and shows: one readable page, slides, a quiz that answers."""

from __future__ import annotations

import re

import pytest
from deck import deck
from handouts import handout, printed
from notebook import lessons
from quiz import page as quiz_page

SMALLEST = 7  # points
PAGE = re.compile(rb"/Type\s*/Page\b(?!s)")
MEASURE = """() => {
    const over = [], small = [];
    Reveal.getSlides().forEach((slide, i) => {
        Reveal.slide(i);
        const high = slide.scrollHeight - slide.clientHeight;
        const wide = slide.scrollWidth - slide.clientWidth;
        if (high > 0 || wide > 0) over.push([i + 1, high, wide]);
        for (const figure of slide.querySelectorAll("figure"))
            if (figure.clientHeight < 240) small.push(i + 1);
    });
    return [over, small];
}"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    for path in lessons():
        for name, make in (("deck", deck), ("handout", handout), ("quiz", quiz_page)):
            (folder / f"{name}-{path.name[:2]}.html").write_text(make(path))
    return folder


@pytest.fixture
def sheet(browser):
    sheet = browser.new_page(viewport={"width": 1280, "height": 720})
    said, asked = [], []
    sheet.on("console", lambda message: said.append(message.text))
    sheet.on("pageerror", lambda error: said.append(str(error)))
    sheet.on("request", lambda request: asked.append(request.url))
    yield sheet
    sheet.close()
    assert not said and all(url.startswith(("file:", "data:")) for url in asked)


def test_a_handout_is_one_page_with_letters_that_can_be_read(sheet, kit):
    pages = sorted(kit.glob("handout-*.html"))
    for page in pages:
        sheet.goto(page.as_uri())
        size, over = sheet.evaluate(
            "[getComputedStyle(document.documentElement).fontSize,"
            " document.querySelector('main').scrollHeight"
            " - document.querySelector('main').clientHeight]"
        )
        points = float(size.removesuffix("px")) * 0.75
        assert points >= SMALLEST and over <= 0, f"{page.name}: {points:.1f} pt"


def test_a_handout_prints_on_one_page(browser, kit):
    pages = sorted(kit.glob("handout-*.html"))
    counts = {pdf.name: len(PAGE.findall(pdf.read_bytes())) for pdf in printed(pages, browser)}
    assert len(counts) == len(lessons()) and set(counts.values()) == {1}, counts


def test_every_slide_fits_and_the_keys_turn_them(sheet, kit):
    for page in sorted(kit.glob("deck-*.html")):
        sheet.goto(page.as_uri())
        place = "Reveal.getIndices().h"
        assert sheet.evaluate(place) == 0
        sheet.keyboard.press("ArrowRight")
        sheet.keyboard.press("Space")
        sheet.wait_for_function(f"{place} === 2")
        sheet.keyboard.press("ArrowLeft")
        sheet.wait_for_function(f"{place} === 1")
        over, small = sheet.evaluate(MEASURE)
        assert not over and not small, f"{page.name}: {over}, {small} small figures"
        pdf = sheet.pdf(prefer_css_page_size=True)
        assert len(PAGE.findall(pdf)) == sheet.evaluate("Reveal.getTotalSlides()")


def test_a_quiz_says_why_a_usual_guess_is_wrong_and_what_is_right(sheet, kit):
    sheet.goto((kit / "quiz-02.html").as_uri())
    form = sheet.locator("fieldset").first
    told = form.locator("details p")
    for guess, word in (("lots", "A number"), ("500", "Not so: "), ("40", "Right: ")):
        form.locator("input").fill(guess)
        form.locator("button").click()
        assert form.locator(".verdict").inner_text().startswith(word)
        assert told.is_visible() == (guess != "lots")
    sheet.goto((kit / "quiz-10.html").as_uri())
    form = sheet.locator("fieldset").first
    form.locator("button").click()
    assert form.locator(".verdict").inner_text() == "Choose one first."
    form.locator("input[value=falls]").check()
    form.locator("button").click()
    assert form.locator(".verdict").inner_text().startswith("Not so: ")
