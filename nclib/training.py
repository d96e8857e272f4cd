"""Training with a progress bar, per-epoch probes and a cache of finished runs."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler
from tqdm.auto import tqdm

from nclib import cache as kept
from nclib.activations import evaluating, logits, tap
from nclib.data import ImageSet
from nclib.doors import finite, gradients, integer, number, numbers, plain, seed32, seeded

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Probe = Callable[[nn.Module], Any]
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass
class Run:
    """A trained model and how it got there.

    ``history`` has "epoch", "loss" and "accuracy" (both over the epoch, while training), and for
    each probe a column; "probe_epoch" says when the probes looked. A column is a list of floats, or
    one tensor ``[times, ...]`` for a probe that returns tensors.
    """

    model: nn.Module
    history: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # wall time of the training, probes included
    cached: bool = False  # read from the cache instead of trained
    interrupted: bool = False  # stopped by ctrl-C; the model holds the weights of that moment


@gradients
def fit(
    model: nn.Module,
    train: ImageSet,
    *,
    epochs: int = 40,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-2,
    batch_size: int = 128,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[[float], float] | None = None,
    loss: Loss | None = None,
    targets: Tensor | None = None,
    augment: Augment | None = None,
    mirror: bool = False,
    probes: Mapping[str, Probe] | None = None,
    probe_at: Collection[int] | None = None,
    stop_after: int | None = None,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> Run:
    """Train ``model`` in place on ``train`` and return a ``Run``; cosine schedule from ``lr`` to 0.

    The default is SGD with Nesterov momentum; ``optimizer(parameters)`` replaces it (and then
    ``momentum``, ``weight_decay`` and ``lr`` are its own business); ``schedule(share)`` replaces
    the cosine: the factor of the rate after that share of all steps. ``loss(model, x, y)`` replaces
    the cross-entropy of ``model(x)``; ``targets`` ``[N, ...]`` replaces the labels as y;
    ``augment(x, generator)`` changes each batch; with ``mirror`` half of the images start mirrored,
    and each epoch mirrors all again. ``probes`` maps a name to ``f(model)``, called in evaluation
    mode without gradients after the epochs of ``probe_at`` (0 is before training; None is every
    epoch) and returning a number, a tensor or a dict of these (column "name/key").
    ``stop_after`` ends the training after so many epochs, on the schedule of all ``epochs``.

    ``seed`` fixes the order of the samples; what the model draws itself (dropout) comes from
    torch's global generator. The run is kept under the content of all these arguments, of the code
    behind them, and of that generator's state where it was drawn from, so the same call returns at
    once; ``cache=False`` trains anew. The model is left in evaluation mode. Arithmetic is float32
    whatever mode the caller is in: a ``loss`` that wants ``torch.autocast`` enters it itself. The
    history's "accuracy" is that of the last forward pass of each step: with a ``loss`` that attacks
    the images, on the attacked ones. Ctrl-C ends the training early with a
    warning and returns what there is. Raises ``ValueError`` for sizes that do not fit and for a
    loss that is no longer finite.
    """
    last = epochs if stop_after is None else stop_after
    _check(train, epochs, last, batch_size, targets)
    for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
        number(value, name, 0)
    seed = seed32(seed)
    probe_at = range(1, last + 1) if probe_at is None else sorted(set(map(plain, probe_at)))
    key = None
    if cache:
        hyper = [epochs, last, lr, momentum, weight_decay, batch_size, seed, list(probe_at)]
        hooks = [optimizer, schedule, loss, targets, augment, mirror, dict(probes or {})]
        data = [train.images, train.labels, train.device.type]
        try:
            key = kept.fingerprint(model, data, hyper, hooks)
        except ValueError as error:
            warnings.warn(f"this run is not kept: {error}", stacklevel=2)
    luck = kept.randomness(train.device)[0]
    if key is not None:
        for path in _places(key, luck):
            run = _restore(model, path)
            if run is not None:
                return run

    optimiser = (optimizer or _sgd(lr, momentum, weight_decay))(model.parameters())
    batches = -(-len(train) // batch_size)
    steps = epochs * batches
    pace: LRScheduler = CosineAnnealingLR(optimiser, steps)
    if schedule is not None:
        pace = LambdaLR(optimiser, lambda step: schedule(step / steps))
    trainer = _Epoch(
        train, targets, batches, optimiser, pace, loss or _cross_entropy, augment, mirror, seed
    )
    run, start = Run(model), time.perf_counter()
    try:
        _probe(run, probes, 0, probe_at)
        bar = tqdm(range(1, last + 1), desc="training", unit="epoch", disable=not progress)
        for epoch in bar:
            mean_loss, accuracy = trainer(model)
            for name, value in (("epoch", epoch), ("loss", mean_loss), ("accuracy", accuracy)):
                run.history.setdefault(name, []).append(value)
            _probe(run, probes, epoch, probe_at)
            bar.set_postfix(loss=f"{mean_loss:.4f}", accuracy=f"{accuracy:.4f}", refresh=False)
    except KeyboardInterrupt:
        run.interrupted = True
        warnings.warn(
            f"training stopped after {len(run.history.get('epoch', []))} epochs", stacklevel=3
        )
    finally:
        model.eval()
    run.seconds = time.perf_counter() - start
    run.history = {
        k: torch.stack(v) if isinstance(v[0], Tensor) else v for k, v in run.history.items()
    }
    if key is not None and not run.interrupted:
        after, states = kept.randomness(train.device)
        drawn = after != luck  # dropout, say: then the state before belongs to the key
        _keep(run, _places(key, luck)[drawn], states if drawn else {})
    return run


@numbers
def predict(model: nn.Module, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Logits ``[N, K]``, in evaluation mode and without gradients; the model's mode is restored.

    Raises ``ValueError`` for a ``batch_size`` below 1, and for images or logits that are not
    finite: NaN has no class, and an argmax would give it one.
    """
    integer(batch_size, "batch_size", 1)
    finite(images, "images")
    with evaluating(model), torch.no_grad():
        return finite(
            torch.cat([logits(model(part), model) for part in images.split(batch_size)]), "logits"
        )


