"""An energy-based model of images and the Langevin dynamics that walks an image downhill.

The energy is low where images are likely: p(x) is proportional to exp(-E(x) / T). PureGen (Bhat et
al. 2024, arXiv 2405.18627), section 3.1; trained as in Nijkamp et al. 2019 (arXiv 1903.12370).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.data import check_images
from nclib.defenses.purification.noise import Diverged, Generators, normal, to_signed
from nclib.doors import finite, gradients, integer, number, seed32, seeded

CUT = 2.0  # the bank's images stay within +-2: data lie in [-1, 1]


class Energy(nn.Module):
    """E(x) ``[N]`` of images ``[N, C, H, W]`` in [-1, 1]; ``eps`` and ``temperature`` to walk with.

    ``net`` maps the images to one number each, ``gain`` multiplies it. ``diverged`` says that
    training did not hold.
    """

    def __init__(
        self, net: nn.Module, eps: float = 0.0125, temperature: float = 1e-4, gain: float = 1.0
    ) -> None:
        super().__init__()
        if not (eps > 0 and temperature > 0):
            raise ValueError(f"eps, temperature: got {eps}, {temperature}; both must be above 0")
        self.net, self.eps, self.temperature, self.gain = net, eps, temperature, gain
        self.diverged = False
        self.recipe: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.net(x).flatten(1).sum(1)


@gradients
def build_energy(
    shape: tuple[int, int, int],
    *,
    seed: int = 0,
    widths: tuple[int, ...] = (32, 64, 64),
    eps: float = 0.03,
    temperature: float = 5e-4,
    gain: float = 1.0,
) -> Energy:
    """An untrained energy for images like ``shape``, of any height and width.

    A small discriminator after SNGAN: 3x3, then 4x4 with stride 2. It does not normalise, for batch
    statistics would tie one image's energy to the others. It takes the mean over the places of an
    image, so the slope at a pixel is small, and a ``gain`` of 16 steepens it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed32(seed))
        net = _conv((shape[0], *widths))
    model = Energy(net, eps, temperature, gain)
    model.recipe = {"shape": list(shape), "eps": eps, "temperature": temperature}
    model.recipe |= {"widths": list(widths), "gain": gain}
    return model


def _conv(sizes: tuple[int, ...]) -> nn.Sequential:
    first, *rest = pairwise(sizes)
    layers = [nn.Conv2d(*first, 3, padding=1), nn.SiLU()]
    for a, b in rest:
        layers += [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(a, b, 4, stride=2), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(sizes[-1], 1, 1))


@gradients
def langevin(
    x: Tensor,
    energy: Callable[[Tensor], Tensor],
    steps: int,
    *,
    generator: Generators,
    eps: float = 0.0125,
    temperature: float = 1e-4,
    cut: float | None = None,
    tick: Callable[[], object] | None = None,
) -> Tensor:
    """``steps`` times x <- x - (eps^2 / 2) grad E(x) / T + eps n, n standard normal.

    ``x`` ``[N, ...]`` in [-1, 1], left as it is; ``energy(x)`` gives ``[N]``. ``cut`` keeps the
    walk within +-cut; ``tick`` is called after each step. Raises ``Diverged``, a ``ValueError``,
    as soon as an energy or a gradient is not finite.
    """
    integer(steps, "steps", 0)
    x = finite(x.detach(), "x")
    for step in range(steps):
        with torch.enable_grad():
            x = x.requires_grad_()
            values = energy(x)
            (slope,) = torch.autograd.grad(values.sum(), x)
        if not (values.detach().isfinite().all() and slope.isfinite().all()):
            raise Diverged(
                f"energy: not finite at Langevin step {step + 1} of {steps}; the model diverged in "
                "training (lower its lr, or raise the regulariser), or eps**2 / temperature "
                f"= {eps**2 / temperature:.3g} is too large a step for it"
            )
        x = x.detach() - eps**2 / 2 * slope / temperature + eps * normal(x, generator)
        x = x if cut is None else x.clamp(-cut, cut)
        if tick is not None:
            tick()
    return x


@dataclass
class EnergyRun:
    """A trained energy and its history: "data", "samples" (mean energies) and "gap", per update.

    ``diverged`` is the update at which training was stopped, or None.
    """

    model: Energy
    history: dict[str, list[float]] = field(default_factory=dict)
    diverged: int | None = None


