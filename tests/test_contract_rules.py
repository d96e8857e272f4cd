"""Each rule of the lesson contract accepts a good lesson and rejects one that breaks it."""

import base64
import copy

import nbformat
import pytest
from lesson_contract import RULES, Lesson, links, tools
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nclib.course.exercises import EXERCISES, exercise

NAME = "90_toy.ipynb"
HEADER = f"""# 90 Toy: a lesson about nothing

{links.badge(f"notebooks/{NAME}")}

After this lesson you will be able to

- do one thing,
- do another,
- and a third.

**Prerequisites:** none.

**Minutes:** 0.5 on a 2-core CPU.

**Runs longer:** nothing.
"""
SQUARE = """# NBVAL_CHECK_OUTPUT
def {word}(x):
    ### BEGIN SOLUTION
    return x * x
    ### END SOLUTION


{word} = check("90.{word}", {word})"""
PLOT = "plt.plot([1, 2]);"
ALT = """*Figure: a straight line that rises from one to two and says nothing else.*

**Read.** It rises."""
CONTROL = "interact(lambda k: plt.plot([1, k]), k=(1, 2))"
END = "## 4. Where it fails: nowhere\n\n**Predict.** Does it?"
READING = "**Read.** No.\n\n## What to remember\n\n- It.\n\n## Further reading\n\n- Them."
PNG = base64.b64encode(b"picture").decode()


@pytest.fixture(autouse=True)
def exercises():
    """Three exercises that exist for these tests only."""
    for word in ("one", "two", "three"):
        exercise(f"90.{word}", hints=("vague", "plain"), reference=None)(lambda answer: None)
    yield
    for word in ("one", "two", "three"):
        EXERCISES.pop(f"90.{word}")


@pytest.fixture
def good():
    """A lesson that keeps the contract."""
    cells = [HEADER, ("", links.bootstrap("90")), ("", 'DATASET = "digits"\nEPOCHS = 3')]
    cells += [("", "import torch"), "**Predict.** Does it rise?", ("png", PLOT), ALT, ("", CONTROL)]
    for word in ("one", "two", "three"):
        cells += [("90: correct\n", SQUARE.format(word=word))]
    cells += [("", "assert 1 < 2"), END, ("", "assert True"), READING]
    notebook, count = (
        new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": ""}}),
        0,
    )
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(new_markdown_cell(cell))
            continue
        count, (said, source) = count + 1, cell
        outputs = [new_output("stream", text=said)] if said else []
        if said == "png":
            outputs = [new_output("display_data", {"image/png": PNG})]
        notebook.cells.append(new_code_cell(source, outputs=outputs, execution_count=count))
    nbformat.validate(notebook)
    return notebook


def complaints(notebook):
    lesson, found = Lesson(NAME, notebook), {}
    for rule in RULES:
        try:
            found[rule.__name__] = rule(lesson)
        except ValueError as error:  # a name nobody declared, a solution without a check
            found[rule.__name__] = str(error)
    return {name for name, complaint in found.items() if complaint}


def test_a_good_lesson_passes(good):
    assert complaints(good) == set()


def edit(old, new):
    """Replace text in the first cell that has it."""

    def change(notebook):
        cell = next(cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)

    return change


def drop(text):
    def change(notebook):
        notebook.cells = [cell for cell in notebook.cells if text not in cell.source]

    return change


def output(**what):
    """Save another output in the first cell that has a figure."""

    def change(notebook):
        cell = next(cell for cell in notebook.cells if cell.source == PLOT)
        cell.outputs.append(new_output(**what))

    return change


def metadata(**what):
    return lambda notebook: notebook.metadata.update(what)


def silence(notebook):
    for cell in tools.code(notebook):
        cell.outputs = []


def uncount(notebook):
    tools.code(notebook)[4].execution_count = None


def tag(notebook):
    tools.code(notebook)[4].metadata["tags"] = ["nbval-skip"]


