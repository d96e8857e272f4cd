"""Each rule of the lesson contract accepts a good lesson and rejects one that breaks it."""

import base64
import copy

import nbformat
import pytest
from lesson_contract import CLAIM, RULES, Lesson, links, tools
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nclib.course.exercises import EXERCISES, PREDICTIONS, exercise, prediction

NAME = "90_toy.ipynb"
TITLE = f"""# 90 Toy: a lesson about nothing

{links.badge(f"notebooks/{NAME}")}

After this lesson you will be able to

- do one thing,
- do another,
- and a third.

**Prerequisites:** none.

**Minutes in class:** 60 to 90.

**Minutes of computing:** 0.5 on two idle cores.
"""
PNG = base64.b64encode(b"picture").decode()
HOOK = f"""## What is that?

![A sign with a yellow sticker, read by the network as another sign](data:image/png;base64,{PNG})

In 2017 a sticker made a stop sign a speed limit (Gu et al. 2017). Nobody saw it. How?"""
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
IMPORT = "from nclib.course import check, claim, hint, interact, predict, reveal, solution"
END = "## 4. Where it fails: nowhere\n\n**Predict.** Does it?"
READING = "**Read.** No.\n\n## What to remember\n\n- It.\n\n## Further reading\n\n- Them."


@pytest.fixture(autouse=True)
def exercises():
    """Three exercises and a prediction that exist for these tests only."""
    for word in ("one", "two", "three"):
        exercise(f"90.{word}", hints=("vague", "plain"), reference=None)(lambda answer: None)
    prediction("90.rises", "Does it?", usual={"no": "look"}, reading="yes")
    yield
    for word in ("one", "two", "three"):
        EXERCISES.pop(f"90.{word}")
    PREDICTIONS.pop("90.rises")


def claimed(holds=True):
    return {"text/plain": "it rises", CLAIM: {"sentence": "it rises", "holds": holds}}


