"""Features per named layer, and the classifier behind them, taken by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from nclib.activations.hooks import as_written, attach, evaluating, modules_of
from nclib.activations.layouts import channels, check_rows, one_tensor, pooled
from nclib.doors import integer, numbers

PENULTIMATE = "penultimate"


def classifier(model: nn.Module, images: Tensor | None = None) -> tuple[str, nn.Linear]:
    """Name and module of the ``nn.Linear`` whose output is the model's, on a few of ``images``.

    ``images`` ``[N, C, H, W]``; a softmax may follow the layer. Raises ``ValueError`` where there
    is none, and without ``images`` where there are several: which it is shows when the model runs.
    """
    if images is None:
        linears = _linears(model)
        if len(linears) > 1:
            raise ValueError(
                f"images: got None, and {type(model).__name__} has {len(linears)} linear layers; "
                "which is the classifier shows when it runs: pass a few images"
            )
        return next(iter(linears.items()))
    with evaluating(model), torch.no_grad(), tap(model, [PENULTIMATE]) as seen:
        model(images[:2])
    return seen.classifier, _linears(model)[seen.classifier]


def replaceable(model: nn.Module, images: Tensor) -> nn.Linear:
    """The classifier, to be given other weights.

    Raises ``ValueError`` where there is none, and for one whose weight is computed from other
    parameters, as under weight normalisation: what is written there is lost at the next pass.
    """
    name, head = classifier(model, images)
    if "weight" not in dict(head.named_parameters(recurse=False)):
        raise ValueError(
            f"model: the weight of its classifier {name!r} is computed from other parameters; "
            "remove the parametrisation first (torch.nn.utils.parametrize)"
        )
    return head


def layer_names(model: nn.Module, images: Tensor | None = None) -> tuple[str, ...]:
    """The layers worth looking at, shallow to deep: ``model.layer_names``, else its children.

    Of the children, or what a list of modules holds, those that run on ``images``
    ``[N, C, H, W]``, in that order, up to the one that holds the classifier. Raises
    ``ValueError`` where none is left, as in a wrapped model, and where ``classifier`` does.
    """
    named = getattr(model, "layer_names", None)
    if named is not None:
        return tuple(named)
    modules = modules_of(model)
    if images is None:
        head, ran = classifier(model)[0], [name for name in modules if name and "." not in name]
    else:
        head, ran = _order(model, images)
    names = tuple(name for name in ran if not f"{head}.".startswith(f"{name}."))
    if not names:
        raise ValueError(
            f"model: {type(model).__name__} has no layers beside the classifier; name them, "
            f"out of {', '.join(filter(None, modules)) or 'none'}"
        )
    return names


class Seen(dict[str, Tensor]):
    """What ``tap`` recorded; asked for a layer that did not run, it says so by name."""

    classifier = ""  # the name of the latest pass's classifier, where "penultimate" is tapped

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(
            f"layers: {name!r} did not run: no forward pass of the model has called this module"
        )


@contextmanager
def tap(model: nn.Module, layers: Sequence[str]) -> Iterator[Seen]:
    """Record the raw output of each layer of every forward pass inside the ``with`` block.

    Yields a dict that the latest forward pass of this thread fills. What it holds is a copy that no
    later operation in place reaches; the rest of the network is computed from it, so gradients pass
    through. A layer that runs several times in one pass is recorded the last time; "" is the model,
    its logits. A compiled model runs as written inside the block. The hooks go when it ends. Raises
    ``ValueError`` for a layer that the model does not have, that returns anything but one tensor,
    or, when asked for, that did not run.
    """
    modules, seen = modules_of(model), Seen()
    named = {name: name.replace("_orig_mod.", "") for name in layers if name != PENULTIMATE}
    unknown = [name for name, plain in named.items() if plain not in modules]
    if unknown:
        raise ValueError(
            f"layers: got {unknown}; allowed are {[*filter(None, modules), PENULTIMATE]}"
        )

    def record(name: str, value: Tensor) -> Tensor | None:
        seen[name] = value.clone()
        return seen[name].clone() if torch.is_grad_enabled() else None

    def output(name: str, value: object) -> Tensor | None:
        if name == "" and not isinstance(value, Tensor):  # replacing it would lose the rest
            seen[name] = logits(value, model).clone()
            return None
        return record(name, one_tensor(name, value))

    with ExitStack() as stack:
        if set(layers) - {""}:
            stack.enter_context(as_written(model))
        attach(stack, model.register_forward_pre_hook, lambda _, __: seen.clear())
        if PENULTIMATE in layers:
            _watch_classifier(stack, model, seen, record)
        for name, plain in named.items():
            hook = partial(lambda name, _, __, value: output(name, value), name)
            attach(stack, modules[plain].register_forward_hook, hook)
        yield seen


def logits(output: object, model: nn.Module) -> Tensor:
    """The tensor of logits in what ``model`` returned: itself, its ``.logits`` or ``["logits"]``.

    Raises ``ValueError`` for anything else.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    for value in (output, found):
        if isinstance(value, Tensor):
            return value
    raise ValueError(
        f"model: {type(model).__name__} returns a {type(output).__name__}; one tensor of logits, "
        "or an object with .logits, is needed"
    )


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    named = modules_of(model, shared=False)
    found = {name: module for name, module in named.items() if isinstance(module, nn.Linear)}
    if not found:
        raise ValueError(f"model: {type(model).__name__} has no nn.Linear to serve as classifier")
    return found


