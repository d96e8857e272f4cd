"""Results kept by their content: the same inputs give the same key, any change gives another.

A key is a SHA-256 over everything that decides the result, as pickle sees it: tensors, models,
numbers, objects, and the code of the user's own functions, classes and modules with the globals
that they name. Libraries count by their version, this package by its source. (The bytes that
cloudpickle writes would not do: they differ between processes, by a random number per class, the
kernel's number in each file name, and the order of sets.) A kept result is one safetensors file,
written beside its place and moved in whole.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import json
import pickle
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nclib import places

BARE = {*vars(nn.Module()), "_compiled_call_impl"}  # what every module has: its machinery
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
LIBRARIES = {"site-packages", "dist-packages"}
SHOWING = {"plots", "course", "scoreboard", "audit", "__main__"}  # an edit there spoils no run
HERE = Path(__file__).parent
SOURCE = hashlib.sha256()  # of this package, as it was imported
for _path in sorted(HERE.rglob("*.py")):
    if _path.relative_to(HERE).with_suffix("").parts[0] not in SHOWING:
        SOURCE.update(_path.read_bytes())


def cache_root() -> Path:
    """``NCLIB_CACHE``, else ``data/runs`` of a checkout, else the user's cache folder."""
    return places.root("NCLIB_CACHE", "data/runs")


def fingerprint(*parts: object) -> str:
    """The key of ``parts``: 24 hexadecimal digits.

    A module counts by its weights, which of them learn, and the class and attributes of every
    module inside; not by its mode. Of any other object counts what pickle keeps. Raises
    ``ValueError`` for what pickle cannot keep, because a guess could serve a stale result.
    """
    return _Hasher(exact=True).of([torch.__version__, parts]).hex()[:24]


def identity(*parts: object) -> str:
    """``fingerprint``, but the same under another version of a library, and for frozen weights."""
    return _Hasher(exact=False).of(parts).hex()[:24]


def randomness(device: torch.device) -> tuple[str, dict[str, Tensor]]:
    """A key of all global random states, and torch's own, by device, to ``restore``."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return fingerprint(states, np.random.get_state(), random.getstate()), states


def restore(states: Mapping[str, Tensor]) -> None:
    """Put torch's random states back."""
    for name, state in states.items():
        (torch if name == "cpu" else torch.get_device_module(name)).set_rng_state(state)