def built(cells):
    """A notebook of markdown cells (text) and code cells (what it puts out, source)."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    count = 0
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(new_markdown_cell(cell))
            continue
        count, (said, source) = count + 1, cell
        outputs = [new_output("display_data", said)] if isinstance(said, dict) else []
        if isinstance(said, str) and said:
            outputs = [new_output("stream", text=said)]
        notebook.cells.append(new_code_cell(source, outputs=outputs, execution_count=count))
    nbformat.validate(notebook)
    return notebook


def three_exercises():
    words = ("one", "two", "three")
    return [("90: correct\n", SQUARE.format(word=word)) for word in words]


@pytest.fixture
def good():
    """A lesson that keeps the contract."""
    cells = [TITLE, HOOK, ("", links.bootstrap("90"))]
    cells += [("", 'DATASET = "signs"\nN = 100\nSEEDS = (0, 1)')]
    cells += [("", f"import matplotlib.pyplot as plt\n\n{IMPORT}"), "**Predict.** Does it rise?"]
    cells += [("90.rises: noted", 'predict("90.rises", "yes")')]
    cells += [
        ({"image/png": PNG}, PLOT),
        ALT,
        ({}, 'reveal("90.rises", "yes")'),
        "**Read.** It did.",
    ]
    cells += [({"text/html": '<div class="nclib-frames">'}, CONTROL), *three_exercises()]
    cells += [(claimed(), 'claim("it rises", 2, above=1, control=1)')]
    cells += ["**Open exercise: write a better one.**", END]
    cells += [(claimed(), 'claim("it fails", 2, above=1)'), READING]
    return built(cells)


def complaints(notebook):
    lesson, found = Lesson(NAME, notebook), {}
    for rule in RULES:
        try:
            found[rule.__name__] = rule(lesson)
        except ValueError as error:  # a name nobody declared, a solution without a check
            found[rule.__name__] = str(error)
    return {name: complaint for name, complaint in found.items() if complaint}


def test_a_good_lesson_passes(good):
    assert complaints(good) == {}


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


def fails(notebook):
    for cell in tools.code(notebook):
        if cell.source.startswith("claim("):
            cell.outputs = [new_output("display_data", claimed(holds=False))]


def tag(notebook):
    tools.code(notebook)[4].metadata["tags"] = ["nbval-skip"]


LONG = "\n".join(["    x = x + 1"] * 16)
WIDGET = "application/vnd.jupyter.widget-view+json"
TRUE = "all of them collapse: True\n"
CHANGES = [
    ("one_title", edit("# 90 Toy", "# Toy")),
    ("one_title", edit("## 4.", "# 4.")),
    ("badge", edit("/notebooks/90_toy", "/notebooks/91_toy")),
    ("badge", edit("**Read.** It rises.", links.badge("notebooks/00_a.ipynb"))),
    ("objectives", edit("- do another,\n- and a third.\n", "")),
    ("objectives", edit("- and", "- a\n- b\n- c\n- and")),
    ("objectives", edit("After this lesson you will be able to", "Contents")),
    ("prerequisites_and_minutes", edit("**Prerequisites:** none.", "")),
    ("prerequisites_and_minutes", edit("class:** 60 to 90", "class:** some")),
    ("prerequisites_and_minutes", edit("**Minutes of computing:** 0.5", "**Minutes:** 0.5")),
    ("hook", drop("sticker made")),
    ("hook", edit("![A sign", "[A sign")),
    ("hook", edit("A sign with a yellow sticker, read by the network as another", "A")),
    ("hook", edit("data:image/png;base64,", "../docs/figures/")),
    ("hook", edit("How?", "How? Why? When?! Where. *Who.*")),
    ("bootstrap_third", edit('start("90")', "!pip install torch")),
    ("settings", edit('DATASET = "signs"', 'DATASET = "digits"')),
    ("settings", edit("N = 100", "import numpy as np\nN = 100")),
    ("settings", edit("N = 100", "EPOCHS = 3")),
    ("settings", edit("SEEDS", "EPOCHS")),
    ("settings", edit("import matplotlib", 'DATASET = "signs"\nimport matplotlib')),
    ("three_exercises", drop('"90.two"')),
    ("three_exercises", edit('check("90.two"', 'check("89.two"')),
    ("exercises_have_a_solution", edit("### BEGIN SOLUTION", "### SOLUTION")),
    ("exercises_are_declared_and_need_no_plumbing", edit(PLOT, '# hint("90.two")')),
    ("exercises_are_declared_and_need_no_plumbing", edit(PLOT, '# lesson.solution("90.two")')),
    ("exercises_are_declared_and_need_no_plumbing", edit('check("90.two"', 'check("90.other"')),
    ("the_lesson_goes_on_with_what_check_returns", edit("two = check", "check")),
    ("solutions_are_short", edit("    return x * x", LONG)),
    ("solutions_are_short", edit("    ### END SOLUTION", "    # END SOLUTION")),
    ("an_open_exercise", edit("**Open exercise", "**Exercise")),
    ("controls_move_on_the_page", drop("interact(lambda")),
    ("controls_move_on_the_page", edit(CONTROL, "show(interact)")),
    ("controls_move_on_the_page", silence),
    ("figures_have_a_text", edit("*Figure:", "Figure:")),
    ("figures_have_a_text", edit(ALT, "*Figure: a line.*\n\n**Read.** It rises.")),
    ("predictions_before_their_results", drop("predict(")),
    ("predictions_before_their_results", drop('reveal("90')),
    ("predictions_before_their_results", edit('predict("90.rises"', 'predict("90.other"')),
    ("predictions_before_their_results", drop(PLOT)),
    ("predictions_before_their_results", lambda nb: nb.cells.insert(9, nb.cells.pop(6))),
    ("predictions_before_their_results", lambda nb: [edit("**Read", "So")(nb) for _ in range(3)]),
    ("claims_instead_of_asserts", edit(PLOT, f"{PLOT}\nassert 1 < 2")),
    ("numbers_instead_of_truth", output(output_type="stream", text=TRUE)),
    ("numbers_instead_of_truth", output(output_type="stream", text="collapse: False | seeds: 3")),
    ("numbers_instead_of_truth", output(output_type="display_data", data={"text/plain": "True"})),
    ("numbers_instead_of_truth", edit(PLOT, '# NBVAL_IGNORE_OUTPUT\nprint("so", True)')),
    ("claims_with_a_control", edit(", control=1", "")),
    ("claims_with_a_control", edit('claim("it rises"', '# NBVAL_CHECK_OUTPUT\nclaim("it rises"')),
    ("claims_with_a_control", silence),
    ("claims_with_a_control", fails),
    ("ending", edit("## What to remember", "**What to remember**")),
    ("ending", edit("## Further reading", "## Further reading\n\n## One more thing")),
    ("the_failure_is_measured", drop("it fails")),
    ("saved_with_outputs", uncount),
    ("saved_with_outputs", silence),
    ("clean_outputs", output(output_type="error", ename="E", evalue="e", traceback=[])),
    ("clean_outputs", output(output_type="stream", name="stderr", text="training: 10%")),
    ("small", output(output_type="stream", text="x" * 1_000_000)),
    ("plain_metadata", metadata(widgets={})),
    ("plain_metadata", metadata(kernelspec={"name": "ir"})),
    ("plain_metadata", output(output_type="display_data", data={WIDGET: {}})),
    ("printed_results_are_compared", edit(PLOT, f"{PLOT}\nprint(1)")),
    ("printed_results_are_compared", edit("# NBVAL_CHECK_OUTPUT\n", "")),
    ("printed_results_are_compared", silence),
    ("nothing_is_skipped", edit(PLOT, f"# NBVAL_SKIP\n{PLOT}")),
    ("nothing_is_skipped", tag),
    ("short_cells", edit(PLOT, "\n".join([PLOT] * 26))),
    ("allowed_imports", edit("import matplotlib", "import torchattacks\nimport matplotlib")),
    ("allowed_imports", edit("import matplotlib", "from foolbox import a\nimport matplotlib")),
    ("imports_are_used", edit("import matplotlib", "import torch\nimport matplotlib")),
    ("imports_are_used", edit("hint, ", "")),
    ("no_absolute_path", edit(PLOT, f'{PLOT}\nopen("/home/me/data.csv")')),
    ("no_absolute_path", output(output_type="stream", text="saved in /tmp/run.pt")),
    ("no_magics", edit(PLOT, f"%matplotlib inline\n{PLOT}")),
    ("the_student_copy_has_no_answer", edit("### BEGIN SOLUTION", "##  BEGIN SOLUTION")),
]


def named(changes):
    return [f"{place:02d}-{rule}" for place, (rule, _) in enumerate(changes)]


@pytest.mark.parametrize(("rule", "change"), CHANGES, ids=named(CHANGES))
def test_a_broken_lesson_is_rejected(good, rule, change):
    broken = copy.deepcopy(good)
    change(broken)
    assert broken != good
    assert rule in complaints(broken)


def test_every_rule_has_a_lesson_that_breaks_it():
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in CHANGES}
