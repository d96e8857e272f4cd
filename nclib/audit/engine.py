"""The audit: every check in its order."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import correction, models, training
from nclib.activations import logits
from nclib.audit import looks
from nclib.audit.named import named, package
from nclib.audit.progress import FILES, Progress
from nclib.audit.reading import look, read
from nclib.audit.shown import Audit
from nclib.audit.sources import source
from nclib.audit.stopping import Stopped, stoppable
from nclib.correction import Build, Verdict
from nclib.data import ImageSet
from nclib.detection.transplant import strangers, turned
from nclib.device import pick
from nclib.doors import integer, numbers


@numbers
def run(
    data: Any,
    labels: Any = None,
    *,
    model: nn.Module | str | None = None,
    build: Build | str = "cnn",
    features: Path | str | None = None,
    size: int | None = None,
    limit: int | None = None,
    controls: int = 0,
    epochs: int = 12,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Audit:
    """Ask of a labelled set of images whether its files, labels or triggers are poisoned.

    ``data`` is a folder with a folder per class (or train/ and test/ of these), a .csv of paths and
    labels, ``hf:NAME``, images ``[N, C, H, W]`` or ``[N, H, W(, C)]`` as a numpy array or tensor
    (uint8, or floats of [0, 1]) with ``labels`` ``[N]``, an ``ImageSet``, or a data set object of
    torchvision or Hugging Face. It is read and never changed. ``build`` is "cnn", "mlp",
    "resnet18", "timm:NAME", "hf:NAME" or ``f(part, seed)``, a fresh model; ``model`` your trained
    one, on images of this size, or such a name, and ``features`` a .npz of arrays ``[N, D]``:
    labels and geometry are then judged by these.
    ``size`` is the width in pixels (None: their own up to 64), ``limit`` how many images are
    trained on, ``controls`` in how many copies known poison is planted to count what is found
    there. Ctrl-C returns what is done; the same call goes on, because trainings are kept. Raises
    ``ValueError`` for what is no such set, and for fewer than two classes of five images.
    """
    integer(controls, "controls", 0)
    integer(epochs, "epochs", 2)
    if limit is not None:
        integer(limit, "limit", 10)
    if size is not None:
        integer(size, "size", 8)
    with warnings.catch_warnings(record=True) as said:  # of files that are left out, say
        warnings.simplefilter("always")
        found = source(data, labels)
    options: dict[str, Any] = {"size": size, "limit": limit, "controls": controls}
    options |= {"epochs": epochs, "seed": seed, "build": build}
    options |= {"model": model if isinstance(model, str) else model is not None}
    options |= {"features": str(features) if features else None}
    audit = Audit(found, options, notes=list(dict.fromkeys(str(w.message) for w in said)))
    try:
        with stoppable(), Progress(audit.seconds, progress) as bar:
            _checks(audit, _builder(build), model, features, pick(device), bar)
    except Stopped:
        audit.stopped = True
    return audit


def _builder(build: Build | str) -> Build:
    if not isinstance(build, str):
        return build
    if ":" in build:
        return lambda part, seed: named(build, part, trained=False, seed=seed)
    return lambda part, seed: models.build(build, part, seed=seed)


def _checks(
    audit: Audit,
    build: Build,
    model: nn.Module | str | None,
    features: Path | str | None,
    device: torch.device,
    bar: Progress,
) -> None:
    """Every check in its order; each writes what it found before the next begins."""
    seed, controls = audit.options["seed"], audit.options["controls"]
    first = look(audit.source, audit.options["size"], audit.options["limit"])
    steps = _steps(first.most, audit.options["epochs"])
    # what is missing is said before the files are read
    for name in (model, audit.options["build"]):
        if isinstance(name, str) and ":" in name:
            package(name)
    bar.plan(len(audit.source), first.most * steps["epochs"], controls)
    bar.tried(True, first.seconds, len(first.images))
    bar.tried(False, *_trial(build, first.images.to(device), steps["batch_size"]))
    with bar(FILES):
        audit.reading = read(audit.source, first, seed, bar.tick)
    if audit.reading.stopped:
        raise Stopped
    data = audit.data.to(device)
    if isinstance(model, str):
        model = named(model, data, trained=True)
    with bar("labels"):
        late, whose = _labels(audit, data, bar.watched(build), model, features)
    with bar("triggers"):
        watched = bar.watched(build)
        audit.verdict = correction.transplant(data, build=watched, seed=seed, **steps)
        if model is not None:
            audit.on_model = _on_model(audit.verdict, model, data)
    with bar("geometry"):
        audit.geometry = looks.shape_of(late, data.labels, whose)
    if controls:
        with bar("controls"):
            _plant(audit, data, bar.watched(build), steps)


def _steps(count: int, epochs: int) -> dict[str, Any]:
    """How the test of triggers trains on so many images; finished trainings are kept."""
    # small steps: at .1 a small network of few images may still leap when the training ends
    batch = min(128, max(8, count // 40))
    return {"epochs": epochs, "cache": True, "lr": 0.05, "batch_size": batch}


def _labels(
    audit: Audit,
    data: ImageSet,
    build: Build,
    model: nn.Module | None,
    features: Path | str | None,
) -> tuple[looks.Layers, str]:
    """Judge the labels; the features whose geometry is worth a look, and whose they are."""
    early, late = looks.trained(data, build, audit.options["epochs"], audit.options["seed"])
    whose = "a fresh model at its end"
    if model is not None:
        early = late = looks.of_model(model.to(data.device), data)
        audit.accuracy, whose = training.accuracy(model, data), "your model"
    if features is not None:
        assert audit.reading is not None
        early = late = looks.of_file(features, audit.source, audit.reading.index)
        whose = "your features"
    audit.labels = looks.labels(early, data.labels)
    return late, whose


def _plant(audit: Audit, data: ImageSet, build: Build, steps: dict[str, Any]) -> None:
    """Plant known poison beside what is accused, and count what is found of it."""
    assert audit.verdict is not None
    left, seed = data.subset(~audit.verdict.mask.to(data.device)), audit.options["seed"]
    runs = audit.options["controls"]
    try:
        audit.planted = correction.planted(left, runs=runs, seed=seed, build=build, **steps)
    except ValueError as error:  # too few images to plant in; the verdict stands
        audit.notes.append(f"controls could not be planted: {error}")


def _trial(build: Build, images: Tensor, count: int) -> tuple[float, int]:
    """The seconds of a step on ``count`` images: the first estimate is no guess, nor a builder."""
    images = images[torch.arange(max(2, count)) % len(images)]
    labels = torch.arange(len(images), device=images.device) % 2
    with torch.random.fork_rng():
        model = build(ImageSet(images, labels, ("a", "b"), "a trial"), 0)
        start = time.perf_counter()
        cross_entropy(logits(model.train()(images), model), labels).backward()
    return time.perf_counter() - start, len(images)


def _on_model(verdict: Verdict, model: nn.Module, data: ImageSet) -> dict[int, float]:
    """The share of other classes' images that the user's model gives the label of each trigger."""
    draw, shares = torch.Generator().manual_seed(0), {}
    for finding in verdict.findings:
        if finding.call == "backdoor":
            hosts = strangers(data.labels, finding.label, 360, draw).to(data.device)
            hits = turned(
                model, finding.added[None].to(data.device), data.images[hosts], finding.label
            )
            shares[finding.label] = float(hits.double().mean())
    return shares
