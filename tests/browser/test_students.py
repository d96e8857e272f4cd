"""A student copy in JupyterLab: it runs unanswered; an exercise done wrong, and then right."""

from __future__ import annotations

import pytest
from conftest import SHOTS
from lab import errors, open_notebook, rewrite, run_all
from notebook import STUDENTS, lessons

ANSWERS = {  # exercise: the cell that asks, answered wrongly, the reason given, and rightly
    "00.calm": (
        'calm = {}\ncalm = check("00.calm", calm)',
        ('{"rate": 0.02}', "is none of", '{"lr": 0.02}'),
    ),
    "01.simplex_etf": (
        "def simplex_etf(num_classes):\n"
        "    identity = torch.eye(num_classes, dtype=torch.float64)\n"
        "    return {}\n\n"
        'simplex_etf = check("01.simplex_etf", simplex_etf)',
        (
            "identity - 1 / num_classes",
            "length",
            "(num_classes / (num_classes - 1)) ** 0.5 * (identity - 1 / num_classes)",
        ),
    ),
}


@pytest.mark.parametrize("setting", ["checkout", "wheel"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_exercise_wrong_then_right(name, setting, page, request):
    if (name[:2], setting) == ("00", "checkout"):
        pytest.skip("lesson 00 is walked from the wheel alone, where it does the same")
    address = request.getfixturevalue(setting)
    path = next(path for path in lessons(STUDENTS) if path.name[:2] == name[:2])
    panel = open_notebook(page, address, f"exercises/{path.name}")
    run_all(page, panel)
    assert errors(panel) == []
    cell = panel.locator(".jp-CodeCell", has_text=f'check("{name}"')
    assert f"{name}: not attempted" in cell.locator(".jp-OutputArea").first.inner_text()

    source, (wrong, reason, right) = ANSWERS[name]
    said = rewrite(page, cell, source.replace("{}", wrong))
    assert f"{name}: wrong" in said and reason in said
    page.screenshot(path=SHOTS / f"student_{name}_wrong.png")
    assert f"{name}: correct" in rewrite(page, cell, source.replace("{}", right))
    page.screenshot(path=SHOTS / f"student_{name}_right.png")
    assert errors(panel) == []
