"""Every page of the site in a browser: what Lighthouse looks at, and what moves without a kernel.

axe-core judges alt texts, contrast, names, landmarks and the order of headings, in light and dark,
on a desktop and on a phone. SITE=FOLDER takes pages that are built already. About six seconds of
processor time a page.
"""

from __future__ import annotations

import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import website
from axe_playwright_python.sync_playwright import Axe
from conftest import SHOTS

LOOKS = {"desktop": ("light", 1400), "phone": ("dark", 360)}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "preload": False}
RULES["iframes"] = False  # the audit's page has a test of its own
SLOW = 300_000  # milliseconds: the largest tables take a while
LESSON = "notebooks/01_neural_collapse.html"
WALK = """() => {
    const here = document.activeElement, all = [...document.querySelectorAll("*")];
    const boxes = [here, ...here.querySelectorAll("*")].map(e => e.getBoundingClientRect());
    const area = Math.max(...boxes.map(box => box.width * box.height));
    return [all.indexOf(here), area, here.outerHTML.slice(0, 80)];
}"""
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TRIM = """() => {  // rows and tokens after the first few are of the same kind, and cost minutes
    for (const row of document.querySelectorAll("tbody > tr:nth-child(n + 4)")) row.remove();
    for (const token of document.querySelectorAll("pre span:nth-of-type(n + 12)")) token.remove();
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the tests say what is wrong."""


@pytest.fixture(scope="session")
def site():
    folder = Path(os.environ.get("SITE", website.HTML))
    if "SITE" not in os.environ:
        website.gather()
        assert website.build() == 0
    return folder


@pytest.fixture(scope="session")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def opened(browser, address, where="index.html", **options):
    """The page on a light desktop, and a list that collects its errors."""
    scheme, width = LOOKS["desktop"]
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme, **options).new_page()
    page.set_default_timeout(SLOW)
    wrong: list[str] = []
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status} {r.url}"))
    page.on("request", lambda r: address in r.url or r.url[:5] == "data:" or wrong.append(r.url))
    page.goto(f"{address}/{where}", timeout=SLOW)
    return page, wrong


def complaints(page) -> list[str]:
    """What axe finds, and a page that is wider than the window."""
    wide = page.evaluate(WIDTH)
    page.evaluate(TRIM)
    found = [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary'].splitlines()[-1].strip()}"
        for rule in Axe().run(page, options=RULES).response["violations"]
        for node in rule["nodes"][:3]
    ]
    return found + ([f"{wide} pixels wider than the window"] if wide > 0 else [])


def test_no_page_has_errors_or_shuts_anybody_out(browser, site, address):
    """PAGES="docs/*.html" takes those alone."""
    found = {}
    for path in sorted(site.glob(os.environ.get("PAGES", "**/*.html"))):
        where = path.relative_to(site).as_posix()
        if "_static" in path.parts or where in ("genindex.html", "py-modindex.html"):
            continue
        page, found[where] = opened(browser, address, where)
        for look, (scheme, width) in LOOKS.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(500)  # the theme waits before it looks what can be scrolled now
            found[where] += [f"{look}: {said}" for said in complaints(page)]
        page.context.close()
    bad = [f"{where}: {said}" for where, all_said in found.items() for said in all_said]
    assert found and not bad, "\n".join(bad)


@pytest.mark.parametrize("where", ["index.html", LESSON])
def test_the_tab_key_walks_down_the_page_and_stops_at_what_is_seen(browser, address, where):
    page, _ = opened(browser, address, where)
    places = []
    for _ in range(80):
        page.keyboard.press("Tab")
        place, area, html = page.evaluate(WALK)
        if html.startswith("<body"):
            break
        assert area > 0, f"nothing is seen of {html}"
        places.append(place)
    page.context.close()
    assert len(places) > 20 and places == sorted(places)


