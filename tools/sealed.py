"""Hand out assignments beside their answers, which open with a passphrase.

python tools/sealed.py seal FOLDER LESSON ...    a number ("05") or a notebook of your own
python tools/sealed.py open FOLDER               writes FOLDER/answers/

FOLDER gets the student copies and ``answers.json``: the solved notebooks, and of the course's own
lessons the page for teachers. It can lie in the open; after the deadline tell the passphrase. It is
asked for, or taken from the environment's PASSPHRASE.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

import nbformat
from assignments import GUIDE
from notebook import SOLUTION, lessons, read, write

from exercises import student_copy
from nclib.course import sealing


def seal(folder: Path, paths: list[Path], passphrase: str) -> None:
    """Write the student copies and the sealed answers; nothing where one of them is refused."""
    sealing.refuse(folder, passphrase)
    if there := [path.name for path in paths if (folder / path.name).exists()]:
        raise ValueError(f"folder: {folder} holds {', '.join(there)}; another one is needed")
    notebooks = {path.name: read(path) for path in paths}
    for name, notebook in notebooks.items():
        if not any(SOLUTION.search(c.source) for c in notebook.cells if c.cell_type == "code"):
            raise ValueError(f"notebook: {name} marks no solution; allowed is '### BEGIN SOLUTION'")
    answers = {name: _unrun(notebook) for name, notebook in notebooks.items()}
    pages = [GUIDE / f"{path.name[:2]}.md" for path in paths if path in lessons()]
    answers |= {p.name: p.read_text(encoding="utf-8") for p in pages if p.exists()}
    sealing.seal(folder, answers, passphrase)
    for name, notebook in notebooks.items():
        write(student_copy(notebook), folder / name)


def unseal(folder: Path, passphrase: str) -> list[Path]:
    """Write the answers beside the assignments, into answers/."""
    told = sealing.opened(folder, passphrase)
    place = folder / "answers"
    place.mkdir(exist_ok=True)
    for name, text in told.items():
        (place / Path(name).name).write_text(text, encoding="utf-8")
    return [place / name for name in told]


def _unrun(notebook: nbformat.NotebookNode) -> str:
    """The solved notebook as text, without its outputs."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook)


def _found(wanted: list[str]) -> list[Path]:
    course = {path.name[:2]: path for path in lessons()}
    paths = [course.get(one, Path(one)) for one in wanted]
    for path in paths:
        if not path.exists():
            raise ValueError(f"lesson: got {path}; allowed is {', '.join(course)}, or a notebook")
    return paths


def _asked() -> str:
    try:
        return getpass.getpass("passphrase: ")
    except EOFError:
        raise ValueError("passphrase: none was given; set PASSPHRASE, or type it") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("seal", "open"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("lessons", nargs="*", metavar="LESSON")
    given = parser.parse_args(arguments)
    try:
        paths = _found(given.lessons)
        if given.what == "seal" and not paths:
            raise ValueError("lesson: none was named")
        if given.what == "open" and not (given.folder / sealing.ANSWERS).exists():
            raise ValueError(f"folder: {given.folder} holds no sealed answers")
        passphrase = os.environ.get("PASSPHRASE") or _asked()
        if given.what == "seal":
            seal(given.folder, paths, passphrase)
            print(f"{len(paths)} assignments and their sealed answers in {given.folder}")
        else:
            print("\n".join(map(str, unseal(given.folder, passphrase))))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
