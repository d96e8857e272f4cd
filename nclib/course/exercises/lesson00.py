"""Exercises of lesson 00: the device, an honest clock, float64, seeds, a stratified subset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from torch import Tensor
import time
from contextlib import ExitStack
from unittest.mock import patch

import torch

from nclib import device
from nclib.course.exercises import Wrong, choice, exercise, expect

choice(
    "00.one_liner",
    "an error",
    ("the cpu", "an mps device", "an error"),
    hints=(
        "On such a computer is_built() is False. Which of the two names is used then?",
        "The name is then 'CPU', in capitals. Does torch know a device of that name?",
    ),
    why={
        "the cpu": "the name that torch knows is 'cpu', in small letters; 'CPU' is no device",
        "an mps device": "torch for Linux and Windows is built without MPS, so 'CPU' is used",
    },
)


def _machine(stack: ExitStack, cuda: bool, mps: bool) -> None:
    """Pretend, while ``stack`` is open, that this computer has these devices; MPS is built in."""
    for module, name, value in (
        (torch.cuda, "is_available", cuda),
        (torch.backends.mps, "is_available", mps),
        (torch.backends.mps, "is_built", True),
        (torch.backends.cuda, "is_built", True),
    ):
        stack.enter_context(patch.object(module, name, lambda value=value: value))
    stack.enter_context(patch.dict("os.environ", {"NCLIB_DEVICE": ""}))


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
        with ExitStack() as stack:
            _machine(stack, cuda, mps)
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


class _Pretended:
    """A device with a queue, and a clock that only its work and its waiting move."""

    def __init__(self, waiting: float) -> None:
        self.now, self.queued = 100.0, [waiting]

    def launch(self, seconds: float) -> None:
        self.now += 0.001  # handing in takes no time to speak of
        self.queued.append(seconds)

    def synchronize(self) -> None:
        self.now += sum(self.queued)
        self.queued.clear()

    def seconds(self, answer: Callable[..., float], work: float) -> tuple[float, int]:
        """What ``answer`` measures for one piece of work, and how many pieces it handed in."""
        pieces = []

        def once() -> None:
            pieces.append(work)
            self.launch(work)

        with ExitStack() as stack:
            for name in ("perf_counter", "time", "monotonic"):
                stack.enter_context(patch.object(time, name, lambda: self.now))
            return answer(once, self.synchronize), len(pieces)


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
    for work, before in ((2.0, 0.0), (2.0, 5.0), (0.5, 0.0)):
        found, pieces = _Pretended(before).seconds(answer, work)
        expect(pieces > 0, "work() was never called")
        expect(pieces == 1, f"work() was called {pieces} times; once is asked for")
        found, wanted = float(found), work + 0.001
        reads = f"for work of {wanted:.3f} seconds it returns {found:.3f}"
        expect(
            abs(found - wanted - before) > 1e-6 or before == 0,
            f"{reads}: it counts what was queued before; empty the queue, then start the clock",
        )
        expect(found > 0.01, f"{reads}: the clock stops before the work is done")
        expect(abs(found - wanted) < 1e-6, f"{reads}; use time.perf_counter()")


class OnMps(torch.Tensor):
    """A stand-in for a tensor on a Mac's GPU: no float64 and no numpy until it is on the CPU."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [*args[1:], *(kwargs or {}).values()]
        name, wide = getattr(func, "__name__", ""), torch.float64 in given
        if name == "double" or wide:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        if name in ("numpy", "__array__", "tolist"):
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        if name == "cpu" or (name == "to" and str(given[:1]) in CPU):
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(torch.Tensor).clone()
        return super().__torch_function__(func, types, args, kwargs or {})


CPU = ("['cpu']", str([torch.device("cpu")]))


@exercise(
    "00.to_float64",
    reference=lambda x: x.cpu().double(),
    hints=(
        "There are two steps: to the CPU, and to float64. Which one can a Mac's GPU not do?",
        "x.cpu() is a copy on the CPU, x.double() one in float64. Chain them, CPU first.",
    ),
)
def _(answer: Any) -> None:
    x = torch.tensor([0.5, 0.25])
    found = answer(x)
    expect(isinstance(found, torch.Tensor), f"it returns a {type(found).__name__}, not a tensor")
    expect(found.dtype == torch.float64, f"it returns {found.dtype}; float64 is asked for")
    expect(torch.equal(found.cpu(), x.double()), "the numbers changed on the way")
    try:
        found = answer(x.as_subclass(OnMps))
    except TypeError as error:
        raise Wrong(f"on a Mac's GPU: {error}. Move to the CPU first, then convert") from None
    expect(
        type(found) is torch.Tensor, "on a Mac's GPU the result stays there; bring it to the CPU"
    )


choice(
    "00.same_seed",
    "a range",
    ("every digit", "a range", "nothing"),
    hints=(
        "The random numbers are one half. What does the arithmetic of the other device do?",
        "The last digits differ, and sometimes more. What can still be compared?",
    ),
    why={
        "every digit": "another device draws other numbers, and sums in another order",
        "nothing": "single digits change, but the conclusion holds if it holds for several seeds",
    },
)


def stratified(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Positions of ``per_class`` random images of each class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    chosen = [order[labels[order] == c][:per_class] for c in labels.unique()]
    return torch.cat(chosen)


@exercise(
    "00.stratified",
    reference=stratified,
    hints=(
        "Shuffle all positions once with torch.randperm(len(labels), generator=generator).",
        "order[labels[order] == c] are the positions of class c, in random order.",
        "Take the first per_class of them for each c of labels.unique(), then torch.cat them.",
    ),
)
def _(answer: Any) -> None:
    labels = torch.tensor([0] * 40 + [1] * 10 + [4] * 25)
    with torch.random.fork_rng(devices=[]):  # only the argument may matter, not the global state
        torch.manual_seed(0)
        found = torch.as_tensor(answer(labels, 6, 0))
        torch.manual_seed(1)
        again, other = torch.as_tensor(answer(labels, 6, 0)), torch.as_tensor(answer(labels, 6, 1))
    expect(found.dtype == torch.int64, f"positions are whole numbers; these are {found.dtype}")
    expect(found.shape == (18,), f"3 classes, 6 each: 18 positions, not shape {tuple(found.shape)}")
    expect(len(found.unique()) == 18, "some position comes twice")
    expect(bool(found.min() >= 0 and found.max() < 75), "some position is beyond the last label")
    counts = [int((labels[found] == c).sum()) for c in (0, 1, 4)]
    expect(counts == [6, 6, 6], f"the classes come {counts} times, not 6 times each")
    expect(torch.equal(found, again), "the same seed gives another choice: use the generator")
    expect(
        not torch.equal(found.sort().values, other.sort().values),
        "another seed gives the same choice: shuffle with a generator that has the seed",
    )
    drawn = torch.cat([torch.as_tensor(answer(labels, 6, seed)) for seed in range(40)])
    never = 75 - len(drawn.unique())
    expect(never < 10, f"{never} images are never chosen, whatever the seed: shuffle all of them")
