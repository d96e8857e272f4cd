"""Keep the teacher's guide true: its table of lessons, and what the checks say to wrong answers.

python tools/guide.py            write the table of docs/teachers-guide.md
python tools/guide.py --answers  also run the answers of docs/guide/NN.md, and write what is said
python tools/guide.py --check    change nothing; fail where the table is out of date

Minutes come from data/results/minutes.csv, prerequisites and exercises from the notebooks. A block
of Python in docs/guide/ holds lines ``check("NN.name", answer)``; the comment below each is the
verdict. A test runs them all.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from pathlib import Path

from links import colab, write
from readme import ROOT, first_cell, minutes, title

GUIDE = "docs/teachers-guide.md"
BEGIN, END = "<!-- lessons: written by tools/guide.py -->\n", "<!-- /lessons -->"
PREREQUISITES = re.compile(r"(?ms)^\*\*Prerequisites:\*\*\s*(.+?)\s*(?=\n\n|\Z)")
EXERCISE = re.compile(r"\bcheck\(\s*\"(\d\d\.\w+)\"")
BLOCK = re.compile(r"(?ms)^```python\n(.+?)^```$")


def table(root: Path = ROOT) -> str:
    """The markdown table, one row for each notebook in the folder."""
    measured = minutes(root)
    rows = ["| lesson | minutes | prerequisites | exercises | for students |", "|---" * 5 + "|"]
    for path in sorted(root.glob("notebooks/*.ipynb")):
        text, number = first_cell(path), path.name[:2]
        name = title(text).partition(":")[0]
        linked = f"[{name}](guide/{number}.md)" if page(number, root).exists() else name
        needs = PREREQUISITES.search(text)
        took = f"{measured[path.stem]:.1f}" if path.stem in measured else ""
        needs = re.sub(r"\s+", " ", needs[1]).rstrip(".") if needs else ""
        copied = (root / "exercises" / path.name).exists()
        link = f"[in Colab]({colab(f'exercises/{path.name}', root)})" if copied else ""
        rows.append(f"| {linked} | {took} | {needs} | {len(exercises(path))} | {link} |")
    return "\n".join(rows) + "\n"


def page(number: str, root: Path = ROOT) -> Path:
    """Where the guide speaks of lesson ``number``."""
    return root / "docs" / "guide" / f"{number}.md"


def exercises(path: Path) -> list[str]:
    """The names of a notebook's exercises, in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return list(dict.fromkeys(EXERCISE.findall(code)))


def written(root: Path = ROOT) -> str:
    """The guide as it should be."""
    before, rest = (root / GUIDE).read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + table(root) + END + rest.split(END, 1)[1]


def answered(text: str) -> str:
    """A page with the verdict below each ``check(...)`` of its Python blocks."""
    import torch

    names = {"torch": torch}
    return BLOCK.sub(lambda found: f"```python\n{_run(found[1], names)}```", text)


def _run(block: str, names: dict[str, object]) -> str:
    """The block with the verdicts as comments; what it defines goes to ``names``."""
    from nclib.course import verdict

    kept = [line for line in block.splitlines() if not line.startswith("#")]
    source, verdicts = "\n".join(kept), {}
    for statement in ast.parse(source).body:
        code = ast.get_source_segment(source, statement)
        if isinstance(statement, ast.Expr) and code.startswith("check("):
            state, message = eval(f"verdict{code[5:]}", {**names, "verdict": verdict})
            verdicts[statement.end_lineno] = f"{state}: {message}"
        else:
            exec(code, names)
    lines = []
    for number, line in enumerate(kept, start=1):
        lines.append(line)
        if number in verdicts:
            lines += textwrap.wrap(
                verdicts[number], 96, initial_indent="# ", subsequent_indent="# "
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str], root: Path = ROOT) -> int:
    path = root / GUIDE
    if "--check" in arguments:
        good = path.read_text(encoding="utf-8") == written(root)
        print("the guide is up to date" if good else f"{GUIDE} is out of date: run `make readme`")
        return int(not good)
    write(path, written(root))
    for found in sorted(root.glob("docs/guide/*.md")) if "--answers" in arguments else ():
        write(found, answered(found.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
