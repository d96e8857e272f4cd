"""Run lessons from top to bottom, each in an empty directory of its own.

python tools/execute.py run [--dataset mnist]    into build/lessons/, one line per lesson
python tools/execute.py refresh [01 05 ...]      save the outputs in notebooks/
"""

from __future__ import annotations

import argparse
import base64
import io
import mimetypes
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Empty

import nbformat
from jupyter_client.asynchronous.client import AsyncKernelClient, AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from links import badge, bootstrap
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from notebook import LESSONS, ROOT, code, lessons, read, write
from PIL import Image

SETTING = re.compile(r'^DATASET = "[^"]*"', re.M)
FIGURES = ROOT / "docs" / "figures"
PICTURE = re.compile(r"(?P<head>!\[[^\]]*\]\()\.\./docs/figures/(?P<name>[\w.-]+)\)")
WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 3600  # seconds for one cell: only one that hangs takes so long


class Channel(AsyncZMQSocketChannel):
    """A channel that looks again every second while it waits.

    nbclient answers an Output widget on the shell channel while it waits there for the cell's
    reply. Such a send can take the wake-up of a reply that has come: then nothing would happen
    until the timeout of the cell.
    """

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message; ``queue.Empty`` after ``timeout`` seconds."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (left := end - time.monotonic()) > 1:
            try:
                return await super().get_msg(1)
            except Empty:
                continue
        return await super().get_msg(max(left, 0))


class Client(AsyncKernelClient):
    shell_channel_class = Channel


class Manager(AsyncKernelManager):
    client_factory = Client


def fill(notebook: nbformat.NotebookNode, name: str) -> None:
    """Put the badge, the bootstrap cell and pictures where an author left BADGE and the like."""
    for cell in notebook.cells:
        cell.source = re.sub(r"(?m)^BADGE$", badge(f"notebooks/{name}"), cell.source)
        if cell.cell_type == "markdown":
            cell.source = PICTURE.sub(_inlined, cell.source)
        if cell.cell_type == "code" and cell.source.strip() == "BOOTSTRAP":
            cell.source = bootstrap(name[:2])


def _inlined(picture: re.Match) -> str:
    """The picture itself in place of its name: Colab shows neither files nor attachments."""
    path = FIGURES / picture["name"]
    if not path.exists():
        raise RuntimeError(f"there is no picture {path}")
    kind = mimetypes.guess_type(path.name)[0] or f"image/{path.suffix[1:]}"
    return f"{picture['head']}data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()})"


def execute(notebook: nbformat.NotebookNode, environment: Mapping[str, str] | None = None) -> None:
    """Run all cells and tidy their outputs; ``RuntimeError`` for an error, in a widget too."""
    with tempfile.TemporaryDirectory() as empty:
        resources = {"metadata": {"path": empty}}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=TIMEOUT,
            resources=resources,
            kernel_name="python3",
            kernel_manager_class=Manager,
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
        )
        try:
            client.execute(env={**os.environ, **(environment or {})})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise RuntimeError(str(error)) from error
    for state in client.widget_state.values():
        for output in state.get("outputs", ()):
            if output.get("output_type") == "error":
                raise RuntimeError(f"in a widget: {output['ename']}: {output['evalue']}")
    for cell in code(notebook):
        cell.outputs = [tidy for output in cell.outputs if (tidy := _tidy(output))]


def _tidy(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Without progress bars and stderr; a control, dead without a kernel, as a line of text."""
    text = output.get("text", output.get("data", {}).get("text/plain", ""))
    bar = re.search(r"\d+%\|?.*\||(it|epoch)/s|\?(it|epoch)/s|\d+%\s", text)
    if output.get("name") == "stderr":
        if not bar and text.strip():
            print(f"\n  on stderr, not saved: {text.strip()[:300]}", file=sys.stderr)
        return None
    if WIDGET in output.get("data", {}):
        output.data = {"text/plain": "(controls: run this cell to use them)"}
        return None if bar else output
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = _of_few_colours(output.data["image/png"])
    return output


def _of_few_colours(png: str) -> str:
    """The figure in 256 colours: a third of the bytes, and nobody sees a difference."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def set_dataset(notebook: nbformat.NotebookNode, name: str) -> None:
    """Change the setting. Raises ``RuntimeError`` where no cell has it."""
    changed = 0
    for cell in code(notebook):
        cell.source, count = SETTING.subn(f'DATASET = "{name}"', cell.source)
        changed += count
    if changed != 1:
        raise RuntimeError(f"{changed} cells set DATASET; one is needed")


def run(paths: list[Path], target: Path | None, dataset: str | None) -> int:
    """Run each lesson and save it to ``target`` (None: in place); the number that failed."""
    failed = 0
    for path in paths:
        notebook, start = read(path), time.perf_counter()
        print(f"{path.stem:<40}", end="", flush=True)
        try:
            fill(notebook, path.name)
            if dataset:
                set_dataset(notebook, dataset)
            saved = {"NCLIB_FRAMES": "1"} if target is None else {}
            execute(notebook, {"NCLIB_STRICT": "1"} | saved)
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
    parser.add_argument("--dataset", help="use this data set instead of the lesson's own")
    options = parser.parse_intermixed_args()  # options may stand before the lessons
    paths = [p for p in lessons(LESSONS) if not options.lessons or p.name[:2] in options.lessons]
    target = None
    if options.mode == "run":
        target = ROOT / "build" / "lessons" / (options.dataset or "default")
    elif options.dataset:
        parser.error("refresh saves the lesson's own data set; --dataset goes with run")
    failed = run(paths, target, options.dataset)
    print(f"{len(paths) - failed} of {len(paths)} lessons ran")
    return int(failed > 0 or not paths)


if __name__ == "__main__":
    sys.exit(main())
