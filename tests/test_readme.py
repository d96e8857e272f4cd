"""The README's table says what the notebooks say, and the repository has the files it names."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import readme  # noqa: E402
from front_page import PICTURES  # noqa: E402

import nclib  # noqa: E402

FIRST = """# Lesson 03: Poison | labels

**Minutes in class:** 90.

**Minutes of computing:** 2 on two idle cores.

After this lesson you will be able to:

- flip labels,
  all of them;
- read a *table*.

Prerequisites: 01
- not an objective
"""


def test_the_table_is_up_to_date():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme.written(), "run `make readme`"


def test_the_header_of_a_lesson_says_the_minutes_that_were_measured():
    late = [path.name for path in readme.headers()]
    assert not late, f"{late}: run `make readme`; the minutes stand in {readme.MINUTES} alone"


def test_title_and_objectives_come_from_the_first_cell():
    assert readme.title(FIRST) == "Lesson 03: Poison | labels"
    assert readme.objectives(FIRST) == ["flip labels, all of them", "read a *table*"]
    with pytest.raises(ValueError, match="no H1"):
        readme.title("## only a second heading")


def test_every_lesson_asks_one_question():
    asked = readme.questions()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert re.fullmatch(r"[^?|]{20,80}\?", asked[path.name[:2]]), path.name


def test_a_new_notebook_and_new_times_change_the_table(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    blocks = f"{readme.HOURS}<!-- /hours -->\n{readme.BEGIN}{readme.END}"
    (tmp_path / "README.md").write_text(f"before\n{blocks}\nafter\n")
    for folder in ("notebooks", "exercises", "build"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/questions.toml").write_text('03 = "What now?"\n')
    cells = {"cells": [{"cell_type": "markdown", "source": FIRST}]}
    (tmp_path / "notebooks/03_poison.ipynb").write_text(json.dumps(cells))
    assert readme.main(["--check"], tmp_path) == 1
    assert readme.main([], tmp_path) == 0
    (row,) = [r for r in (tmp_path / "README.md").read_text().splitlines() if r[:4] == "| 03"]
    assert row.startswith(r"| 03 | [Poison \| labels](notebooks/03_poison.ipynb) | What now? |")
    assert row.count("colab-badge.svg") == 1
    (tmp_path / "build/times.json").write_text('{"03_poison": 44.0, "99_gone": 1}')
    readme.main([], tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "1 lessons\nare planned for 1.5 hours in class, and take 1 minutes" in text
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert readme.minutes(tmp_path) == {"03_poison": 0.7}
    assert readme.main(["--check"], tmp_path) == 0
    lesson = tmp_path / "notebooks/03_poison.ipynb"
    assert "computing:** 0.7 on two" in lesson.read_text()
    lesson.write_text(lesson.read_text().replace("0.7 on two", "0.5 on two"))
    assert readme.main(["--check"], tmp_path) == 1


def test_every_file_that_a_page_links_to_exists():
    missing = []
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        front = page.name == "index.md"  # the site puts it at its root, and its pictures beside it
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            made = front and target.startswith(f"{PICTURES}/")
            if not made and not ((ROOT if front else page.parent) / target).exists():
                missing.append(f"{page.name} links to {target}")
    assert not missing


def test_environment_yml_takes_everything_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, rest = environment["dependencies"]
    assert (python, pip) == ("python>=3.11,<3.14", "pip")
    assert rest == {"pip": ["-e .[lab]"]}
    assert set(environment) == {"name", "channels", "dependencies"}


def test_the_pins_are_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.+]+( ; .+)?", line), line
        assert "/" not in line and "nclib" not in line


def test_the_citation_is_complete_and_has_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == nclib.__version__
    first = re.search(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert first[1].rstrip(",") == nclib.__version__


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.name)
def test_a_workflow_is_yaml_and_runs_targets_that_the_makefile_has(path):
    flow = yaml.safe_load(path.read_text())
    assert flow["name"] and flow["jobs"] and True in flow  # yaml reads the key "on" as true
    targets = set(re.findall(r"(?m)^([a-z-]+):.*##", (ROOT / "Makefile").read_text()))
    for job in flow["jobs"].values():
        assert job["runs-on"] and job["steps"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            named = re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))
            assert set(named) <= targets


def test_the_workflow_in_the_audit_page_gives_options_that_the_audit_has(capsys):
    from nclib.audit.command import main

    page = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"(?ms)^```yaml\n(.+?)^```$", page)
    (job,) = yaml.safe_load(text)["jobs"].values()
    (line,) = re.findall(
        r"(?m)-m nclib audit (.+)$", "\n".join(s.get("run", "") for s in job["steps"])
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z]+", line)) <= options
    (folder,) = re.findall(r"--out (\S+)", line)
    (kept,) = (s["with"]["path"] for s in job["steps"] if "upload-artifact" in s.get("uses", ""))
    assert folder == kept
