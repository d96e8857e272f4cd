"""Exercises and predictions of lesson 13: a Langevin step, the noise, and what outlives it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nclib.course.exercises import close, exercise, expect, number, prediction, tensor, usual
from nclib.defenses import purification as pure
from nclib.defenses.purification.diffusion import noised


def _step(
    x: Tensor, energy: Callable[[Tensor], Tensor], eps: float, temperature: float, noise: Tensor
) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x)
    return x.detach() - eps**2 / 2 * slope / temperature + eps * noise


@exercise(
    "13.langevin_step",
    reference=_step,
    hints=(
        "x.detach().requires_grad_(), then torch.autograd.grad of energy(x).sum().",
        "Downhill: minus eps^2 / 2 times the gradient, divided by the temperature.",
        "The noise is multiplied by eps, not by eps^2.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(5, 1, 3, 3, generator=generator) for _ in range(2))
    before = x.clone()

    def energy(x: Tensor) -> Tensor:
        return x.pow(3).flatten(1).sum(1)

    found = tensor(answer(x, energy, 0.2, 0.5, noise), "the step").to(x.dtype)
    expect(torch.equal(x, before), "the images you were given have changed")
    drift, kick = 0.2**2 / 2 * 3 * x.square() / 0.5, 0.2 * noise  # the slope of x^3 is 3 x^2
    mistakes = {
        "you go up the energy; it should get lower": x + drift + kick,
        "the noise is missing": x - drift,
        "the temperature is missing": x - 0.5 * drift + kick,
        "the noise is multiplied by eps, not by eps^2": x - drift + 0.2 * kick,
        "the gradient is multiplied by eps^2 / 2, not by eps^2": x - 2 * drift + kick,
        "the gradient is multiplied by eps^2 / 2, not by eps / 2": x - drift / 0.2 + kick,
        "the gradient is that of a mean: sum the energies of the batch": x - drift / 5 + kick,
        "the noise is not divided by the temperature": x - drift + kick / 0.5,
    }
    usual(found, mistakes)
    close(found, x - drift + kick, "the step", atol=1e-5)
    # in the bowl x^2 / 2, at temperature 1, the walk settles near variance 1
    walk = torch.full((100, 1, 6, 6), 3.0)
    for _ in range(80):
        kick = torch.randn(walk.shape, generator=generator)
        moved = answer(walk, lambda x: x.square().flatten(1).sum(1) / 2, 0.5, 1.0, kick)
        walk = tensor(moved).float()
    expect(abs(float(walk.var()) - 1) < 0.2, "in the bowl x^2 / 2 the variance should come to 1")


def _noised(x: Tensor, beta: Tensor, t: int, noise: Tensor) -> Tensor:
    kept = (1 - beta[:t]).prod()
    return kept.sqrt() * x + (1 - kept).sqrt() * noise


def _mixed(x: Tensor, noise: Tensor, kept: float) -> Tensor:
    return kept**0.5 * x + (1 - kept) ** 0.5 * noise


@exercise(
    "13.noised",
    reference=_noised,
    hints=(
        "alpha_bar is the product of 1 - beta over the first t levels: beta[:t].",
        "The image is scaled by sqrt(alpha_bar), the noise by sqrt(1 - alpha_bar).",
    ),
)
def _(answer: Any) -> None:
    beta = torch.linspace(1e-4, 0.02, 1000)
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(4, 1, 2, 2, generator=generator) for _ in range(2))
    close(answer(x, beta, 0, noise), x, "at t = 0 the image is untouched: the result", atol=1e-6)
    found = tensor(answer(x, beta, 75, noise), "the image").float()
    exact = noised(x, pure.Diffusion(torch.nn.Identity()), 75, noise)
    kept = math.prod(1 - float(b) for b in beta[:75])
    less, more = kept / (1 - float(beta[74])), kept * (1 - float(beta[75]))
    summed = 1 - float(beta[:75].sum())
    usual(
        found,
        {
            "image and noise are scaled by square roots: their variances add up to 1": (
                kept * x + (1 - kept) * noise
            ),
            "that is one step; multiply 1 - beta over all levels up to t": (
                (1 - beta[74]).sqrt() * x + beta[74].sqrt() * noise
            ),
            "the noise is missing": exact - (1 - kept) ** 0.5 * noise,
            "image and noise have changed places": (1 - kept) ** 0.5 * x + kept**0.5 * noise,
            "one level too few: beta[:t] are the first t": _mixed(x, noise, less),
            "one level too many: beta[:t] are the first t": _mixed(x, noise, more),
            "multiply the 1 - beta; 1 minus their sum is only near it": _mixed(x, noise, summed),
            "the noise is scaled by sqrt(1 - alpha_bar)": kept**0.5 * x + noise,
        },
        atol=2e-5,
    )
    close(found, exact, "the image at t = 75", atol=1e-4)


number(
    "13.spread",
    0.15,
    0.156,
    reference=0.153,
    hints=(
        "With a flat energy a step only adds eps times a fresh standard normal number.",
        "Variances add: 150 eps^2. The standard deviation is its root.",
    ),
    why={
        1.875: "the deviations do not add up, the variances do: 150 eps^2",
        0.0234: "that is the variance; the deviation is its root",
        0.0125: "that is the noise of one step; there are 150",
        0.0766: "the noise of a step is eps, without a half",
        0.25: "that is the deviation of the diffusion at t = 75",
    },
)


@exercise(
    "13.best_contrast",
    reference=lambda pattern, sigma: pattern.norm() / sigma,
    hints=(
        "The filter w answers w.p on the pattern, and its answer to noise has the deviation "
        "sigma |w|. Divide.",
        "Cauchy and Schwarz: w.p is at most |w| |p|, and w = p reaches it. What is left?",
        "pattern.norm() / sigma.",
    ),
)
def _(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, sigma in (((1, 4, 4), 0.5), ((3, 16, 16), 0.2)):
        pattern = 0.1 * torch.randn(shape, generator=generator)
        found = float(tensor(answer(pattern, sigma), "the contrast"))
        length, pixels = float(pattern.norm()), pattern.numel()
        usual(
            torch.tensor(found),
            {
                "that is the square of the length: the deviation of the filter's answer grows with "
                "the length, too": length**2 / sigma,
                "that is one pixel's contrast; the filter adds up all of them": (
                    float(pattern.abs().mean()) / sigma
                ),
                "that is the best pixel alone; the filter adds up all of them": (
                    float(pattern.abs().max()) / sigma
                ),
                "that is the root of the mean square; the filter sums over the pixels": (
                    length / pixels**0.5 / sigma
                ),
                "sigma is a deviation, not a variance": length / sigma**2,
                "the deviations of the pixels do not add up, their variances do": (
                    float(pattern.square().sum()) / (sigma * float(pattern.abs().sum()))
                ),
                "the noise in the answer is sigma times the length of the filter": length,
            },
        )
        # an independent fact: the filter's answers to noise, with and without the pattern
        noise = sigma * torch.randn(4000, pixels, generator=generator)
        said = noise @ pattern.flatten()
        gap = float(((noise + pattern.flatten()) @ pattern.flatten()).mean() - said.mean())
        tried = gap / float(said.std())
        expect(
            abs(found / tried - 1) < 0.06,
            f"on 4,000 noisy images the filter w = p has a contrast of {tried:.3f}, "
            f"not {found:.3f}",
        )
        close(found, length / sigma, "the contrast")


prediction(
    "13.noise",
    "Noise of twice the wave's height on every training image: the success that is left.",
    above=0.4,
    usual={
        (None, 0.2): "each pixel of the wave drowns, but the network adds up three thousand of "
        "them",
        (0.2, 0.4): "the wave is the same in each poisoned image and the noise is not: averaging "
        "keeps the one and loses the other",
    },
)

prediction(
    "13.diverges",
    "Which of the two keeps an energy from diverging: a small learning rate, or the penalty?",
    reading="the learning rate",
    usual={
        "the penalty": "at a large learning rate the steps leap over what the penalty could hold",
        "both": "change one at a time, as in the table: one of them is enough here",
        "neither": "one row of the table stays finite",
    },
)
