"""Where things lie, with a checkout and without."""

from pathlib import Path

import pytest

from nclib import cache, course, data, places
from nclib.scoreboard import store, submission


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The package as pip installs it: no pyproject beside it, tables inside."""
    package = tmp_path / "site-packages" / "nclib"
    (package / "results").mkdir(parents=True)
    (package / "results" / "board.csv").write_text("method,auroc\nx,0.5\n")
    monkeypatch.setattr(places, "__file__", str(package / "places.py"))
    for name in ("NCLIB_DATA", "NCLIB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path


def test_a_checkout_keeps_everything_below_its_data_folder(monkeypatch):
    for name in ("NCLIB_DATA", "NCLIB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    here = Path(__file__).resolve().parents[1]
    assert places.checkout() == here
    assert (data.data_root(), cache.cache_root()) == (here / "data", here / "data" / "runs")
    assert store.RESULTS == store.OUT == here / "data" / "results" / "scoreboard.csv"
    assert places.results("collapse").equals(course.results("collapse"))


def test_a_wheel_keeps_them_in_the_users_cache_and_reads_its_own_tables(wheel):
    assert places.checkout() is None
    assert data.data_root() == wheel / "user" / "nclib" / "data"
    assert cache.cache_root() == wheel / "user" / "nclib" / "runs"
    assert places.results("board").auroc.tolist() == [0.5]
    with pytest.raises(ValueError, match="name: got 'collapse'; the tables are: board"):
        places.results("collapse")


def test_a_variable_wins_and_an_empty_one_does_not(wheel, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", "~/elsewhere")
    assert cache.cache_root() == Path.home() / "elsewhere"
    monkeypatch.setenv("NCLIB_CACHE", "")
    assert cache.cache_root() == wheel / "user" / "nclib" / "runs"


def test_a_submission_is_ranked_on_the_board_of_the_wheel(wheel):
    board = wheel / "site-packages" / "nclib" / "results" / "scoreboard.csv"
    board.write_text("method,auroc\nknown,0.5\n")
    with pytest.raises(ValueError, match="'known' is on the board already"):
        submission.submit(lambda features, labels: labels, name="known")