LONG = "\n".join(["    x = x + 1"] * 16)
WIDGET = "application/vnd.jupyter.widget-view+json"
MUTATIONS = [
    ("one_title", edit("# 90 Toy", "# Toy")),
    ("one_title", edit("## 4.", "# 4.")),
    ("badge", edit("/notebooks/90_toy", "/notebooks/91_toy")),
    ("badge", edit("**Read.** It rises.", links.badge("notebooks/00_a.ipynb"))),
    ("objectives", edit("- do another,\n- and a third.\n", "")),
    ("objectives", edit("- and", "- a\n- b\n- c\n- and")),
    ("objectives", edit("After this lesson you will be able to", "Contents")),
    ("prerequisites_and_what_runs_longer", edit("**Prerequisites:** none.", "")),
    ("prerequisites_and_what_runs_longer", edit("**Runs longer:** nothing.", "")),
    ("minutes", edit("**Minutes:** 0.5", "**Minutes:** some")),
    ("minutes", edit("**Minutes:** 0.5", "**Minutes:** 2")),
    ("bootstrap", edit('start("90")', "!pip install torch")),
    ("settings_in_one_cell", edit('DATASET = "digits"', 'DATASET = "mnist"')),
    ("settings_in_one_cell", edit("EPOCHS = 3", "import numpy as np")),
    ("settings_in_one_cell", edit("import torch", 'DATASET = "digits"')),
    ("three_exercises", drop('"90.two"')),
    ("three_exercises", edit('check("90.two"', 'check("89.two"')),
    ("exercises_have_a_solution", edit("### BEGIN SOLUTION", "### SOLUTION")),
    ("exercises_are_declared_and_need_no_plumbing", edit("import torch", '# hint("90.two")')),
    (
        "exercises_are_declared_and_need_no_plumbing",
        edit('check("90.two"', 'check("90.undeclared"'),
    ),
    ("the_lesson_goes_on_with_what_check_returns", edit("two = check", "check")),
    ("solutions_are_short", edit("    return x * x", LONG)),
    ("solutions_are_short", edit("    ### END SOLUTION", "    # END SOLUTION")),
    ("a_control_after_a_static_figure", drop("interact(")),
    ("a_control_after_a_static_figure", drop(PLOT)),
    ("figures_have_a_text", edit("*Figure:", "Figure:")),
    ("figures_have_a_text", edit(ALT, "*Figure: a line.*\n\n**Read.** It rises.")),
    ("predict_run_read", lambda nb: [edit("**Predict", "**Question")(nb) for _ in range(2)]),
    ("predict_run_read", edit("**Read.** It", "It")),
    ("predict_run_read", edit("assert 1 < 2", "1 < 2")),
    ("ending", edit("## What to remember", "**What to remember**")),
    ("ending", edit("## Further reading", "## Further reading\n\n## One more thing")),
    ("the_failure_is_run", edit("assert True", "True")),
    ("saved_with_outputs", uncount),
    ("saved_with_outputs", silence),
    ("clean_outputs", output(output_type="error", ename="E", evalue="e", traceback=[])),
    ("clean_outputs", output(output_type="stream", name="stderr", text="training: 10%")),
    ("small", output(output_type="stream", text="x" * 1_000_000)),
    ("plain_metadata", metadata(widgets={})),
    ("plain_metadata", metadata(kernelspec={"name": "ir"})),
    ("plain_metadata", output(output_type="display_data", data={WIDGET: {}})),
    ("printed_results_are_compared", edit("assert 1 < 2", "assert 1 < 2\nprint(1)")),
    ("printed_results_are_compared", edit("# NBVAL_CHECK_OUTPUT\n", "")),
    ("printed_results_are_compared", silence),
    ("nothing_is_skipped", edit("assert 1 < 2", "# NBVAL_SKIP\nassert 1 < 2")),
    ("nothing_is_skipped", tag),
    ("short_cells", edit("assert 1 < 2", "\n".join(["assert 1 < 2"] * 26))),
    ("allowed_imports", edit("import torch", "import torch, torchattacks")),
    ("allowed_imports", edit("import torch", "from foolbox.attacks import FGSM")),
    ("no_absolute_path", edit("assert 1 < 2", 'open("/home/me/data.csv")')),
    ("no_absolute_path", output(output_type="stream", text="saved in /tmp/run.pt")),
    ("no_magics", edit("assert 1 < 2", "%matplotlib inline\nassert 1 < 2")),
    ("the_student_copy_has_no_answer", edit("### BEGIN SOLUTION", "##  BEGIN SOLUTION")),
]


IDS = [f"{place:02d}-{rule}" for place, (rule, _) in enumerate(MUTATIONS)]


@pytest.mark.parametrize(("rule", "change"), MUTATIONS, ids=IDS)
def test_a_broken_lesson_is_rejected(good, rule, change):
    broken = copy.deepcopy(good)
    change(broken)
    assert broken != good
    assert rule in complaints(broken)


def test_every_rule_has_a_lesson_that_breaks_it():
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in MUTATIONS}
