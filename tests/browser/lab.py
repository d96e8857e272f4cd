"""JupyterLab on loopback, and the few things a reader does in it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page

SETTINGS = {  # no question about news in front of the cells; all cells on the page, seen or not
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
TRACEBACK = re.compile(r"(?m)^-{60,}$|^Traceback \(most recent call last\)")
NAMED = re.compile(r"\w*(Error|Exception): |Error displaying")  # as a widget of the course says it
PATIENCE = 1_800_000  # milliseconds for a lesson


@contextmanager
def serve(root: Path, private: Path, pythonpath: str = "") -> Iterator[str]:
    """Run JupyterLab over ``root`` with settings of its own in ``private``; its address."""
    for name, values in SETTINGS.items():
        path = private / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NCLIB_STRICT": "0"}
    environment |= {"JUPYTER_CONFIG_DIR": str(private / "config")}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(private / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces")}
    environment |= {"PYTHONPATH": pythonpath} if pythonpath else {}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += [f"--ServerApp.root_dir={root}"]
    server, address = _start(command, environment, root, private / "lab.log")
    try:
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _start(
    command: list[str], environment: dict[str, str], root: Path, log: Path, tries: int = 3
) -> tuple[subprocess.Popen, str]:
    """The server and its address; on another port where a stranger was faster on the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, f"--port={port}"], env=environment, cwd=root, stdout=out, stderr=out
        )
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/api", log)
    except RuntimeError:
        server.terminate()
        server.wait(30)
        if tries == 1 or f"port {port} is not available" not in log.read_text():
            raise
        return _start(command, environment, root, log, tries - 1)
    return server, f"http://127.0.0.1:{port}"


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    for _ in range(1200):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def open_notebook(page: Page, address: str, path: str) -> Locator:
    """Open a notebook, wait until its kernel is ready, and return its panel."""
    page.goto(f"{address}/lab/tree/{path}?reset", timeout=600_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=600_000)
    panel = page.locator(".jp-NotebookPanel:visible")
    panel.locator(".jp-CodeCell").first.wait_for()
    return panel


def stop_kernels(address: str) -> None:
    """Stop every kernel of this JupyterLab: a page that is closed leaves its kernel running."""
    with urllib.request.urlopen(f"{address}/api/kernels") as answer:
        kernels = json.load(answer)
    for kernel in kernels:
        there = f"{address}/api/kernels/{kernel['id']}"
        urllib.request.urlopen(urllib.request.Request(there, method="DELETE")).close()


def run_all(page: Page, panel: Locator) -> None:
    """Run every cell from the menu, and wait until the last one is done."""
    panel.locator(".jp-MarkdownCell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    panel.locator(".jp-InputPrompt", has_text="[*]").first.wait_for(timeout=300_000)
    page.wait_for_function(
        """() => [...document.querySelectorAll('.jp-NotebookPanel .jp-InputPrompt')]
              .every(prompt => !prompt.textContent.includes('*'))""",
        timeout=PATIENCE,
    )
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=300_000)


def errors(panel: Locator) -> list[str]:
    """What went wrong, in a cell or in a widget, as the reader sees it."""
    shown = panel.locator(".jp-OutputArea-output").all_inner_texts()
    return [text for text in shown if TRACEBACK.search(text) or NAMED.match(text)]


def run_counts(panel: Locator) -> list[str]:
    """The prompts of the code cells: ``[3]:`` for one that ran."""
    texts = panel.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    return [text.strip() for text in texts]


def rewrite(page: Page, cell: Locator, source: str) -> str:
    """Put ``source`` into a code cell as a student would, run it, and return what it prints."""
    editor = cell.locator(".cm-content")
    editor.scroll_into_view_if_needed()
    editor.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(source)
    before = cell.locator(".jp-InputPrompt").inner_text()
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "([prompt, before]) => !prompt.textContent.includes('*') && prompt.textContent != before",
        arg=[cell.locator(".jp-InputPrompt").element_handle(), before],
        timeout=300_000,
    )
    return cell.locator(".jp-OutputArea").first.inner_text()
