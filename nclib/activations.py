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
    """The layers worth looking at, shallow to deep: ``model.layer_names``, else its children."""
    if hasattr(model, "layer_names"):
        return tuple(model.layer_names)
    last = classifier(model)[0].split(".")[0]
    return tuple(name for name, _ in model.named_children() if name != last)


@contextmanager
def tap(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the raw output of each layer of every forward pass inside the ``with`` block.

    Yields a dict that the latest forward pass fills; gradients are kept. The hooks go when the
    block ends. Raises ``ValueError`` for a layer that the model does not have.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules and name != PENULTIMATE]
    if unknown:
        allowed = [*filter(None, modules), PENULTIMATE]
        raise ValueError(f"layers: got {unknown}; allowed are {allowed}")
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name in layers:
            if name == PENULTIMATE:
                hook = classifier(model)[1].register_forward_pre_hook(
                    lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
                )
            else:
                hook = modules[name].register_forward_hook(
                    lambda _, __, output, name=name: seen.__setitem__(name, output)
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
    """
    if activation.ndim <= 2 or pool == "flat":
        return activation.flatten(1)
    if activation.ndim != 4:
        raise ValueError(
            f"activation: got {tuple(activation.shape)}; [N, D] or [N, C, H, W] is allowed"
        )
    if pool == "gap":
        return activation.mean((2, 3))
    if isinstance(pool, int) and pool > 0:
        return adaptive_avg_pool2d(activation, pool).flatten(1)
    raise ValueError(f"pool: got {pool!r}; 'gap', 'flat' or a grid size is allowed")


def stream(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    *,
    pool: str | int = "gap",
    batch_size: int = 512,
) -> Iterator[dict[str, Tensor]]:
    """Yield the features of one batch after another: ``{layer: [batch, D]}``.

    No gradients, evaluation mode; the model's mode is restored. ``layers=None`` means all of
    ``layer_names(model)``. Raises ``ValueError`` for unknown layers or a bad ``pool``.
    """
    layers = layer_names(model) if layers is None else tuple(layers)
    with evaluating(model), torch.no_grad(), tap(model, layers) as seen:
        for batch in images.split(batch_size):
            model(batch)
            yield {name: pooled(seen[name], pool) for name in layers}


def features(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    *,
    pool: str | int = "gap",
    batch_size: int = 512,
) -> dict[str, Tensor]:
    """All features at once: ``{layer: [N, D]}`` on the images' device; see ``stream``."""
    batches = list(stream(model, images, layers, pool=pool, batch_size=batch_size))
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
