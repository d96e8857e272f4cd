"""The readers' site: its tables and links; the whole of it is built under ``make test-full``."""

import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import claims  # noqa: E402
import front_page  # noqa: E402
import lesson_pages  # noqa: E402
import pages  # noqa: E402
import tables  # noqa: E402
import website  # noqa: E402
from notebook import code, lessons, read  # noqa: E402

LESSONS = lessons()
FRAMES = 400_000  # bytes of moving frames on one page, at most
PAGE = 400_000  # bytes of a page beside its figures, at most
FIGURES = re.compile(r"[A-Za-z0-9+/=]{500,}")


@pytest.fixture
def results(tmp_path):
    (tmp_path / "named.csv").write_text("a,b,seed,x\np|q,1,0,0.1\np|q,1,1,0.3\nr,2,0,5\nr,1,0,\n")
    (tmp_path / "other.csv").write_text("k,v\n" + "".join(f"{i},{i}\n" for i in range(30)))
    return tmp_path


def test_seeds_become_a_mean_and_a_range(results):
    page = tables.fill("<!-- table: named rows=a columns=b values=x -->\n", results)
    assert "| a | 1 | 2 |" in page
    assert "| p\\|q | 0.2 [0.1, 0.3] |  |" in page and "| r |  | 5 |" in page
    assert "{download}`named.csv <../data/results/named.csv>`" in page


def test_numbers_over_columns_stand_in_their_order(tmp_path):
    (tmp_path / "t.csv").write_text("a,epoch,x\np,0,3\np,12,2\np,2,1\n")
    page = tables.fill("<!-- table: t rows=a columns=epoch values=x -->\n", tmp_path)
    assert "| a | 0 | 2 | 12 |" in page and "| p | 3 | 1 | 2 |" in page


def test_a_table_may_be_cut_to_some_rows_or_shown_as_it_is(results):
    assert "p\\|q" not in tables.fill("<!-- table: named rows=a values=x where=a:r -->", results)
    assert "| r | 2 | 0 | 5 |" in tables.fill("<!-- table: named -->", results)


def test_a_file_that_no_page_names_is_shown_in_part(results):
    page = tables.fill("<!-- table: named -->", results)
    assert "## other.csv" in page and "first 20 of 30" in page and "| 19 | 19 |" in page
    assert "| 20 | 20 |" not in page


def test_a_wrong_name_is_refused(results):
    with pytest.raises(ValueError, match="'nothing'"):
        tables.fill("<!-- table: nothing -->", results)
    with pytest.raises(ValueError, match=r"\['z'\].*'seed'"):
        tables.summary(pd.read_csv(results / "named.csv"), ["z"], ["x"])


GOOD = '<h1 id="top">a</h1><a href="b.html#low">b</a><a href="#top">a</a><img src="c.png">'


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("", ""),
        ('<a href="https://example.org">out</a>', ""),
        ('<a href="gone.html">x</a>', "gone.html: there is no such file"),
        ('<a href="b.html#high">x</a>', "#high: there is no such anchor"),
        ('<a href="#high">x</a>', "#high: there is no such anchor"),
        ('<img src="gone.png">', "gone.png: there is no such file"),
        ('<script src="https://example.org/x.js"></script>', "fetches https://example.org/x.js"),
        ('<script src="//example.org/x.js"></script>', "fetches //example.org/x.js"),
        ('<link rel="stylesheet" href="https://example.org/x.css">', "fetches"),
        ('<link rel="canonical" href="https://example.org/">', ""),
        ('<img src="data:image/png;base64,AA">', ""),
    ],
)
def test_a_page_with_a_dead_link_or_a_fetch_is_found(more, complaint, tmp_path):
    (tmp_path / "a.html").write_text(GOOD + more)
    (tmp_path / "b.html").write_text('<h2 id="low">b</h2>')
    (tmp_path / "c.png").touch()
    found = pages.complaints(tmp_path)
    assert len(found) == bool(complaint) and complaint in "".join(found)


def test_a_style_that_fetches_and_an_empty_folder_are_found(tmp_path):
    with pytest.raises(ValueError, match="no page"):
        pages.complaints(tmp_path)
    (tmp_path / "a.html").write_text(GOOD.replace("b.html#low", "").replace("c.png", "a.html"))
    (tmp_path / "a.css").write_text("@import 'https://example.org/font.css';")
    assert pages.complaints(tmp_path) == ["a.css: fetches from elsewhere"]


