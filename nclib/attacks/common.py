"""What every attack needs: checked arguments, a model at rest, batches, losses, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nclib.activations import evaluating
from nclib.data import check_images, check_labels
from nclib.doors import finite, integer, seeded

Attack = Callable[..., Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Model = Callable[[Tensor], Tensor]
NORMS = ("Linf", "L2")
NO_MEMORY = ("out of memory", "allocate memory")  # as CUDA and MPS say it, as a CPU says it


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss that the model was trained on, per sample: ``[N, K]``, ``[N]`` -> ``[N]``."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best other logit minus the label's: ``[N, K]``, ``[N]`` -> ``[N]``; above 0 is an error.

    Carlini & Wagner 2017 (arXiv 1608.04644), f6. It has a slope where the softmax is flat.
    """
    index = labels[:, None]
    others = logits.scatter(1, index, -math.inf)
    return others.max(1).values - logits.gather(1, index).squeeze(1)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and frozen weights inside the ``with`` block; all is put back after it.

    Modes, ``requires_grad`` and buffers come back as they were, after an error too; gradients are
    never touched. Raises ``ValueError`` for anything but an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: got {type(model).__name__}; an nn.Module is needed")
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with evaluating(model):
            for weight, _ in weights:
                weight.requires_grad_(False)
            yield model
    finally:
        for weight, flag in weights:
            weight.requires_grad_(flag)
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)
                buffer.copy_(value)


@contextmanager
def prepared(
    model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None = None
) -> Iterator[tuple[Model, Tensor, Tensor, float]]:
    """Check the arguments and hold the model at rest; yields model, images, goal and sign.

    An untargeted attack climbs the loss of the labels (goal labels, sign +1); a targeted one
    descends the loss of the targets (goal targets, sign -1). What only the model's answer can tell
    is checked there: the number of classes at the first, that they are finite at every one.
    """
    check_images(images)
    for name, value in (("labels", labels), ("targets", targets)):
        if value is not None:
            _check_labels(value, images, name)
    with at_rest(model):
        answer = _Answers(model, labels, targets)
        goal = labels if targets is None else targets
        yield answer, images.detach(), goal, 1.0 if targets is None else -1.0
        if not answer.checked:
            with torch.no_grad():
                answer(images[:2])


def _check_labels(labels: Tensor, images: Tensor, name: str) -> None:
    check_labels(labels, len(images), 2**31, name)
    if labels.device != images.device:
        raise ValueError(f"{name}: on {labels.device}; the images are on {images.device}")


class _Answers:
    """The model, with a look at the logits that it returns: NaN would count as fooled."""

    def __init__(self, model: nn.Module, labels: Tensor, targets: Tensor | None) -> None:
        self.model, self.checked = model, False
        self.goals = {"labels": labels} | ({} if targets is None else {"targets": targets})

    def __call__(self, images: Tensor) -> Tensor:
        return finite(self.model(images) if self.checked else self.first(images), "logits")

    def first(self, images: Tensor) -> Tensor:
        try:
            logits = self.model(images)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in NO_MEMORY):
                raise  # a smaller batch_size helps, other images do not
            shape = tuple(images.shape)
            raise ValueError(
                f"images: the model cannot take {shape} on {images.device}: {error}"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"model: returned {got} for {len(images)} images; logits [N, K] are needed"
            )
        classes = logits.shape[1]
        if classes < 2:
            raise ValueError(f"model: returned {classes} logit; 2 or more are needed")
        for name, goal in self.goals.items():
            if goal.max() >= classes:
                raise ValueError(f"{name}: values run to {goal.max()}; 0..{classes - 1} is allowed")
        self.checked = True
        return logits


def check_eps(eps: float, norm: str = "Linf") -> None:
    """Refuse an unknown norm, and an eps that is negative, not finite or (Linf) above 1."""
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}; allowed are {NORMS}")
    top = 1 if norm == "Linf" else math.inf
    number = isinstance(eps, int | float) and not isinstance(eps, bool) and math.isfinite(eps)
    if not number or not 0 <= eps <= top:
        raise ValueError(
            f"eps: got {eps!r}; a number of image units (8/255, not 8) in [0, {top}] is allowed"
        )


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not finite and above 0."""
    for name, value in numbers.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: got {value!r}; a number above 0 is allowed")


def check_counts(**counts: int) -> None:
    """Refuse counts that are not integers of 1 or more."""
    for name, value in counts.items():
        integer(value, name, 1)


def source(generator: torch.Generator | None, seed: int) -> torch.Generator:
    """The generator given, else a new one on the CPU: a seed means the same on every device."""
    return generator if generator is not None else seeded(seed)


def uniform(generator: torch.Generator, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Numbers in [0, 1) of ``shape``, on the device of ``like``."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(
        like
    )


def signs(generator: torch.Generator, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """-1 or +1, each with one half, of ``shape``, on the device of ``like``."""
    return (uniform(generator, like, shape) < 0.5).float() * 2 - 1


def batched(function: Callable[..., Tensor], batch_size: int, *tensors: Tensor) -> Tensor:
    """``function`` of one batch after another, joined."""
    batches = zip(*(tensor.split(batch_size) for tensor in tensors), strict=True)
    return torch.cat([function(*batch) for batch in batches])


@torch.no_grad()
def margins(model: Model, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """``margin`` of the model at the images, ``[N]``; the model has to be at rest."""
    return batched(lambda x, y: margin(model(x), y), batch_size, images, labels)


def with_gradient(logits: Tensor) -> Tensor:
    """The logits, which must depend on the images by differentiable steps (else ``ValueError``)."""
    if not logits.requires_grad:
        raise ValueError("model: its output has no gradient at all; wrap it with bpda")
    return logits


def input_gradient(
    model: Model, images: Tensor, labels: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Gradient of each sample's loss at its image, ``[N, C, H, W]``, and the logits ``[N, K]``.

    NaN becomes 0. Raises ``ValueError`` for a model without any gradient.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = with_gradient(model(images))
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), images)
    return gradient.nan_to_num_(), logits.detach()
