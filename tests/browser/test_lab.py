"""What the tests rest on: a cell that fails, a widget that fails, a cell that never ran."""

from __future__ import annotations

import nbformat
import pytest
from lab import errors, open_notebook, run_all, run_counts, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

WIDGET = """from nclib.course import interact
def draw(n):
    if n > 0:
        raise RuntimeError("too large")
interact(draw, n=(0, 1))"""
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


@pytest.fixture
def small(tmp_path):
    """A JupyterLab with one notebook, small.ipynb, of cells that wait, fail, and do not run."""
    cells = ["import time; time.sleep(2)", "a = 1", WIDGET, "1 / 0", "b = 2"]
    cells = [new_markdown_cell("# small"), *map(new_code_cell, cells)]
    (tmp_path / "root").mkdir()
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), tmp_path / "root" / "small.ipynb")
    with serve(tmp_path / "root", tmp_path) as address:
        yield address


def test_failures_are_noticed(page, small):
    panel = open_notebook(page, small, "small.ipynb")
    assert errors(panel) == []
    run_all(page, panel)
    assert run_counts(panel)[:4] == ["[1]:", "[2]:", "[3]:", "[4]:"]
    assert run_counts(panel)[4] == "[ ]:"
    assert len(errors(panel)) == 1 and "ZeroDivisionError" in errors(panel)[0]
    handle = panel.locator(".noUi-handle")
    handle.focus()
    page.keyboard.press("ArrowRight")
    panel.get_by_text("RuntimeError: too large").first.wait_for()
    assert any("too large" in text for text in errors(panel))
