"""Where things lie, with a checkout and without."""

import tempfile
import tomllib
import warnings
from pathlib import Path

import pytest
from torch import nn

from nclib import cache, course, data, places
from nclib.scoreboard import store


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


def test_the_board_of_the_wheel_is_read(wheel):
    board = wheel / "site-packages" / "nclib" / "results" / "scoreboard.csv"
    board.write_text("method,auroc\nknown,0.5\n")
    assert places.results("scoreboard").method.tolist() == ["known"]


@pytest.mark.parametrize("content", ["", "[project]\nname = 'thesis'", "[tool.ruff]", "= broken"])
def test_a_stray_pyproject_beside_a_wheel_makes_no_checkout(wheel, content):
    (wheel / "site-packages" / "pyproject.toml").write_text(content)
    assert places.checkout() is None
    assert places.results("board").auroc.tolist() == [0.5]
    assert cache.cache_root() == wheel / "user" / "nclib" / "runs"
    (wheel / "site-packages" / "nclib" / "results" / "board.csv").unlink()
    (wheel / "site-packages" / "nclib" / "results").rmdir()  # a copy without tables
    assert places.checkout() is None


def test_the_projects_name_is_that_of_its_pyproject():
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["name"] == places.PROJECT


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, without HOME."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(home))
    monkeypatch.setattr(Path, "expanduser", lambda self: home())


def test_a_user_without_a_home(wheel, homeless, monkeypatch, tmp_path):
    assert cache.cache_root() == wheel / "user" / "nclib" / "runs"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.cache_root().parent.parent == tmp_path
    assert data.data_root() == cache.cache_root().with_name("data")
    monkeypatch.setenv("NCLIB_CACHE", "~/runs")
    with pytest.raises(ValueError, match="NCLIB_CACHE: got '~/runs'; Could not determine home"):
        cache.cache_root()
    with pytest.raises(ValueError, match="^root: got '~/d'"):
        data.load("mnist", root="~/d")
    with pytest.raises(ValueError, match="^folder: got '~/d'"):
        data.load("folder:~/d")


@pytest.fixture
def read_only(wheel, monkeypatch):
    """A checkout that cannot be written, with a data set inside; nothing has been said yet."""
    here = wheel / "checkout"
    (here / "nclib").mkdir(parents=True)
    (here / "data" / "MNIST").mkdir(parents=True)
    (here / "pyproject.toml").write_text(f'[project]\nname = "{places.PROJECT}"')
    monkeypatch.setattr(places, "__file__", str(here / "nclib" / "places.py"))
    monkeypatch.setattr(places, "_said", set())
    for folder in (here / "data", here):
        folder.chmod(0o555)
    yield here
    for folder in (here, here / "data"):
        folder.chmod(0o755)


def test_a_read_only_checkout_falls_back_and_says_so_once(read_only, wheel):
    user = wheel / "user" / "nclib"
    with pytest.warns(UserWarning, match=f"data/runs cannot be written; {user / 'runs'} is used"):
        assert cache.cache_root() == user / "runs"
    with pytest.warns(UserWarning, match="NCLIB_DATA names another place"):
        assert data.data_root() == user / "data"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.cache_root() == user / "runs"
        assert data.data_root() == user / "data"
        assert data.data_root(holds="MNIST") == read_only / "data"  # what is there is read there
    model = nn.Linear(2, 2)
    path = cache.cache_root() / "a.safetensors"
    cache.save(path, model.state_dict(), {"n": 1})
    assert cache.load(path)[1] == {"n": 1}
    assert not (read_only / "data" / "runs").exists()


def test_where_the_users_cache_cannot_be_written_either(read_only, wheel, monkeypatch, tmp_path):
    (wheel / "user").touch()  # a file
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match="cannot be written"):
        found = cache.cache_root()
    assert found.parent.parent == tmp_path and found.name == "runs"


def test_a_place_that_takes_files(tmp_path):
    assert places.takes_files(tmp_path / "not" / "yet")
    (tmp_path / "file").touch()
    assert not places.takes_files(tmp_path / "file" / "below")
    assert not places.takes_files(Path("/proc/nothing"))
