"""Sealed assignments: no answer lies open, and the passphrase gives all of them back."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import sealed  # noqa: E402
from notebook import lessons  # noqa: E402

from nclib.course import sealing  # noqa: E402

PASSPHRASE = "a horse, a battery"
SOLVED = """def twice(x):
    ### BEGIN SOLUTION
    return 2 * x  # the secret of doubling
    ### END SOLUTION"""


@pytest.fixture
def mine(tmp_path):
    """A notebook of a teacher, with one solution and one output."""
    path = tmp_path / "mine" / "doubling.ipynb"
    path.parent.mkdir()
    cell = new_code_cell(SOLVED, outputs=[], execution_count=3)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Double"), cell]), path)
    return path


def test_the_answers_come_back_with_the_passphrase_and_lie_nowhere_before(mine, tmp_path):
    folder = tmp_path / "out"
    sealed.seal(folder, [mine, lessons()[2]], PASSPHRASE)
    names = {path.name for path in folder.iterdir()}
    assert names == {"doubling.ipynb", lessons()[2].name, sealing.ANSWERS}
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "secret of doubling" not in text and "BEGIN SOLUTION" not in text
    assert "your code here" in (folder / "doubling.ipynb").read_text()

    written = {path.name: path for path in sealed.unseal(folder, PASSPHRASE)}
    assert set(written) == {"doubling.ipynb", lessons()[2].name, "02.md"}
    cells = nbformat.read(written["doubling.ipynb"], as_version=4).cells
    assert cells[1].source == SOLVED and cells[1].execution_count is None
    assert "Expected wrong answers" in written["02.md"].read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", ["a horse, a batterie", "", "a horse, a battery "])
def test_another_passphrase_opens_nothing(mine, tmp_path, wrong):
    sealed.seal(tmp_path / "out", [mine], PASSPHRASE)
    with pytest.raises(ValueError, match="passphrase: it does not open"):
        sealed.unseal(tmp_path / "out", wrong)
    assert not (tmp_path / "out" / "answers").exists()


def test_answers_that_were_changed_do_not_open(tmp_path):
    sealing.seal(tmp_path, {"a": 1}, PASSPHRASE)
    path = tmp_path / sealing.ANSWERS
    told = json.loads(path.read_text())
    middle = len(told["answers"]) // 2
    other = "A" if told["answers"][middle] != "A" else "B"
    told["answers"] = told["answers"][:middle] + other + told["answers"][middle + 1 :]
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="they were changed"):
        sealing.opened(tmp_path, PASSPHRASE)
    for text in ("{}", "no JSON", '{"salt": 3, "answers": 4}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="holds no sealed answers"):
            sealing.opened(tmp_path, PASSPHRASE)


def test_two_seals_of_the_same_answers_differ_and_both_open(tmp_path):
    for name in ("a", "b"):
        sealing.seal(tmp_path / name, ["the answer"], PASSPHRASE)
        assert sealing.opened(tmp_path / name, PASSPHRASE) == ["the answer"]
    one, other = ((tmp_path / name / sealing.ANSWERS).read_text() for name in "ab")
    assert one != other


def test_what_is_refused_leaves_nothing_behind(mine, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(ValueError, match="twelve characters"):
        sealed.seal(folder, [mine], "short")
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), mine.with_name("bare.ipynb"))
    with pytest.raises(ValueError, match="bare.ipynb marks no solution"):
        sealed.seal(folder, [mine, mine.with_name("bare.ipynb")], PASSPHRASE)
    assert not folder.exists()
    sealed.seal(folder, [mine], PASSPHRASE)
    before = (folder / sealing.ANSWERS).read_bytes()
    with pytest.raises(ValueError, match="holds sealed answers"):
        sealed.seal(folder, [mine], PASSPHRASE)
    assert (folder / sealing.ANSWERS).read_bytes() == before
    solved = mine.read_bytes()
    with pytest.raises(ValueError, match=f"holds {mine.name}"):  # a seal beside the originals
        sealed.seal(mine.parent, [mine], PASSPHRASE)
    assert mine.read_bytes() == solved


def test_the_command_seals_opens_and_names_what_it_lacks(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PASSPHRASE", PASSPHRASE)
    folder = str(tmp_path / "out")
    assert sealed.main(["seal", folder, "02", str(mine)]) == 0
    assert sealed.main(["open", folder]) == 0
    assert "02.md" in capsys.readouterr().out
    for arguments in (["seal", folder], ["seal", folder, "99"]):
        with pytest.raises(SystemExit):
            sealed.main(arguments)
        assert "lesson: " in capsys.readouterr().err
    monkeypatch.delenv("PASSPHRASE")
    with pytest.raises(SystemExit):  # before anybody is asked for a passphrase
        sealed.main(["open", str(tmp_path / "none")])
    assert "holds no sealed answers" in capsys.readouterr().err
