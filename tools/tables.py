"""Put the measured tables into a page: where it says ``<!-- table: NAME ... -->``.

The line names a file of data/results/ and how to show it:

    <!-- table: poisons rows=attack,rate columns=dataset values=success where=setting:scratch -->

Rows that share these columns differ in the seed (and in what else is not named): the table shows
their mean, and the smallest and the largest of them in brackets. With the name alone the file is
shown as it is. A file that no line names comes at the end, its first rows only.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

MARKER = re.compile(r"(?m)^<!-- table: (?P<name>\w+)(?P<options>[^>]*?) *-->$")
OPTION = re.compile(r"(\w+)=(\S+)")
FIRST = 20  # rows shown of a file that no line names; a longer table is folded


def fill(page: str, folder: Path) -> str:
    """``page`` with its tables, and those of ``folder`` that it does not name, at the end."""
    named = {found["name"] for found in MARKER.finditer(page)}
    page = MARKER.sub(lambda found: _shown(found, folder), page)
    for path in sorted(folder.glob("*.csv")):
        if path.stem not in named:
            table = _read(path)
            note = f"The first {FIRST} of {len(table)} rows.\n\n" if len(table) > FIRST else ""
            page += f"\n## {path.stem}.csv\n\n{note}{markdown(table.head(FIRST))}\n"
            page += f"\n{_link(path.stem)}\n"
    return page


def summary(
    table: pd.DataFrame, rows: list[str], values: list[str], columns: list[str] | None = None
) -> pd.DataFrame:
    """Mean [smallest, largest] of ``values`` for each combination of ``rows`` and ``columns``.

    Raises ``ValueError`` for a column that the table has not.
    """
    columns = columns or []
    unknown = [name for name in (*rows, *columns, *values) if name not in table]
    if unknown:
        raise ValueError(f"columns: got {unknown}; allowed is {list(table.columns)}")
    groups = table.groupby([*rows, *columns], sort=False, dropna=False)[values]
    cells = groups.agg(_cell)
    if columns:
        cells = cells.unstack(columns)
        if len(values) == len(columns) == 1 and is_numeric_dtype(table[columns[0]]):
            cells = cells.sort_index(axis=1)  # epochs in their order, not in that of the file
        cells.columns = [_title(name, len(values)) for name in cells.columns]
    return cells.fillna("").reset_index()


def markdown(table: pd.DataFrame) -> str:
    """The table in markdown; missing numbers stay empty."""
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [[_text(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(found: re.Match, folder: Path) -> str:
    name, options = found["name"], dict(OPTION.findall(found["options"]))
    table = _read(folder / f"{name}.csv")
    for condition in filter(None, options.get("where", "").split(",")):
        column, wanted = condition.split(":")
        table = table[table[column].astype(str) == wanted]
    if "values" in options:
        rows, values = options["rows"].split(","), options["values"].split(",")
        table = summary(
            table,
            rows,
            values,
            options.get("columns", "").split(",") if "columns" in options else None,
        )
    return f"{folded(markdown(table), len(table))}\n\n{_link(name)}"


def folded(table: str, rows: int) -> str:
    """A long table behind a line that opens it, so that the sentences stay together."""
    if rows <= FIRST:
        return table
    return f"<details>\n<summary>Show the table, {rows} rows</summary>\n\n{table}\n\n</details>"


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ValueError(f"table: got {path.stem!r}; there is no {path}")
    return pd.read_csv(path)


def _cell(values: pd.Series) -> str:
    values = values.dropna()
    if values.empty:
        return ""
    low, mean, high = (f"{v:.3g}" for v in (values.min(), values.mean(), values.max()))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _title(name: tuple | str, values: int) -> str:
    parts = [str(part) for part in (name if isinstance(name, tuple) else (name,))]
    return ", ".join(parts if values > 1 else parts[1:])


def _text(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", r"\|")


def _link(name: str) -> str:
    return f"All rows: {{download}}`{name}.csv <../data/results/{name}.csv>`"
