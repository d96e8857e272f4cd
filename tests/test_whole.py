"""No file is emptied before its new content is whole: drafts, and who may open files to write."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nclib import places
from nclib.scoreboard import report

PACKAGE = Path(places.__file__).parent
WRITERS = {"write_text", "write_bytes", "savefig", "to_csv", "to_json", "save_file", "touch"}
FRESH = {"draft", "drawn", "target"}  # a draft, a file in memory, a file in a staging folder


def test_the_file_is_what_it_was_until_the_block_ends_well(tmp_path):
    path, link = tmp_path / "deep" / "note.txt", tmp_path / "link"
    with places.whole(path) as draft:
        draft.write_text("first")
    link.symlink_to(path)
    with pytest.raises(RuntimeError), places.whole(link) as draft:
        draft.write_text("half of the sec")
        assert path.read_text() == "first"
        raise RuntimeError("cut")
    assert path.read_text() == "first"
    with places.whole(link) as draft:
        draft.write_text("second")
    assert link.is_symlink() and path.read_text() == "second"
    assert os.listdir(path.parent) == ["note.txt"]


FULL = """
import resource, sys
from nclib.places import whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with whole(sys.argv[1]) as draft:
    draft.write_text("new " * 1000)
"""
KILLED = """
import sys, time
from nclib.places import whole
with whole(sys.argv[1]) as draft:
    draft.write_text("new " * 1000)
    print("written", flush=True), time.sleep(60)
"""


def test_a_full_disk_and_a_kill_leave_the_old_file(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("the only copy")
    assert subprocess.run([sys.executable, "-c", FULL, path], capture_output=True).returncode == 1
    assert path.read_text() == "the only copy" and os.listdir(tmp_path) == ["README.md"]
    child = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"written\n"
    child.kill(), child.communicate()
    assert path.read_text() == "the only copy"


def test_a_report_that_finds_no_room_leaves_the_readme(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before {report.BEGIN} stale {report.END} after")
    monkeypatch.setattr(report.draw, "board", lambda *_: report.plt.figure())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (100, 12_000):  # no room for the pictures, or for the page
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError):
                report.write(root=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert readme.read_text() == f"before {report.BEGIN} stale {report.END} after"
    assert report.write(root=tmp_path) and "stale" not in readme.read_text()


def writes(source: str) -> list[str]:
    """Calls that open a file for writing and do not write to a draft."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        values = [a.value for a in node.args if isinstance(a, ast.Constant)]
        values += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
        modes = [v for v in values if isinstance(v, str) and v and set(v) <= set("wax+bt")]
        saves = name in ("save", "dump") and ast.unparse(node.func).split(".")[0] in (
            *("torch", "np", "numpy", "json", "pickle"),
        )
        if name in WRITERS or saves or (name == "open" and modes):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if not names & FRESH:
                found.append(ast.unparse(node))
    return found


def test_every_writer_of_the_package_writes_a_draft():
    sources = {p: p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py")}
    found = {str(p.relative_to(PACKAGE)): writes(s) for p, s in sources.items()}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_a_writer_without_a_draft_is_found():
    for call in (
        *("path.write_text('x')", "open(path, 'a')", "path.open(mode='wb')", "torch.save(x, path)"),
        *("figure.savefig(path)", "rows.to_csv(path)", "json.dump(x, file)", "Path(p).open('r+b')"),
    ):
        assert bool(writes(call)) == ("r+b" not in call), call
    assert not writes("draft.write_text('x')") and not writes("open(path)")
