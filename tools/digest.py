"""What a lesson's slides, handout and quiz are made of: its parts, read from the saved notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape, unescape
from pathlib import Path
from typing import Any

import mistune
from claims import CLAIM
from docutils.utils.math.latex2mathml import tex2mathml
from jinja2 import Environment, FileSystemLoader
from notebook import CHECK, ROOT, read
from readme import minutes, questions, title

from nclib.course import ranges

KIT = ROOT / "build" / "kit"
TEMPLATES = Path(__file__).with_name("templates")
PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<source>data:image/[^)]+)\)")
FIRST_FRAME = re.compile(r'<img src="(?P<source>data:image/[^"]+)" alt="(?P<alt>[^"]*)"')
CAPTION = re.compile(r"(?ms)^\*Figures?: (.+?)\*\s*(?:\n\n|\Z)")
HEADING = re.compile(r"(?m)^## +(?:\d+\. +)?(.+?)\s*$")
ASKED = re.compile(r"(?<![\w.])predict\(\s*\"(?P<name>\d\d\.\w+)\"")
REVEALED = re.compile(r"(?<![\w.])reveal\(\s*\"(?P<name>\d\d\.\w+)\"")
TERM = re.compile(
    r"(?ms)^## (?P<term>[^\n]+)\n\n(?P<says>.+?)(?=\n\n).*?^\[Lesson (?P<lesson>\d\d)\]"
)
REMEMBER = re.compile(r"(?ms)^## What to remember\s*\n(.+?)(?=^## |\Z)")


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, what it shows, and, where it moves, the HTML with its slider."""

    source: str
    alt: str
    moving: str = ""


@dataclass
class Step:
    """What a section shows at once: a picture, claims, predictions to make and to look back at."""

    section: str
    picture: Picture | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    reveals: list[str] = field(default_factory=list)


class Lesson:
    """One saved notebook, and what the rest of the course says of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.cells = path, path.name[:2], read(path).cells
        self.title = re.sub(r"^\d\d ", "", title(self.cells[0].source))
        self.question = questions().get(self.number, "")
        self.minutes = minutes().get(path.stem)

    @property
    def hook(self) -> tuple[str, Picture | None, str]:
        """Its heading, its picture and its sentences."""
        text = self.cells[1].source
        found = PICTURE.search(text)
        picture = Picture(found["source"], found["alt"]) if found else None
        words = HEADING.sub("", PICTURE.sub("", text), count=1)
        return HEADING.search(text)[1], picture, words.strip()

    def steps(self) -> list[Step]:
        """The experiments in order: a new step for each picture, and before each prediction."""
        steps, section = [Step("")], ""
        for place, cell in enumerate(self.cells[2:], start=2):
            if cell.cell_type == "markdown":
                section = ([section] + HEADING.findall(cell.source))[-1]
                continue
            pictures = list(self._pictures(place))
            claims = [o.data[CLAIM] for o in cell.outputs if CLAIM in o.get("data", {})]
            asks, reveals = (
                [m["name"] for m in pattern.finditer(cell.source)] for pattern in (ASKED, REVEALED)
            )
            if section != steps[-1].section or pictures or asks:
                steps.append(Step(section))
            for picture in pictures[1:]:
                steps[-1].picture = picture if steps[-1].picture is None else steps[-1].picture
                steps.append(Step(section))
            steps[-1].picture = pictures[-1] if pictures else steps[-1].picture
            steps[-1].claims += claims
            steps[-1].asks += asks
            steps[-1].reveals += reveals
        return [s for s in steps if s.picture or s.claims or s.asks or s.reveals]

    def _pictures(self, place: int) -> Iterator[Picture]:
        following = self.cells[place + 1].source if place + 1 < len(self.cells) else ""
        caption = CAPTION.search(following)
        alt = plain(caption[1]) if caption else ""
        for output in self.cells[place].outputs:
            data = output.get("data", {})
            frames = FIRST_FRAME.search(str(data.get("text/html", "")))
            if "image/png" in data:
                yield Picture(f"data:image/png;base64,{data['image/png'].strip()}", alt)
            elif frames:
                yield Picture(frames["source"], alt or unescape(frames["alt"]), data["text/html"])

    def exercises(self) -> list[tuple[str, str]]:
        """Name and task (HTML) of each exercise: its docstring, or the text before it."""
        found: dict[str, str] = {}
        text = ""
        for cell in self.cells:
            text = cell.source if cell.cell_type == "markdown" else text
            name = CHECK.search(cell.source) if cell.cell_type == "code" else None
            if name and name["name"] not in found:
                task = re.search(r'(?s)"""(.+?)"""', cell.source)
                says = escape(" ".join(task[1].replace("``", "").split())) if task else _task(text)
                found[name["name"]] = says
        return list(found.items())

    def terms(self) -> list[tuple[str, str]]:
        """The terms that the glossary ascribes to this lesson, with its sentence for each."""
        text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
        found = [m for part in re.split(r"(?m)^(?=## )", text) if (m := TERM.search(part))]
        return [(m["term"], m["says"]) for m in found if m["lesson"] == self.number]

    def remember(self) -> str:
        """The markdown of "What to remember"."""
        texts = [c.source for c in self.cells if c.cell_type == "markdown"]
        return next((m[1].strip() for text in texts if (m := REMEMBER.search(text))), "")


def _task(text: str) -> str:
    """The last paragraph that starts in bold, without that start."""
    asked = re.findall(r"(?ms)^\*\*(?:Open e|E|P)[^*]*\*\*\s*(.+?)(?=\n\n|\Z)", text)
    return html(asked[-1]) if asked else ""


def told(record: dict[str, Any]) -> tuple[str, str, str]:
    """A claim's sentence, its number with the span of its values, and the first control."""
    beside = [f"{name} {_span(row)}" for name, row in record["control"][:1]]
    return record["sentence"], _span(record["values"]), "".join(beside)


def _span(row: list[float]) -> str:
    return re.sub(r", \d+ values\)$", ")", ranges.spread(row))


def plain(text: str) -> str:
    """Markdown as one line without its marks."""
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"\*+(?=\S)|(?<=\S)\*+|`+", "", text).split())


def html(text: str) -> str:
    """Markdown as HTML, formulas as MathML; nothing to be fetched."""
    return str(_markdown(text))


class _Renderer(mistune.HTMLRenderer):
    def inline_math(self, text: str) -> str:
        return tex2mathml(text)

    def block_math(self, text: str) -> str:
        return tex2mathml(text, as_block=True)


_markdown = mistune.create_markdown(renderer=_Renderer(), plugins=["table", "math"])


def render(template: str, **values: Any) -> str:
    """A page of tools/templates/, with the values in it."""
    return _pages.get_template(template).render(**values)


def named(name: str) -> Path:
    """A file of tools/templates/."""
    return TEMPLATES / name


_pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
_pages.filters |= {"html": html, "plain": plain, "told": told}