@gradients
def train_energy(
    model: Energy,
    images: Tensor,
    *,
    updates: int = 700,
    batch_size: int = 64,
    lr: float = 1e-4,
    steps: int = 20,
    noise: float = 0.015,
    regulariser: float = 1.0,
    bank_size: int = 2048,
    rejuvenate: float = 0.05,
    limit: float = 1e3,
    seed: int = 0,
    progress: bool = True,
) -> EnergyRun:
    """Train ``model`` in place on ``images`` ``[N, C, H, W]`` in [0, 1]: data down, samples up.

    The loss is mean E(data + noise) - mean E(samples) + ``regulariser`` (mean E(data)^2 + mean
    E(samples)^2). The samples come from a bank that starts as data; each update walks a batch of it
    by ``steps`` of Langevin and puts it back, after a share ``rejuvenate`` began anew from data.
    Where the gap of the two energies passes ``limit``, or is no number, training stops with a
    ``RuntimeWarning``, ``run.diverged`` says when, and ``purify`` will refuse the model.
    """
    check_images(images)
    _check(updates, batch_size, bank_size, rejuvenate, regulariser)
    number(lr, "lr", 0), number(noise, "noise", 0), number(limit, "limit", 0)
    device = images.device
    draw = seeded(seed, device)
    data = to_signed(images)
    bank = data[_some(len(data), bank_size, draw)]
    model.to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    run = EnergyRun(model, {"data": [], "samples": [], "gap": []})
    bar = tqdm(range(1, updates + 1), desc="energy", unit="update", disable=not progress)
    for update in bar:
        real = data[_some(len(data), batch_size, draw)]
        try:
            samples = _walked(model, bank, data, batch_size, rejuvenate, steps, draw)
            down, up = model(real + noise * normal(real, draw)), model(samples)
        except Diverged:
            down = up = real.new_full((1,), math.nan)
        gap = _record(run, down, up, bar)
        if not abs(gap) <= limit:  # also true for NaN
            run.diverged, model.diverged = update, True
            warnings.warn(
                f"the energy diverged: the gap between data and samples is {gap:.3g} at update "
                f"{update} of {updates} (limit {limit:g}); lower lr or raise the regulariser",
                RuntimeWarning,
                stacklevel=3,
            )
            break
        loss = down.mean() - up.mean()
        loss = loss + regulariser * (down.square().mean() + up.square().mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    return run


def _walked(
    model: Energy,
    bank: Tensor,
    data: Tensor,
    count: int,
    rejuvenate: float,
    steps: int,
    draw: torch.Generator,
) -> Tensor:
    """``count`` images of the bank after ``steps`` of Langevin, some begun anew; put back there."""
    place = torch.randperm(len(bank), generator=draw, device=draw.device)[:count]
    fresh = torch.rand(len(place), generator=draw, device=draw.device) < rejuvenate
    again = data[_some(len(data), len(place), draw)]
    start = torch.where(fresh[:, None, None, None], again, bank[place])
    walk: dict[str, Any] = {"eps": model.eps, "temperature": model.temperature, "cut": CUT}
    bank[place] = samples = langevin(start, model, steps, generator=draw, **walk)
    return samples


def _record(run: EnergyRun, down: Tensor, up: Tensor, bar: tqdm) -> float:
    """Note the mean energies of data and samples; return their gap."""
    data, samples = (float(e.detach().mean()) for e in (down, up))
    for name, value in (("data", data), ("samples", samples), ("gap", data - samples)):
        run.history[name].append(value)
    bar.set_postfix(gap=f"{data - samples:.3g}", refresh=False)
    return data - samples


def _some(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """``wanted`` random positions below ``count``, with repetition."""
    return torch.randint(count, (wanted,), generator=generator, device=generator.device)


def _check(
    updates: int, batch_size: int, bank_size: int, rejuvenate: float, regulariser: float
) -> None:
    integer(updates, "updates", 1)
    integer(bank_size, "bank_size", integer(batch_size, "batch_size", 1))
    number(rejuvenate, "rejuvenate", 0, 1)
    number(regulariser, "regulariser", 0)