def test_the_pages_are_gathered_with_links_instead_of_badges(tmp_path):
    website.gather(tmp_path)
    lessons = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir()) == lessons
    for name in lessons:
        first, *cells = json.loads((tmp_path / "notebooks" / name).read_text())["cells"]
        text = "".join(first["source"])
        assert "colab-badge" not in text and "/blob/" in text
        assert f"<../notebooks/{name}>" in text and f"<../exercises/{name}>" in text
        assert any(cell.get("outputs") for cell in cells)
        assert not any("NBVAL" in "".join(cell["source"]) for cell in cells)
    results = (tmp_path / "docs/results.md").read_text()
    for path in ROOT.glob("data/results/*.csv"):
        assert f"{path.stem}.csv" in results
    assert "automodule:: nclib.attacks.gradient" in (tmp_path / "api/attacks.md").read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_every_link_holds(tmp_path):
    website.gather(tmp_path / "source")
    assert website.build(tmp_path / "source", tmp_path / "html") == 0
    assert pages.complaints(tmp_path / "html") == []
    lesson = (tmp_path / "html/notebooks/01_neural_collapse.html").read_text()
    assert "<math" in lesson and "colab.research.google.com" in lesson
    assert list((tmp_path / "html/_downloads").rglob("01_neural_collapse.ipynb"))
    assert (tmp_path / "html/docs/glossary.html").exists()
    assert (tmp_path / "html/docs/playground/weights.js").exists()
    for path in (tmp_path / "html").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert len(FIGURES.sub("", text)) < PAGE, path.name
        assert str(ROOT) not in text, path.name
        assert "\N{REVERSE SOLIDUS OPERATOR}" not in text, path.name
        assert not re.search(r"<munderover>\s*<mi", text), path.name  # an index below an accent


def test_the_claims_of_the_course_are_gathered_from_the_saved_lessons(tmp_path):
    record = {"sentence": "a | b < c", "values": [0.8, 0.9], "claimed": "above 0.7", "holds": True}
    record["control"] = [["oracle", [0.02]], ["none", [1.0, 0.5]]]
    output = new_output("display_data", {"text/plain": "a", claims.CLAIM: record})
    cells = [new_markdown_cell("# 90 Toy"), new_code_cell("claim()", outputs=[output])]
    for name, content in (("90_toy", cells), ("91_none", cells[:1])):
        nbformat.write(new_notebook(cells=content), tmp_path / f"{name}.ipynb")
    page = claims.fill(f"# Page\n\n{claims.MARKER}\n", sorted(tmp_path.glob("*.ipynb")))
    assert "1 claims" in page and claims.MARKER not in page and "91" not in page
    assert "## [90 Toy](../notebooks/90_toy.ipynb)" in page
    row = r"| a \| b &lt; c | 0.85 (0.8 to 0.9, 2 values) | above 0.7 | oracle 0.02; none 0.75"
    assert row in page
    record["holds"] = False
    assert "above 0.7 (does not hold)" in claims.table([record])


def test_a_record_of_a_claim_does_not_reach_sphinx(tmp_path):
    """It would warn of an output that it cannot show, and a warning is an error."""
    data = {"text/html": "<p>a</p>", claims.CLAIM: {"sentence": "a"}}
    cells = [new_markdown_cell("# 90 Toy"), new_code_cell("claim()")]
    cells[1].outputs = [new_output("display_data", data)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "90_toy.ipynb")
    website.write_lesson(tmp_path / "90_toy.ipynb", tmp_path / "out.ipynb")
    assert set(nbformat.read(tmp_path / "out.ipynb", 4).cells[1].outputs[0].data) == {"text/html"}


