"""The lesson contract: each rule takes a lesson and returns what is wrong with it, or ""."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import links  # noqa: E402
import notebook as tools  # noqa: E402
import readme  # noqa: E402

import exercises as copies  # noqa: E402
from nclib.course.exercises import find, prediction_of  # noqa: E402
from nclib.course.session import DEFAULT  # noqa: E402
from nclib.course.shown import CLAIM  # noqa: E402

PACKAGES = {
    *("nclib", "torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "seaborn"),
    *("pandas", "tqdm", "PIL", "safetensors", "ipywidgets", "IPython"),
}
MINUTES = re.compile(
    r"(?m)^\*\*Minutes in class:\*\* \d+(?: to \d+)?\.\s+"
    r"^\*\*Minutes of computing:\*\* \d+(?:\.\d+)? on two idle cores\."
)
PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<where>[^)\s]*)[^)]*\)")
TRUTH = re.compile(r"(?m)^.*(?::\s*(?:True|False)\b|\b(?:True|False)\)?[ \t]*$)")
END = ("Where it fails", "What to remember", "Further reading")
Cell = nbformat.NotebookNode
Rule = Callable[["Lesson"], str]
RULES: list[Rule] = []


@dataclass
class Lesson:
    """A notebook and the name of its file."""

    name: str
    notebook: nbformat.NotebookNode

    @cached_property
    def cells(self) -> list[Cell]:
        return [cell for cell in self.notebook.cells if cell.source.strip()]

    @cached_property
    def code(self) -> list[Cell]:
        return tools.code(self.notebook)

    @cached_property
    def header(self) -> str:
        return self.cells[0].source

    @cached_property
    def prose(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


def tree(cell: Cell) -> ast.Module:
    """The syntax tree of a code cell, with its magics passed over."""
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source))


def calls(cell: Cell, *names: str) -> bool:
    """Whether the cell calls one of ``names``, alone or as ``lesson.name``."""
    return any(found(cell, name) for name in names)


def found(cell: Cell, name: str) -> list[ast.Call]:
    """The calls of ``name`` in a code cell, alone or as ``lesson.name``."""
    nodes = [node for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)]
    return [n for n in nodes if getattr(n.func, "id", getattr(n.func, "attr", "")) == name]


def asserts(cell: Cell) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(tree(cell)))


def shows_figure(cell: Cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))


def first(cells: list[Cell]) -> str:
    """The beginning of the first of the offending cells, or "" if there is none."""
    return f"in: {cells[0].source[:60]!r}" if cells else ""


@rule
def one_title(lesson: Lesson) -> str:
    titles = [
        line
        for cell in lesson.cells
        if cell.cell_type == "markdown"
        for line in re.sub(r"(?ms)^```.*?^```", "", cell.source).splitlines()
        if line.startswith("# ")
    ]
    good = len(titles) == 1 and lesson.header.startswith(f"# {lesson.name[:2]} ")
    return "" if good else f"one H1, '# {lesson.name[:2]} Title', opens a lesson; got {titles}"


@rule
def badge(lesson: Lesson) -> str:
    wanted = links.badge(f"notebooks/{lesson.name}")
    good = lesson.header.count(wanted) == 1 == lesson.prose.count(links.COLAB + "/github/")
    return "" if good else f"the first cell, and it alone, has the badge {wanted}"


@rule
def objectives(lesson: Lesson) -> str:
    count = len(readme.objectives(lesson.header))
    after = re.search(r"(?m)^After this lesson you will be able to\s*:?$", lesson.header)
    return "" if after and 3 <= count <= 5 else f"3 to 5 objectives are needed, got {count}"


@rule
def three_exercises(lesson: Lesson) -> str:
    names = tools.checks(lesson.notebook)
    foreign = [name for name in names if name[:2] != lesson.name[:2]]
    count = len(names) - len(foreign)
    return "" if count >= 3 and not foreign else f"three exercises or more of its own; got {names}"


@rule
def exercises_have_a_solution(lesson: Lesson) -> str:
    missing = set(tools.checks(lesson.notebook)) - set(tools.solutions(lesson.notebook))
    return f"no solution block before the check of {sorted(missing)}" if missing else ""


@rule
def exercises_are_declared_and_need_no_plumbing(lesson: Lesson) -> str:
    for name in tools.checks(lesson.notebook):
        find(name)  # raises for an exercise that nobody declared
    help_ = [
        c for c in lesson.code if re.search(r"(?m)^[# ]*(lesson\.)?(hint|solution)\(", c.source)
    ]
    return f"a failed check offers the hint itself, {first(help_)}" if help_ else ""


@rule
def the_lesson_goes_on_with_what_check_returns(lesson: Lesson) -> str:
    bare = [
        cell
        for cell in lesson.code
        for node in tree(cell).body
        if isinstance(node, ast.Expr) and "check(" in ast.unparse(node)[:13]
    ]
    return f"write `name = check(...)`, {first(bare)}" if bare else ""


@rule
def solutions_are_short(lesson: Lesson) -> str:
    regions = [r for cell in lesson.code for r in tools.SOLUTION.finditer(cell.source)]
    long = [r["body"] for r in regions if len(r["body"].splitlines()) > 15]
    text = "\n".join(cell.source for cell in lesson.code)
    if len(regions) != text.count("BEGIN SOLUTION") or len(regions) != text.count("END SOLUTION"):
        return "### BEGIN SOLUTION and ### END SOLUTION come in pairs, each on its own line"
    return f"a solution has more than 15 lines: {long[0][:60]!r}" if long else ""


@rule
def figures_have_a_text(lesson: Lesson) -> str:
    pairs = zip(lesson.cells, [*lesson.cells[1:], None], strict=True)
    bare = [
        cell
        for cell, after in pairs
        if shows_figure(cell)
        and not (
            after
            and after.cell_type == "markdown"
            and re.match(r"\*Figures?: [^*]{40,}\*", after.source)
        )
    ]
    return f"'*Figure: what it shows*' must follow, {first(bare)}" if bare else ""


@rule
def ending(lesson: Lesson) -> str:
    text = re.sub(r"(?ms)^```.*?^```", "", lesson.prose)
    headings = re.findall(r"(?m)^## (?:\d+\. )?(.+?) *$", text)
    last = [next((end for end in END if heading.startswith(end)), "") for heading in headings[-3:]]
    good = sorted(last) == sorted(END) and last[-1] == END[-1]
    return "" if good else f"the last three H2 headings are {', '.join(END)}; got {headings[-3:]}"


@rule
def saved_with_outputs(lesson: Lesson) -> str:
    counts = [cell.execution_count for cell in lesson.code]
    if counts != list(range(1, len(counts) + 1)):
        return "the cells must be saved as run once, from top to bottom"
    return "" if any(cell.outputs for cell in lesson.code[1:]) else "no outputs are saved"


@rule
def clean_outputs(lesson: Lesson) -> str:
    for cell in lesson.code:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                return f"an error or stderr is saved, {first([cell])}"
    return ""


@rule
def small(lesson: Lesson) -> str:
    size = len(nbformat.writes(lesson.notebook).encode())
    return "" if size < 1_000_000 else f"{size:,} bytes; under 1,000,000 is allowed"


@rule
def plain_metadata(lesson: Lesson) -> str:
    metadata = lesson.notebook.metadata
    if "widgets" in metadata or any("widget-view" in str(c.get("outputs")) for c in lesson.code):
        return "widget state is saved"
    good = metadata.get("kernelspec", {}).get("name") == "python3"
    return "" if good else "the kernel must be python3"


@rule
def printed_results_are_compared(lesson: Lesson) -> str:
    """A cell that prints or checks is compared with its saved output, or says why not."""
    silent = [
        cell
        for cell in lesson.code[1:]
        if calls(cell, "print", "check")
        and not re.match(r"# NBVAL_(CHECK|IGNORE)_OUTPUT", cell.source)
    ]
    if silent:
        return f"begin with '# NBVAL_CHECK_OUTPUT', {first(silent)}"
    marked = [cell for cell in lesson.code if "NBVAL_CHECK_OUTPUT" in cell.source]
    empty = [c for c in marked if not c.outputs or c.execution_count is None]
    return f"nothing to compare with {first(empty)}" if empty or not marked else ""


@rule
def nothing_is_skipped(lesson: Lesson) -> str:
    words = ("NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION")
    hidden = [c for c in lesson.code if any(word in c.source for word in words)]
    tagged = [c for c in lesson.code if c.metadata.get("tags")]
    return f"no cell is kept from the tests {first(hidden + tagged)}" if hidden + tagged else ""


@rule
def short_cells(lesson: Lesson) -> str:
    long = [cell for cell in lesson.code if len(cell.source.splitlines()) > 25]
    return f"more than 25 lines {first(long)}" if long else ""


@rule
def allowed_imports(lesson: Lesson) -> str:
    found = set()
    for node in (node for cell in lesson.code for node in ast.walk(tree(cell))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    foreign = found - PACKAGES - sys.stdlib_module_names
    return f"imports what the package does not install: {sorted(foreign)}" if foreign else ""


@rule
def no_absolute_path(lesson: Lesson) -> str:
    texts = [cell.source for cell in lesson.cells]
    for cell in lesson.code:
        for output in cell.outputs:
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    found = re.search(
        r"(?<![\w.:/])/(?:home|Users|root|tmp|work|content|usr|var|opt|private)/\S*",
        "\n".join(texts),
    )
    return f"a path of one machine: {found[0]}" if found else ""


@rule
def no_magics(lesson: Lesson) -> str:
    magic = [c for c in lesson.code[1:] if re.search(r"(?m)^\s*[%!]", c.source)]
    return f"magics stand in the bootstrap only {first(magic)}" if magic else ""


@rule
def the_student_copy_has_no_answer(lesson: Lesson) -> str:
    student = copies.student_copy(lesson.notebook)
    text = "\n".join(cell.source for cell in student.cells)
    if "SOLUTION" in text or "/notebooks/" in student.cells[0].source:
        return "a solution or the badge of the lesson is left in the student copy"
    for cell in tools.code(student):
        tree(cell)  # raises SyntaxError where a stub does not fit
    return ""


@rule
def prerequisites_and_minutes(lesson: Lesson) -> str:
    if not re.search(r"(?m)^\*\*Prerequisites:\*\* \S", lesson.header):
        return "the first cell needs a line '**Prerequisites:** ...'"
    wanted = "'**Minutes in class:** 90.' and '**Minutes of computing:** 1.2 on two idle cores.'"
    return "" if MINUTES.search(lesson.header) else f"the first cell needs {wanted}"


@rule
def hook(lesson: Lesson) -> str:
    """The second cell is one picture that travels with the notebook, and a few sentences."""
    cell = lesson.cells[1]
    if cell.cell_type != "markdown":
        return "the second cell is the hook: a picture and at most five sentences"
    pictures = list(PICTURE.finditer(cell.source))
    if len(pictures) != 1 or not pictures[0]["where"].startswith("data:image/"):
        return f"the hook needs one picture, written by tools/execute.py; got {len(pictures)}"
    if len(pictures[0]["alt"]) < 40:
        return f"the hook's picture needs an alternative text; got {pictures[0]['alt']!r}"
    text = re.sub(r"\b(?:et al|e\.g|i\.e|Fig)\.", "", PICTURE.sub("", cell.source))
    count = len(re.findall(r"[.!?][*_)\"']*(?=\s|$)", text))
    return "" if 1 <= count <= 5 else f"the hook has {count} sentences; 1 to 5 are allowed"


@rule
def bootstrap_third(lesson: Lesson) -> str:
    good = lesson.cells[2].source.strip() == links.bootstrap(lesson.name[:2])
    return "" if good else "the third cell is the bootstrap of tools/links.py"


@rule
def settings(lesson: Lesson) -> str:
    """One cell of plain assignments: the data set, the number of images, the seeds."""
    setting = [cell for cell in lesson.code if re.search(r"(?m)^DATASET *=", cell.source)]
    if len(setting) != 1 or not re.search(rf'(?m)^DATASET = "{DEFAULT}"', setting[0].source):
        return f'exactly one cell sets DATASET = "{DEFAULT}"'
    if setting[0] not in lesson.code[:3] or not all(
        isinstance(node, ast.Assign) for node in tree(setting[0]).body
    ):
        return "settings are plain assignments, and stand before the work"
    names = [name.id for node in tree(setting[0]).body for name in node.targets]
    for word, pattern in (("N", r"N(_[A-Z_]+)?"), ("SEEDS", r"SEEDS?")):
        if not any(re.fullmatch(pattern, name) for name in names):
            return f"the settings lack {word}; got {names}"
    return ""


@rule
def claims_instead_of_asserts(lesson: Lesson) -> str:
    bare = [cell for cell in lesson.code if asserts(cell)]
    return f"say it with claim(), {first(bare)}" if bare else ""


@rule
def numbers_instead_of_truth(lesson: Lesson) -> str:
    """No output says True where a number belongs; no call prints a literal one."""
    for cell in lesson.code:
        for call in found(cell, "print"):
            if any(isinstance(arg, ast.Constant) and arg.value is True for arg in call.args):
                return f"a literal True is printed, {first([cell])}"
        for output in cell.outputs:
            text = output.get("text", output.get("data", {}).get("text/plain", ""))
            if said := TRUTH.search(text):
                return f"an output says {said[0][-60:]!r}, {first([cell])}"
    return ""


@rule
def claims_with_a_control(lesson: Lesson) -> str:
    """Claims are made, saved and hold; one at least has its control beside it."""
    made = [cell for cell in lesson.code if calls(cell, "claim")]
    controls = [k.arg for cell in made for c in found(cell, "claim") for k in c.keywords]
    if "control" not in controls:
        return f"no claim has its control beside it; {len(made)} cells make claims"
    if compared := [cell for cell in made if "NBVAL_CHECK_OUTPUT" in cell.source]:
        return f"a claim is tested by itself: no NBVAL_CHECK_OUTPUT, {first(compared)}"
    for cell in made:
        saved = [o.data[CLAIM] for o in cell.outputs if CLAIM in o.get("data", {})]
        if not saved:
            return f"no claim is saved, {first([cell])}"
        if not all(record["holds"] for record in saved):
            return f"a saved claim does not hold, {first([cell])}"
    return ""


@rule
def predictions_before_their_results(lesson: Lesson) -> str:
    """Each guess is noted, then something is seen, then the result is revealed and read."""
    guesses, opened = {}, {}
    for place, cell in enumerate(lesson.cells):
        for word, places in (("predict", guesses), ("reveal", opened)):
            for call in found(cell, word) if cell.cell_type == "code" else ():
                if not isinstance(call.func, ast.Name):  # training.predict(...), say
                    continue
                name = getattr(call.args[0], "value", "")
                places.setdefault(name, place)
                if prediction_of(name).name[:2] != lesson.name[:2]:  # raises for an undeclared one
                    return f"{name} is a prediction of another lesson"
    if not guesses or set(guesses) != set(opened):
        return f"each prediction is revealed; got {sorted(guesses)} and {sorted(opened)}"
    for name, place in guesses.items():
        between = [c for c in lesson.cells[place + 1 : opened[name] + 1] if c.cell_type == "code"]
        if not any(shows_figure(c) or "text/html" in str(c.get("outputs")) for c in between):
            return f"{name}: nothing is seen between the guess and the result"
        rest = lesson.cells[opened[name] + 1 :]
        read = next((i for i, cell in enumerate(rest) if "**Read" in cell.source), None)
        again = next((i for i, c in enumerate(rest) if "\npredict(" in "\n" + c.source), len(rest))
        if read is None or read > again:
            return f"{name}: no '**Read.**' after its result"
    return ""


@rule
def an_open_exercise(lesson: Lesson) -> str:
    wanted = r"(?m)^(?:#+ (?:\d+\. )?|\*\*)Open exercise"
    return "" if re.search(wanted, lesson.prose) else "no '**Open exercise: ...**'"


@rule
def controls_move_on_the_page(lesson: Lesson) -> str:
    """A saved control has its frames, so that a page without a kernel moves."""
    cells = [cell for cell in lesson.code if calls(cell, "interact")]
    still = [cell for cell in cells if "nclib-frames" not in str(cell.outputs)]
    if not cells:
        return "no interactive control: call `interact`"
    return f"no frames are saved, {first(still)}" if still else ""


@rule
def the_failure_is_measured(lesson: Lesson) -> str:
    place = [i for i, cell in enumerate(lesson.cells) if re.search(r"(?m)^## .*fails", cell.source)]
    rest = lesson.cells[place[-1] :] if place else []
    good = any(calls(cell, "claim") for cell in rest if cell.cell_type == "code")
    return "" if good else "after 'Where it fails' a claim must measure the failure"


@rule
def imports_are_used(lesson: Lesson) -> str:
    """What is imported is used; ``hint`` and ``solution`` are there for the student."""
    given, used = set(), set()
    for node in (node for cell in lesson.code for node in ast.walk(tree(cell))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            given |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name):
            used.add(node.id)
    if missing := {"hint", "solution"} - given:
        return f"import {sorted(missing)} from nclib.course: a failed check names them"
    idle = given - used - {"hint", "solution"}
    return f"imported and not used: {sorted(idle)}" if idle else ""
