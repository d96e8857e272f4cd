"""The site's front page: docs/index.md with the cards of the lessons and the moving simplex."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from notebook import LESSONS, ROOT, lessons, read
from PIL import Image, ImageSequence
from readme import minutes, questions, title

CARDS, PICTURES = "<!-- cards -->", "pictures"
EMBEDDED = re.compile(r"!\[(?P<alt>[^\]]*)\]\(data:image/[\w+]+;base64,(?P<data>[^)]+)\)")
IN_CLASS = re.compile(r"\*\*Minutes in class:\*\* (\d+(?: to \d+)?)")
WIDTH = 640  # pixels of a card's picture
CARD = """````{{container}} lesson
![{alt}]({picture})

[**{number} {name}**]({lesson})

{question}

{time}
````"""


def write(source: Path, folder: Path = LESSONS) -> None:
    """Write ``source/index.md`` and the pictures that it shows."""
    (source / PICTURES).mkdir(parents=True, exist_ok=True)
    moving(source / PICTURES)
    cards = "\n\n".join(card(path, source / PICTURES) for path in lessons(folder))
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(text.replace(CARDS, cards), encoding="utf-8")


def moving(target: Path) -> None:
    """The README's moving picture as WebP, half as large, and one that stands still."""
    picture = Image.open(ROOT / "docs" / "figures" / "simplex.gif")
    first, *rest = (frame.convert("RGB") for frame in ImageSequence.Iterator(picture))
    options = {"append_images": rest, "duration": picture.info["duration"], "loop": 0}
    first.save(target / "simplex.webp", save_all=True, quality=40, **options)
    rest[len(rest) // 2].save(target / "simplex_still.webp", quality=80)


def card(path: Path, target: Path) -> str:
    """The card of a lesson: its hook's picture, its question, minutes in class and of computing."""
    cells = read(path).cells
    hook = next(found for cell in cells if (found := EMBEDDED.search(cell.source)))
    picture = Image.open(io.BytesIO(base64.b64decode(hook["data"]))).convert("RGB")
    picture.thumbnail((WIDTH, WIDTH))
    picture.save(target / f"{path.name[:2]}.webp", quality=80)
    in_class, took = IN_CLASS.search(cells[0].source), minutes().get(path.stem)
    times = [f"{in_class[1]} minutes in class"] if in_class else []
    times += [f"{took:.1f} of computing"] if took is not None else []
    return CARD.format(
        alt=hook["alt"],
        picture=f"{PICTURES}/{path.name[:2]}.webp",
        number=path.name[:2],
        name=re.sub(r"^\d+ ", "", title(cells[0].source)).split(": ")[0],
        lesson=f"notebooks/{path.name}",
        question=questions().get(path.name[:2], ""),
        time=", ".join(times),
    )
