"""The page of the board: heat maps, tables, and the sentences that go with them."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from nclib import places
from nclib.plots import scoreboard as draw
from nclib.scoreboard.grids import ADVERSARIAL_EPS, COUNT, EARLY, FALSE_ALARM, SIZES, SPARE, Size
from nclib.scoreboard.store import RESULTS, ROOT
from nclib.scoreboard.summary import (
    CELL,
    COST,
    METRICS,
    STOPPED,
    SUCCEEDS,
    matrix,
    read,
    stopped,
    summary,
    title,
)

BEGIN, END = "<!-- scoreboard: written by nclib.scoreboard report -->\n", "<!-- /scoreboard -->"
README = "digits"  # the data set that the README shows
HEAD = (files(__package__) / "head.md").read_text(encoding="utf-8")


def write(results: str | Path = RESULTS, root: str | Path = ROOT) -> list[Path]:
    """Draw the heat maps, write ``docs/scoreboard.md`` and the README's part; return the paths."""
    rows, root = read(results), Path(root)
    table, figures = summary(rows), root / "docs" / "figures"
    written = [
        _drawn(
            {m: matrix(table, name, m) for m in METRICS}, name, figures / f"scoreboard_{name}.png"
        )
        for name in rows.dataset.unique()
    ]
    pages = {root / "docs" / "scoreboard.md": document(rows, table)}
    readme = root / "README.md"
    if readme.exists() and BEGIN in readme.read_text(encoding="utf-8"):
        left = {"asr": matrix(table, README, "asr")}
        written.append(_drawn(left, README, figures / "scoreboard.png"))
        before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
        pages[readme] = before + BEGIN + short(rows) + END + rest.split(END, 1)[1]
    for path, text in pages.items():
        with places.whole(path) as draft:
            draft.write_text(text, encoding="utf-8")
    return [*written, *pages]


def _drawn(maps: dict[str, pd.DataFrame], name: str, path: Path) -> Path:
    figure = draw.board(maps, name)
    with places.whole(path) as draft:
        figure.savefig(draft)
    plt.close(figure)
    return path


def _stopped(rows: pd.DataFrame, dataset: str) -> str:
    """``stopped`` as a table of the page."""
    table = stopped(rows, dataset)
    titles = ("needs", "stopped", "worst success", "worst cost in accuracy")
    lines = _header([*titles, "removed of a clean set", "seconds"])
    for method, row in table.iterrows():
        removed = "" if pd.isna(row.clean_removed) else f"{row.clean_removed:.1%}"
        counts = f"{row.stopped} of {row.attacks}"
        cells = (row.needs, counts, f"{row.worst:.2f}", f"{row.cost:.3f}", removed)
        lines.append(f"| `{method}` | " + " | ".join(cells) + f" | {row.seconds:.1f} |")
    return f"{_all_stopped(table)}\n\n" + "\n".join(lines) + "\n"


def _all_stopped(table: pd.DataFrame) -> str:
    """Who stops every attack, in a sentence."""
    names = [f"`{m}`" for m in table.index[(table.stopped == table.attacks) & (table.attacks > 0)]]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return f"Every attack that succeeds undefended is stopped by {listed or 'no method'}."


def document(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The page of the readers' site."""
    fixed = {"early": EARLY, "eps": ADVERSARIAL_EPS, "spare": SPARE, "alarm": FALSE_ALARM}
    limits = {"stopped": STOPPED, "cost": COST, "succeeds": SUCCEEDS}
    parts = [HEAD.format(**fixed, **limits)]
    for dataset in rows.dataset.unique():
        size = SIZES.get(dataset, Size(None, None, 0))
        shape = f" of {size.pixels} x {size.pixels} pixels" if size.pixels else ""
        parts.append(
            f"## {dataset}\n\n{size.train or 'All'} training images{shape}, "
            f"{size.epochs or '?'} epochs, {_seeds(rows[rows.dataset == dataset])}."
            f"{_failures(table, dataset)}\n"
        )
        parts.append(f"### {dataset}: attacks stopped\n\n{_stopped(rows, dataset)}")
        parts.append(
            f"![Heat maps of the board on {dataset}: AUROC, accuracy and attack success, methods "
            f"by poisons; the tables below hold the same numbers]"
            f"(figures/scoreboard_{dataset}.png)\n"
        )
        for metric, meaning in METRICS.items():
            parts.append(f"### {dataset}: {meaning}\n\n{_markdown(table, dataset, metric)}")
    return "\n".join(parts)


def _failures(table: pd.DataFrame, dataset: str) -> str:
    """A sentence on the attacks that fail by themselves, or nothing."""
    none = table[(table.dataset == dataset) & (table.method == "none") & (table.metric == "asr")]
    weak = [title(r["poison"], r["rate"]) for r in none.to_dict("records") if r["mean"] < 0.1]
    if not weak:
        return ""
    names = " and ".join([", ".join(weak[:-1]), weak[-1]] if weak[1:] else weak)
    return f" Without any method the success of {names} is below .1: those columns compare nothing."


def _seeds(rows: pd.DataFrame) -> str:
    counts = rows.groupby(CELL).seed.nunique()
    low, high = counts.min(), counts.max()
    return f"{low} seed{'s' if low > 1 else ''}" if low == high else f"{low} to {high} seeds"


def _markdown(table: pd.DataFrame, dataset: str, metric: str) -> str:
    mean, low, high = (matrix(table, dataset, metric, k) for k in ("mean", "low", "high"))
    whole = mean.dropna()  # means of different columns compare nothing
    lines = [_ends(whole.mean(axis=1), metric), ""] if len(whole) else []
    lines += _header(mean.columns)
    for method in mean.index:
        cells = [
            _cell(mean.at[method, c], low.at[method, c], high.at[method, c]) for c in mean.columns
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _ends(means: pd.Series, metric: str) -> str:
    """The best and the worst method over all columns, in a sentence."""
    order = means.sort_values(ascending=metric == "asr", kind="stable")
    ends = [f"`{order.index[i]}` ({order.iloc[i]:.2f})" for i in (0, -1)]
    return f"In the mean over the columns, the best is {ends[0]} and the worst {ends[1]}."


def _header(columns: Collection[str]) -> list[str]:
    return ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]


def _cell(mean: Any, low: Any, high: Any) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.2f}" if pd.isna(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def short(rows: pd.DataFrame) -> str:
    """The README's picture of the board, and a sentence about it."""
    table = stopped(rows, README)
    told = table[table.needs.str.startswith(COUNT) & (table.index != "random")]
    sentence = ""
    if "transplant" in table.index and len(told):
        ours, best = table.loc["transplant"], str(told.stopped.idxmax())
        free = table[(table.needs == "nothing") & (table.stopped >= ours.stopped)].index
        others = ", ".join(f"`{name}`" for name in free if name != "transplant")
        sentence = (
            f"Of the {ours.attacks} attacks that succeed on {README}, the transplant test, which "
            f"is told nothing, stops {ours.stopped}{f' (as does {others})' if others else ''}; of "
            f"the detectors that are told how much is poisoned `{best}` stops most, "
            f"{told.stopped[best]}. "
        )
    return (
        f"{sentence}[All methods, data sets and costs](docs/scoreboard.md).\n\n"
        "![Heat map of the attack success that is left after each method, methods by attacks; the "
        "page of the scoreboard has the numbers](docs/figures/scoreboard.png)\n"
    )
