"""Run every lesson alone: from the wheel, in an empty directory, without a network.

python tools/nbval.py [NN_topic ...]    these lessons, or all that the folder holds

First nbval runs the lessons strictly and compares the marked outputs with the saved ones. Then the
student copies run, with the trained networks of the first pass; each check must say "not
attempted". The seconds of each lesson go to build/times.json and are held to the header's minutes.
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
MINUTES = re.compile(r"(?m)^\*\*Minutes:\*\* *(\d+(?:\.\d+)?)\b")
TOLERANCE = 1.5  # a budget may be exceeded by half
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
    report = ALONE / "report.xml"
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    arguments += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300"]
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


def over_budget(paths: list[Path], took: dict[str, float]) -> list[str]:
    """What is wrong with the times: a lesson that did not run, no budget, or one exceeded."""
    complaints = []
    for path in paths:
        budget = MINUTES.search(read(path).cells[0].source)
        if path.stem not in took:
            complaints.append(f"{path.stem}: no cell ran")
        elif not budget:
            complaints.append(f"{path.stem}: the header states no minutes")
        elif took[path.stem] > TOLERANCE * 60 * float(budget[1]):
            load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            took_too_long = f"{took[path.stem]} s ({load}); the header says {budget[1]} min"
            complaints.append(f"{path.stem}: {took_too_long}")
    return complaints


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
    times = BUILD / "times.json"
    known = json.loads(times.read_text()) if wanted and times.exists() else {}
    times.write_text(json.dumps({**known, **took}, indent=1) + "\n")
    for name, value in sorted(took.items()):
        print(f"{name:<40}{value:6.1f} s")
    complaints = over_budget(paths, took)
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
