"""The page of an audit in a real browser: without scripts, without network, names as text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nclib import audit

NAMES = ("<img src=x onerror=document.title='taken'>", "תמרור \u202e עצור", "a" * 150)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    draw = np.random.default_rng(0)
    for c, name in enumerate(NAMES):
        (root / name).mkdir()
        for i in range(8):
            pixels = draw.integers(0, 150, (16, 16, 3), np.uint8)
            pixels[c] = 255
            Image.fromarray(pixels).save(root / name / f"{i}.{('png', 'jpg')[i % 2]}")
    (root / NAMES[0] / "broken.png").write_bytes(b"no image")
    found = audit.run(root, epochs=2, progress=False)
    return found.save(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("scripts", [True, False])
def test_the_page_reads_and_asks_nobody(browser, report, scripts):
    context = browser.new_context(
        java_script_enabled=scripts, viewport={"width": 500, "height": 900}
    )
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()] and not said
    assert page.title().startswith("Audit of")
    text = page.locator("body").text_content()
    assert NAMES[0] in text and NAMES[1].split()[0] in text and "What was not looked for" in text
    if scripts:
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 500
    context.close()
