"""Results kept by their content: the same inputs give the same key, any change gives another.

A key is a SHA-256 over everything that decides the result: tensors, models, numbers, and the code
of functions. A kept result is one safetensors file, written beside its place and moved in whole.
"""

from __future__ import annotations

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


def cache_root() -> Path:
    """``NCLIB_CACHE``, else ``data/runs`` of a checkout, else the user's cache folder."""
    if os.environ.get("NCLIB_CACHE"):
        return Path(os.environ["NCLIB_CACHE"]).expanduser()
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").exists():
        return checkout / "data" / "runs"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nclib" / "runs"


def fingerprint(*parts: object) -> str:
    """The key of ``parts``: 24 hexadecimal digits.

    Knows tensors, arrays, modules, data classes, containers, plain values and functions (by their
    code, defaults, closure and the globals they use). Raises ``ValueError`` for anything else,
    because a guess could serve a stale result.
    """
    digest = hashlib.sha256(torch.__version__.encode())
    for part in parts:
        for piece in _pieces(part, set()):
            digest.update(piece)
            digest.update(b"\0")
    return digest.hexdigest()[:24]


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
        yield repr(part).encode()
        yield from _pieces([type(part).forward, part.state_dict()], inside)
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _pieces(key, inside)
            yield from _pieces(value, inside)
    elif isinstance(part, (list, tuple, range)):
        for value in part:
            yield from _pieces(value, inside)
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _pieces(getattr(part, field.name), inside)
    elif isinstance(part, functools.partial):
        yield from _pieces([part.func, part.args, part.keywords], inside)
    elif isinstance(part, types.MethodType):
        yield from _pieces([part.__self__, part.__func__], inside)
    elif isinstance(part, type):
        yield f"{part.__module__}.{part.__qualname__}".encode()
        yield _source(part.__module__)
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


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    """Code, defaults, closure; for functions of ours or the notebook, the globals they name."""
    yield function.__qualname__.encode()
    yield from _code(function.__code__)
    yield from _pieces([function.__defaults__, function.__kwdefaults__], seen)
    for cell in function.__closure__ or ():
        yield from _pieces(cell.cell_contents, seen)
    if (function.__module__ or "").split(".")[0] in ("__main__", "nclib"):
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


def _names(code: types.CodeType) -> list[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted(set(code.co_names).union(*inner))


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    """Write tensors and a JSON record as one safetensors file, whole or not at all.

    A place that cannot be written gives a warning, not an error: the result is still in memory.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
            draft = Path(staging) / path.name
            whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(whole, draft, {"record": json.dumps(record)})
            os.replace(draft, path)
    except OSError as error:
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
