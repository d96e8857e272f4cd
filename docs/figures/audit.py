"""Photograph a page of the audit twice, for docs/audit.md: needs a chromium and playwright."""

import io
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from nclib import audit, data, poisons

HERE = Path(__file__).parent
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

signs = data.load("signs", n_train=600, n_test=10, device="cpu")[0]
dirty = poisons.badnets(signs, 0.1, 3, patch="square", seed=1)
found = audit.run(dirty, progress=False)
with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 900, "height": 1000})
    page.goto(found.save(Path(place)).as_uri())
    for name, heading in (("verdict", "Audit of"), ("asked", "What was asked")):
        page.get_by_role("heading", name=heading).evaluate("node => node.scrollIntoView()")
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.save(HERE / f"audit_{name}.webp", quality=60, method=6)
    browser.close()
