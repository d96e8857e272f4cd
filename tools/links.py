"""Write the repository's address and tag, kept in pyproject.toml, wherever the course names them.

python tools/links.py [--repo owner/name] [--tag v1.2]   set them first, then rewrite
python tools/links.py --check                            change nothing; fail where one differs

They stand in the Colab badges, in the bootstrap cell of every lesson, in the README's clone line
and in CITATION.cff. The text of the bootstrap cell has its single source here.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLAB = "https://colab.research.google.com"
REPO = r"[\w.-]+/[\w-]+(?:\.[\w-]+)*"
TAG = r"[\w./-]+"

# Colab has every dependency (a test holds us to it), so --no-deps moves no preinstalled package.
BOOTSTRAP = """\
# On Colab this installs the course's package, and nothing else. Elsewhere it installs nothing.
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and find_spec("nclib") is None:
    %pip install -q --no-deps "git+https://github.com/{repo}@{tag}"

from nclib.course import start

start("{number}")"""


def address(root: Path = ROOT) -> tuple[str, str]:
    """``(owner/name, tag)`` from pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    repo = project["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    return repo, project["tool"]["nclib"]["tag"]


def bootstrap(number: str, root: Path = ROOT) -> str:
    """The bootstrap cell of lesson ``number`` ("01")."""
    repo, tag = address(root)
    return BOOTSTRAP.format(repo=repo, tag=tag, number=number)


def badge(path: str, root: Path = ROOT, label: str = "Open in Colab") -> str:
    """The markdown of the Colab badge for a notebook, ``path`` relative to the repository."""
    return f"[![{label}]({COLAB}/assets/colab-badge.svg)]({colab(path, root)})"


def colab(path: str, root: Path = ROOT) -> str:
    """Where Colab opens a notebook, ``path`` relative to the repository."""
    repo, tag = address(root)
    return f"{COLAB}/github/{repo}/blob/{tag}/{path}"


def rewrite(text: str, repo: str, tag: str) -> str:
    """``text`` with every badge, bootstrap line, clone line and citation at this address."""
    folder = "(?=/(?:notebooks|exercises)/)"  # a branch may have a slash: the path ends it
    badge_link = rf"({re.escape(COLAB)}/github/){REPO}/blob/[^\s)\"]+?{folder}"
    text = re.sub(badge_link, rf"\g<1>{repo}/blob/{tag}", text)
    text = re.sub(rf"(git\+https://github\.com/){REPO}@{TAG}", rf"\g<1>{repo}@{tag}", text)
    clone = rf"((?:git clone |repository-code: \"?)https://github\.com/){REPO}"
    return re.sub(clone, rf"\g<1>{repo}", text)


def files(root: Path = ROOT) -> list[Path]:
    """Every file that may name the address, by glob."""
    globs = ("notebooks/*.ipynb", "exercises/*.ipynb", "docs/**/*.md", "docs/*.ipynb")
    found = [path for pattern in globs for path in root.glob(pattern) if "_build" not in path.parts]
    named = [root / "README.md", root / "CITATION.cff"]
    return sorted(found) + [path for path in named if path.exists()]


def differing(root: Path = ROOT) -> list[Path]:
    """The files that name another address or tag than pyproject.toml."""
    repo, tag = address(root)
    return [p for p in files(root) if (text := _read(p)) != rewrite(text, repo, tag)]


def set_address(root: Path, repo: str | None, tag: str | None) -> None:
    """Write a new address or tag into pyproject.toml. Raises ``ValueError`` for a malformed one."""
    for name, value, pattern in (("repo", repo, REPO), ("tag", tag, TAG)):
        if value is not None and (not re.fullmatch(pattern, value) or value.endswith(".git")):
            wanted = "owner/name" if name == "repo" else "a tag or a branch"
            raise ValueError(f"{name}: got {value!r}; allowed is {wanted}")
    path = root / "pyproject.toml"
    text = _read(path)
    if repo:
        text = re.sub(
            r'(?m)^(Repository = ")[^"]*', rf"\g<1>https://github.com/{repo}", text, count=1
        )
    if tag:
        text = re.sub(r'(?ms)^(\[tool\.nclib\].*?^tag = ")[^"]*', rf"\g<1>{tag}", text, count=1)
    write(path, text)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def write(path: Path, text: str) -> None:
    """Put ``text`` in the place of what the file has, in one move; an unchanged file is left alone.

    So a full disk empties nothing, and pyproject.toml keeps its date: nothing is reinstalled.
    """
    if not path.exists() or text != _read(path):
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
            draft = Path(staging, path.name)
            draft.write_text(text, encoding="utf-8", newline="")
            draft.replace(path)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", help="owner/name on GitHub")
    parser.add_argument("--tag", help="the tag or branch that Colab opens and installs")
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            set_address(root, options.repo, options.tag)
    except ValueError as error:
        parser.error(str(error))
    changed = differing(root)
    repo, tag = address(root)
    for path in changed:
        if not options.check:
            write(path, rewrite(_read(path), repo, tag))
        print(("differs: " if options.check else "rewritten: ") + str(path.relative_to(root)))
    print(f"{len(changed)} of {len(files(root))} files; the address is {repo} at {tag}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
