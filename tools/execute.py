"""Run lessons from top to bottom, each in an empty directory of its own.

python tools/execute.py run [--dataset mnist]    into build/lessons/, one line per lesson
python tools/execute.py refresh [01 05 ...]      save the outputs in notebooks/
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from notebook import LESSONS, ROOT, code, lessons, read, write

SETTING = re.compile(r'^DATASET = "\w+"', re.M)
TIMEOUT = 900  # seconds for one cell


def execute(notebook: nbformat.NotebookNode, dataset: str | None = None) -> None:
    """Run all cells; raises ``RuntimeError`` for an error in a cell or inside a widget."""
    for cell in code(notebook) if dataset else []:
        cell.source = SETTING.sub(f'DATASET = "{dataset}"', cell.source)
    with tempfile.TemporaryDirectory() as empty:
        resources = {"metadata": {"path": empty}}
        client = NotebookClient(
            notebook, timeout=TIMEOUT, resources=resources, kernel_name="python3"
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError) as error:
            raise RuntimeError(str(error)) from error
    for state in client.widget_state.values():
        for output in state.get("outputs", ()):
            if output.get("output_type") == "error":
                raise RuntimeError(f"in a widget: {output['ename']}: {output['evalue']}")
    for cell in code(notebook):
        cell.outputs = [output for output in cell.outputs if not _is_progress(output)]


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Progress bars: what tqdm writes to stderr, or its widget."""
    bar = output.get("data", {}).get("text/plain", "")
    return output.get("name") == "stderr" or bool(re.search(r"\d+%\|?.*\||it/s|epoch/s", bar))


def run(paths: list[Path], target: Path | None, dataset: str | None) -> int:
    """Run each lesson and save it to ``target`` (None: in place); the number that failed."""
    failed = 0
    for path in paths:
        notebook, start = read(path), time.perf_counter()
        print(f"{path.stem:<40}", end="", flush=True)
        try:
            execute(notebook, dataset)
            verdict = "ok"
        except RuntimeError as error:
            failed, verdict = failed + 1, f"FAILED\n{error}"
        print(f"{time.perf_counter() - start:6.1f} s  {verdict}", flush=True)
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            write(notebook, target / path.name)
        elif verdict == "ok":
            write(notebook, path)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("run", "refresh"))
    parser.add_argument("lessons", nargs="*", help="numbers, 01 05 say; none means all")
    parser.add_argument("--dataset", help="use this data set instead of the digits")
    options = parser.parse_args()
    paths = [p for p in lessons(LESSONS) if not options.lessons or p.name[:2] in options.lessons]
    target = None
    if options.mode == "run":
        target = ROOT / "build" / "lessons" / (options.dataset or "digits")
    elif options.dataset:
        parser.error("refresh saves the digits; --dataset goes with run")
    failed = run(paths, target, options.dataset)
    print(f"{len(paths) - failed} of {len(paths)} lessons ran")
    return int(failed > 0 or not paths)


if __name__ == "__main__":
    sys.exit(main())
