"""Check built pages: every internal link, anchor and file exists, and nothing is fetched elsewhere.

python tools/pages.py [FOLDER]    build/site-html, unless another is named
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHES = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
LOADS = {"stylesheet", "preload", "icon", "shortcut icon", "modulepreload"}  # a link that fetches
IN_STYLE = re.compile(r"(?:url\(|@import\s*)[\"']?(https?:|//)")


class Page(HTMLParser):
    """What a page names (``anchors``), what it points at (``links``), and what it ``fetches``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetches: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        if tag == "a" and given.get("href") is not None:
            self.links.append(given["href"])
        target = given.get(FETCHES.get(tag, ""))
        if target and (tag != "link" or given.get("rel", "") in LOADS):
            self.fetches.append(target)


def complaints(folder: Path) -> list[str]:
    """What is wrong with the pages below ``folder``. Raises ``ValueError`` if there are none."""
    paths = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    if not pages:
        raise ValueError(f"folder: got {folder}; there is no page in it")
    found = []
    for path, page in sorted(pages.items()):
        here = path.relative_to(folder)
        for link in dict.fromkeys(page.links + page.fetches):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetches and parts.scheme != "data":
                    found.append(f"{here}: fetches {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                found.append(f"{here}: {link}: there is no such file")
            elif target in pages and unquote(parts.fragment) not in {"", *pages[target].anchors}:
                found.append(f"{here}: {link}: there is no such anchor")
    for path in sorted(folder.rglob("*.css")):
        if IN_STYLE.search(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(folder)}: fetches from elsewhere")
    return found


def main(arguments: list[str]) -> int:
    default = Path(__file__).resolve().parents[1] / "build" / "site-html"
    found = complaints(Path(arguments[0]).resolve() if arguments else default)
    print("\n".join(found) or "every internal link holds; the pages fetch nothing from elsewhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
