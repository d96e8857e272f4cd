"""Each lesson in JupyterLab: every cell runs, and a slider moved by keyboard redraws its figure."""

from __future__ import annotations

import pytest
from conftest import SHOTS, chosen
from lab import errors, open_notebook, run_all, run_counts
from playwright.sync_api import Locator, Page

ANY = ".noUi-handle, .widget-checkbox input"
FIGURES = "cell => [...cell.querySelectorAll('.jp-OutputArea img')].map(i => i.src).join()"


def move(page: Page, control: Locator, cell: Locator) -> tuple[str, str]:
    """The figures of the cell before and after a key has moved the control."""
    control.scroll_into_view_if_needed()
    before = cell.evaluate(FIGURES)
    control.focus()
    at_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
    checkbox = control.evaluate("e => e.tagName") == "INPUT"
    page.keyboard.press("Space" if checkbox else "ArrowLeft" if at_end else "ArrowRight")
    page.wait_for_function(
        f"([cell, before]) => ({FIGURES})(cell) != before",
        arg=[cell.element_handle(), before],
        timeout=300_000,
    )
    return before, cell.evaluate(FIGURES)


def look(page: Page, panel: Locator, name: str) -> None:
    """Save what a reader sees while scrolling down: build/browser/NAME_00.png and so on."""
    outer = panel.locator(".jp-WindowedPanel-outer")
    height = outer.evaluate("e => e.clientHeight")
    for number in range(60):
        outer.evaluate(f"e => {{ e.scrollTop = {number * (height - 60)} }}")
        page.wait_for_timeout(250)
        page.screenshot(path=SHOTS / f"{name}_{number:02d}.png")
        if outer.evaluate("e => e.scrollTop + e.clientHeight >= e.scrollHeight - 5"):
            break


def too_wide(panel: Locator) -> list[str]:
    """Figures that stick out of their cell, or that had to shrink below two thirds."""
    measure = """images => images.map(i => [i.naturalWidth, i.clientWidth,
        i.closest('.jp-OutputArea-output').clientWidth])"""
    sizes = panel.locator(".jp-OutputArea-output img").evaluate_all(measure)
    return [f"{n} px shown in {w} of {a}" for n, w, a in sizes if w > a + 1 or w < n * 2 / 3]


def read_lesson(page: Page, address: str, name: str, shots: str) -> None:
    panel = open_notebook(page, address, f"notebooks/{name}.ipynb")
    run_all(page, panel)
    assert errors(panel) == []
    assert all(count.startswith("[") and count[1].isdigit() for count in run_counts(panel))
    look(page, panel, shots)
    assert too_wide(panel) == []
    cell = panel.locator(".jp-CodeCell", has=page.locator(ANY)).first
    before, after = move(page, cell.locator(ANY).first, cell)
    page.screenshot(path=SHOTS / f"{shots}_moved.png")
    assert before and after and before != after
    assert errors(panel) == []


@pytest.mark.parametrize("path", chosen(), ids=lambda path: path.stem)
def test_a_lesson_runs_and_its_slider_redraws_the_figure(path, page, checkout):
    read_lesson(page, checkout, path.stem, path.name[:2])


@pytest.mark.parametrize("path", chosen()[1:2], ids=lambda path: path.stem)
def test_a_lesson_needs_the_wheel_alone(path, page, wheel):
    read_lesson(page, wheel, path.stem, f"wheel_{path.name[:2]}")