def frames(path):
    """The moving figures of a saved lesson: their HTML, by cell."""
    html = [
        [o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {})]
        for cell in code(read(path))
        if "interact" in lesson_pages.calls(cell.source)
    ]
    return [[part for part in parts if "nclib-frames" in part] for parts in html]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_control_of_a_lesson_moves_on_its_page(path):
    found = frames(path)
    assert found and all(len(parts) == 1 for parts in found)
    for (html,) in found:
        told = json.loads(re.search(r', (\{"frames".*\})\);</script>', html)[1])
        count = 1
        for texts in told["texts"]:
            count *= len(texts)
        assert html.count('type="range"') == len(told["texts"]) > 0
        assert len(told["frames"]) == len(told["alts"]) == count > 1
        assert len(set(told["frames"])) > 1 and "data:image/webp" in html
    assert sum(len(html) for (html,) in found) < FRAMES


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_page_of_a_lesson_folds_its_plumbing_and_asks_its_predictions(path):
    before, page = read(path), lesson_pages.page(path)
    names = [n for cell in code(before) for n in lesson_pages.called(cell.source, "predict")]
    text = "".join(cell.source for cell in page.cells)
    assert names and all(f'id="quiz-{name}"' in text for name in names)
    assert not any("predict" in lesson_pages.calls(cell.source) for cell in code(page))
    html = "".join(o.get("data", {}).get("text/html", "") for c in code(page) for o in c.outputs)
    for name in names:
        assert html.count(f'<span data-prediction="{name}">nothing yet</span>') == 1
    first, *rest = code(page)
    assert "DATASET = " in first.source and "google.colab" in first.source
    assert first.metadata["mystnb"]["code_prompt_show"] == lesson_pages.SETUP
    assert not any("google.colab" in cell.source or "DATASET = " in cell.source for cell in rest)
    folded = [cell for cell in rest if "hide-input" in cell.metadata.get("tags", ())]
    assert folded and len(folded) < len(rest)
    for cell in rest:
        assert ("BEGIN SOLUTION" not in cell.source) or cell in folded
    assert sum(len(c.outputs) for c in code(before)) == sum(len(c.outputs) for c in code(page)) + (
        sum(len(c.outputs) for c in code(before) if lesson_pages.called(c.source, "predict"))
    )


def test_a_page_shows_science_and_folds_what_only_draws():
    shown = [new_output("display_data", {"image/png": "", "text/plain": ""})]
    kept = "def f(x):\n    return x\n\n\ndraw(f)"
    assert lesson_pages.plumbing(new_code_cell("claim('a', 1, above=0)", outputs=shown))
    assert lesson_pages.plumbing(new_code_cell(kept + "\ninteract(f, x=(0, 1))", outputs=shown))
    assert not lesson_pages.plumbing(new_code_cell(kept, outputs=shown))
    assert not lesson_pages.plumbing(new_code_cell("x = fit()"))


def test_every_table_of_results_comes_after_a_sentence_that_says_what_it_shows():
    text = (ROOT / "docs/results.md").read_text()
    named = {found["name"] for found in tables.MARKER.finditer(text)}
    assert named == {path.stem for path in (ROOT / "data/results").glob("*.csv")}
    for found in tables.MARKER.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        assert not before.startswith(("<!--", "#", "|")), f"{found['name']}: no sentence"
        assert len(before) > 80 and before[-1] in ".:", f"{found['name']}: {before}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_page_of_the_claims_has_every_claim_of_a_lesson(path):
    records = claims.claims(path)
    page = claims.fill(claims.MARKER, [path])
    assert page.count("\n| ") == len(records) + 2  # and the head of the table
    made = [
        call.args[0]
        for cell in code(read(path))
        for call in lesson_pages.calls(cell.source).get("claim", [])
    ]
    told = {record["sentence"] for record in records}
    words = {node.value for node in made if isinstance(node, ast.Constant)}
    assert words <= told and len(records) >= len(made)
    assert all(record["values"] and record["claimed"] for record in records)


def test_a_long_table_is_folded(tmp_path):
    (tmp_path / "t.csv").write_text("a,x\n" + "".join(f"{i},1\n" for i in range(30)))
    page = tables.fill("<!-- table: t rows=a values=x -->\n", tmp_path)
    assert "<details>\n<summary>Show the table, 30 rows</summary>\n\n| a | x |" in page
    assert "</details>" in page and "<details>" not in tables.folded("| a |", 20)


def test_the_front_page_has_a_card_for_each_lesson(tmp_path):
    front_page.write(tmp_path)
    page = (tmp_path / "index.md").read_text()
    asked = front_page.questions()
    for path in LESSONS:
        card = front_page.card(path, tmp_path / front_page.PICTURES)
        assert card in page and f"](notebooks/{path.name})" in card
        assert asked[path.name[:2]] in card and "minutes in class" in card
        assert len(re.match(r"`+\{container\} lesson\n!\[([^\]]+)\]", card)[1]) > 40
        assert (tmp_path / front_page.PICTURES / f"{path.name[:2]}.webp").stat().st_size < 60_000
    assert page.count("{container} lesson\n") == len(LESSONS)
    assert page.count("{container} door\n") == 3
    for place in re.findall(r"\]\(((?:docs|notebooks)/[^)#]+)\)", page):
        assert (ROOT / place).exists(), place
