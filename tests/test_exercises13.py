"""The checks of lesson 13 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib.course import verdict


def slope(x, energy):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x).sum(), x)[0]


def uphill(x, energy, eps, temperature, noise):
    return x + eps**2 / 2 * slope(x, energy) / temperature + eps * noise


def silent(x, energy, eps, temperature, noise):
    return x - eps**2 / 2 * slope(x, energy) / temperature


def without_temperature(x, energy, eps, temperature, noise):
    return x - eps**2 / 2 * slope(x, energy) + eps * noise


def small_noise(x, energy, eps, temperature, noise):
    return x - eps**2 / 2 * slope(x, energy) / temperature + eps**2 * noise


def without_half(x, energy, eps, temperature, noise):
    return x - eps**2 * slope(x, energy) / temperature + eps * noise


def in_place(x, energy, eps, temperature, noise):
    x -= eps**2 / 2 * slope(x, energy) / temperature - eps * noise
    return x


def gradient_of_the_mean(x, energy, eps, temperature, noise):
    return x - eps**2 / 2 * slope(x, lambda x: energy(x).mean()) / temperature + eps * noise


def without_roots(x, beta, t, noise):
    kept = (1 - beta[:t]).prod()
    return kept * x + (1 - kept) * noise


def one_step(x, beta, t, noise):
    return (1 - beta[t - 1]).sqrt() * x + beta[t - 1].sqrt() * noise if t else x


def no_noise(x, beta, t, noise):
    return (1 - beta[:t]).prod().sqrt() * x


def one_too_many(x, beta, t, noise):
    kept = (1 - beta[: t + 1]).prod()
    return kept.sqrt() * x + (1 - kept).sqrt() * noise


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("13.langevin_step", uphill, "up the energy"),
        ("13.langevin_step", silent, "noise is missing"),
        ("13.langevin_step", without_temperature, "temperature"),
        ("13.langevin_step", small_noise, "not by eps^2"),
        ("13.langevin_step", without_half, "eps^2 / 2"),
        ("13.langevin_step", in_place, "have changed"),
        ("13.langevin_step", gradient_of_the_mean, "that of a mean"),
        ("13.noised", without_roots, "square roots"),
        ("13.noised", one_step, "one step"),
        ("13.noised", no_noise, "noise is missing"),
        ("13.noised", one_too_many, "t = 0"),
        ("13.spread", 1.875, "do not add up"),
        ("13.spread", 0.0125, "one step"),
        ("13.best_contrast", lambda p, s: p.square().sum() / s, "square of the length"),
        ("13.best_contrast", lambda p, s: p.abs().mean() / s, "one pixel"),
        ("13.best_contrast", lambda p, s: p.abs().max() / s, "best pixel"),
        ("13.best_contrast", lambda p, s: p.square().mean().sqrt() / s, "mean square"),
        ("13.best_contrast", lambda p, s: p.norm() / s**2, "not a variance"),
        ("13.best_contrast", lambda p, s: p.norm(), "length of the filter"),
        ("13.best_contrast", lambda p, s: 3 * p.norm() / s, "on 4,000 noisy images"),
    ],
)
def test_wrong_answers_are_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message
