"""Where things lie: in a checkout, in an installed wheel, or where a variable says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def checkout() -> Path | None:
    """The folder of the checkout that this package runs from; None for an installed wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").exists() else None


def root(variable: str, name: str) -> Path:
    """The folder that ``variable`` names, else ``name`` ("data/runs") in the checkout.

    Without a checkout it is the last part of ``name`` in nclib's folder of the user's cache.
    Nothing is created.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    here = checkout()
    if here is not None:
        return here / name
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "nclib", Path(name).name)


def tables() -> Path:
    """The folder of the committed tables: data/results of a checkout, results/ of a wheel."""
    here = checkout()
    return Path(__file__).resolve().parent / "results" if here is None else here / "data/results"


def results(name: str) -> pd.DataFrame:
    """The committed table ``NAME.csv``. Raises ``ValueError`` for an unknown name."""
    import pandas as pd  # slow to load, and most of those who ask for a place read no table

    path = tables() / f"{name}.csv"
    if not path.exists():
        known = ", ".join(sorted(table.stem for table in tables().glob("*.csv"))) or "none"
        raise ValueError(f"name: got {name!r}; the tables are: {known}")
    return pd.read_csv(path)
