"""python -m nclib audit PATH: exit code 0 nothing found, 1 suspicious or unclear, 2 an error."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from nclib.audit.cleaning import clean
from nclib.audit.engine import run
from nclib.audit.result import Result
from nclib.audit.words import files, sentence


def main(arguments: list[str]) -> int:
    """Audit the set that the arguments name, write the page, and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m nclib audit",
        description="Is this training set poisoned? Reads it, trains on it, writes one page.",
        epilog="exit code: 0 nothing found, 1 suspicious or unclear, 2 an error",
    )
    parser.add_argument("data", help="a folder of class folders, a .csv of path and label, hf:NAME")
    parser.add_argument("--out", type=Path, help="folder of report.html (default: audit-NAME)")
    parser.add_argument("--clean", type=Path, metavar="OUT", help="a copy, or a .txt, without them")
    parser.add_argument("--controls", type=int, default=0, metavar="N", help="planted controls")
    parser.add_argument("--features", type=Path, metavar="NPZ", help="features computed elsewhere")
    parser.add_argument("--size", type=int, help="width that images are resized to")
    parser.add_argument("--limit", type=int, help="images that are trained on at most")
    parser.add_argument("--model", metavar="NAME", help="a trained one: timm:NAME or hf:NAME")
    parser.add_argument("--build", default="cnn", help="cnn, mlp, resnet18, timm:NAME or hf:NAME")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = vars(parser.parse_args(arguments))
    data, out, cleaned, quiet = (given.pop(name) for name in ("data", "out", "clean", "quiet"))
    try:
        if cleaned is not None and cleaned.exists():
            raise ValueError(f"clean: {cleaned} is there already; name a new place")
        audit = run(data, progress=not quiet, **given)
        place = audit.save(out or _place(audit))
        print(sentence(audit), *filter(None, [files(audit)]), sep="\n")
        print(f"{len(audit.suspects)} suspect(s); the page is {place}")
        if cleaned is not None:
            print(f"{clean(audit, cleaned)} images without them are in {cleaned}")
    except (OSError, ValueError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return _failed("stopped while the set was listed or the page written")
    except Exception as error:  # Python itself would end with 1, which means suspicious
        traceback.print_exc()
        return _failed(f"the audit broke, which tells nothing of the set: {error!r}")
    return audit.exit_code


def _failed(said: str) -> int:
    print(said, file=sys.stderr)
    return 2


def _place(audit: Result) -> Path:
    """audit-NAME here, or beside the set where here is inside it."""
    root, here = audit.source.root, Path.cwd()
    if root is not None and root.is_dir() and here.is_relative_to(root.resolve()):
        here = root.resolve().parent
    return here / f"audit-{audit.source.name.replace(':', '-').replace('/', '-')}"
