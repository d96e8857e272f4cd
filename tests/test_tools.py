"""The tools that make student copies, run lessons, and keep them off the network."""

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
import zmq.asyncio
from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import execute  # noqa: E402
import links  # noqa: E402
import notebook as tools  # noqa: E402

import exercises as copies  # noqa: E402

# Not imported by its name: nbval, the plug-in of pytest, has that already.
spec = importlib.util.spec_from_file_location("alone", ROOT / "tools" / "nbval.py")
alone = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)

FUNCTION = """# NBVAL_CHECK_OUTPUT
def one(x):
    \"\"\"A docstring.\"\"\"
    ### BEGIN SOLUTION
    y = x
    return y
    ### END SOLUTION


one = check("90.one", one)
after = 1"""
VALUES = """known = None
### BEGIN SOLUTION
known, (a, b) = 1, (2, 3)
def two(x): return x
### END SOLUTION
two = lesson.check("90.two", (known, a, b, two))
### BEGIN SOLUTION
c = 4
### END SOLUTION
c = check("90.three", c)"""


def book(*sources):
    cells = [new_code_cell(s, execution_count=1, outputs=[]) for s in sources]
    return new_notebook(cells=[new_markdown_cell(links.badge("notebooks/90_a.ipynb")), *cells])


def test_lessons_are_chosen_by_number_or_name_and_another_ends_the_program():
    every = tools.lessons()
    assert tools.chosen([]) == every
    assert tools.chosen(["02", every[0].stem, "02"]) == [every[0], every[2]]
    for wrong in ("99", "2", "x"):
        with pytest.raises(SystemExit, match=f"lesson: got {wrong}; allowed is 00, 01"):
            tools.chosen(["01", wrong])


def test_a_student_copy_has_stubs_and_a_badge_of_its_own():
    notebook = book(FUNCTION, VALUES)
    notebook.cells[1].outputs = [new_output("stream", text="90.one: correct")]
    badge, function, values = copies.student_copy(notebook).cells
    assert badge.source == links.badge("exercises/90_a.ipynb")
    head = 'def one(x):\n    """A docstring."""\n    ...  # your code here\n\n\none = check('
    assert function.source.startswith(head)
    assert values.source.splitlines() == [
        "known = None",
        "a = ...  # your code here",
        "b = ...  # your code here",
        "two = ...  # your code here",
        'two = lesson.check("90.two", (known, a, b, two))',
        "c = ...  # your code here",
        'c = check("90.three", c)',
    ]
    assert (function.outputs, function.execution_count) == ([], None)
    assert notebook.cells[1].outputs  # the lesson itself is untouched


def test_a_solution_belongs_to_the_next_check():
    found = tools.solutions(book(FUNCTION, "x = 1", VALUES))
    assert list(found) == ["90.one", "90.two", "90.three"]
    assert found["90.one"] == 'def one(x):\n    """A docstring."""\n    y = x\n    return y'
    assert found["90.two"].startswith("known, (a, b) = 1") and found["90.three"] == "c = 4"
    apart = tools.solutions(book(FUNCTION.split("\n\n\n")[0], "x = 1", 'check("90.one", one)'))
    assert apart["90.one"] == found["90.one"]
    with pytest.raises(ValueError, match="no check follows"):
        tools.solutions(book(FUNCTION.split("\n\n\n")[0]))


def test_an_out_of_date_copy_is_named(tmp_path):
    source, target, told = tmp_path / "n", tmp_path / "e", tmp_path / "s.json"
    source.mkdir(), target.mkdir()
    tools.write(book(FUNCTION), source / "90_a.ipynb")
    assert copies.outdated(source, target, told) == ["90_a.ipynb", "s.json"]
    student = copies.student_copy(tools.read(source / "90_a.ipynb"))
    tools.write(student, target / "90_a.ipynb")
    told.write_text(copies._text(source))
    assert copies.outdated(source, target, told) == []
    tools.write(student, target / "91_left_over.ipynb")
    assert copies.outdated(source, target, told) == ["91_left_over.ipynb"]
    (target / "91_left_over.ipynb").unlink()
    student.cells[1].source += "\nprint(1)"
    tools.write(student, target / "90_a.ipynb")
    assert copies.outdated(source, target, told) == ["90_a.ipynb"]


