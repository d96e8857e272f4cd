"""The last day of a monitor's log as one page, served to this machine and to nobody else."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nclib.monitor.log import read_all

DAY = 86400.0
LOCAL = ("127.0.0.1", "localhost")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(log: str | Path) -> str:
    """The page as HTML: the violations of the day, with pictures of the first, then every window.

    The day ends with the log's last window. Everything in the log is escaped. Raises ``ValueError``
    as ``read`` does.
    """
    header, windows, waiting = read_all(log)
    end = windows[-1]["end"] if windows else 0.0
    day = [w for w in reversed(windows) if w["start"] > end - DAY]
    told = f"{len(day)} windows in the last day, {sum(bool(w['alarm']) for w in day)} violations"
    shown = Environment(
        autoescape=True,
        loader=PackageLoader("nclib.monitor"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    shown.filters |= {"when": _when, "share": "{:.0%}".format}
    names = [*header["layers"], "any layer"]
    given = {"header": header, "waiting": waiting, "day": day, "names": names}
    return shown.get_template("page.html").render(told=told, **given)


def _when(seconds: float) -> str:
    """A date where the seconds are those of a clock, else hours."""
    if seconds < 1e8:
        return f"{seconds / 3600:.1f} h"
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(seconds))


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
