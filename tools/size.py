"""The storeys of the package and how many lines of code stand on each: ``make size``.

A line of code holds a token other than a comment; docstrings and blank lines do not count.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "nclib"
STOREYS = {
    "use": {"course", "audit", "scoreboard", "__main__"},
    "pictures": {"plots"},
    "science": {*("attacks", "poisons", "detection", "correction", "defenses", "explain")}
    | {"monitor", "representation"},
    "ground": {*("device", "models", "training", "activations", "geometry", "cache", "journal")}
    | {"data", "doors", "fast", "places", "table"},
}
AIMS = {("ground", "science"): 6000, ("pictures", "use"): 4000}  # fewer lines than these
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
SILENT |= {tokenize.ENDMARKER, tokenize.ENCODING}


def code_lines(source: str) -> int:
    """Lines of ``source`` with code: no blank line, no comment, no docstring."""
    told: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
                told.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - told)


def rooms(package: Path = PACKAGE) -> dict[str, int]:
    """Code lines of each room: a folder or a file of the package's top."""
    found: dict[str, int] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).with_suffix("").parts[0]
        found[room] = found.get(room, 0) + code_lines(path.read_text(encoding="utf-8"))
    return found


def totals(package: Path = PACKAGE) -> dict[str, tuple[int, int]]:
    """Pair of storeys -> its code lines, and its aim."""
    lines = rooms(package)
    return {
        " + ".join(pair): (sum(n for r, n in lines.items() for s in pair if r in STOREYS[s]), aim)
        for pair, aim in AIMS.items()
    }


def main() -> None:
    """Print the rooms by storey, and each pair of storeys beside its aim."""
    lines = rooms()
    for pair, (total, aim) in totals().items():
        for storey in pair.split(" + "):
            mine = sorted((r for r in lines if r in STOREYS[storey]), key=lambda r: -lines[r])
            print(f"{storey:<10}{sum(lines[r] for r in mine):>6,}")
            for room in mine:
                print(f"  {room:<14}{lines[room]:>6,}")
        print(f"{pair}: {total:,} lines, the aim is under {aim:,}\n")


if __name__ == "__main__":
    main()
