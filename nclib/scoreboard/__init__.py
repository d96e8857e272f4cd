"""Every attack against every defence, on one board: ``python -m nclib scoreboard run digits``.

One idea per file: ``grids`` (what is measured, a table), ``attacks`` and ``cases`` (the victims),
``methods`` (what is done about the poison), ``cells`` (one measurement is one row), ``store`` (rows
that survive a kill), ``engine`` (many cells on many cores or machines), ``summary`` (means and
intervals), ``report`` (the page), ``submission`` (a score of one's own, ``together``).
"""

from collections.abc import Callable

from nclib.scoreboard.engine import run
from nclib.scoreboard.grids import GRIDS, Cell, cells_of
from nclib.scoreboard.store import COLUMNS, Store


def __getattr__(name: str) -> Callable:
    if name == "together":  # loads torch, which the command and its engine do without
        from nclib.scoreboard.submission import together

        return together
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
