"""Exercises of lesson 00: the device, an honest clock, a calm recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode

from nclib import device
from nclib.course.exercises import Wrong, exercise, expect, prediction, tensor
from nclib.doors import plain


class _Devices(TorchFunctionMode):
    """What is made on a device lands on the CPU, or raises where this computer has none such."""

    def __init__(self, cuda: bool, mps: bool) -> None:
        super().__init__()
        self.there = {"cuda": cuda, "mps": mps}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:  # to name a device is not to use it
            return func(*args, **(kwargs or {}))
        args, kwargs = [self._here(a) for a in args], dict(kwargs or {})
        if getattr(func, "__name__", "") == "cuda":
            self._here("cuda")
            return args[0]
        return func(*args, **{k: self._here(v) if k == "device" else v for k, v in kwargs.items()})

    def _here(self, given: Any) -> Any:
        kind = str(given).split(":")[0] if isinstance(given, str | torch.device) else ""
        if self.there.get(kind, True):
            return torch.device("cpu") if kind in self.there else given
        raise RuntimeError(f"this computer has no {kind}")


@contextmanager
def _machine(cuda: bool, mps: bool) -> Iterator[None]:
    """Pretend that this computer has these devices, however it is asked; both are built in.

    The functions themselves get another code, so a name imported before is fooled, too.
    """
    best = "cuda" if cuda else "mps" if mps else ""
    told: dict[Any, str] = {
        torch.cuda.is_available: f"lambda: {cuda}",
        torch.cuda.device_count: f"lambda: {int(cuda)}",
        torch.backends.mps.is_available: f"lambda: {mps}",
        torch.mps.device_count: f"lambda: {int(mps)}",
        getattr(torch.mps, "is_available", torch.mps.device_count): f"lambda: {mps}",
        torch.backends.mps.is_built: "lambda: True",
        torch.backends.cuda.is_built: "lambda: True",
        torch.accelerator.is_available: f"lambda: {cuda or mps}",
        torch.accelerator.device_count: f"lambda: {int(cuda or mps)}",
        torch.accelerator.current_accelerator: "lambda check_available=False: torch.device("
        f"{best or 'cuda'!r}) if {bool(best)} or not check_available else None",
    }
    plain: dict[Any, Any] = {
        getattr(asked, "__wrapped__", asked): eval(code) for asked, code in told.items()
    }
    kept = {function: function.__code__ for function in plain}
    remembered = [asked for asked in told if hasattr(asked, "cache_clear")]
    try:
        for function, other in plain.items():
            function.__code__ = other.__code__
        for asked in remembered:
            asked.cache_clear()
        with patch.dict("os.environ", {"NCLIB_DEVICE": ""}), _Devices(cuda, mps):
            yield
    finally:
        for function, code in kept.items():
            function.__code__ = code
        for asked in remembered:
            asked.cache_clear()


MACHINES = {  # what is available: what to pick
    (False, False): ("cpu", "neither is available (though both are built)"),
    (False, True): ("mps", "only mps is available"),
    (True, False): ("cuda", "only cuda is available"),
    (True, True): ("cuda", "both are available"),
}


@exercise(
    "00.pick_device",
    reference=device.pick,
    hints=(
        "Ask for cuda first, then for mps; what is left is the cpu.",
        "torch.cuda.is_available() and torch.backends.mps.is_available() tell what is there now.",
        'if torch.cuda.is_available(): return torch.device("cuda") is the first of three cases.',
    ),
)
def _(answer: Any) -> None:
    for (cuda, mps), (wanted, words) in MACHINES.items():
        with _machine(cuda, mps):
            found = answer()
        if isinstance(found, str):
            raise Wrong(f"it returns the text {found!r}; return torch.device({found!r}) instead")
        expect(isinstance(found, torch.device), f"it returns {found!r}, which is no device")
        expect(found.type == wanted, f"where {words}, it picks {found.type}, not {wanted}")


def honest_seconds(work: Callable[[], object], synchronize: Callable[[], object]) -> float:
    """Seconds that ``work()`` takes, with all that it queued and nothing that waited before."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


class _Queue:
    """A stand-in for a device: work waits in a queue, and waiting for it takes its time."""

    def __init__(self, waiting: float) -> None:
        self.queued, self.pieces = [waiting], 0
        self.events: list[str] = []
        self.start = self.end = 0.0

    def launch(self, seconds: float) -> None:
        self.start, self.pieces = time.perf_counter(), self.pieces + 1
        self.events.append("work")
        time.sleep(LAUNCH)
        self.queued.append(seconds)

    def synchronize(self) -> None:
        time.sleep(sum(self.queued))
        self.queued.clear()
        self.events.append("wait")
        self.end = time.perf_counter()


