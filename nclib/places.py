"""Where things lie: in a checkout, in an installed wheel, or where a variable says."""

from __future__ import annotations

import os
import tempfile
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PROJECT = "neural-collapse-course"  # in pyproject.toml
_said: set[Path] = set()


def checkout() -> Path | None:
    """The folder of the checkout that this package runs from; None for an installed wheel.

    A wheel carries its tables, so a pyproject.toml that happens to lie beside it is another's.
    """
    package = Path(__file__).resolve().parent
    if (package / "results").is_dir():
        return None
    try:
        text = (package.parent / "pyproject.toml").read_text(encoding="utf-8")
        ours = tomllib.loads(text)["project"]["name"] == PROJECT
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return package.parent if ours else None


def root(variable: str, name: str, holds: str = "") -> Path:
    """The folder that ``variable`` names, else the first place that has ``holds`` or takes files.

    The places are ``name`` ("data/runs") in the checkout, its last part in nclib's folder of the
    user's cache, and the same in the folder for temporary files. A warning says once where
    things go because the usual place cannot be written. Nothing is created. Raises ``ValueError``
    for a variable with a "~" and a user without a home.
    """
    if os.environ.get(variable):
        return expanded(os.environ[variable], variable)
    places = list(_places(name))
    for place in places:
        if holds and os.path.exists(place / holds):
            return place
    usual, chosen = places[0], next(filter(takes_files, places), places[0])
    if chosen != usual and chosen not in _said:
        _said.add(chosen)
        warnings.warn(
            f"{usual} cannot be written; {chosen} is used ({variable} names another place)",
            stacklevel=3,
        )
    return chosen


def expanded(path: str | Path, name: str) -> Path:
    """``path`` with its "~" replaced; ``name`` is what an error speaks of."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: got {str(path)!r}; {error}: give a whole path") from None


def takes_files(folder: Path) -> bool:
    """Whether files can be put there, or it can be made; the mode binds an administrator, too."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    writable = os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
    return writable and bool(os.stat(folder).st_mode & 0o222)


def _places(name: str) -> Iterator[Path]:
    here, last = checkout(), Path(name).name
    if here is not None:
        yield here / name
    if os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"], "nclib", last)
    else:
        with suppress(RuntimeError):  # a user whom the system does not know, without HOME
            yield Path.home() / ".cache" / "nclib" / last
    own = f"nclib-{os.getuid()}" if hasattr(os, "getuid") else "nclib"
    yield Path(tempfile.gettempdir(), own, last)


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


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A draft that takes the place of the file at ``path`` when the block ends, whole on the disk.

    After an error, or a kill at any moment, the file is what it was.
    """
    path = Path(path).resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
        draft = Path(staging, path.name)
        yield draft
        with draft.open("r+b") as file:
            os.fsync(file.fileno())  # or a power cut leaves the name without the content
        os.replace(draft, path)
