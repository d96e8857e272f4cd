"""Results kept by their content: the same inputs give the same key, any change gives another.

A key is a SHA-256 over everything that decides the result: tensors, models, numbers, and the code
of functions. A kept result is one safetensors file, written beside its place and moved in whole.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import json
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nclib import places

BARE = {*vars(nn.Module()), "_compiled_call_impl"}  # what every module has: its machinery
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def cache_root() -> Path:
    """``NCLIB_CACHE``, else ``data/runs`` of a checkout, else the user's cache folder."""
    return places.root("NCLIB_CACHE", "data/runs")


def fingerprint(*parts: object) -> str:
    """The key of ``parts``: 24 hexadecimal digits.

    Knows tensors, arrays, data classes, containers, plain values and functions (by their code,
    defaults, closure and the globals they use). A module counts by its weights, which of them
    learn, and the class and attributes of every module inside; not by its mode. Raises
    ``ValueError`` for anything else, because a guess could serve a stale result.
    """
    digest = hashlib.sha256(torch.__version__.encode())
    for piece in _pieces(parts, set()):
        digest.update(f"{len(piece)}:".encode())
        digest.update(piece)
    return digest.hexdigest()[:24]


def _ours(module: str | None) -> bool:
    """Whether code of this Python module may change between two calls: nclib's, the notebook's."""
    return (module or "").split(".")[0] in ("__main__", "nclib")


def _source(module: str) -> bytes:
    """The code of one of the package's own modules; nothing for anybody else's."""
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path).read_bytes() if path and module.split(".")[0] == "nclib" else b""


def _pieces(part: object, seen: set[int]) -> Iterator[bytes]:
    """The bytes that make up ``part``, each kind marked by its type."""
    if id(part) in seen:  # a function that calls itself, a list that holds itself
        return
    kind = f"{type(part).__module__}.{type(part).__qualname__}"
    yield kind.encode()
    if part is None or isinstance(part, (bool, int, float, str, bytes, torch.dtype, torch.device)):
        yield repr(part).encode()
        return
    inside = seen | {id(part)}
    if isinstance(part, Tensor):
        values = part.detach().cpu().contiguous()
        yield f"{values.dtype} {tuple(values.shape)}".encode()
        yield values.flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(part, np.ndarray):
        yield from _pieces(torch.as_tensor(part), inside)
    elif isinstance(part, nn.Module):
        yield from _module(part, inside)
    elif isinstance(part, Mapping):
        yield str(len(part)).encode()
        for key, value in part.items():
            yield from _pieces(key, inside)
            yield from _pieces(value, inside)
    elif isinstance(part, (list, tuple, range)):
        yield str(len(part)).encode()
        for value in part:
            yield from _pieces(value, inside)
    elif isinstance(part, (set, frozenset)):  # its order changes from process to process
        yield from sorted(fingerprint(value).encode() for value in part)
    elif is_dataclass(part) and not isinstance(part, type):
        yield str(len(fields(part))).encode()
        for field in fields(part):
            yield from _pieces(getattr(part, field.name), inside)
    elif isinstance(part, functools.partial):
        yield from _pieces([part.func, part.args, part.keywords], inside)
    elif isinstance(part, types.MethodType):
        yield from _pieces([part.__self__, part.__func__], inside)
    elif isinstance(part, type):
        yield f"{part.__module__}.{part.__qualname__}".encode()
        yield _source(part.__module__)
        if part.__module__ == "__main__":
            yield from _members(part, inside)
    elif isinstance(part, types.FunctionType):
        yield from _function(part, inside)
    elif isinstance(part, types.BuiltinFunctionType):
        yield part.__qualname__.encode()
    elif isinstance(part, types.ModuleType):
        yield part.__name__.encode()
        yield _source(part.__name__)
    else:
        raise ValueError(
            f"cannot fingerprint {part!r} of type {kind}; pass cache=False to go without"
        )


def _module(model: nn.Module, seen: set[int]) -> Iterator[bytes]:
    """Weights and buffers; which weights learn (a tied one is named once); each module inside.

    Attributes of a module of ours must be known; what a library keeps in its own may be a mere
    type. Of a hook the code counts, not what it has collected so far.
    """
    state = model.state_dict() | dict(model.named_buffers())
    learning = [(name, p.requires_grad) for name, p in model.named_parameters()]
    yield from _pieces([state, learning], seen)
    for name, module in model.named_modules():
        kind, inside = type(module), seen | {id(module)}
        yield from _pieces([name, kind], inside)
        if _ours(kind.__module__):
            yield from _pieces(kind.forward, inside)
            yield from _members(kind, inside | {id(kind)})
        else:
            yield from _or_type(getattr(kind, "forward", None), inside)
        for key, value in vars(module).items():
            if key not in BARE:
                yield key.encode()
                yield from (_pieces if _ours(kind.__module__) else _or_type)(value, inside)
        for hook in (hook for place in HOOKS for hook in getattr(module, place, {}).values()):
            yield from _code(hook.__code__) if isinstance(hook, types.FunctionType) else ()


def _members(kind: type, seen: set[int]) -> Iterator[bytes]:
    """Methods and constants of a class, and of those of its bases that are ours too."""
    for base in kind.__mro__:
        for name, member in vars(base).items() if _ours(base.__module__) else ():
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            elif isinstance(member, property):
                member = member.fget
            if isinstance(member, types.FunctionType):
                yield from _code(member.__code__)
            elif name.startswith("__"):
                continue
            yield name.encode()
            yield from _or_type(member, seen)


def _or_type(part: object, seen: set[int]) -> list[bytes]:
    """The bytes of ``part``; those of its type where ``part`` cannot be known."""
    try:
        return list(_pieces(part, seen))
    except ValueError:
        return [f"{type(part).__module__}.{type(part).__qualname__}".encode()]


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    """Code, defaults, closure; for functions of ours or the notebook, the globals they name."""
    yield function.__qualname__.encode()
    yield from _code(function.__code__)
    yield from _pieces([function.__defaults__, function.__kwdefaults__], seen)
    for cell in function.__closure__ or ():
        yield from _pieces(cell.cell_contents, seen)
    if _ours(function.__module__):
        for name in _names(function.__code__):
            if name in function.__globals__:
                yield from _pieces(function.__globals__[name], seen)


def _code(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):  # its order changes from process to process
            yield repr(sorted(map(repr, constant))).encode()
        else:
            yield repr(constant).encode()


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> list[str]:
    """The globals that the code reads; ``co_names`` has the names of attributes, too."""
    read = {
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted(read.union(*inner))


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    """Write tensors and a JSON record as one safetensors file, whole or not at all.

    What cannot be written gives a warning, not an error: the result is still in memory. Tensors
    that share memory (tied weights) are written one by one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
            draft = Path(staging) / path.name
            whole = {
                name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, t in tensors.items()
            }
            save_file(whole, draft, {"record": json.dumps(record)})
            os.replace(draft, path)
    except Exception as error:  # whatever it is, the hours of work behind the result count more
        warnings.warn(f"the result could not be kept in {path.parent}: {error}", stacklevel=2)


def load(path: Path) -> tuple[dict[str, Tensor], dict] | None:
    """What ``save`` wrote, or None where there is nothing, or nothing that can be read."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["record"])
            return {name: file.get_tensor(name) for name in list(file.keys())}, record
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        warnings.warn(f"{path} cannot be read ({error}); it is made again", stacklevel=2)
        return None
