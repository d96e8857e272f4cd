"""Write the README's table of lessons from the notebooks, and the minutes into the notebooks.

python tools/readme.py           rewrite both, and the minutes if build/times.json is there
python tools/readme.py --check    change nothing; fail where one is out of date

The title is the lesson's H1, its question that of docs/questions.toml. The minutes are those of
data/results/minutes.csv, measured by the test run: nobody types them into a lesson's first cell.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tomllib
from pathlib import Path

from links import ROOT, badge, write

BEGIN, END = "<!-- lessons: written by tools/readme.py -->\n", "<!-- /lessons -->"
HOURS = "<!-- hours: written by tools/readme.py -->\n"
IN_CLASS = re.compile(r"\*\*Minutes in class:\*\* (\d+)")
MINUTES = "data/results/minutes.csv"
HEADER = re.compile(r"(\*\*Minutes of computing:\*\* )[\d.]*\d")  # in the first cell


def first_cell(path: Path) -> str:
    """The markdown of the notebook's first cell."""
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def title(text: str) -> str:
    """The H1. Raises ``ValueError`` where there is none."""
    found = re.search(r"(?m)^# +(.+?)\s*$", text)
    if not found:
        raise ValueError(f"the first cell has no H1: {text[:60]!r}")
    return found[1]


def questions(root: Path = ROOT) -> dict[str, str]:
    """Number of a lesson -> the one question that it answers."""
    path = root / "docs/questions.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def objectives(text: str) -> list[str]:
    """The items of the first list in the cell, without their final stop."""
    found = re.search(r"(?m)^(?:(?:[-*]|\d+\.) .+\n?(?:[ \t]+\S.*\n?)*)+", text)
    items = re.findall(
        r"(?ms)^(?:[-*]|\d+\.) (.+?)(?=^(?:[-*]|\d+\.) |\Z)", found[0] if found else ""
    )
    return [re.sub(r"\s+", " ", item).strip().rstrip(".,;") for item in items]


def minutes(root: Path = ROOT) -> dict[str, float]:
    """Notebook's name -> minutes, from the committed table."""
    path = root / MINUTES
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["lesson"]: float(row["minutes"]) for row in csv.DictReader(file)}


def record_minutes(root: Path = ROOT) -> None:
    """Take the seconds of the last measured run (build/times.json) into the committed table."""
    path = root / "build/times.json"
    present = {p.stem for p in root.glob("notebooks/*.ipynb")}
    if not path.exists() or not present:
        return
    times = {Path(name).stem: seconds for name, seconds in json.loads(path.read_text()).items()}
    known = {name: value for name, value in minutes(root).items() if name in present}
    known |= {name: round(float(s) / 60, 1) for name, s in times.items() if name in present}
    (root / MINUTES).parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name},{value}\n" for name, value in [("lesson", "minutes"), *sorted(known.items())]]
    write(root / MINUTES, "".join(lines))


def headers(root: Path = ROOT) -> dict[Path, str]:
    """Lessons and student copies whose first cell says other minutes -> their text with these."""
    told = {}
    for name, took in minutes(root).items():
        for path in (root / "notebooks" / f"{name}.ipynb", root / "exercises" / f"{name}.ipynb"):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if (new := HEADER.sub(rf"\g<1>{took:.1f}", text, count=1)) != text:
                told[path] = new
    return told


def table(root: Path = ROOT) -> str:
    """The markdown table, one row for each notebook in the folder."""
    asked = questions(root)
    rows = ["| | lesson | the question | |", "|---|---|---|---|"]
    for path in sorted(root.glob("notebooks/*.ipynb")):
        text, name = first_cell(path), path.name
        heading = re.sub(r"^(?:Lesson )?\d+[.:]? *(?:[-–—:] *)?", "", title(text)).replace(
            "|", r"\|"
        )
        name_only = heading.split(": ")[0]
        question = asked.get(name[:2], "")
        lesson = f"[{name_only}](notebooks/{name})"
        link = badge(f"notebooks/{name}", root, "Colab")
        rows.append(f"| {name[:2]} | {lesson} | {question} | {link} |")
    return "\n".join(rows) + "\n"


def hours(root: Path = ROOT) -> str:
    """How many lessons there are; their hours in class, as planned; their minutes, as measured."""
    paths = sorted(root.glob("notebooks/*.ipynb"))
    planned = [IN_CLASS.search(first_cell(path)) for path in paths]
    in_class = sum(int(found[1]) for found in planned if found) / 60
    computing = round(sum(minutes(root).values()))
    return (
        "**For whom.** You have trained one image classifier in PyTorch. The course's "
        f"{len(paths)} lessons\nare planned for {in_class:g} hours in class, and take {computing} "
        "minutes of computing on two CPU cores,\nall of them together and without a download.\n"
    )


def written(root: Path = ROOT) -> str:
    """The README as it should be."""
    text = (root / "README.md").read_text(encoding="utf-8")
    for begin, end, make in ((HOURS, "<!-- /hours -->", hours), (BEGIN, END, table)):
        before, rest = text.split(begin)
        text = before + begin + make(root) + end + rest.split(end, 1)[1]
    return text


def main(arguments: list[str], root: Path = ROOT) -> int:
    path = root / "README.md"
    if "--check" not in arguments:
        record_minutes(root)
        for notebook, text in headers(root).items():
            write(notebook, text)
        write(path, written(root))
        return 0
    late = [] if path.read_text(encoding="utf-8") == written(root) else ["README.md"]
    late += [str(notebook.relative_to(root)) for notebook in headers(root)]
    for name in late:
        print(f"{name} is out of date: run `make readme`")
    print("" if late else "README.md and the minutes of the lessons are up to date")
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