def accuracy(model: nn.Module, data: ImageSet, images: Tensor | None = None) -> float:
    """Share of ``data`` that the model labels as ``data.labels`` does.

    ``images`` ``[N, C, H, W]`` take the place of ``data.images``: attacked ones, say. Raises
    ``ValueError`` where they are more or fewer.
    """
    images = data.images if images is None else images
    if len(images) != len(data):
        raise ValueError(f"images: got {len(images)}; {len(data)}, one per label, is needed")
    return float((predict(model, images).argmax(1) == data.labels).float().mean())


def _check(
    train: ImageSet, epochs: int, last: int, batch_size: int, targets: Tensor | None
) -> None:
    integer(epochs, "epochs", 1)
    integer(batch_size, "batch_size", 1)
    integer(last, "stop_after", 1, epochs)
    if targets is not None and len(finite(targets, "targets")) != len(train):
        raise ValueError(
            f"targets: got {len(targets)} rows for {len(train)} images; one each is needed"
        )


def _sgd(lr: float, momentum: float, weight_decay: float) -> Callable[..., torch.optim.Optimizer]:
    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        nesterov = momentum > 0
        return torch.optim.SGD(parameters, lr, momentum, 0, weight_decay, nesterov)

    return make


def _cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits(model(images), model), labels)