def test_a_lesson_runs_in_an_empty_directory_and_is_saved_clean(tmp_path):
    noisy = """import os, sys
from tqdm.auto import tqdm
from IPython.display import display
from ipywidgets import IntSlider
for _ in tqdm(range(3)): pass
print(os.listdir(), os.environ["NCLIB_STRICT"], file=sys.stderr)
display(IntSlider())
print(os.listdir(), os.environ["NCLIB_STRICT"])"""
    tools.write(book(noisy, "1 + 1"), tmp_path / "90_a.ipynb")
    assert execute.run([tmp_path / "90_a.ipynb"], None, None) == 0
    saved = tools.read(tmp_path / "90_a.ipynb")
    text, code = nbformat.writes(saved), tools.code(saved)
    assert "[] 1" in text
    assert not any(word in text for word in ("%|", '"stderr"', "widget-view"))
    assert "controls: run this cell" in text and [c.execution_count for c in code] == [1, 2]
    assert code[1].outputs[0].data["text/plain"] == "2"
    assert set(saved.metadata) == {"kernelspec", "language_info"}
    assert [cell.id for cell in saved.cells] == ["cell-000", "cell-001", "cell-002"]


SWALLOWED = """import ipywidgets
with ipywidgets.Output():
    raise KeyError("swallowed")"""


@pytest.mark.parametrize("source", ["1 / 0", SWALLOWED], ids=["cell", "widget"])
def test_an_error_fails_the_run_and_leaves_the_lesson_as_it_was(tmp_path, source, capsys):
    path = tmp_path / "90_a.ipynb"
    tools.write(book(source), path)
    before = path.read_text()
    assert execute.run([path], None, None) == 1
    assert path.read_text() == before
    out = capsys.readouterr().out
    assert "FAILED" in out and ("ZeroDivisionError" in out or "swallowed" in out)


def test_a_reply_is_seen_although_its_wake_up_was_taken():
    """As a send on the same socket does, in the moment in which the reply comes."""

    async def wait_for_reply():
        with (
            zmq.asyncio.Context() as context,
            context.socket(zmq.DEALER) as mine,
            zmq.Context() as other,
            other.socket(zmq.DEALER) as kernel,
        ):
            session = Session(key=b"key")
            mine.connect(f"tcp://127.0.0.1:{kernel.bind_to_random_port('tcp://127.0.0.1')}")
            reply = asyncio.create_task(execute.Channel(mine, session).get_msg(timeout=240))
            await asyncio.sleep(0.1)
            session.send(kernel, "execute_reply")
            events = zmq.Socket.shadow(mine.underlying)
            while not events.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                pass  # nothing else runs here, so nothing else can see the event
            start = time.perf_counter()
            message = await reply
            return message["msg_type"], time.perf_counter() - start

    kind, waited = asyncio.run(wait_for_reply())
    assert kind == "execute_reply" and waited < 120


def test_placeholders_and_the_data_set_are_filled_in():
    notebook = book("BOOTSTRAP", 'DATASET = "digits"  # or\nN = 1 if DATASET == "digits" else 2')
    notebook.cells[0].source = "# 90 A\n\nBADGE\n\nBADGER"
    execute.fill(notebook, "90_a.ipynb")
    execute.set_dataset(notebook, "mnist")
    head, start, settings = (cell.source for cell in notebook.cells)
    assert head.splitlines()[2:] == [links.badge("notebooks/90_a.ipynb"), "", "BADGER"]
    assert start == links.bootstrap("90")
    assert settings == 'DATASET = "mnist"  # or\nN = 1 if DATASET == "digits" else 2'
    with pytest.raises(RuntimeError, match="0 cells set DATASET"):
        execute.set_dataset(book("x = 1"), "mnist")


TRY = """import socket, sys, urllib.request
def tcp(): socket.create_connection(("192.0.2.1", 80), timeout=5)
def udp(): socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
def six(): socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80))
def name(): socket.getaddrinfo("example.org", 80)
def http(): urllib.request.urlopen("http://example.org", timeout=5)
for attempt in (tcp, udp, six, name, http):
    try: attempt()
    except OSError as error: assert "the network is blocked" in str(error), repr(error)
    else: sys.exit(attempt.__name__ + " went through")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1])).close()
print("only this machine")"""


def test_the_guard_blocks_the_network_and_spares_the_machine_itself():
    environment = {**os.environ, "PYTHONPATH": alone.environment()["PYTHONPATH"]}
    command = [sys.executable, "-c", TRY]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.stdout == "only this machine\n", found.stderr