def test_every_frame_moves_by_keyboard(browser, site, address):
    for path in sorted(site.glob("notebooks/*.html")):
        page, wrong = opened(browser, address, f"notebooks/{path.name}", reduced_motion="reduce")
        movers = page.locator(".nclib-frames")
        assert movers.count() > 0, f"{path.name}: nothing moves"
        for mover in movers.all():
            assert not mover.get_by_role("button").is_visible()  # nothing moves by itself
            image = mover.locator("img")
            for slider in mover.get_by_role("slider").all():
                before = image.get_attribute("src"), image.get_attribute("alt")
                slider.focus()
                value = slider.input_value()
                page.keyboard.press(
                    "Home" if value == slider.get_attribute("max") else "ArrowRight"
                )
                assert slider.input_value() != value, path.name
                after = image.get_attribute("src"), image.get_attribute("alt")
                assert before[1] != after[1], path.name
                assert after[0].startswith("data:image/webp")
                text = slider.locator("xpath=..").locator("output").inner_text()
                assert text == slider.get_attribute("aria-valuetext") and text in after[1]
            broken = "image => image.decode().then(() => image.naturalWidth)"
            assert image.evaluate(broken) > 0
        page.context.close()
        assert not wrong


def test_a_frame_plays_where_nobody_asked_for_less_motion(browser, address):
    page, _ = opened(browser, address, LESSON)
    mover = page.locator(".nclib-frames").first
    alt = mover.locator("img").get_attribute("alt")
    mover.get_by_role("button", name="Play").click()
    mover.get_by_role("button", name="Pause").wait_for()
    page.wait_for_function(
        "([image, alt]) => image.alt != alt", arg=[mover.locator("img").element_handle(), alt]
    )
    page.context.close()


def test_a_prediction_is_made_and_revealed(browser, address):
    page, wrong = opened(browser, address, LESSON)
    for form in page.locator("fieldset.nclib-quiz").all():
        told = page.locator(f"[data-prediction='{form.get_attribute('id')[5:]}']")
        assert told.inner_text() == "nothing yet"
        form.get_by_role("button").click()
        assert "Choose" in form.get_by_role("status").inner_text()
        first = form.get_by_role("radio").first
        first.focus()
        page.keyboard.press("Space")
        assert told.inner_text() == first.locator("xpath=..").inner_text().strip()
        assert not form.locator("details ul").is_visible()
        form.get_by_role("button").click()
        assert form.locator("details ul").is_visible()
        assert len(form.get_by_role("status").inner_text()) > 15
    page.screenshot(path=SHOTS / "prediction.png")
    page.context.close()
    assert not wrong


def test_without_a_script_the_frames_stand_and_the_answers_lie_in_a_fold(browser, address):
    page, _ = opened(browser, address, LESSON, java_script_enabled=False)
    assert page.locator(".nclib-frames img").first.is_visible()
    assert not page.locator(".nclib-frames input").first.is_visible()
    fold = page.locator("fieldset.nclib-quiz details").first
    assert not fold.locator("ul").is_visible()
    fold.locator("summary").click()
    assert fold.locator("ul").is_visible()
    page.context.close()


def test_the_front_page_stands_still_where_that_was_asked(browser, address):
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page, _ = opened(browser, address, reduced_motion=motion)
        moving, still = page.locator(".moving img").all()
        assert (moving.is_visible(), still.is_visible()) == (moves, not moves)
        page.locator(".moving").get_by_role("button").click()
        assert (moving.is_visible(), still.is_visible()) == (not moves, moves)
        page.context.close()


def test_a_dark_page_is_printed_in_light_colours(browser, address):
    page, wrong = opened(browser, address, "docs/running.html")
    page.emulate_media(color_scheme="dark")
    page.evaluate("""() => {
        const text = document.querySelector(".bd-article p");
        window.inks = [];
        const note = () => inks.push(getComputedStyle(text).color);
        note();
        addEventListener("beforeprint", note);
        addEventListener("afterprint", note);
    }""")
    page.pdf()
    screen, paper, after = (
        sum(map(int, re.findall(r"\d+", ink)[:3])) for ink in page.evaluate("inks")
    )
    page.context.close()
    assert not wrong and screen == after > 450 and paper < 250
