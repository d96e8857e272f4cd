"""Where the channels of an activation stand, and one row per sample of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from nclib.activations.hooks import attach, modules_of
from nclib.doors import numbers


@numbers
def pooled(activation: Tensor, pool: str | int = "gap", *, axis: int | None = None) -> Tensor:
    """One row per sample, ``[N, D]``: maps and tokens lose their places; ``[N, D]`` stays.

    ``pool`` is "gap" (the average over all places: D = C), "flat" (every number) or, for maps, a
    grid size g (D = C g g). ``axis`` is that of the channels: 1 or -1; None takes maps as
    ``[N, C, H, W]`` and tokens as ``[N, T, D]``, a class token being one of them. Raises
    ``ValueError`` for any other ``pool``, ``axis``, or shape.
    """
    grid = isinstance(pool, int) and not isinstance(pool, bool) and pool > 0
    if pool not in ("gap", "flat") and not grid:
        raise ValueError(f"pool: got {pool!r}; 'gap', 'flat' or a grid size is allowed")
    if axis not in (None, 1, -1):
        raise ValueError(f"axis: got {axis!r}; 1, -1 or None is allowed")
    count = activation.ndim
    if count == 2 or (pool == "flat" and count > 2):
        return activation.flatten(1)
    if count not in (3, 4) or (grid and count == 3):
        raise ValueError(
            f"activation: got {tuple(activation.shape)} for pool {pool!r}; [N, D], [N, T, D] "
            "(not for a grid) or [N, C, H, W] is allowed"
        )
    activation = activation.movedim((1 if count == 4 else -1) if axis is None else axis, 1)
    if pool == "gap":
        return activation.mean(tuple(range(2, count)))
    return adaptive_avg_pool2d(activation, int(pool)).flatten(1)


def one_tensor(name: str, value: object) -> Tensor:
    """``value``, or the one tensor in a tuple of one."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Tensor):
        raise ValueError(
            f"layers: {name!r} returns a {type(value).__name__}; a layer that returns one tensor "
            "is needed"
        )
    return value


_POOLS = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
_SECOND = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    *(getattr(nn, f"{kind}{d}d") for kind in _POOLS for d in (1, 2)),
)
_POINTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


def _works_on(module: nn.Module) -> int | None:
    """The axis of the channels for a layer of this kind: 1, -1, or None where it does not say."""
    if isinstance(module, _SECOND):
        return 1
    per_token = isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 1
    own = type(module).forward in (nn.Linear.forward, nn.LayerNorm.forward, nn.RMSNorm.forward)
    return -1 if own and (per_token or isinstance(module, nn.Linear)) else None


@contextmanager
def channels(
    model: nn.Module, layers: Sequence[str]
) -> Iterator[Callable[[str, Tensor, Tensor], int | None]]:
    """``axis(layer, output, batch)``: where the channels are, after a pass inside the block.

    The layer that made the output or takes it in shows it: a convolution, a pooling or a batch
    normalisation has them second, a linear layer or a layer normalisation last. Else the latest of
    these whose output has this shape does, as in a residual block. For passes without gradients,
    where ``tap`` leaves each output the object that it is.
    """
    modules = modules_of(model)
    known: dict[str, int] = {}
    by_shape: dict[tuple[int, ...], int] = {}
    alike: dict[str, int | None] = {}
    outputs: dict[str, weakref.ref[Tensor]] = {}
    latest: tuple[weakref.ref[Tensor] | None, int] = (None, 1)

    def works(axis: int | None, given: tuple, value: object) -> None:
        nonlocal latest
        if axis is None:  # pointwise: what goes in comes out
            axis = latest[1] if latest[0] and given and latest[0]() is given[0] else None
        else:
            takes = [name for name, made in outputs.items() if given and made() is given[0]]
            known.update({name: axis for name in takes if name not in known})
        if axis is not None and isinstance(value, Tensor):
            latest = (weakref.ref(value), axis)
            by_shape[tuple(value.shape)] = axis

    def made(name: str, value: object) -> None:
        value = one_tensor(name, value)
        if latest[0] and latest[0]() is value:
            known.setdefault(name, latest[1])
        outputs[name] = weakref.ref(value)
        alike[name] = by_shape.get(tuple(value.shape))

    with ExitStack() as stack:
        for module in modules_of(model, shared=False).values():
            axis = _works_on(module)
            if axis is not None or type(module).__module__ in _POINTWISE:
                hook = partial(lambda axis, _, given, value: works(axis, given, value), axis)
                attach(stack, module.register_forward_hook, hook)
        for name in layers:
            tapped = modules.get(name.replace("_orig_mod.", ""))
            if name and tapped is not None:
                hook = partial(lambda name, _, __, value: made(name, value), name)
                attach(stack, tapped.register_forward_hook, hook)
        yield (
            lambda name, value, batch: (
                known.get(name) or _guess(name, value, batch, alike.get(name), by_shape)
            )
        )


def _guess(
    name: str, value: Tensor, batch: Tensor, alike: int | None, others: Mapping[tuple, int]
) -> int | None:
    """The axis that an output of the same shape has, ``alike``, unless that may be chance.

    Else None, the usual axis, unless something speaks against it: then a ``ValueError``.
    ``others`` are the axes of all shapes seen.
    """
    count = value.ndim
    cube = len(set(value.shape[1:])) == 1  # any order of the axes has this shape
    if count == 2 or (alike is not None and not cube):
        return alike
    if count == 3:
        doubt = alike == 1 or 1 in {axis for shape, axis in others.items() if len(shape) == 3}
    else:
        doubt = alike == -1 or (batch.ndim == 4 == count and _looks_last(value, *batch.shape[2:]))
    if doubt:
        raise ValueError(
            f"layers: {name!r} gives {tuple(value.shape)}, and no layer beside it says whether "
            "the channels are second or last; name another, or tap it and use pooled(axis=...)"
        )
    return None


def _looks_last(value: Tensor, high: int, wide: int) -> bool:
    """Whether the image's proportions, but for rounding, are those of axes 1, 2 and not 2, 3."""
    fits = [
        abs(value.shape[a] * wide - value.shape[a + 1] * high) < max(high, wide) for a in (1, 2)
    ]
    return fits == [True, False]


def check_rows(name: str, value: Tensor, count: int) -> None:
    """Refuse a layer that has not one row for each of ``count`` images."""
    if value.ndim < 2 or len(value) != count:
        raise ValueError(
            f"layers: {name!r} gives {tuple(value.shape)} for {count} images; a layer with one "
            "row per image, [N, ...], is needed"
        )
