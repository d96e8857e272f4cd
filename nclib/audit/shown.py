"""The audit as its user holds it: printed, shown in a notebook, saved as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nclib.audit import page
from nclib.audit.result import Result
from nclib.audit.words import sentence


class Audit(Result):
    """What was found in a set, and the ways to look at it."""

    def __repr__(self) -> str:
        return f"Audit({self.source.name}: {sentence(self)})"

    def _repr_html_(self) -> str:
        return page.body(self)

    def show(self) -> Any:
        """The page as a display of the notebook, without widgets or scripts."""
        from IPython.display import HTML

        return HTML(self._repr_html_())

    def save(self, out: Path | str) -> Path:
        """Write report.html and suspects.csv into the folder ``out``; the page's path."""
        return page.save(self, Path(out))
