"""What stands in a monitor's log, and the log as a table of text.

The log is a ``journal``. Windows have their number for a key; the batches of the window that is
still open stand under ``OPEN``, where the monitor captures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nclib.journal import Journal

KIND = "monitor"
OPEN = "open "  # how the key of a captured batch begins


def closed(entries: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The windows among the entries of a log, in their order."""
    return [entry for key, entry in entries.items() if not key.startswith(OPEN)]


def read(log: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and windows of a log.

    Raises ``ValueError`` for a file that is no such log or is damaged.
    """
    return read_all(log)[:2]


def read_all(log: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Header, windows, and how many requests of the open window are captured in a log."""
    header, entries = Journal(log, KIND, argument="log").read()
    windows = closed(entries)
    captured = [e for k, e in entries.items() if k.startswith(OPEN)]
    return header, windows, sum(len(e["ids"]) for e in captured if e["window"] == len(windows))


def report(log: str | Path) -> str:
    """The log as a table: one line per window, the alarms marked."""
    header, windows = read(log)
    names = [*header["layers"], "any layer"]
    lines = [f"model {header['model']}, {len(windows)} windows"]
    lines.append("  ".join(["window", "start (s)", "requests", *(f"{n:>5}" for n in names)]))
    for w in windows:
        rates = [f"{w['rates'][n]:.2f}" if n in w["rates"] else "-" for n in names]
        rates = [f"{rate:>{max(5, len(name))}}" for rate, name in zip(rates, names, strict=True)]
        row = "  ".join([f"{w['window']:6d}", f"{w['start']:9.0f}", f"{w['requests']:8d}", *rates])
        if w["alarm"]:
            first = ", ".join(name for name, _ in w["suspicious"][:3])
            row += f"  ALARM  first: {first}"
        if w["not_finite"]:
            row += f"  not finite: {len(w['not_finite'])}"
        lines.append(row)
    alarms = sum(bool(w["alarm"]) for w in windows)
    return "\n".join([*lines, f"{alarms} of {len(windows)} windows raised an alarm"])
