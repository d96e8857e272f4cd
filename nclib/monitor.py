"""Watch a deployed model: do today's requests look, layer by layer, like validation data?

``Monitor`` collects requests into windows, tests each window against captured reference features
with the two-sample test of ``detection.two_sample``, and appends one JSON line per window to a log.
``python -m nclib monitor report LOG`` prints the log and draws its time line.

The log: a header line that names the model, the layers and the reference, then one line per window.
A line is written in one piece and flushed to the disk before the next window starts, so a kill at
any moment loses at most the window that was still open; half a line at the end is cut off when the
log is opened again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nclib import activations
from nclib.cache import fingerprint
from nclib.data import check_images
from nclib.detection import two_sample


class Monitor:
    """Windows of requests, tested layer by layer against ``reference`` images ``[M, C, H, W]``.

    A window closes after ``every`` requests, or with ``every=None`` when the hour of ``when``
    changes (``seconds`` long, 3600 by default). Its line in ``log`` has the detection rate per
    layer (share of ``tests`` draws of ``n`` requests against ``n`` references with p <= ``level``),
    an ``alarm`` where the rate of "any layer" reaches ``alarm_rate``, and the ``top`` most
    suspicious requests by the witness of the layer that fires most. ``pool`` is as in ``features``.
    A window of fewer than ``n`` requests is logged without a verdict.

    An existing ``log`` is continued. Raises ``ValueError`` where it belongs to another model, other
    layers, another reference or other settings; and for settings that no window could be tested
    with.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None,
        reference: Tensor,
        log: str | Path,
        *,
        pool: str | int = "gap",
        every: int | None = 200,
        seconds: float = 3600.0,
        n: int = 50,
        tests: int = 20,
        permutations: int = 100,
        level: float = 0.05,
        alarm_rate: float = 0.5,
        top: int = 10,
        seed: int = 0,
    ) -> None:
        check_images(reference, "reference")
        _check(n=n, tests=tests, seconds=seconds, alarm_rate=alarm_rate, top=top)
        self.layers = tuple(activations.layer_names(model, reference) if layers is None else layers)
        if len(reference) < 2 * n:
            raise ValueError(f"reference: {len(reference)} images; at least {2 * n} are needed")
        two_sample.check_resolution(len(self.layers), permutations, level)
        if every is not None and every < n:
            raise ValueError(f"every: got {every}; at least n={n} requests make a window")
        self.model, self.pool, self.log = model, pool, Path(log)
        self.reference = self._features(reference)
        self.every, self.seconds, self.n, self.top = every, seconds, n, top
        self.level, self.alarm_rate, self.seed = level, alarm_rate, seed
        self.tests = {"tests": tests, "n": n, "permutations": permutations}
        settings = {**self.tests, "pool": pool, "every": every, "seconds": seconds}
        settings |= {"level": level, "alarm_rate": alarm_rate, "top": top, "seed": seed}
        header = {
            "format": 1,
            "model": fingerprint(model),
            "layers": list(self.layers),
            "reference": fingerprint(reference),
            "settings": settings,
        }
        self.windows = _open(self.log, header)
        self._chunks: list[tuple[list[str], float, dict[str, Tensor]]] = []  # ids, when, features

    @property
    def done(self) -> int:
        """Requests that are in the log already: where a restart continues."""
        return sum(w["requests"] for w in self.windows)

    def add(
        self, images: Tensor, ids: Sequence[str] | None = None, when: float = 0.0
    ) -> list[dict]:
        """Take a batch ``[B, C, H, W]`` that arrived at ``when`` (seconds); return closed windows.

        ``ids`` name the requests; by default they are numbered from the first of the log on.
        Raises ``ValueError`` for ids that are not one each, and for a ``when`` before that of the
        requests that came last, also those in the log.
        """
        check_images(images)
        first = self.done + self._waiting
        ids = [str(first + i) for i in range(len(images))] if ids is None else list(map(str, ids))
        if len(ids) != len(images):
            raise ValueError(f"ids: got {len(ids)}; {len(images)} are needed, one per image")
        last = self._last()
        if not math.isfinite(when) or when < last:
            raise ValueError(f"when: got {when}; finite seconds from {last} on are allowed")
        closed: list[dict | None] = []
        if self.every is None and self._chunks and self._hour(when) != self._hour():
            closed.append(self.close())
        features, start = self._features(images), 0
        while start < len(ids):
            room = len(ids) if self.every is None else self.every - self._waiting
            part = slice(start, start + room)
            rows = {layer: values[part] for layer, values in features.items()}
            self._chunks.append((ids[part], when, rows))
            start += room
            if self._waiting == self.every:
                closed.append(self.close())
        return [window for window in closed if window]

    def close(self) -> dict | None:
        """Test the open window now, write its line and return it; None where it is empty.

        ``add`` closes full windows itself; call this at the end. The line is on the disk when this
        returns. It has "window" (its number), "start" and "end" (seconds), "requests", "rates"
        (``{layer: share}``, "any layer" too), "alarm", "layer" (the one that fires most) and
        "suspicious" (``[id, score]``, the oddest first); below ``n`` requests "alarm" is None.
        """
        if not self._chunks:
            return None
        ids = [name for names, _, _ in self._chunks for name in names]
        parts = [rows for _, _, rows in self._chunks]
        suspect = {layer: torch.cat([rows[layer] for rows in parts]) for layer in self.layers}
        window = {
            "window": len(self.windows),
            "start": self._chunks[0][1],
            "end": self._chunks[-1][1],
            "requests": len(ids),
        } | self._verdict(ids, suspect)
        _append(self.log, window)
        self.windows.append(window)
        self._chunks = []
        return window

    @property
    def _waiting(self) -> int:
        """Requests in the open window."""
        return sum(len(names) for names, _, _ in self._chunks)

    def _last(self) -> float:
        """When the latest request came, be it in the open window or in the log."""
        if self._chunks:
            return self._chunks[-1][1]
        return self.windows[-1]["end"] if self.windows else -math.inf

    def _verdict(self, ids: Sequence[str], suspect: Mapping[str, Tensor]) -> dict:
        if len(ids) < self.n:
            return {"rates": {}, "alarm": None, "suspicious": []}
        options = self.tests | {"seed": self.seed + len(self.windows)}
        rates = two_sample.layer_rates(self.reference, suspect, level=self.level, **options)
        layer = max(self.layers, key=lambda name: rates[name])
        score = two_sample.witness(self.reference[layer], suspect[layer])
        first = two_sample.top(score, self.top).tolist()
        return {
            "rates": {name: round(rate, 4) for name, rate in rates.items()},
            "alarm": rates["any layer"] >= self.alarm_rate,
            "layer": layer,
            "suspicious": [[ids[i], round(float(score[i]), 6)] for i in first],
        }

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        found = activations.features(self.model, images, self.layers, pool=self.pool)
        return {layer: rows.cpu() for layer, rows in found.items()}

    def _hour(self, when: float | None = None) -> int:
        return int((self._chunks[0][1] if when is None else when) // self.seconds)


def _check(n: int, tests: int, seconds: float, alarm_rate: float, top: int) -> None:
    """Refuse what would fail when the first window closes."""
    rules = [
        ("n", n, n >= 2, "2 or more"),
        ("tests", tests, tests >= 1, "1 or more"),
        ("seconds", seconds, 0 < seconds < math.inf, "a positive number"),
        ("alarm_rate", alarm_rate, 0 < alarm_rate <= 1, "a number above 0, up to 1,"),
        ("top", top, top >= 0, "0 or more"),
    ]
    for name, got, fine, allowed in rules:
        if not fine:
            raise ValueError(f"{name}: got {got}; {allowed} is allowed")


def read(log: str | Path) -> tuple[dict, list[dict]]:
    """Header and windows of a log; a last line that was cut off is left out.

    Raises ``ValueError`` for a file that is no such log or is damaged before its last line.
    """
    lines = Path(log).read_bytes().split(b"\n")
    whole = lines[:-1]  # what follows the last line break was never finished
    try:
        entries = [json.loads(line) for line in whole]
    except ValueError as error:
        raise ValueError(f"log: {log} is damaged: {error}") from None
    if not entries or not isinstance(entries[0], dict) or entries[0].get("format") != 1:
        raise ValueError(f"log: {log} is no monitor log of format 1")
    return entries[0], entries[1:]


def _open(log: Path, header: dict) -> list[dict]:
    """Start a log, or continue one that has the same header; return its windows."""
    header = json.loads(json.dumps(header))
    if not log.exists() or b"\n" not in log.read_bytes():  # new, or killed in the first line
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        _append(log, header)
        return []
    found, windows = read(log)
    different = [key for key in header if header[key] != found.get(key)]
    if different:
        details = "; ".join(f"{k}: {found.get(k)} there, {header[k]} here" for k in different)
        raise ValueError(f"log: {log} belongs to another monitor ({details}); use another file")
    text = log.read_bytes()
    if not text.endswith(b"\n"):  # the write that a kill cut off
        with log.open("r+b") as file:
            file.truncate(text.rindex(b"\n") + 1)
    return windows


def _append(log: Path, entry: dict) -> None:
    """One line in one write, on the disk before we go on."""
    with log.open("ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")
        os.fsync(file.fileno())


def report(log: str | Path) -> str:
    """The log as a table: one line per window, the alarms marked."""
    header, windows = read(log)
    names = [*header["layers"], "any layer"]
    lines = [f"model {header['model']}, {len(windows)} windows"]
    lines.append("  ".join(["window", "start (s)", "requests", *(f"{n:>5}" for n in names)]))
    for w in windows:
        rates = [f"{w['rates'][n]:.2f}" if n in w["rates"] else "-" for n in names]
        rates = [f"{rate:>{max(5, len(name))}}" for rate, name in zip(rates, names, strict=True)]
        row = "  ".join([f"{w['window']:6d}", f"{w['start']:9.0f}", f"{w['requests']:8d}", *rates])
        if w["alarm"]:
            first = ", ".join(name for name, _ in w["suspicious"][:3])
            row += f"  ALARM  first: {first}"
        lines.append(row)
    alarms = sum(bool(w["alarm"]) for w in windows)
    return "\n".join([*lines, f"{alarms} of {len(windows)} windows raised an alarm"])
