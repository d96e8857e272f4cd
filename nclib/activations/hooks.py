"""Hooks and modes on any module, safe where two threads share it or where it is compiled."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


class _Shared:
    """What all threads share."""

    lock = threading.Lock()
    as_written = 0  # how many blocks want compiled models to run as written
    stance = ExitStack()
    # per module: the modes to which those who evaluate it will return it, oldest first
    held: weakref.WeakKeyDictionary[nn.Module, list[list[bool]]] = weakref.WeakKeyDictionary()


def modules_of(model: nn.Module, shared: bool = True) -> dict[str, nn.Module]:
    """The modules by name, a compiled one's as before compiling; ``shared``: under every name."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=not shared):
        parts = [part for part in name.split(".") if part != "_orig_mod"]
        found.setdefault(".".join(parts), module)
    return found


def attach(stack: ExitStack, register: Callable, act: Callable) -> None:
    """A hook until ``stack`` ends, deaf to what other threads send through the same model."""
    mine = threading.get_ident()

    def hook(*args: object) -> object:
        return act(*args) if threading.get_ident() == mine else None

    stack.callback(register(hook).remove)


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """A compiled model, which may skip hooks, runs as it was written inside the block."""
    if not any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in model.modules()):
        yield
        return
    with _Shared.lock:  # one stance for all threads: the first sets it, the last takes it back
        if not _Shared.as_written:
            _Shared.stance.enter_context(torch.compiler.set_stance("force_eager"))
        _Shared.as_written += 1
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.as_written -= 1
            if not _Shared.as_written:
                _Shared.stance.close()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the ``with`` block; every submodule gets its own mode back.

    Where two threads hold one model, the first to leave does not end the other's evaluation.
    """
    with _Shared.lock:
        modes = [(module, [module.training]) for module in model.modules()]
        for module, mode in modes:
            _Shared.held.setdefault(module, []).append(mode)
        model.eval()
    try:
        yield model
    finally:
        with _Shared.lock:
            for module, mode in modes:
                _release(module, mode)


def _release(module: nn.Module, mode: list[bool]) -> None:
    """The last to come restores the mode it found; another hands it to the next that came."""
    held = _Shared.held[module]
    place = next(i for i, entry in enumerate(held) if entry is mode)
    if place + 1 == len(held):
        module.training = mode[0]
    else:
        held[place + 1][0] = mode[0]
    del held[place]
    if not held:
        del _Shared.held[module]
