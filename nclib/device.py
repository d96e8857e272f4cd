"""Where the arithmetic runs: pick a device, seed it, time it honestly, report it.

``python -m nclib device`` runs the operators of the course on the device and compares each with the
CPU: the self-test for owners of a Mac (or of any accelerator).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("cuda", "mps", "cpu")


def available(kind: str) -> bool:
    """Whether this machine has such a device now (``is_built`` speaks of the torch package)."""
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())


def pick(prefer: str | torch.device | None = None) -> torch.device:
    """The device to work on: ``prefer``, else ``NCLIB_DEVICE``, else cuda, then mps, then cpu.

    Raises ``ValueError`` for a device that does not exist or that this machine has not.
    """
    source, name = "prefer", prefer
    if name is None and os.environ.get("NCLIB_DEVICE"):
        source, name = "NCLIB_DEVICE", os.environ["NCLIB_DEVICE"]
    if name is None:
        return torch.device(next(kind for kind in KINDS if available(kind)))
    here = ", ".join(repr(kind) for kind in KINDS if available(kind))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or not available(device.type):
        raise ValueError(f"{source}: got {name!r}; this machine has {here}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"{source}: got {name!r}; this machine has {count} CUDA devices, from 0")
    return device


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done all it was asked; a CPU has nothing to wait for."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Timer:
    """``with Timer(device) as t: ...`` then ``t.seconds``: wall time, the queued work included."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device, self.seconds = torch.device(device), float("nan")

    def __enter__(self) -> Timer:
        synchronize(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self._start


def has_fast_bfloat16(device: str | torch.device) -> bool:
    """Whether bfloat16 beats float32 there: CUDA from compute capability 8 on, CPUs made for it.

    Measured: on a CPU with AVX-512's bfloat16 a convolution takes half of the time; without, twice.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def report() -> str:
    """One screen on this machine: system, versions, devices and the one picked."""
    lines = [
        ("system", f"{platform.system()} on {platform.machine()}"),
        ("python", platform.python_version()),
        ("nclib", _version("neural-collapse-course")),
    ]
    lines += [("torch", torch.__version__)]
    packages = ("torchvision", "numpy", "scikit-learn", "matplotlib", "ipywidgets")
    lines += [(name, _version(name)) for name in packages]
    lines += [("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")]
    mps = torch.backends.mps
    lines += [
        ("cuda", f"built: {torch.version.cuda or 'no'}, available: {_yes(available('cuda'))}"),
        ("mps", f"built: {_yes(mps.is_built())}, available: {_yes(mps.is_available())}"),
    ]
    if available("cuda"):
        lines += [("gpu", torch.cuda.get_device_name())]
    lines += [("device", str(pick()))]
    return "\n".join(f"{name:<13} {value}" for name, value in lines)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


# The self-test: each function gets a device and returns what is compared with the CPU.


def _images(device: torch.device, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)


def _net(device: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(128, 10)).to(device)


def _training_step(device: torch.device) -> Tensor:
    net, images = _net(device), _images(device, 32, 1, 8, 8)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(net(images), torch.arange(32, device=device) % 10).backward()
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def _input_gradient(device: torch.device) -> Tensor:
    images = _images(device, 16, 1, 8, 8).requires_grad_()
    loss = F.cross_entropy(_net(device).eval()(images), torch.arange(16, device=device) % 10)
    return torch.autograd.grad(loss, images)[0]


def _channels_last(device: torch.device) -> Tensor:
    net = _net(device).to(memory_format=torch.channels_last)
    return net(_images(device, 8, 1, 8, 8).contiguous(memory_format=torch.channels_last)).detach()


def _index_and_sort(device: torch.device) -> Tensor:
    x = _images(device, 20, 10)
    order = x.sort(1, descending=True).indices
    best = x.topk(3).values
    parts = [x.gather(1, order), best, x[order[:, 0]], x[x[:, 0] > 0.5]]
    return torch.cat([part.flatten() for part in parts])


def _distances(device: torch.device) -> Tensor:
    x = _images(device, 30, 64)
    return torch.cat([torch.cdist(x, x[:10]), x @ x[:10].T])


def _counts(device: torch.device) -> Tensor:
    x, labels = _images(device, 30, 4), torch.arange(30, device=device) % 3
    sums = torch.zeros(3, 4, device=device).index_add(0, labels, x)
    return torch.cat([sums.flatten(), torch.bincount(labels, minlength=5).float()])


def _order_statistics(device: torch.device) -> Tensor:
    x = _images(device, 31, 4)  # no quantile: from torch 2.15 on it may pass through float64
    return torch.stack([x.median(0).values, x.kthvalue(28, 0).values, x.sort(0).values[28]])


def _generator(device: torch.device) -> Tensor:
    draws = [torch.rand(9, device=device, generator=_seeded(device)) for _ in range(2)]
    return (draws[0] == draws[1]).float()  # the same seed twice; the numbers differ by device


def _seeded(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def _svd_on_the_cpu(device: torch.device) -> Tensor:
    return torch.linalg.svdvals(_images(device, 20, 8).cpu().double()).float().to(device)


def _interpolation(device: torch.device) -> Tensor:
    x = _images(device, 4, 1, 8, 8)
    small = F.adaptive_avg_pool2d(x, 2)
    back = F.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False)
    return torch.cat([back.flatten(), F.avg_pool2d(x, 2).flatten()])


def _warp(device: torch.device) -> Tensor:
    x = _images(device, 4, 1, 8, 8)
    eye = torch.eye(2, 3, device=device).expand(4, 2, 3)
    grid = F.affine_grid(eye, list(x.shape), align_corners=True)
    grid = (grid + 0.1 * (_images(device, 4, 8, 8, 2) - 0.5)).clamp(-1, 1)
    return F.grid_sample(x, grid, align_corners=True)


CHECKS: dict[str, Callable[[torch.device], Tensor]] = {
    "convolution, batch norm, cross-entropy, SGD": _training_step,
    "gradient at the input": _input_gradient,
    "channels-last layout": _channels_last,
    "index, gather, sort, topk, mask": _index_and_sort,
    "cdist, matrix product": _distances,
    "index_add, bincount": _counts,
    "median, kth value": _order_statistics,
    "generator on the device": _generator,
    "SVD in float64 on the CPU and back": _svd_on_the_cpu,
    "pooling, interpolation": _interpolation,
    "grid_sample (WaNet's warp)": _warp,
}


def self_test(device: str | torch.device | None = None, tolerance: float = 5e-3) -> bool:
    """Run every check on the device and the CPU, print a line for each; True if all agree."""
    device, passed = pick(device), True
    for name, check in CHECKS.items():
        try:
            expected, found = check(torch.device("cpu")), check(device).cpu()
            gap = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-6))
            good, note = gap <= tolerance, f"differs from the CPU by {gap:.1e}"
        except (RuntimeError, NotImplementedError, TypeError) as error:
            good, note = False, str(error).splitlines()[0]
        passed &= good
        print(f"{'ok  ' if good else 'FAIL'} {name}: {note}")
    return passed


def main() -> int:
    """Print the report, then the self-test; 0 when all agrees."""
    print(report(), end="\n\n")
    passed = self_test()
    print(
        "\nall agree with the CPU" if passed else "\nsomething differs: please report this screen"
    )
    return 0 if passed else 1