class _Hasher:
    """Hashes by pickling; what is code, a module or an array goes its own way, by ``_special``."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.known: dict[int, object] = {}
        self.alive: list[object] = []  # as long as ``known`` tells things apart by their address

    def of(self, part: object) -> bytes:
        sink = hashlib.sha256()
        pickler = _Pickler(types.SimpleNamespace(write=sink.update), self._special)
        try:
            pickler.dump(part)
        except _Unknown:
            raise
        except Exception as error:  # whatever an object's own reduction raises
            kind = type(part).__qualname__
            raise _Unknown(f"cannot fingerprint what is in a {kind}: {error}") from None
        return sink.digest()

    def _special(self, part: Any) -> object:
        """What stands for ``part`` in the hash, hashed in its turn; None leaves it to pickle."""
        if type(part) in (str, int, float, bool, tuple, list, dict, bytes, types.NoneType):
            return None
        if isinstance(part, nn.Parameter) and self.exact:
            first = self.known.setdefault(id(part), len(self.known))  # tied weights are one
            return [first, part.requires_grad, _array(part)]
        if isinstance(part, (Tensor, np.ndarray)):
            return _array(part)
        if isinstance(part, (set, frozenset)):  # its order changes from process to process
            return ["set", *sorted(map(self.of, part))]
        if type(part) is object:
            raise _Unknown("cannot fingerprint an object(), which says nothing about itself")
        if isinstance(part, types.MethodType):
            return [part.__func__, part.__self__]
        if isinstance(part, types.CodeType):
            return list(_code(part))
        if isinstance(part, (property, functools.cached_property, classmethod, staticmethod)):
            inner = ("fget", "fset", "func", "__func__")
            return [type(part).__name__, *(getattr(part, name, None) for name in inner)]
        ways: dict[type, Callable[[Any], Iterator[object]]] = {
            nn.Module: self._module,
            types.FunctionType: self._function,
            type: self._class,
            types.ModuleType: self._namespace,
        }
        way = next((way for kind, way in ways.items() if isinstance(part, kind)), None)
        if way is None and hasattr(part, "__wrapped__"):  # functools.cache and the like
            return [type(part).__name__, part.__wrapped__]
        if way is None:
            return None
        if id(part) not in self.known:
            self.alive.append(part)
            self.known[id(part)] = "again"  # a function that calls itself
            self.known[id(part)] = self.of(list(way(part)))
        return self.known[id(part)]

    def _module(self, module: nn.Module) -> Iterator[object]:
        """Class, weights, buffers, modules inside, attributes; of a hook only its code."""
        kind = type(module)
        yield [kind, module._parameters, module._buffers, module._modules]
        for name, value in vars(module).items():
            if name in BARE or (not self.exact and name.startswith("_")):
                continue
            try:
                yield [name, self.of(value)]
            except _Unknown:  # what a library keeps in its own modules may be a mere type
                if self.exact and _library(kind.__module__) is None:
                    raise
                yield [name, str(type(value))]
        hooks = [hook for place in HOOKS for hook in getattr(module, place, {}).values()]
        yield [getattr(hook, "__code__", None) for hook in hooks]

    def _function(self, function: types.FunctionType) -> Iterator[object]:
        """Code, defaults, closure and the globals that it names."""
        if self._named(function) and "<locals>" not in function.__qualname__:
            yield self._name(function)
            return
        yield [function.__code__, function.__defaults__, function.__kwdefaults__]
        for cell in function.__closure__ or ():
            yield cell.cell_contents if cell != types.CellType() else "empty"
        if not self._named(function):
            names = [n for n in _names(function.__code__) if n in function.__globals__]
            yield [[name, function.__globals__[name]] for name in names]

    def _class(self, kind: type) -> Iterator[object]:
        """Its name, and the methods and constants of the user's own ones among its bases."""
        yield type(kind) if type(kind) is not type else None
        for base in kind.__mro__:
            yield self._name(base)
            if not self._named(base):
                for name, member in vars(base).items():
                    slot = isinstance(
                        member, (types.MemberDescriptorType, types.GetSetDescriptorType)
                    )
                    if isinstance(member, types.FunctionType) or not (
                        slot or name.startswith("__") or name == "_abc_impl"
                    ):
                        yield [name, member]

    def _namespace(self, module: types.ModuleType) -> Iterator[object]:
        """The user's own module: everything in it."""
        yield self._name(module)
        if not self._named(module):
            for name, value in vars(module).items():
                if not name.startswith("__"):
                    yield [name, value]

    def _named(self, part: Any) -> bool:
        """Whether the name of ``part`` and a version say it all."""
        return _library(_home(part)) is not None

    def _name(self, part: Any) -> list[object]:
        version = _library(_home(part)) if self.exact else ""
        return [_home(part), getattr(part, "__qualname__", ""), version]


class _Pickler(pickle.Pickler):
    """Asks ``special`` about each part; without memory, so that equal parts count alike."""

    def __init__(self, sink: Any, special: Callable[[Any], object]) -> None:
        super().__init__(sink, 5)
        self.special, self.fast = special, True

    def persistent_id(self, part: Any) -> object:
        return self.special(part)


class _Unknown(ValueError):
    """There is no telling what decides this part."""


def _home(part: Any) -> str:
    """The name of the Python module that ``part`` is, or stands in."""
    return (part.__name__ if isinstance(part, types.ModuleType) else part.__module__) or ""


def _library(module: str) -> str | None:
    """The version of the library that ``module`` belongs to; None for the user's own code."""
    top, *inside = module.split(".")
    if top == "nclib":
        return None if SHOWING.intersection(inside[:1]) else SOURCE.hexdigest()
    if top in sys.stdlib_module_names:
        return sys.version
    found = None if top == "__main__" else sys.modules.get(top)
    path = getattr(found, "__file__", None) or ""
    return getattr(found, "__version__", "") if LIBRARIES & {*Path(path).parts} else None


def _array(values: Tensor | np.ndarray) -> object:
    """Type, shape and content, read on the CPU."""
    if isinstance(values, np.ndarray):
        if values.dtype.hasobject:
            return ["array", values.shape, values.tolist()]
        raw, kind = np.ascontiguousarray(values), repr(values.dtype)
    else:
        if values.is_quantized:
            raise _Unknown("cannot fingerprint a quantised tensor")
        flat = values.detach().cpu().resolve_conj().resolve_neg().contiguous()
        row = flat.as_strided((flat.numel(),), (1,))  # one value may have any stride
        raw, kind = row.view(torch.uint8).numpy(), str(values.dtype)
    content = hashlib.sha256(raw.reshape(-1).view(np.uint8).data).digest()
    return [kind, tuple(values.shape), content]


def _code(code: types.CodeType) -> Iterator[object]:
    """What it does; not where it stands."""
    yield [code.co_code, code.co_names, code.co_varnames, code.co_flags]
    yield [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
    yield [code.co_exceptiontable, *code.co_consts]


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
        apart = {
            name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, t in tensors.items()
        }
        with places.whole(path) as draft:
            save_file(apart, draft, {"record": json.dumps(record)})
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