LAUNCH, WORK, BEFORE = 0.02, 0.06, 0.15  # seconds


def _measure(answer: Callable[..., Any], before: float) -> None:
    """One measurement in real time, by whatever clock; ``Wrong`` where it is not that of the work.

    The truth is what passes between the call of the work and the end of the last wait.
    """
    queue = _Queue(before)
    found = answer(lambda: queue.launch(WORK), queue.synchronize)
    expect(queue.pieces > 0, "work() was never called")
    expect(queue.pieces == 1, f"work() was called {queue.pieces} times; once is asked for")
    found, wanted = float(tensor(found, "the time")), queue.end - queue.start
    waited = "wait" in queue.events[queue.events.index("work") :]
    wanted = wanted if waited else LAUNCH + WORK
    reads = f"for work of {wanted:.3f} seconds it returns {found:.3g}"
    early = f"{reads}: the clock stops before the work is done"
    expect(waited, early)
    if queue.events[0] == "work" and before and found > before:
        raise Wrong(
            f"{reads}: it counts what was queued before; empty the queue, then start the clock"
        )
    if found < LAUNCH / 2:
        raise Wrong(
            f"{reads}: this clock stands while the program waits (process_time does), or its unit "
            "is another; use time.perf_counter()"
        )
    expect(found > LAUNCH + WORK / 2, early)
    expect(found < 20 * wanted, f"{reads}; the unit should be seconds")
    if before and found > wanted + 0.8 * before:
        raise Wrong(
            f"{reads}: it counts what was queued before; empty the queue, then start the clock"
        )
    expect(abs(found - wanted) < 0.03, f"{reads}; use time.perf_counter()")


@exercise(
    "00.honest_seconds",
    reference=honest_seconds,
    hints=(
        "When work() returns, the work may still be in the queue. What has to happen before the "
        "clock stops?",
        "Something may be in the queue already. It must not count, so empty the queue first.",
        "synchronize(), read the clock, work(), synchronize(), read the clock again. The clock is "
        "time.perf_counter().",
    ),
)
def _(answer: Any) -> None:
    for before in (0.0, BEFORE):
        for last in (False, False, True):  # a busy machine may hold up a right answer once
            try:
                _measure(answer, before)
                break
            except Wrong:
                if last:
                    raise


ALLOWED = {
    "lr": (1e-4, 1.0),
    "momentum": (0.0, 0.99),
    "weight_decay": (0.0, 0.1),
    "batch_size": (16, 1024),
    "epochs": (4, 20),
}
STORMY = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "batch_size": 64, "epochs": 12}


@exercise(
    "00.calm",
    reference={"lr": 0.01},
    hints=(
        "A step moves the weights by the rate times what momentum has gathered. "
        "What makes it small?",
        'Smaller steps pass a difference on more weakly. Try {"lr": 0.02}, and watch the accuracy.',
        'Other ways: {"momentum": 0.0}, or a larger batch_size. Change one thing at a time.',
    ),
)
def _(answer: Any) -> None:
    expect(
        isinstance(answer, Mapping), f'give a dictionary such as {{"epochs": 8}}, not {answer!r}'
    )
    found = {name: plain(value) for name, value in answer.items()}
    for name, value in found.items():
        expect(name in ALLOWED, f"{name!r} is none of {', '.join(ALLOWED)}")
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        expect(real, f"{name} should be a number, not {value!r}")
        low, high = ALLOWED[name]
        expect(low <= value <= high, f"{name} is {value:g}; {low:g} to {high:g} is allowed here")
        whole = name in ("batch_size", "epochs")
        expect(isinstance(value, int) or not whole, f"{name} is a whole number, not {value!r}")
    expect(
        STORMY | found != STORMY,
        "that is the recipe from above, whose two runs parted: change a setting",
    )


prediction(
    "00.clock",
    "By which factor is the clock too small that does not wait?",
    above=5,
    unit="times",
    usual={
        (None, 1.5): "that holds where the line itself does the work; here it only hands it in",
        (1.5, 5): "handing in costs microseconds, whatever the size of the product",
    },
)

prediction(
    "00.nudge",
    "What share of the stickered test images get another answer after the nudge, in percent?",
    above=2,
    unit="percent",
    usual={
        (None, 0.5): "a millionth is small at the start, but training multiplies it, step by step",
        (60, None): "the two runs part, and yet both learn what the images have in common",
    },
)
