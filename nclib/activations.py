"""What a network computes on the way: features per named layer, taken by forward hooks.

Works on any ``nn.Module``. A layer is a name from ``model.named_modules()``, or "penultimate": the
tensor that enters the classifier, which is the last ``nn.Linear`` of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

PENULTIMATE = "penultimate"


def classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last ``nn.Linear``. Raises ``ValueError`` where there is none."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not found:
        raise ValueError(f"model: {type(model).__name__} has no nn.Linear to serve as classifier")
    return found[-1]


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """The layers worth looking at, shallow to deep: ``model.layer_names``, else its children.

    Raises ``ValueError`` where the classifier is in the only child, as in a wrapped model.
    """
    named = getattr(model, "layer_names", None)
    if named is not None:
        return tuple(named)
    last = classifier(model)[0].split(".")[0]
    names = tuple(name for name, _ in model.named_children() if name != last)
    if not names:
        known = ", ".join(name for name, _ in model.named_modules() if name)
        raise ValueError(
            f"model: {type(model).__name__} has no layers beside the classifier; name them, "
            f"out of {known or 'none'}"
        )
    return names


@contextmanager
def tap(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the raw output of each layer of every forward pass inside the ``with`` block.

    Yields a dict that the latest forward pass fills; gradients are kept. A copy is recorded where
    a later layer works in place, or no gradient is asked for. The hooks go when the block ends.
    Raises ``ValueError`` for a layer that the model does not have.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules and name != PENULTIMATE]
    if unknown:
        allowed = [*filter(None, modules), PENULTIMATE]
        raise ValueError(f"layers: got {unknown}; allowed are {allowed}")
    seen: dict[str, Tensor] = {}
    in_place = any(getattr(module, "inplace", False) for module in modules.values())

    def record(name: str, value: Tensor) -> None:
        copy = isinstance(value, Tensor) and (in_place or not torch.is_grad_enabled())
        seen[name] = value.clone() if copy else value

    with ExitStack() as stack:
        for name in layers:
            if name == PENULTIMATE:
                hook = classifier(model)[1].register_forward_pre_hook(
                    lambda _, inputs, name=name: record(name, inputs[0])
                )
            else:
                hook = modules[name].register_forward_hook(
                    lambda _, __, output, name=name: record(name, output)
                )
            stack.callback(hook.remove)
        yield seen


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the ``with`` block; every submodule gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def pooled(activation: Tensor, pool: str | int = "gap") -> Tensor:
    """One row per sample: ``[N, C, H, W]`` -> ``[N, D]``; ``[N, D]`` stays as it is.

    ``pool`` is "gap" (global average, D = C), "flat" (D = C H W) or a grid size g (D = C g g).
    Raises ``ValueError`` for any other, and for an activation of another shape.
    """
    grid = isinstance(pool, int) and not isinstance(pool, bool) and pool > 0
    if pool not in ("gap", "flat") and not grid:
        raise ValueError(f"pool: got {pool!r}; 'gap', 'flat' or a grid size is allowed")
    if activation.ndim <= 2 or pool == "flat":
        return activation.flatten(1)
    if activation.ndim != 4:
        raise ValueError(
            f"activation: got {tuple(activation.shape)}; [N, D] or [N, C, H, W] is allowed"
        )
    if pool == "gap":
        return activation.mean((2, 3))
    return adaptive_avg_pool2d(activation, int(pool)).flatten(1)


def features(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    *,
    pool: str | int = "gap",
    batch_size: int = 512,
) -> dict[str, Tensor]:
    """The features of ``images`` ``[N, C, H, W]``: ``{layer: [N, D]}`` on the images' device.

    No gradients, evaluation mode; the model's mode is restored. ``layers=None`` means all of
    ``layer_names(model)``; ``pool`` is as in ``pooled``. Raises ``ValueError`` for unknown layers,
    a bad ``pool`` and a ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; 1 or more is allowed")
    layers = layer_names(model) if layers is None else tuple(layers)
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    with evaluating(model), torch.no_grad(), tap(model, layers) as seen:
        for batch in images.split(batch_size):
            model(batch)
            for name in layers:
                rows[name].append(pooled(seen[name], pool))
    return {name: torch.cat(parts) for name, parts in rows.items()}


def penultimate(model: nn.Module, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """The features that enter the classifier, ``[N, D]``, as ``features`` finds them."""
    return features(model, images, [PENULTIMATE], batch_size=batch_size)[PENULTIMATE]
