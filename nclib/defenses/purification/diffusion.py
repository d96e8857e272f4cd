"""A denoising diffusion model trained on low noise only, to wash images rather than to invent them.

DDPM (Ho, Jain and Abbeel 2020, arXiv 2006.11239), trained for t <= ``t_max`` as in PureGen (Bhat et
al. 2024, arXiv 2405.18627), section 3.2: purification never starts from pure noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss, pixel_shuffle, pixel_unshuffle
from tqdm.auto import tqdm

from nclib.data import check_images
from nclib.defenses.purification.noise import Diverged, Generators, normal, to_signed
from nclib.doors import finite, gradients, integer, number, numbers, seed32, seeded

LEVELS = 1000  # noise levels of the whole schedule: beta rises linearly from 1e-4 to 0.02
TIME = 32  # numbers that tell a network the time


class Diffusion(nn.Module):
    """The noise in images ``x`` ``[N, C, H, W]`` (scale [-1, 1]) at the noise levels ``t`` ``[N]``.

    ``net(x, t)`` gives that noise, in the shape of x; any such module will do. ``t`` runs from 1 to
    ``t_max``. ``alpha_bar[t]`` is the share of the image's variance that is left at t.
    """

    beta: Tensor
    alpha_bar: Tensor

    def __init__(self, net: nn.Module, t_max: int = 250) -> None:
        super().__init__()
        if not 1 <= t_max <= LEVELS:
            raise ValueError(f"t_max: got {t_max}; 1 to {LEVELS} is allowed")
        self.net, self.t_max = net, t_max
        self.recipe: dict[str, Any] = {}
        beta = torch.cat([torch.zeros(1), torch.linspace(1e-4, 0.02, LEVELS)])  # beta[0]: no noise
        self.register_buffer("beta", beta, persistent=False)
        alpha_bar = (1 - beta.double()).cumprod(0).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t)


@gradients
def build_diffusion(
    shape: tuple[int, int, int],
    *,
    seed: int = 0,
    width: int = 32,
    t_max: int = 250,
    patch: int = 1,
) -> Diffusion:
    """An untrained U-Net of two levels for images like ``shape``, of any height and width.

    It sees ``patch`` x ``patch`` pixels as one, with that many channels: 2 makes it four times as
    fast, for sides that 2 divides.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed32(seed))
        net = SmallUNet(shape[0], width, patch)
    model = Diffusion(net, t_max)
    model.recipe = {"shape": list(shape), "width": width, "t_max": t_max, "patch": patch}
    return model


def embed(t: Tensor) -> Tensor:
    """Sines and cosines of the time ``[N]`` at ``TIME / 2`` frequencies each: ``[N, TIME]``."""
    rates = torch.exp(-math.log(1e4) * torch.arange(TIME // 2, device=t.device) / (TIME // 2))
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Stage(nn.Module):
    """Two 3x3 convolutions; the time enters between them, the input comes back at the end."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.time = nn.Linear(TIME, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(min(8, outputs), outputs)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.first(x)
        hidden = self.act(self.norm(x) + self.time(time)[:, :, None, None])
        return x + self.act(self.second(hidden))


class SmallUNet(nn.Module):
    """Down to half the size and up again, with a bridge at full size: a U-Net of two levels."""

    def __init__(self, channels: int, width: int, patch: int = 1) -> None:
        super().__init__()
        self.patch, channels = patch, channels * patch**2
        self.start, self.down = Stage(channels, width), Stage(width, 2 * width, stride=2)
        self.up = Stage(3 * width, width)
        self.end = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = embed(t)
        fine = self.start(pixel_unshuffle(x, self.patch), time)
        coarse = interpolate(self.down(fine, time), size=fine.shape[2:], mode="nearest")
        guess = self.end(self.up(torch.cat([fine, coarse], 1), time))
        return pixel_shuffle(guess, self.patch)


def noised(x: Tensor, model: Diffusion, t: Tensor | int, noise: Tensor) -> Tensor:
    """The forward process: sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise, ``t`` ``[N]`` or one.

    Exactly ``x`` at t = 0.
    """
    alpha_bar = model.alpha_bar[t].reshape(-1, 1, 1, 1)
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise


@numbers
@torch.no_grad()
def reverse(
    x: Tensor,
    model: Diffusion,
    t: int,
    *,
    generator: Generators,
    tick: Callable[[], object] | None = None,
) -> Tensor:
    """The ancestral reverse from noise level ``t`` down to 0, in t steps; ``x`` in [-1, 1] scale.

    Each step removes the share of the predicted noise that the schedule added, and adds fresh noise
    of the posterior's variance; the last adds none. Raises ``Diverged`` when the prediction is not
    finite.
    """
    check_time(t, model)
    finite(x, "x")
    beta, alpha_bar = model.beta.tolist(), model.alpha_bar.tolist()
    for s in range(t, 0, -1):
        guess = model(x, torch.full((len(x),), s, device=x.device))
        if not guess.isfinite().all():
            raise Diverged(f"model: the predicted noise at t = {s} is not finite")
        x = (x - beta[s] / math.sqrt(1 - alpha_bar[s]) * guess) / math.sqrt(1 - beta[s])
        spread = beta[s] * (1 - alpha_bar[s - 1]) / (1 - alpha_bar[s])
        if s > 1:
            x = x + math.sqrt(spread) * normal(x, generator)
        if tick is not None:
            tick()
    return x


def check_time(t: int, model: Diffusion) -> None:
    """Refuse a noise level outside 0 .. ``model.t_max`` with a ``ValueError``."""
    integer(t, "t", 0, model.t_max)


@dataclass
class DiffusionRun:
    """A trained diffusion model and its history: "loss", the mean squared error per update."""

    model: Diffusion
    history: dict[str, list[float]] = field(default_factory=dict)


@gradients
def train_diffusion(
    model: Diffusion,
    images: Tensor,
    *,
    updates: int = 3000,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> DiffusionRun:
    """Train ``model`` in place on ``images`` ``[N, C, H, W]`` in [0, 1] to tell the noise in them.

    Adam from ``lr`` to 0 (cosine), on the mean squared error at levels drawn from 1 .. ``t_max``.
    Raises ``Diverged``, a ``ValueError``, when the loss is not finite.
    """
    check_images(images)
    integer(updates, "updates", 1)
    integer(batch_size, "batch_size", 1)
    number(lr, "lr", 0)
    device = images.device
    draw = seeded(seed, device)
    data, run = to_signed(images), DiffusionRun(model, {"loss": []})
    model.to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    bar = tqdm(range(1, updates + 1), desc="diffusion", unit="update", disable=not progress)
    for update in bar:
        real = data[torch.randint(len(data), (batch_size,), generator=draw, device=device)]
        t = torch.randint(1, model.t_max + 1, (batch_size,), generator=draw, device=device)
        noise = normal(real, draw)
        loss = mse_loss(model(noised(real, model, t, noise), t), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            model.eval()
            raise Diverged(f"the loss became {value} at update {update} of {updates}; lower lr")
        run.history["loss"].append(value)
        bar.set_postfix(loss=f"{value:.4f}", refresh=False)
    model.eval()
    return run