def _watch_classifier(stack: ExitStack, model: nn.Module, seen: Seen, record: Callable) -> None:
    """Record what enters the linear layer whose output turns out to be the model's."""
    linears = _linears(model)
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def before(name: str, given: tuple, named: dict) -> tuple[tuple, dict] | None:
        passed = record(PENULTIMATE, given[0] if given else named["input"])
        inputs[name] = seen.pop(PENULTIMATE)
        if passed is None:
            return None
        return ((passed, *given[1:]), named) if given else (given, {**named, "input": passed})

    def after(name: str, value: Tensor) -> None:
        outputs.pop(name, None)  # the latest comes last
        outputs[name] = value.detach().clone()

    def end(_: object, __: object, value: object) -> None:
        final = logits(value, model).detach()
        found = _same_answer(outputs, final)
        if not found:
            raise ValueError(
                f"model: no linear layer of {type(model).__name__} gives its output; those that "
                f"ran are {list(outputs) or 'none'}"
            )
        seen.classifier, seen[PENULTIMATE] = found[-1], inputs[found[-1]]
        inputs.clear()
        outputs.clear()

    for name, module in linears.items():
        register = partial(module.register_forward_pre_hook, with_kwargs=True)
        attach(stack, register, partial(lambda name, _, *given: before(name, *given), name))
        after_it = partial(lambda name, _, __, value: after(name, value), name)
        attach(stack, module.register_forward_hook, after_it)
    attach(stack, model.register_forward_hook, end)


def _same_answer(outputs: dict[str, Tensor], final: Tensor) -> list[str]:
    """The layers whose output is ``final``, or else becomes it by a log-softmax or a softmax."""
    rows = {k: v.cpu().double() for k, v in outputs.items() if v.shape == final.shape}
    final = final.cpu().double()
    close = partial(torch.allclose, rtol=1e-3, atol=1e-6, equal_nan=True)
    forms = (lambda z: z), (lambda z: z.log_softmax(-1)), (lambda z: z.softmax(-1))
    for form in forms:
        found = [name for name, z in rows.items() if close(form(z), final)]
        if found:
            return found
    return []


def _order(model: nn.Module, images: Tensor) -> tuple[str, list[str]]:
    """The classifier's name, and the outermost modules that run until it does, in that order."""
    ran: dict[str, None] = {}
    with ExitStack() as stack:
        for name, module in modules_of(model, shared=False).items():
            if name:
                note = partial(lambda name, *_: ran.setdefault(name), name)
                attach(stack, module.register_forward_hook, note)
        head = classifier(model, images)[0]
    outer = [name for name in ran if not any(name.startswith(f"{other}.") for other in ran)]
    holds = next(name for name in outer if f"{head}.".startswith(f"{name}."))
    return head, outer[: outer.index(holds) + 1]


@numbers
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
    ``layer_names(model, images)``; ``pool`` is as in ``pooled``. Whether a map's channels come
    second or last is read off the layers before and after it, else off the image's shape. Raises
    ``ValueError`` for a layer that ``tap`` refuses, one without a row per image or whose channels
    cannot be told, a bad ``pool`` and a ``batch_size`` below 1.
    """
    integer(batch_size, "batch_size", 1)
    layers = layer_names(model, images) if layers is None else tuple(dict.fromkeys(layers))
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    with (
        evaluating(model),
        torch.no_grad(),
        tap(model, layers) as seen,
        channels(model, layers) as channel_axis,
    ):
        for batch in images.split(batch_size):
            model(batch)
            for name in layers:
                check_rows(name, seen[name], len(batch))
                axis = None if pool == "flat" else channel_axis(name, seen[name], batch)
                rows[name].append(pooled(seen[name], pool, axis=axis))
    return {name: torch.cat(parts) for name, parts in rows.items()}


@numbers
def penultimate(model: nn.Module, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """The features that enter the classifier, ``[N, D]``, as ``features`` finds them."""
    return features(model, images, [PENULTIMATE], batch_size=batch_size)[PENULTIMATE]
