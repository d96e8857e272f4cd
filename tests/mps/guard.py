"""A stand-in for a Mac's GPU: refuses what the MPS device would refuse, with no Mac at hand.

Inside ``with Guard():`` the device "meta" plays MPS. A tensor sent there becomes an ``OnDevice``
wrapper around a CPU tensor: the numbers are real, and ``.cpu()`` is a real way back. Each operator
that meets such a tensor is looked up in native_functions.yaml, which ships with torch.

Refused: an operator that has neither an MPS nor a composite kernel, float64 or complex128 on the
device, operands or generators from two devices. ``.numpy()`` on the device fails by itself.
Not seen: what a composite kernel calls inside, its branches for MPS alone (then the other branch is
judged), wrong numbers, memory, and what depends on the version of macOS. It is no run on a Mac.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import torch
import torchgen
import yaml
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
WIDE = (torch.float64, torch.complex128)
KERNELS = {
    "MPS",
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
}
# Operators that may meet tensors of two devices: copies, and indices that lie on the CPU.
MIXING = ("copy_", "_to_copy", "index.", "index_put", "_index_put")
Refused = type("Refused", (RuntimeError,), {"__doc__": "What MPS would refuse."})


@cache
def kernels() -> dict[str, set[str]]:
    """Operator with overload -> the dispatch keys it has a kernel for, in this torch."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    table, delegates = {}, {}
    for entry in entries:
        name = entry["func"].split("(")[0]
        lines = entry.get("dispatch", {"CompositeImplicitAutograd": name})
        table[name] = {key.strip() for line in lines for key in line.split(",")}
        if "structured_delegate" in entry:
            delegates[name] = entry["structured_delegate"]
        for made in entry.get("autogen", "").split(","):
            table[made.strip()] = {"CompositeExplicitAutograd"}
    for name, target in delegates.items():
        table[name] = table[target] | ({"MPS"} & table[name])
    registered = Path(torch.backends.mps.__file__).read_text()  # kernels written in Python
    for name in re.findall(r"_lib\.impl\(\"(\w+)\", \w+, \"MPS\"\)", registered):
        table[name].add("MPS")
    return table


def operator_name(func: torch._ops.OpOverload) -> str:
    """``add.Tensor`` as native_functions.yaml writes it; other libraries keep their prefix."""
    library, name = func._schema.name.split("::")
    overload = func._schema.overload_name
    full = f"{name}.{overload}" if overload else name
    return full if library == "aten" else f"{library}::{full}"


class OnDevice(torch.Tensor):
    """A CPU tensor that says it is on the device."""

    is_meta = False

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> OnDevice:
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        kind = {"dtype": value.dtype, "layout": value.layout, "device": DEVICE}
        wrapper = torch.Tensor._make_wrapper_subclass(cls, value.size(), **layout, **kind)
        wrapper.value = value
        return wrapper

    def __repr__(self) -> str:
        return f"OnDevice({self.value!r})"

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo):
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise Refused(f"{operator_name(func)} runs outside the guard")


class Generator(torch.Generator):
    """A generator that remembers which device it was made for."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls, "cpu")
        generator.home = torch.device(device)
        return generator

    @property
    def device(self):
        return self.home


class SameHome(TorchFunctionMode):
    """Refuses a generator of one device that draws for another; new tensors reach the guard."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor) and (kwargs or {}).get("device") is not None:
            rest = {name: value for name, value in kwargs.items() if name != "device"}
            return func(*args, **rest).to(kwargs["device"])  # else torch builds it behind its back
        result = func(*args, **(kwargs or {}))
        generator = (kwargs or {}).get("generator")
        if generator is not None and isinstance(result, torch.Tensor):
            home = getattr(generator, "home", torch.device("cpu"))
            if home.type != result.device.type:
                where = "device" if result.device.type == DEVICE.type else "CPU"
                raise Refused(f"{func.__name__} on the {where}: the generator is of the other")
        return result


class Guard(TorchDispatchMode):
    """Run the block with "meta" as MPS; ``seen`` counts the operators that ran on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __enter__(self):
        self.kept = torch.Generator, torch.__future__.get_swap_module_params_on_conversion()
        torch.Generator = Generator
        torch.__future__.set_swap_module_params_on_conversion(
            True
        )  # weights are wrappers: swap them
        self.homes = SameHome()
        self.homes.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        torch.Generator = self.kept[0]
        torch.__future__.set_swap_module_params_on_conversion(self.kept[1])
        self.homes.__exit__(*error)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        touches = any(isinstance(leaf, OnDevice) for leaf in leaves)
        asked = kwargs.get("device")
        to_device = touches if asked is None else torch.device(asked).type == DEVICE.type
        if touches or to_device:
            self.inspect(func, leaves)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        real = tree_map(lambda x: x.value if isinstance(x, OnDevice) else x, (args, kwargs))
        result = func(*real[0], **real[1])
        if not to_device:
            return self.copied(result) if touches else result
        result = tree_map(self.wrap, result)
        return return_and_correct_aliasing(func, args, kwargs, result)

    def inspect(self, func, leaves) -> None:
        """Raise ``Refused`` unless MPS has the operator and everything lies where it must."""
        name = operator_name(func)
        self.seen[name] += 1
        if not KERNELS & kernels().get(name, set()):
            raise Refused(f"{name} has no MPS kernel in torch {torch.__version__}")
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        plain = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
        if plain and len(plain) < len(tensors) and not name.startswith(MIXING):
            raise Refused(f"{name} mixes tensors on the device and on the CPU")

    @staticmethod
    def wrap(value):
        if not isinstance(value, torch.Tensor):
            return value
        if value.dtype in WIDE:
            raise Refused(f"{value.dtype} on the device: MPS has none")
        return OnDevice(value)

    @staticmethod
    def copied(result):
        """What leaves the device is a copy: a change to it does not reach the device."""
        clone = lambda x: x.clone() if isinstance(x, torch.Tensor) else x  # noqa: E731
        return tree_map(clone, result)
