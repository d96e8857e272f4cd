"""A saved lesson as a page without a kernel: its setup is folded, its predictions can be made.

The frames of ``interact`` are in the saved outputs already. Here the plumbing moves into folds that
say what is in them, each ``predict`` becomes a choice with the answer in a fold below it, and each
``reveal`` shows what the reader of the page has chosen.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import quiz
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from notebook import read

from nclib.course import exercises
from nclib.course.shown import Shown

SETUP, CODE, SOLUTION = "Show the setup", "Show the code", "Show a solution"
IMPORTS = "from nclib.course import"  # the end of the setup
SHOWN = 'title="The page that this cell has made"'
HTML, EMPTY = "text/html", re.compile(r"<th[^>]*></th>")  # a header that names nothing


def page(path: Path) -> NotebookNode:
    """A copy of the lesson as its page."""
    notebook = read(path)
    _join_setup(notebook)
    asked = {question["name"]: question for question in quiz.questions(path)}
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            names = called(cell.source, "predict")
            cells += [new_markdown_cell(_form(asked[name])) for name in names]
            if names and len(names) == len(ast.parse(cell.source).body):
                continue
            if "### BEGIN SOLUTION" in cell.source:
                fold(cell, SOLUTION)
            elif "hide-input" not in cell.metadata.get("tags", []) and plumbing(cell):
                fold(cell, CODE)
            for name in called(cell.source, "reveal"):
                _ask_the_page(cell, asked[name])
            for output in cell.outputs:
                if HTML in output.get("data", {}):
                    html = EMPTY.sub("<td></td>", output.data[HTML])
                    output.data[HTML] = html.replace("<iframe srcdoc=", f"<iframe {SHOWN} srcdoc=")
        cells.append(cell)
    notebook.cells = cells
    return notebook


def _join_setup(notebook: NotebookNode) -> None:
    """Bootstrap, settings and imports as one folded cell, with the outputs of all three."""
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    run = [i for place, i in enumerate(code) if i == code[0] + place]  # with no words between
    last = max((i for i in run if IMPORTS in notebook.cells[i].source), default=None)
    if last is None:
        return
    parts = notebook.cells[code[0] : last + 1]
    joined = parts[0]
    joined.source = "\n\n".join(cell.source for cell in parts)
    joined.outputs = [output for cell in parts for output in cell.outputs]
    fold(joined, SETUP)
    notebook.cells[code[0] : last + 1] = [joined]


def fold(cell: NotebookNode, words: str) -> None:
    """Let myst-nb put the cell's code, not its outputs, into <details>."""
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    prompts = {"code_prompt_show": words, "code_prompt_hide": words.replace("Show", "Hide")}
    cell.metadata["mystnb"] = prompts


def plumbing(cell: NotebookNode) -> bool:
    """Whether the cell shows a figure or a table, and defines nothing but what a slider draws."""
    shown = any(output.output_type == "display_data" for output in cell.outputs)
    defines = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in _tree(cell.source))
    return shown and (not defines or "interact" in calls(cell.source))


def called(source: str, function: str) -> list[str]:
    """The words that the calls of ``function`` start with; "" for anything else."""
    mine = calls(source).get(function, [])
    return [str(getattr(call.args[0], "value", "")) if call.args else "" for call in mine]


@cache  # a page asks every cell several times
def calls(source: str) -> dict[str, list[ast.Call]]:
    """The calls of plain names, by name."""
    found: dict[str, list[ast.Call]] = {}
    for node in _tree(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.setdefault(node.func.id, []).append(node)
    return found


def _form(question: dict[str, Any]) -> str:
    """As one block of HTML: an empty line would end it."""
    return re.sub(r"\n\s*\n", "\n", quiz.form(question, choose=True).strip())


@cache
def _tree(source: str) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(source)))
    except SyntaxError:  # the magic of the bootstrap
        return []


def _ask_the_page(cell: NotebookNode, asked: dict[str, Any]) -> None:
    """Put every reason into the saved table, and a place for the reader's own guess."""
    prediction = exercises.prediction_of(asked["name"])
    for output in cell.outputs:
        if escape(prediction.question) in output.get("data", {}).get(HTML, ""):
            rows = [("you guessed", "GUESS"), ("it came out", asked["came"])]
            rows += [(f"why not {usual['text']}", usual["why"]) for usual in asked["usual"]]
            place = f'<span data-prediction="{asked["name"]}">nothing yet</span>'
            table = Shown(prediction.question, ("", ""), rows).html()
            output.data[HTML] = table.replace("GUESS", place)
