"""Frames drawn ahead: a saved page moves its figures with sliders of its own, without a kernel."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import NamedTuple

from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

FRAMES, BYTES = 24, 200_000  # at most, for one figure; a saved lesson stays under 1 MB


class Control(NamedTuple):
    """What a slider offers, its words for it, and the place where it starts."""

    label: str
    texts: list[str]
    values: list
    start: int


class Page(HTML):
    """Frames and their sliders; a terminal gets a line of text."""

    def __repr__(self) -> str:
        return "(controls: run this cell to use them)"


def wanted() -> bool:
    """Whether the lesson is run to be saved: ``NCLIB_FRAMES=1``."""
    return os.environ.get("NCLIB_FRAMES", "") == "1"


def ahead(
    draw: Callable[[dict], list[Figure]], controls: dict[str, Control], limit: int = FRAMES
) -> Page | None:
    """A figure for every combination of the controls, thinned to ``limit``; None for no figure."""
    few = dict(zip(controls, thinned(list(controls.values()), limit), strict=True))
    pictures, words = [], []
    for values in itertools.product(*(control.values for control in few.values())):
        figures = draw(dict(zip(few, values, strict=True)))
        if not figures:
            return None
        pictures.append(_stacked([_picture(figure) for figure in figures]))
        words.append(". ".join(filter(None, map(_title, figures))))
    return _page(list(few.values()), pictures, words)


def thinned(controls: list[Control], limit: int) -> list[Control]:
    """Fewer values, evenly spread with both ends and the start, so that all combinations fit."""
    counts = [len(control.values) for control in controls]
    while math.prod(counts) > limit:
        counts[counts.index(max(counts))] -= 1
    return [_thin(control, count) for control, count in zip(controls, counts, strict=True)]


def _thin(control: Control, count: int) -> Control:
    last = len(control.values) - 1
    places = {round(i * last / (count - 1)) for i in range(count)} if count > 1 else {last}
    if control.start not in places:
        places.remove(min(places, key=lambda place: abs(place - control.start)))
        places.add(control.start)
    kept = sorted(places)
    texts, values = ([row[i] for i in kept] for row in (control.texts, control.values))
    return Control(control.label, texts, values, kept.index(control.start))


def _picture(figure: Figure) -> Image.Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", facecolor="white")
    return Image.open(drawn).convert("RGB")


def _stacked(pictures: list[Image.Image]) -> Image.Image:
    """The figures of one frame below one another."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures)
    sheet, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def _title(figure: Figure) -> str:
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    return ", ".join(filter(None, titles)).replace("\n", " ")


def _encoded(pictures: list[Image.Image]) -> list[str]:
    """WebP in base64, all of one size, coarser until they fit."""
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    for shrink, quality in itertools.product((1, 1.5, 2, 3), (80, 60, 40)):
        texts = []
        for picture in pictures:
            sheet, out = Image.new("RGB", size, "white"), io.BytesIO()
            sheet.paste(picture, (0, 0))
            sheet.thumbnail((size[0] / shrink, size[1] / shrink))
            sheet.save(out, "webp", quality=quality, method=6)
            texts.append(base64.b64encode(out.getvalue()).decode())
        if sum(map(len, texts)) <= BYTES:
            break
    return texts


def _page(controls: list[Control], pictures: list[Image.Image], words: list[str]) -> Page:
    frames = _encoded(pictures)
    moving = [control for control in controls if len(control.values) > 1]
    settings = itertools.product(*(control.texts for control in controls))
    alts = [
        ", ".join(f"{c.label} {t}" for c, t in zip(controls, texts, strict=True)) + f": {word}"
        for texts, word in zip(settings, words, strict=True)
    ]
    start = 0
    for control in controls:
        start = start * len(control.values) + control.start
    name = "nclib-" + hashlib.sha256("".join([*frames, *alts]).encode()).hexdigest()[:12]
    width, height = pictures[0].size
    data = {"frames": frames, "alts": alts, "texts": [control.texts for control in moving]}
    told = json.dumps(data | {"start": start}).replace("</", "<\\/")
    sliders = "".join(
        SLIDER.format(
            label=escape(c.label),
            last=len(c.values) - 1,
            start=c.start,
            text=escape(c.texts[c.start]),
        )
        for c in moving
    )
    picture = f'<img src="data:image/webp;base64,{frames[start]}" alt="{escape(alts[start])}" '
    return Page(
        f'<div class="nclib-frames" id="{name}"><div hidden>{sliders}'
        '<button type="button">Play</button></div>'
        f'{picture} width="{width}" style="max-width:100%;height:auto;background:white">'
        f"<script>({SCRIPT})({json.dumps(name)}, {told});</script></div>"
    )


SLIDER = (
    '<label style="display:inline-block;margin:0 1.5em .4em 0">{label} '
    '<input type="range" min="0" max="{last}" step="1" value="{start}" aria-valuetext="{text}" '
    'style="vertical-align:middle"> <output>{text}</output></label>'
)
SCRIPT = (files(__package__) / "frames.js").read_text(encoding="utf-8").strip()
