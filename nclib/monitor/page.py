"""The last day of a monitor's log as one page, served to this machine and to nobody else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nclib.monitor.log import read_all

DAY = 86400.0
LOCAL = ("127.0.0.1", "localhost")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em;
  padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .7em; text-align: right }
.alarm { border-left: 5px solid #d55e00 } figure { display: inline-block; margin: .4em }
img { width: 64px; image-rendering: pixelated } figcaption { font-size: 12px }"""


def page(log: str | Path) -> str:
    """The page as HTML: the violations of the day, with pictures of the first, then every window.

    The day ends with the log's last window. Everything in the log is escaped. Raises ``ValueError``
    as ``read`` does.
    """
    header, windows, waiting = read_all(log)
    end = windows[-1]["end"] if windows else 0.0
    day = [w for w in windows if w["start"] > end - DAY]
    bad = [w for w in day if w["alarm"]]
    told = f"{len(day)} windows in the last day, {len(bad)} violations"
    names = [*header["layers"], "any layer"]
    heads = "".join(f"<th>{escape(str(n))}</th>" for n in ["window", "from", "requests", *names])
    rows = "".join(_row(w, names) for w in reversed(day))
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Monitor: {told}</title>"
        f"<style>{STYLE}</style></head><body><h1>{told}</h1><p>Model {escape(str(header['model']))}"
        f"; {waiting} requests captured in the open window.</p>"
        f"{''.join(map(_violation, reversed(bad)))}<h2>Every window</h2><p>Share of the two-sample "
        f"tests that reject, layer by layer.</p><table><tr>{heads}</tr>{rows}</table></body></html>"
    )


def _when(seconds: float) -> str:
    """A date where the seconds are those of a clock, else hours."""
    if seconds < 1e8:
        return f"{seconds / 3600:.1f} h"
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(seconds))


def _violation(window: Mapping[str, Any]) -> str:
    found = f"{window['requests']} requests from {_when(window['start'])}"
    if window["rates"]:
        layer = escape(str(window["layer"]))
        found += f"; {layer} rejects {window['rates'][window['layer']]:.0%} of the tests"
    if window["not_finite"]:
        found += f"; {len(window['not_finite'])} are not finite"
    pictures = window.get("pictures", {})
    shown = "".join(
        f"<figure><img src='{escape(pictures.get(name, ''), quote=True)}' alt=''>"
        f"<figcaption>{escape(str(name))}</figcaption></figure>"
        for name, _ in window.get("suspicious", [])
    )
    title = f"<h2>Violation in window {window['window']}</h2>"
    return f"<section class='alarm'>{title}<p>{found}</p>{shown}</section>"


def _row(window: Mapping[str, Any], names: Sequence[str]) -> str:
    cells = ""
    for name in names:
        rate = window["rates"].get(name)
        shade = "" if rate is None else f" style='background:rgba(213,94,0,{rate:.2f})'"
        cells += f"<td{shade}>{'-' if rate is None else f'{rate:.2f}'}</td>"
    kind = " class='alarm'" if window["alarm"] else ""
    about = f"<td>{window['window']}</td><td>{_when(window['start'])}</td>"
    return f"<tr{kind}>{about}<td>{window['requests']}</td>{cells}</tr>"


def serve(log: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page on 127.0.0.1; call ``serve_forever``. Port 0 takes one that is free.

    It reads the log anew for each visit and writes nothing, so it may be killed at any moment.
    Raises ``ValueError`` where there is no log, ``OSError`` for a port that is taken.
    """
    read_all(log)

    class Visit(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            if host not in LOCAL:  # a name that somebody else's page has pointed here
                return self.send_error(403, "This page is for this machine alone")
            if self.path != "/":
                return self.send_error(404, "There is one page here, at /")
            try:
                body = page(log).encode()
            except (OSError, ValueError) as error:
                return self.send_error(500, "The log cannot be read", str(error))
            self.send_response(200)
            for name, value in (
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", POLICY),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No line for each visit."""

    return ThreadingHTTPServer(("127.0.0.1", port), Visit)
