"""Every attack against every defence, on one board: ``python -m nclib scoreboard run digits``.

One idea per file: ``grids`` (what is measured, a table), ``methods`` (what is done about the
poison), ``cells`` (one measurement is one row), ``store`` (rows that survive a kill), ``engine``
(many cells on many cores or machines), ``report`` (means, intervals, tables), ``submission`` (a
score of one's own on the board).
"""

from importlib import import_module
from typing import Any

from nclib.scoreboard.engine import run
from nclib.scoreboard.grids import GRIDS, Cell, cells_of
from nclib.scoreboard.store import COLUMNS, Store

LATER = {"evaluate": "cells", "prepare": "cells", "submit": "submission"}
LATER["together"] = "submission"  # these load torch

__all__ = ["COLUMNS", "GRIDS", "Cell", "Store", "cells_of", "run", *LATER]


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(import_module(f"nclib.scoreboard.{LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
