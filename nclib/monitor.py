"""Watch a deployed model: do today's requests look, layer by layer, like validation data?

``Monitor`` collects requests into windows, tests each window against captured reference features
with the two-sample test of ``detection.two_sample``, and puts one entry per window into a log.
``python -m nclib monitor report LOG`` prints the log and draws its time line.

The log is a ``journal``: a header names the model, the layers and the reference, and the windows
that one call closes are on the disk together before it returns. So a kill loses at most the
requests of the window that was still open, and a batch that could not be written was never taken.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nclib import activations
from nclib.cache import identity
from nclib.data import check_images
from nclib.detection import two_sample
from nclib.doors import finite, integer, number, numbers, plain
from nclib.journal import Journal

Chunk = tuple[list[str], float, dict[str, Tensor]]  # ids, when they came, features per layer


class Monitor:
    """Windows of requests, tested layer by layer against ``reference`` images ``[M, C, H, W]``.

    A window closes after ``every`` requests, or with ``every=None`` when the hour of ``when``
    changes (``seconds`` long, 3600 by default). Its entry in ``log`` has the detection rate per
    layer (share of ``tests`` draws of ``n`` requests against ``n`` references with p <= ``level``),
    an ``alarm`` where the rate of "any layer" reaches ``alarm_rate``, and the ``top`` most
    suspicious requests by the witness of the layer that fires most. ``pool`` is as in ``features``.
    A window of fewer than ``n`` requests is logged without a verdict. A request with pixels or
    features that are not finite is suspicious by itself: it is logged as such and left out of the
    test, and where too few others remain for a test the alarm is raised.

    An existing ``log`` is continued. Raises ``ValueError`` where it belongs to another model, other
    layers, another reference or other settings; and for settings that no window could be tested
    with. One log is one monitor's: of two, the second to close a window is refused.
    """

    @numbers
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
        self.log = Path(log)
        self._journal = Journal(log, "monitor", argument="log")
        check_images(reference, "reference")
        counts = {"n": (n, 2), "tests": (tests, 1), "top": (top, 0), "seed": (seed, -math.inf)}
        for name, (count, low) in counts.items():
            integer(count, name, low)
        for name, share, most in (("seconds", seconds, math.inf), ("alarm_rate", alarm_rate, 1.0)):
            if number(share, name, 0.0, most) == 0:
                raise ValueError(f"{name}: got {share}; a number above 0 is allowed")
        if len(reference) < 2 * n:
            raise ValueError(f"reference: {len(reference)} images; at least {2 * n} are needed")
        self.layers = tuple(activations.layer_names(model, reference) if layers is None else layers)
        two_sample.check_resolution(len(self.layers), permutations, level)
        if every is not None and integer(every, "every") < n:
            raise ValueError(f"every: got {every}; at least n={n} requests make a window")
        self.model, self.pool = model, pool
        self.every, self.seconds, self.n, self.top = every, seconds, n, top
        self.level, self.alarm_rate, self.seed = level, alarm_rate, seed
        self.tests = {"tests": tests, "n": n, "permutations": permutations}
        found = activations.features(model, reference, self.layers, pool=pool)
        self.reference = {name: finite(rows.cpu(), "reference") for name, rows in found.items()}
        settings = {**self.tests, "pool": pool, "every": every, "seconds": seconds}
        settings |= {"level": level, "alarm_rate": alarm_rate, "top": top, "seed": seed}
        header = {
            "model": identity(model),
            "layers": list(self.layers),
            "reference": identity(reference),
            "settings": settings,
        }
        self.windows = list(self._journal.start(header).values())
        self._chunks: list[Chunk] = []  # the open window

    @property
    def done(self) -> int:
        """Requests that are in the log already: where a restart continues."""
        return sum(w["requests"] for w in self.windows)

    def add(
        self, images: Tensor, ids: Sequence[str] | None = None, when: float = 0.0
    ) -> list[dict[str, Any]]:
        """Take a batch ``[B, C, H, W]`` that arrived at ``when`` (seconds); return closed windows.

        ``ids`` name the requests; by default they are numbered from the first of the log on.
        Raises ``ValueError`` for ids that are not one each, and for a ``when`` before that of the
        requests that came last, also those in the log; ``OSError`` where the log cannot be written.
        After any error nothing of the batch was taken, and it may be sent again.
        """
        check_images(images.nan_to_num(0, 0, 0) if isinstance(images, Tensor) else images)
        first = self.done + self._waiting
        ids = [str(first + i) for i in range(len(images))] if ids is None else list(map(str, ids))
        if len(ids) != len(images):
            raise ValueError(f"ids: got {len(ids)}; {len(images)} are needed, one per image")
        when = self._seconds(when)
        features = self._features(images)
        closed: list[dict[str, Any]] = []
        chunks, start = [*self._chunks], 0
        if self.every is None and chunks and when // self.seconds != chunks[0][1] // self.seconds:
            closed, chunks = [self._window(chunks, 0)], []
        while start < len(ids):
            stop = len(ids) if self.every is None else start + self.every - _count(chunks)
            rows = {layer: values[start:stop] for layer, values in features.items()}
            chunks.append((ids[start:stop], when, rows))
            start = stop
            if _count(chunks) == self.every:
                closed.append(self._window(chunks, len(closed)))
                chunks = []
        self._write(closed)
        self._chunks = chunks
        return closed

    def close(self) -> dict[str, Any] | None:
        """Test the open window now, log it and return it; None where it is empty.

        ``add`` closes full windows itself; call this at the end. The entry is on the disk when this
        returns. It has "window" (its number), "start" and "end" (seconds), "requests", "rates"
        (``{layer: share}``, "any layer" too), "alarm", "layer" (the one that fires most),
        "not_finite" (ids) and "suspicious" (``[id, score]``: those not finite first, with None for
        a score, then the oddest); below ``n`` requests "alarm" is None.
        """
        if not self._chunks:
            return None
        window = self._window(self._chunks, 0)
        self._write([window])
        self._chunks = []
        return window

    @property
    def _waiting(self) -> int:
        """Requests in the open window."""
        return _count(self._chunks)

    def _window(self, chunks: Sequence[Chunk], ahead: int) -> dict[str, Any]:
        """The entry of these requests, the ``ahead``-th of those that are not in the log yet."""
        place = len(self.windows) + ahead
        ids = [name for names, _, _ in chunks for name in names]
        suspect = {layer: torch.cat([rows[layer] for *_, rows in chunks]) for layer in self.layers}
        about = {"window": place, "start": chunks[0][1], "end": chunks[-1][1], "requests": len(ids)}
        return about | self._verdict(ids, suspect, place)

    def _write(self, windows: list[dict[str, Any]]) -> None:
        """All of ``windows``, or none."""
        if windows:
            self._journal.add({str(w["window"]): w for w in windows})
            self.windows += windows

    def _seconds(self, when: object) -> float:
        """``when``, no earlier than the latest request, be it in the open window or in the log."""
        last = self.windows[-1]["end"] if self.windows else -sys.float_info.max
        last, found = self._chunks[-1][1] if self._chunks else last, plain(when)
        known = isinstance(found, int | float) and not isinstance(found, bool)
        if not known or not last <= found <= sys.float_info.max:
            raise ValueError(f"when: got {when!r}; finite seconds from {last} on are allowed")
        return float(found)

    def _verdict(
        self, ids: Sequence[str], suspect: Mapping[str, Tensor], place: int
    ) -> dict[str, Any]:
        fine = torch.stack([rows.isfinite().all(1) for rows in suspect.values()]).all(0)
        odd = [name for name, good in zip(ids, fine.tolist(), strict=True) if not good]
        verdict: dict[str, Any] = {"rates": {}, "alarm": None, "not_finite": odd}
        if fine.sum() < self.n:
            alarm = True if len(ids) >= self.n else None
            return verdict | {
                "alarm": alarm,
                "suspicious": [[name, None] for name in odd][: self.top],
            }
        ids = [name for name, good in zip(ids, fine.tolist(), strict=True) if good]
        suspect = {layer: rows[fine] for layer, rows in suspect.items()}
        options = self.tests | {"seed": self.seed + place}
        rates = two_sample.layer_rates(self.reference, suspect, level=self.level, **options)
        layer = max(self.layers, key=lambda name: rates[name])
        score = two_sample.witness(self.reference[layer], suspect[layer])
        order = two_sample.top(score, self.top).tolist()
        scored = [[ids[i], round(float(score[i]), 6)] for i in order]
        return verdict | {
            "rates": {name: round(rate, 4) for name, rate in rates.items()},
            "alarm": rates["any layer"] >= self.alarm_rate,
            "layer": layer,
            "suspicious": [*([name, None] for name in odd), *scored][: self.top],
        }

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """One row per request on the CPU; NaN for images that are not finite."""
        fine = images.flatten(1).isfinite().all(1).cpu()
        rows = {
            layer: torch.full((len(images), known.shape[1]), torch.nan)
            for layer, known in self.reference.items()
        }
        if fine.any():
            seen = images if fine.all() else images[fine.to(images.device)]
            found = activations.features(self.model, seen, self.layers, pool=self.pool)
            for layer, values in found.items():
                rows[layer][fine] = values.float().cpu()
        return rows


def _count(chunks: Sequence[Chunk]) -> int:
    return sum(len(names) for names, _, _ in chunks)


def read(log: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and windows of a log.

    Raises ``ValueError`` for a file that is no such log or is damaged.
    """
    header, windows = Journal(log, "monitor", argument="log").read()
    return header, list(windows.values())


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
        if w["not_finite"]:
            row += f"  not finite: {len(w['not_finite'])}"
        lines.append(row)
    alarms = sum(bool(w["alarm"]) for w in windows)
    return "\n".join([*lines, f"{alarms} of {len(windows)} windows raised an alarm"])
