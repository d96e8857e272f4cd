"""A small table of words and numbers, for a notebook and for a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

CLAIM = "application/x-nclib-claim+json"  # what the site's build collects from saved outputs


@dataclass(frozen=True)
class Shown:
    """A caption over rows of text; ``good`` colours its edge, ``record`` travels with it."""

    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    good: bool | None = None
    record: dict = field(default_factory=dict)

    def __str__(self) -> str:
        wide = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = ["   ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)) for r in self.rows]
        return "\n  ".join([self.caption, *map(str.rstrip, lines)])

    __repr__ = __str__

    def html(self) -> str:
        """A table that takes its colours from the page, but for its edge."""
        edge = {True: "#2a7f62", False: "#b3541e", None: "#7a7a7a"}[self.good]
        cell = 'style="text-align:left;padding:.15em 1em .15em 0"'
        head = "".join(
            f'<th scope="col" {cell}>{escape(word)}</th>' if word else "<td></td>"
            for word in self.head
        )
        body = ""
        for first, *rest in self.rows:
            cells = "".join(f"<td {cell}>{escape(text)}</td>" for text in rest)
            body += f'<tr><th scope="row" {cell}>{escape(first)}</th>{cells}</tr>'
        return (
            f'<div style="border-left:.3em solid {edge};padding-left:.8em;margin:.4em 0">'
            f'<table class="nclib" style="margin:0;border:0"><caption style="text-align:left;'
            f'font-weight:bold;caption-side:top">{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/plain": str(self), "text/html": self.html()}
        return bundle | ({CLAIM: self.record} if self.record else {})
