"""How robust a model is: its accuracy under each of several attacks, and under all of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.attacks.common import Attack, check_eps, margins, prepared
from nclib.doors import gradients, plain

WORST = "worst case"


@gradients
def robustness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, Attack],
    eps: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3),
    *,
    batch_size: int = 512,
    progress: bool = False,
) -> pd.DataFrame:
    """Accuracy under each attack at each eps: one row each, columns attack, eps, accuracy.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``. ``attacks`` maps a name
    to ``f(model, images, labels, eps)``, whatever it calls its eps; set further arguments with
    ``functools.partial``. An attack without an eps, such as ``cw_l2``, runs once and breaks the
    images whose L2 distance is eps or less. With several attacks the rows "worst case" count an
    image that any of them breaks. eps 0 is the clean accuracy. Raises ``ValueError`` for arguments
    that do not fit.
    """
    if not attacks or not all(callable(attack) for attack in attacks.values()):
        raise ValueError(f"attacks: got {attacks!r}; a dict of names and functions is needed")
    eps = [plain(value) for value in eps]
    for value in eps:
        check_eps(value, "L2")  # the attack knows its own norm, and checks again
    clean = holds(model, images, labels, batch_size)
    rows, worst = [], dict.fromkeys(eps, clean)
    bar = tqdm(total=len(attacks) * len(eps), desc="attacks", disable=not progress)
    for name, attack in attacks.items():
        aim = _aimed(attack)
        nearest = images if aim else _distance(attack, model, images, labels, batch_size)
        for value in eps:
            if value == 0:
                right = clean
            elif aim is not None:
                right = holds(model, aim(model, images, labels, value), labels, batch_size)
            else:
                right = nearest > value
            worst[value] = worst[value] & right
            rows.append((name, float(value), mean(right)))
            bar.update()
    bar.close()
    if len(attacks) > 1:
        rows += [(WORST, float(value), mean(held)) for value, held in worst.items()]
    return pd.DataFrame(rows, columns=["attack", "eps", "accuracy"])


def mean(flags: Tensor) -> float:
    """The share of a mask that is true."""
    return float(flags.float().mean())


def holds(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Which images the model still labels right: bool ``[N]``."""
    with prepared(model, images, labels) as (net, images, labels, _):
        return margins(net, images, labels, batch_size) <= 0


def _aimed(attack: Attack) -> Attack | None:
    """``f(model, images, labels, eps)`` of an attack, or None for one that has no eps."""
    try:
        parameters = list(inspect.signature(attack).parameters.values())
    except (TypeError, ValueError):  # compiled code has no signature
        return attack
    kinds = {p.name: p.kind for p in parameters}
    for name in {"eps", "epsilon"} & set(kinds):
        if kinds[name] is not inspect.Parameter.POSITIONAL_ONLY:
            return lambda model, images, labels, eps: attack(model, images, labels, **{name: eps})
    fourth = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY][3:4]
    spread = inspect.Parameter.VAR_POSITIONAL in kinds.values() and not fourth
    return attack if spread or (fourth and fourth[0].default is inspect.Parameter.empty) else None


def _distance(
    attack: Attack, model: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> Tensor:
    """L2 distance at which the attack breaks each image, ``[N]``; infinite where it does not."""
    attacked = attack(model, images, labels)
    far = (attacked - images).flatten(1).norm(dim=1)
    right = holds(model, attacked, labels, batch_size)
    return torch.where(right, torch.inf, far)