def test_seconds_are_added_up_and_told_beside_the_header(tmp_path):
    cases = "".join(
        f'<testcase file="90_a/{name}.ipynb" time="{time}"/>'
        for name, time in (("90_a", 20), ("90_a", 30.04), ("91_b", 1))
    )
    took = alone.seconds(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert took == {"90_a": 50.0, "91_b": 1.0}
    path = tmp_path / "90_a.ipynb"
    for header, word in [
        ("**Minutes of computing:** 0.5 on two idle cores.", "50.0 s   the header says 30 s"),
        ("no word of it", "50.0 s   the header says nothing"),
    ]:
        tools.write(new_notebook(cells=[new_markdown_cell(header)]), path)
        assert word in alone.times([path], took)


JUDGE = """def check(name, answer):
    print(f"{name}: " + ("not attempted" if answer is ... else "correct"))"""


EMPTY = 'one = ...\none = check("90.one", one)'


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (EMPTY, ""),
        (EMPTY + '\ntwo = check("90.two", 2)', "90_a: passes without an answer: 90.two"),
        (EMPTY + "\n1 / 0", "ZeroDivisionError"),
    ],
    ids=["empty", "answered", "error"],
)
def test_a_student_copy_must_run_and_be_judged_not_attempted(tmp_path, source, complaint):
    tools.write(book(JUDGE, source), tmp_path / "90_a.ipynb")
    found = alone.student_run(tmp_path / "90_a.ipynb")
    assert complaint in found and bool(complaint) == bool(found)


def test_the_sanitiser_hides_what_differs_between_machines():
    patterns = ConfigParser(interpolation=None)
    patterns.read(ROOT / "tools/nbval-sanitize.cfg")
    text = "torch 2.15.0+cpu on cuda:0 at 0x7f3a took 3.25 s, NC1 0.123456 and 12.3"
    for section in patterns.values():
        if "regex" in section:
            text = re.sub(section["regex"], section["replace"], text)
    assert text == "torch VERSION on DEVICE at ADDRESS took TIME, NC1 0.12 and 12.3"


@pytest.mark.parametrize(
    ("source", "student"),
    [
        (
            'predict("90.a", 3)  # a number (of times)',
            'predict("90.a", ...)  # a number (of times)',
        ),
        ('predict("90.a", [1, f(2), ")"])', 'predict("90.a", ...)'),
        (
            'x = "é"; predict("90.a",\n  (None, 2))\npredict("90.b", "falls")',
            'x = "é"; predict("90.a",\n  ...)\npredict("90.b", ...)',
        ),
        ('reveal("90.a", 3)', 'reveal("90.a", 3)'),
        ('%pip install\npredict("90.a", 3)', '%pip install\npredict("90.a", 3)'),
    ],
)
def test_a_student_makes_the_guess(source, student):
    assert tools.unguessed(source) == student
    assert copies.student_copy(book(source)).cells[-1].source == student


def test_a_picture_travels_inside_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "FIGURES", tmp_path)
    (tmp_path / "hook.png").write_bytes(b"picture")
    notebook = book("x = 1  # ![a](../docs/figures/hook.png)")
    notebook.cells[0].source = "![what it shows](../docs/figures/hook.png) and text"
    execute.fill(notebook, "90_a.ipynb")
    data = "data:image/png;base64,cGljdHVyZQ=="
    assert notebook.cells[0].source == f"![what it shows]({data}) and text"
    assert "../docs" in notebook.cells[1].source
    notebook.cells[0].source = "![what it shows](../docs/figures/none.png)"
    with pytest.raises(RuntimeError, match="no picture .*none.png"):
        execute.fill(notebook, "90_a.ipynb")


DRAWN = """import matplotlib.pyplot as plt
from nclib.course import interact
interact(lambda k: plt.plot([0, k]), k=[1, 2])"""


def test_frames_are_drawn_where_a_lesson_is_saved_and_there_alone(tmp_path):
    path = tmp_path / "90_a.ipynb"
    tools.write(book(DRAWN), path)
    assert execute.run([path], tmp_path / "out", None) == 0
    assert "controls: run this cell" in path.with_name("out").joinpath("90_a.ipynb").read_text()
    assert "nclib-frames" not in (tmp_path / "out" / "90_a.ipynb").read_text()
    assert execute.run([path], None, None) == 0
    (output,) = tools.code(tools.read(path))[0].outputs
    assert "nclib-frames" in output.data["text/html"] and "widget" not in str(output.data.keys())
    assert output.data["text/plain"] == "(controls: run this cell to use them)"
