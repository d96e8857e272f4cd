"""Put all claims of the course into a page: where it says ``<!-- claims -->``.

They are read from the saved outputs of the lessons, where ``nclib.course.claim`` leaves a record
beside the table that a reader sees.
"""

from __future__ import annotations

from pathlib import Path

from notebook import code, lessons, read
from readme import title

from nclib.course.ranges import spread
from nclib.course.shown import CLAIM

MARKER = "<!-- claims -->"


def fill(page: str, paths: list[Path] | None = None) -> str:
    """``page`` with a table for each lesson that makes claims."""
    parts, count = [], 0
    for path in lessons() if paths is None else paths:
        found = claims(path)
        count += len(found)
        if found:
            heading = f"## [{title(read(path).cells[0].source)}](../notebooks/{path.name})"
            parts.append(f"{heading}\n\n{table(found)}")
    told = (
        f"{count} claims, as the lessons were last run.\n\n" if count else "No lesson makes one.\n"
    )
    return page.replace(MARKER, told + "\n\n".join(parts))


def claims(path: Path) -> list[dict]:
    """The records of the claims that are saved in a notebook, in order."""
    outputs = [output for cell in code(read(path)) for output in cell.outputs]
    return [output.data[CLAIM] for output in outputs if CLAIM in output.get("data", {})]


def table(records: list[dict]) -> str:
    """A row per claim: what was measured, what is claimed, and the control beside it."""
    rows = [("claim", "measured", "claimed", "beside it"), ("---",) * 4]
    for record in records:
        beside = "; ".join(f"{name} {spread(row)}" for name, row in record["control"])
        mark = "" if record["holds"] else " (does not hold)"
        rows.append(
            (record["sentence"], spread(record["values"]), record["claimed"] + mark, beside)
        )
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
