"""Run every lesson alone: from the wheel, in an empty directory, without a network.

python tools/nbval.py [NN_topic ...]    these lessons, or all that the folder holds

First nbval runs the lessons strictly and compares the marked outputs with the saved ones. Then the
student copies run, with the trained networks of the first pass; each check must say "not
attempted". The seconds of each lesson go to build/times.json and are told beside the header's
minutes: a slow or busy machine fails nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from execute import execute
from notebook import ROOT, STUDENTS, checks, code, lessons, read

BUILD = ROOT / "build"
ALONE, SITE, CACHE = BUILD / "alone", BUILD / "site", BUILD / "cache"
MINUTES = re.compile(r"(?m)^\*\*Minutes of computing:\*\* *(\d+(?:\.\d+)?)\b")
PATIENCE = "1800"  # seconds: only a cell, or a kernel, that hangs takes so long
PATIENT = f"""def pytest_collection_modifyitems(items):
    for cell in items:
        cell.output_timeout = {PATIENCE}  # nbval's own 5 seconds are short on a busy machine
"""
WORKERS = os.environ.get("NCLIB_WORKERS", "2")


def environment() -> dict[str, str]:
    """What the kernels see: the wheel first, no network, one thread, an own cache of runs."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tools" / "offline", SITE))),
        "NCLIB_CACHE": str(CACHE),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def install() -> None:
    """Build the wheel and unpack it, without its dependencies, into build/site."""
    uv, target = Path(sys.executable).with_name("uv"), ["--python", sys.executable, "--target"]
    for folder in (SITE, BUILD / "wheel"):
        shutil.rmtree(folder, ignore_errors=True)
    quiet = {"check": True, "cwd": ROOT}
    subprocess.run([uv, "build", "-q", "--wheel", "-o", BUILD / "wheel"], **quiet)
    wheel = next((BUILD / "wheel").glob("*.whl"))
    install = [uv, "pip", "install", "-q", "--no-deps", "--reinstall", *target, SITE, wheel]
    subprocess.run(install, **quiet)
    where = "import nclib, pathlib; print(pathlib.Path(nclib.__file__).parents[1])"
    command = [sys.executable, "-c", where]
    show = {"capture_output": True, "text": True, "check": True, "cwd": BUILD}
    found = subprocess.run(command, env=environment(), **show)
    if Path(found.stdout.strip()) != SITE:
        raise RuntimeError(f"the lessons would import nclib from {found.stdout.strip()}")


def validate(paths: list[Path]) -> tuple[bool, dict[str, float]]:
    """nbval over the lessons, each in a directory of its own: all passed?, and their seconds."""
    for folder in (ALONE, CACHE):
        shutil.rmtree(folder, ignore_errors=True)
    for path in paths:
        (ALONE / path.stem).mkdir(parents=True)
        shutil.copy(path, ALONE / path.stem)
    (ALONE / "pytest.ini").write_text("[pytest]\n")  # not the settings of the unit tests
    (ALONE / "conftest.py").write_text(PATIENT)
    report = ALONE / "report.xml"
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    arguments += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", PATIENCE]
    arguments += ["--nbval-kernel-startup-timeout", PATIENCE]
    arguments += ["--nbval-sanitize-with", ROOT / "tools/nbval-sanitize.cfg"]
    arguments += ["-n", WORKERS, "--dist", "loadfile"]
    arguments += ["-o", "junit_family=xunit1", "--junitxml", report, "."]
    strict = {**environment(), "NCLIB_STRICT": "1"}
    passed = subprocess.run(arguments, cwd=ALONE, env=strict).returncode == 0
    return passed, seconds(report.read_text(encoding="utf-8")) if report.exists() else {}


def seconds(report: str) -> dict[str, float]:
    """Lesson -> seconds of all its cells, the start of the kernel included."""
    total: dict[str, float] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = Path(case.get("file") or "").stem
        total[name] = total.get(name, 0.0) + float(case.get("time", 0))
    return {name: round(value, 1) for name, value in total.items()}


def times(paths: list[Path], took: dict[str, float]) -> str:
    """A line per lesson: its seconds here, the minutes of its header, the load of the machine."""
    lines = [f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"]
    for path in paths:
        said = MINUTES.search(read(path).cells[0].source)
        header = f"{60 * float(said[1]):.0f} s on two idle cores" if said else "nothing"
        lines.append(f"{path.stem:<40}{took.get(path.stem, 0):6.1f} s   the header says {header}")
    return "\n".join(lines)


def student_run(path: Path) -> str:
    """Run a student copy to its end; what is wrong with it, or nothing."""
    notebook = read(path)
    try:
        execute(notebook, {**environment(), "NCLIB_STRICT": "0"})
    except RuntimeError as error:
        return f"{path.stem}: {error}"
    said = "".join(output.get("text", "") for cell in code(notebook) for output in cell.outputs)
    silent = [name for name in checks(notebook) if f"{name}: not attempted" not in said]
    return f"{path.stem}: passes without an answer: {', '.join(silent)}" if silent else ""


def main(wanted: list[str]) -> int:
    paths = [path for path in lessons() if not wanted or path.stem in wanted]
    if not paths:
        print("there is no such lesson")
        return 1
    install()
    passed, took = validate(paths)
    measured = BUILD / "times.json"
    known = json.loads(measured.read_text()) if wanted and measured.exists() else {}
    measured.write_text(json.dumps({**known, **took}, indent=1) + "\n")
    print(times(paths, took))
    complaints = [f"{path.stem}: no cell ran" for path in paths if path.stem not in took]
    copies = [STUDENTS / path.name for path in paths]
    complaints += [f"{path.stem}: no student copy" for path in copies if not path.exists()]
    copies = [path for path in copies if path.exists()]
    with ThreadPoolExecutor(int(WORKERS)) as pool:
        wrong = [text for text in pool.map(student_run, copies) if text]
    for text in complaints + wrong:
        print(f"FAILED {text}")
    print(f"{len(copies) - len(wrong)} passed, {len(wrong)} failed: student copies, unanswered")
    return int(not passed or bool(complaints + wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
