"""The house has four storeys: what stands on one may import from its own and from those below."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from size import PACKAGE, STOREYS, code_lines  # noqa: E402

ORDER = list(STOREYS)


def room(module: str) -> str:
    """The room of a dotted module: "nclib.plots.style" stands in "plots"."""
    return (module.split(".") + ["__init__"])[1]


def storey(name: str) -> int | None:
    """How far from the top a room is; None for the package's own __init__."""
    return next((i for i, floor in enumerate(ORDER) if name in STOREYS[floor]), None)


def modules() -> dict[str, Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(("nclib", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in paths]
    return {n.removesuffix(".__init__"): p for n, p in zip(names, paths, strict=True)}


def imports(source: str) -> set[str]:
    """Every nclib module that a source names, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= parts if node.module == "nclib" else {node.module}
    return {name for name in found if name.split(".")[0] == "nclib"}


def upward(module: str, source: str) -> list[str]:
    """What a module imports from a storey above its own."""
    own = storey(room(module))
    above = [name for name in sorted(imports(source)) if (storey(room(name)) or 0) < (own or 0)]
    return [name for name in above if storey(room(name)) is not None]


def test_every_room_has_its_storey():
    entries = {
        p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    known = set().union(*STOREYS.values())
    assert entries - {"__init__"} <= known, entries - known


@pytest.mark.parametrize("module", modules())
def test_nothing_imports_upwards(module):
    assert upward(module, modules()[module].read_text(encoding="utf-8")) == []


def test_an_import_upwards_is_found():
    assert upward("nclib.monitor", "def f():\n    from nclib.plots import style") == ["nclib.plots"]
    assert upward("nclib.data.signs", "from nclib import attacks, device") == ["nclib.attacks"]
    assert upward("nclib.course.claims", "import nclib.plots.style, nclib.cache") == []


SOURCE = '''"""A module

of three lines."""

import os  # one

# a comment
def f(
    a,
):
    """Told."""
    text = """two
lines"""
    "a string that is no docstring"
    return text
'''


def test_docstrings_comments_and_blank_lines_are_no_code():
    assert code_lines(SOURCE) == 8
    assert code_lines('"""Only told."""\n') == code_lines("") == 0
