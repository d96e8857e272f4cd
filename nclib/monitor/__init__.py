"""Watch a deployed model: do today's requests look, layer by layer, like validation data?

``Monitor`` collects requests into windows, tests each window against captured reference features
with the two-sample test of ``detection.two_sample``, and puts one entry per window into a log.
``log`` reads it: ``python -m nclib monitor report LOG`` prints it and draws its time line, and
``python -m nclib monitor serve LOG`` shows its last day on a ``page`` of this machine alone.

The log is a ``journal``: a header names the model, the layers and the reference, and the windows
that one call closes are on the disk together before it returns. So a kill loses at most the
requests of the window that was still open, and with ``capture`` not even those; a batch that could
not be written was never taken.
"""

from __future__ import annotations

import base64
import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from nclib import activations
from nclib.cache import identity
from nclib.data import check_images
from nclib.detection import two_sample
from nclib.doors import finite, integer, number, numbers, plain
from nclib.journal import Journal
from nclib.monitor.log import KIND, OPEN, closed, read, read_all, report

# ids, when they came, features per layer, and the images where they are captured
Chunk = tuple[list[str], float, dict[str, Tensor], Tensor | None]


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

    With ``capture`` the log holds the requests of the open window, too, as they came, so that a
    restart goes on where the kill was; of a closed window it keeps small pictures ("pictures",
    ``{id: data URI}``) of the suspicious ones. Without it no request is ever stored.

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
        capture: bool = False,
        seed: int = 0,
    ) -> None:
        self.log = Path(log)
        self._journal = Journal(log, KIND, argument="log")
        check_images(reference, "reference")
        _check_windows(len(reference), every, seconds, n, alarm_rate)
        for name, count, low in (("tests", tests, 1), ("top", top, 0), ("seed", seed, -math.inf)):
            integer(count, name, low)
        self.layers = tuple(activations.layer_names(model, reference) if layers is None else layers)
        two_sample.check_resolution(len(self.layers), permutations, level)
        self.model, self.pool = model, pool
        self.every, self.seconds, self.n, self.top = every, seconds, n, top
        self.capture = bool(capture)
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
        entries = self._journal.start(header)
        self.windows = closed(entries)
        captured = [e for k, e in entries.items() if k.startswith(OPEN)] if capture else []
        waiting = [e for e in captured if e["window"] == len(self.windows)]
        self._chunks: list[Chunk] = [self._chunk(e) for e in waiting]  # the open window

    @property
    def done(self) -> int:
        """Requests that a kill cannot lose any more: a restart continues behind them."""
        return self._logged + self._waiting * self.capture

    @property
    def _logged(self) -> int:
        """Requests of the closed windows."""
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
        first = self._logged + self._waiting
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
            seen = images[start:stop].cpu() if self.capture else None
            chunks.append((ids[start:stop], when, rows, seen))
            start = stop
            if _count(chunks) == self.every:
                closed.append(self._window(chunks, len(closed)))
                chunks = []
        self._write(closed, chunks)
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
        self._write([window], [])
        self._chunks = []
        return window

    @property
    def _waiting(self) -> int:
        """Requests in the open window."""
        return _count(self._chunks)

    def _window(self, chunks: Sequence[Chunk], ahead: int) -> dict[str, Any]:
        """The entry of these requests, the ``ahead``-th of those that are not in the log yet."""
        place = len(self.windows) + ahead
        ids = [name for names, *_ in chunks for name in names]
        suspect = {layer: torch.cat([chunk[2][layer] for chunk in chunks]) for layer in self.layers}
        about = {"window": place, "start": chunks[0][1], "end": chunks[-1][1], "requests": len(ids)}
        window = about | self._verdict(ids, suspect, place)
        if self.capture:
            seen = dict(
                zip(ids, (x for *_, rows in chunks if rows is not None for x in rows), strict=True)
            )
            shown = [name for name, _ in window.get("suspicious", [])]
            window["pictures"] = {name: _picture(seen[name]) for name in shown}
        return window

    def _write(self, windows: list[dict[str, Any]], waiting: Sequence[Chunk]) -> None:
        """All of ``windows`` and, where they are captured, of the batches waiting; or nothing."""
        entries = {str(w["window"]): w for w in windows}
        place = len(self.windows) + len(windows)
        known = 0 if windows else len(self._chunks)  # those are on the disk already
        captured = {
            f"{OPEN}{i}": {"window": place, "ids": chunk[0], "when": chunk[1], **_packed(chunk[3])}
            for i, chunk in enumerate(waiting)
            if i >= known and chunk[3] is not None
        }
        if entries or captured:  # the place of a batch is free for the next window's
            self._journal.add(entries | captured, replace=captured)
        self.windows += windows

    def _chunk(self, entry: Mapping[str, Any]) -> Chunk:
        """A captured batch, as it was before the kill."""
        flat = np.frombuffer(base64.b64decode(entry["images"]), dtype="<f4")
        images = torch.from_numpy(flat.copy()).reshape(entry["shape"])
        device = next(iter(self.model.parameters()), images).device
        features = self._features(images.to(device))
        return entry["ids"], entry["when"], features, images

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
    return sum(len(names) for names, *_ in chunks)


def _packed(images: Tensor | None) -> dict[str, Any]:
    """Images for the journal, to the last bit, NaN included."""
    rows = np.asarray(images, dtype="<f4")
    return {"shape": list(rows.shape), "images": base64.b64encode(rows.tobytes()).decode()}


def _picture(image: Tensor) -> str:
    """An image ``[C, H, W]`` as a data URI, in 8 bits; what is no number becomes black."""
    image = image.nan_to_num(0, 0, 0).clamp(0, 1)
    image = image if len(image) in (1, 3) else image[:1]
    picture, sink = to_pil_image(image), io.BytesIO()
    picture.thumbnail((64, 64))
    picture.save(sink, "PNG")
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"


def _check_windows(
    references: int, every: int | None, seconds: float, n: int, alarm_rate: float
) -> None:
    """Raise ``ValueError`` for windows that ``n`` requests against ``n`` references cannot test."""
    integer(n, "n", 2)
    for name, share, most in (("seconds", seconds, math.inf), ("alarm_rate", alarm_rate, 1.0)):
        if number(share, name, 0.0, most) == 0:
            raise ValueError(f"{name}: got {share}; a number above 0 is allowed")
    if references < 2 * n:
        raise ValueError(f"reference: {references} images; at least {2 * n} are needed")
    if every is not None and integer(every, "every") < n:
        raise ValueError(f"every: got {every}; at least n={n} requests make a window")