class _Epoch:
    """One pass over the data at each call; returns the mean loss and the running accuracy."""

    def __init__(
        self,
        train: ImageSet,
        targets: Tensor | None,
        batches: int,
        optimiser: torch.optim.Optimizer,
        schedule: LRScheduler,
        loss: Loss,
        augment: Augment | None,
        mirror: bool,
        seed: int,
    ) -> None:
        self.images = train.images.contiguous(memory_format=torch.channels_last)
        self.targets = train.labels if targets is None else targets.to(train.device)
        self.batches, self.optimiser, self.schedule = batches, optimiser, schedule
        self.loss, self.augment, self.fresh = loss, augment, True
        self.order = seeded(seed)  # on the CPU: the same order on any device
        self.noise = seeded(seed, train.device)
        self.mirror = mirror
        if mirror:
            shape = (len(train), 1, 1, 1)
            first = torch.rand(shape, device=train.device, generator=self.noise) < 0.5
            self.images = torch.where(first, self.images.flip(3), self.images)

    def __call__(self, model: nn.Module) -> tuple[float, float]:
        model.to(memory_format=torch.channels_last).train()
        total, right = torch.zeros(2, device=self.images.device)
        if self.mirror:
            self.images = self.images.flip(3)
        order = torch.randperm(len(self.images), generator=self.order).to(self.images.device)
        with tap(model, [""]) as seen:  # the logits of the latest pass: accuracy for free
            for index in self._parts(order):
                images, targets = self.images[index], self.targets[index]
                if self.augment is not None:
                    images = self.augment(images, self.noise)
                loss = self.loss(model, images, targets)
                if self.fresh or loss.device.type == "cpu":  # elsewhere a look at each would wait
                    _refuse(float(loss.detach()))  # before the weights are lost
                    self.fresh = False
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                self.schedule.step()
                total = total + loss.detach() * len(index)
                classes = targets if targets.dtype == torch.int64 else targets.argmax(1)
                right = right + (seen[""].argmax(1) == classes).sum()
        mean = float(total) / len(self.images)
        _refuse(mean)
        return mean, float(right) / len(self.images)

    def _parts(self, order: Tensor) -> tuple[Tensor, ...]:
        """Batches of the order; none of a single sample, which batch normalisation refuses."""
        parts = order.chunk(self.batches)
        if len(parts[-1]) == 1 < len(parts[0]):
            return order.tensor_split(min(len(parts), len(order) // 2))
        return parts


def _refuse(loss: float) -> None:
    if not math.isfinite(loss):
        raise ValueError(f"the loss became {loss}; lower lr, or check what loss and augment return")


def _probe(
    run: Run, probes: Mapping[str, Probe] | None, epoch: int, probe_at: Collection[int]
) -> None:
    """Record what each probe says now; a dict becomes one column per key."""
    if not probes or epoch not in probe_at:
        return
    run.history.setdefault("probe_epoch", []).append(epoch)
    with evaluating(run.model), torch.no_grad():
        for name, probe in probes.items():
            value = probe(run.model)
            columns: dict[str, Any] = (
                {f"{name}/{k}": v for k, v in value.items()}
                if isinstance(value, Mapping)
                else {name: value}
            )
            for column, entry in columns.items():
                entry = (
                    entry.detach().to("cpu", copy=True)
                    if isinstance(entry, Tensor)
                    else float(entry)
                )
                run.history.setdefault(column, []).append(entry)


def _places(key: str, luck: str) -> tuple[Path, Path]:
    """Where a run lies that drew nothing from the global generators, and one that did."""
    return (
        kept.cache_root() / f"{key}.safetensors",
        kept.cache_root() / f"{key}-{luck}.safetensors",
    )


def _keep(run: Run, path: Path, states: Mapping[str, Tensor]) -> None:
    tensors = {f"random/{k}": v for k, v in states.items()}
    tensors |= {f"model/{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"history/{k}": v for k, v in run.history.items() if isinstance(v, Tensor)}
    numbers = {k: v for k, v in run.history.items() if not isinstance(v, Tensor)}
    record = {"history": numbers, "order": list(run.history), "seconds": run.seconds}
    kept.save(path, tensors, record)


def _restore(model: nn.Module, path: Path) -> Run | None:
    """The run in the file; the global generators go on as if it had been trained now."""
    found = kept.load(path)
    if found is None:
        return None
    tensors, record = found
    columns: dict[str, list | Tensor] = {**_inside(tensors, "history/"), **record["history"]}
    model.load_state_dict(_inside(tensors, "model/"))
    model.eval()
    kept.restore(_inside(tensors, "random/"))
    history = {name: columns[name] for name in record["order"]}
    return Run(model, history, record["seconds"], cached=True)


def _inside(tensors: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    return {k.removeprefix(folder): v for k, v in tensors.items() if k.startswith(folder)}
