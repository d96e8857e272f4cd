"""Ctrl-C that ends an audit where it stands, so that what is done can be reported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """The user pressed ctrl-C; after a KeyboardInterrupt ``training.fit`` would go on."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, ctrl-C raises ``Stopped``; elsewhere than in the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
