"""The lesson that is running: its start, its data set, and whether a test is running it."""

from __future__ import annotations

import os
import platform
import sys
from types import FrameType

import torch

import nclib
from nclib import device

DEFAULT = "signs"  # the data set whose numbers the lessons' texts are about


_told: set[str] = set()


class DoesNotHold(AssertionError):
    """Raised where a test runs a lesson and something that the lesson says is not so."""


def start(number: str) -> None:
    """Print the versions and the device that lesson ``number`` ("01") will run on."""
    if not (len(number) == 2 and number.isdigit()):
        raise ValueError(f"number: got {number!r}; allowed is two digits, like '01'")
    versions = f"nclib {nclib.__version__}, Python {platform.python_version()}"
    print(f"lesson {number}: {versions}, torch {torch.__version__}, device {device.pick()}")


def strict() -> bool:
    """Whether a test is running the lesson: ``NCLIB_STRICT=1``; 0, false, no and off are off."""
    said = os.environ.get("NCLIB_STRICT", "").strip().lower()
    return said not in ("", "0", "false", "no", "off")


def dataset() -> str | None:
    """``DATASET`` of the lesson that called, however deep; None where none is set."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if "DATASET" in frame.f_globals:
            return frame.f_globals["DATASET"]
        frame = frame.f_back
    return None


def elsewhere() -> None:
    """Say once for each other data set whose numbers the lesson's text is about."""
    here = dataset()
    if here in (None, DEFAULT) or here in _told:
        return
    _told.add(here)
    print(
        f"The text of this lesson was written beside its numbers on {DEFAULT!r}. On {here!r}, where"
        " text and numbers differ, the numbers are right."
    )


def insist(holds: bool, message: str) -> None:
    """Raise ``DoesNotHold`` where a test runs the lesson on its default data set."""
    if not holds and strict() and dataset() in (None, DEFAULT):
        raise DoesNotHold(message)
