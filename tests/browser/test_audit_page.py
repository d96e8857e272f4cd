"""The page of an audit in a real browser: without scripts, without network, names as text."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nclib import audit
from nclib.audit import engine
from nclib.correction import Verdict
from nclib.data import ImageSet
from nclib.detection.mislabelled import WrongLabels

CONTRAST = """node => {
  const paper = part => getComputedStyle(part).backgroundColor;
  let behind = node;
  while (paper(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  return [getComputedStyle(node).color, paper(behind)];
}"""
NAMES = ("<img src=x onerror=document.title='taken'>", "תמרור \u202e עצור", "a" * 150)


def odd(tmp_path_factory):
    """Names that are markup, run from right to left or are long; images of two formats."""
    root = tmp_path_factory.mktemp("set")
    draw = np.random.default_rng(0)
    for c, name in enumerate(NAMES):
        (root / name).mkdir()
        for i in range(8):
            pixels = draw.integers(0, 150, (16, 16, 3), np.uint8)
            pixels[c] = 255
            Image.fromarray(pixels).save(root / name / f"{i}.{('png', 'jpg')[i % 2]}")
    (root / NAMES[0] / "broken.png").write_bytes(b"no image")
    return audit.run(root, epochs=2, progress=False)


def many(tmp_path_factory):
    """A thousand classes, a hundred wrong labels; the transplant test is left out for its time."""
    draw = torch.Generator().manual_seed(0)
    names = tuple(f"סוג {i}" for i in range(1000))
    labels = torch.arange(5000) % 1000
    found = ImageSet(torch.rand(5000, 3, 8, 8, generator=draw), labels, names)
    wrong = WrongLabels(0.02, True, labels * 0 == 1, 0.9)
    wrong.mask[:100] = True
    clean = Verdict("clean", (), wrong.mask & False, (), wrong, "", 0, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.correction, "transplant", lambda *_, **__: clean)
        return audit.run(found, build="mlp", epochs=2, progress=False)


@pytest.fixture(scope="module", params=[odd, many], ids=["odd names", "a thousand classes"])
def report(request, tmp_path_factory):
    found = request.param(tmp_path_factory)
    place = found.save(tmp_path_factory.mktemp("page"))
    return SimpleNamespace(place=place, names=found.source.classes)


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_reads_and_asks_nobody(browser, report, scripts, width):
    context = browser.new_context(
        java_script_enabled=scripts, viewport={"width": width, "height": 900}
    )
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.place.as_uri())
    mine = report.place.as_uri()
    assert [url for url in asked if not url.startswith("data:")] == [mine] and not said
    assert report.place.stat().st_size < 5_000_000
    assert page.title().startswith("Audit of")
    text = page.locator("body").text_content()
    assert all(name.split("\u202e")[0] in text for name in report.names)
    assert "What was not looked for" in text
    if scripts:
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_dark_where_the_reader_wants_it(browser, report, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(report.place.as_uri())
    for part in ("h1", ".verdict strong", ".card b", "td", "code"):
        told = page.locator(f".nclib-audit {part}").first.evaluate(CONTRAST)
        ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in told)
        assert abs(ink - paper) > 400 and (ink > paper) == (scheme == "dark")
    context.close()
