"""Doors: what comes in from outside becomes what the inside may rely on, or a ``ValueError``.

Numbers may be scalars of numpy or torch, arrays may be numpy's, a seed may be any whole number, and
the caller may be in ``torch.inference_mode()``, ``torch.autocast`` or another default dtype.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def plain(value: Any) -> Any:
    """A scalar of numpy or torch as a Python number; anything else as it is."""
    scalar = isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0
    return value.item() if scalar else value


def numbers(function: Callable[P, R]) -> Callable[P, R]:
    """A function that takes scalars of numpy and torch for the Python numbers it asks for."""

    @functools.wraps(function)
    def door(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*map(plain, args), **{name: plain(v) for name, v in kwargs.items()})

    return door


def gradients(function: Callable[P, R]) -> Callable[P, R]:
    """``numbers``, and with autograd and float32 whatever mode the caller is in (``usual``).

    What was made inside ``torch.inference_mode()`` never takes part in autograd, so tensors are
    copied; a model of such weights is refused with a ``ValueError``.
    """

    @functools.wraps(function)
    def door(*args: P.args, **kwargs: P.kwargs) -> R:
        with usual():
            given = {name: ordinary(plain(v)) for name, v in kwargs.items()}
            return function(*(ordinary(plain(v)) for v in args), **given)

    return door


@contextmanager
def usual() -> Iterator[None]:
    """Autograd on; inference mode, autocast and another default dtype off: each turns verdicts."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps")):
            stack.enter_context(torch.autocast(kind, enabled=False))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def ordinary(value: Any) -> Any:
    """``value``, or what a list holds, copied where it comes from ``torch.inference_mode()``.

    Raises ``ValueError`` for a model with weights from there: a copy would not be the caller's.
    """
    if type(value) in (list, tuple):
        return type(value)(map(ordinary, value))
    if isinstance(value, Tensor) and value.is_inference():
        with torch.inference_mode(False):
            return value.clone()
    if isinstance(value, nn.Module) and any(w.is_inference() for w in value.parameters()):
        raise ValueError(
            f"model: {type(value).__name__} was made inside torch.inference_mode(), so it has no "
            "gradient; build it outside"
        )
    return value


def integer(value: object, name: str, low: float = -math.inf, high: float = math.inf) -> int:
    """A whole number from ``low`` to ``high``, Python's, numpy's or torch's, or ``ValueError``."""
    found = plain(value)
    if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
        bounds = f" of {low} or more" if high == math.inf else f" from {low} to {high}"
        bounds = "" if low == -math.inf else bounds
        raise ValueError(f"{name}: got {value!r}; an integer{bounds} is allowed")
    return found


def number(value: object, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from ``low`` to ``high``, Python's, numpy's or torch's, or ``ValueError``."""
    found = value = plain(value)
    fine = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    if not fine or not low <= found <= high:
        raise ValueError(f"{name}: got {value!r}; a number, {low} to {high}, is allowed")
    return found


def seed32(seed: object) -> int:
    """The 32 bits that a generator makes of a seed: below 2**32 the seed itself, else a hash of it.

    A CPU's generator drops the upper bits, and numpy's refuse them: 0 and 2**32 would be one seed.
    """
    seed = integer(seed, "seed")
    if 0 <= seed < 2**32:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big")


def seeded(seed: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on ``device``; ``seed`` is any whole number, and all of it counts."""
    return torch.Generator(device).manual_seed(seed32(seed))


def array(value: object, name: str) -> Tensor:
    """A tensor, or a numpy array as one; anything else is a ``ValueError``."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, Tensor):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name}: got {kind}; a tensor or an array of numbers is needed")
    return value


def classes(value: object, name: str = "labels") -> Tensor:
    """Class numbers as int64, from a tensor or an array of any kind of whole numbers."""
    found = array(value, name)
    if found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        raise ValueError(f"{name}: got {found.dtype}; whole numbers (int64) are needed")
    return found.long()


def finite(values: Tensor, name: str) -> Tensor:
    """``values``, or a ``ValueError`` where one is NaN or infinite: such have no order."""
    if not values.isfinite().all():
        raise ValueError(f"{name}: NaN or infinite values; only finite ones are allowed")
    return values
