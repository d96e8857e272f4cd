"""Is a model's robustness real, or are only its gradients masked? A checklist."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.attacks.common import (
    batched,
    check_counts,
    check_eps,
    check_positive,
    cross_entropy,
    input_gradient,
    margins,
    prepared,
    source,
    uniform,
)
from nclib.attacks.gradient import fgsm, margin_pgd, pgd
from nclib.attacks.robustness import holds, mean
from nclib.attacks.square import square
from nclib.doors import gradients


@gradients
def masking_report(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    steps: int = 40,
    queries: int = 500,
    samples: int = 100,
    tolerance: float = 0.05,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Is the robustness of ``model`` real, or are only its gradients masked? Six checks, Linf.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``, ``eps`` in image units.
    One row per check: ``check`` (the warning sign), ``share`` (of all images, see ``means``) and
    ``flag`` (share above ``tolerance``). Any flag says that accuracy under PGD proves nothing;
    no flag is no proof either. ``steps`` of PGD, ``queries`` of the square attack, ``samples``
    random points. A model without any gradient is reported, not refused. Raises ``ValueError`` for
    other arguments that do not fit. Athalye et al. 2018 (arXiv 1802.00420), section 3.1; Carlini et
    al. 2019 (arXiv 1902.06705).
    """
    check_eps(eps)
    check_counts(steps=steps, queries=queries, samples=samples, batch_size=batch_size)
    check_positive(eps=eps, tolerance=tolerance)
    draw = source(generator, seed)

    zero = _zero_gradients(model, images, labels, batch_size)
    shared: dict[str, Any] = {"batch_size": batch_size}
    walk: dict[str, Any] = {"steps": steps, "generator": draw, **shared}
    jobs = {
        "one": lambda: fgsm(model, images, labels, eps, **shared),
        "many": lambda: pgd(model, images, labels, eps, **walk),
        "margin": lambda: margin_pgd(model, images, labels, eps, **walk),
        "free": lambda: pgd(model, images, labels, 1.0, **walk),
        "black box": lambda: square(
            model, images, labels, eps, queries=queries, generator=draw, **shared
        ),
    }
    held = {}
    for name, job in tqdm(jobs.items(), desc="checklist", disable=not progress):
        blind = zero is None and name != "black box"  # nothing to follow: the images stay
        attacked = images if blind else job()
        held[name] = holds(model, attacked, labels, batch_size)
    found = _random_finds(model, images, labels, held["many"], eps, samples, batch_size, draw)

    def lost(name: str) -> float:
        return mean(held["many"]) - mean(held[name])

    checks = [
        ("one step beats many", lost("one"), "accuracy under PGD minus under FGSM"),
        ("black box beats white box", lost("black box"), "accuracy under PGD minus under square"),
        ("unbounded eps does not reach 0", mean(held["free"]), "accuracy under PGD at eps 1"),
        ("random points find what gradients miss", mean(found), "held PGD, fell to random points"),
        ("zero gradients", 1.0 if zero is None else mean(zero), "loss gradient 0 in every pixel"),
        ("the margin beats the loss", lost("margin"), "accuracy under PGD minus under margin PGD"),
    ]
    rows = [(check, share, share > tolerance, means) for check, share, means in checks]
    return pd.DataFrame(rows, columns=["check", "share", "flag", "means"])


def _zero_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> Tensor | None:
    """Which images have no slope at all: bool ``[N]``, or None for a model without gradient."""

    def flat(x: Tensor, y: Tensor) -> Tensor:
        return (input_gradient(net, x, y, cross_entropy)[0] == 0).flatten(1).all(1)

    with prepared(model, images, labels) as (net, images, goal, _):
        try:
            return batched(flat, batch_size, images, goal)
        except ValueError as error:
            if "no gradient" not in str(error):
                raise
            return None


def _random_finds(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    held: Tensor,
    eps: float,
    samples: int,
    batch_size: int,
    draw: torch.Generator,
) -> Tensor:
    """Which of the images that ``held`` fall to a random point of the ball: bool ``[N]``."""
    found = torch.zeros_like(held)
    with prepared(model, images, labels) as (net, images, goal, _):
        for _ in range(samples):
            todo = (held & ~found).nonzero().squeeze(1)
            if not len(todo):
                break
            x, y = images[todo], goal[todo]
            noise = uniform(draw, x, x.shape) * 2 - 1
            score = margins(net, (x + eps * noise).clamp_(0, 1), y, batch_size)
            found[todo[score > 0]] = True
    return found
