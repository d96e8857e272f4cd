"""The audit: every check in its order, one verdict, and what it rests on."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nclib import correction, models, training
from nclib.activations import logits
from nclib.audit import looks
from nclib.audit.named import named
from nclib.audit.progress import FILES, Progress
from nclib.audit.reading import Reading, look, read
from nclib.audit.sources import Source, source
from nclib.audit.stopping import Stopped, stoppable
from nclib.correction import Build, Finding, Planted, Verdict
from nclib.data import ImageSet
from nclib.detection.mislabelled import WrongLabels
from nclib.detection.transplant import strangers, turned
from nclib.device import pick
from nclib.doors import integer, numbers

FEWEST_WRONG = 0.01  # below this share, wrong labels are nobody's attack (``correction.verdict``)
STRANGE = (
    0.1  # a model knows the label of a group that it never met so seldom, beside random images
)
MOST = 7  # trainings that the transplant test needs at most, the victim's among them


class Suspect(NamedTuple):
    """A row of suspects.csv; ``at`` is the position in the source."""

    at: int
    suggested: str
    reason: str
    score: float
    key: str  # "file", "trigger", "group", "label", "twin"


def is_crowd(finding: Finding) -> bool:
    """Whether the group was found by what it looks like, and not by a transplant."""
    return finding.variety is not None


@dataclass
class Audit:
    """What was found in a set; ``None`` for a check that did not run."""

    source: Source
    options: dict[str, Any]
    reading: Reading | None = None
    labels: looks.Labels | None = None
    verdict: Verdict | None = None
    geometry: looks.Geometry | None = None
    planted: Planted | None = None
    on_model: dict[int, float] = field(default_factory=dict)  # label: share that the user's model
    accuracy: float | None = None  # gives it under the recovered trigger; its accuracy here
    stopped: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by check

    @property
    def data(self) -> ImageSet:
        """The sample that was trained on."""
        if self.reading is None or self.reading.train is None:
            raise ValueError("data: the audit was stopped before the images were read")
        return self.reading.train

    @property
    def wrong(self) -> WrongLabels | None:
        """The estimate of the wrong labels that counts."""
        mine = self.labels.wrong if self.labels else None
        if self.verdict is None:
            return mine
        theirs = self.verdict.wrong_labels
        told = mine is not None and mine.plain and mine.share >= FEWEST_WRONG
        own = self.options.get("features") or self.options.get("model")
        return mine if own and told else theirs

    @property
    def call(self) -> str:
        """ "clean", "wrong labels", "backdoor" or "cannot tell"."""
        wrong = self.wrong
        mislabelled = wrong is not None and wrong.plain and wrong.share >= FEWEST_WRONG
        if self.verdict is None:
            return "wrong labels" if mislabelled else "cannot tell"
        if self.verdict.call in ("clean", "cannot tell") and mislabelled:
            return "wrong labels" if self.verdict.call == "clean" else "cannot tell"
        return "cannot tell" if self.verdict.call == "clean" and self.strange else self.verdict.call

    @property
    def strange(self) -> list[Finding]:
        """Groups that turn nobody, and whose label no model gives that never met them.

        Of 12 groups of poison that no picture gives away 8 are so, and 1 of 258 honest ones; of
        those that the cut was not chosen on 4 of 5 and none of 175
        (``data/results/transplant_groups.csv``).
        """
        sizes = self.data.labels.bincount().tolist() if self.verdict else []
        return [
            f
            for f in (self.verdict.findings if self.verdict else ())
            if f.call != "backdoor" and f.keeps <= STRANGE * f.keeps_control
            if 2 * int(f.group.sum()) <= sizes[f.label]
        ]

    @property
    def exit_code(self) -> int:
        """0: nothing found; 1: something is suspicious, or nobody can tell."""
        return int(self.call != "clean" or bool(self.suspects))

    @property
    def suspects(self) -> list[Suspect]:
        """Every image that should be looked at, or go: one row each, the gravest first."""
        rows: dict[int, Suspect] = {}
        for row in (*self._triggers(), *self._labels(), *self._groups(), *self._files()):
            rows.setdefault(row.at, row)
        return list(rows.values())

    def _triggers(self) -> list[Suspect]:
        if self.verdict is None or self.verdict.call != "backdoor":
            return []
        found = []
        for finding in self.verdict.findings:
            if finding.call != "backdoor":
                continue
            name, score = self.data.classes[finding.label], finding.success - finding.without
            why = (
                f"carries what turns {finding.success:.0%} of other classes into {name}, and "
                f"{finding.without:.0%} once its group is gone"
            )
            if is_crowd(finding):
                score = 1 - finding.keeps
                why = f"one of a group in {name} that looks like images of all other classes"
            at = self.reading.index[finding.group].tolist() if self.reading else []
            found += [Suspect(i, "", why, round(score, 3), "trigger") for i in at]
        return found

    def _groups(self) -> list[Suspect]:
        found = []
        for f in self.strange:
            count, name = int(f.group.sum()), self.data.classes[f.label]
            why = f"one of {count} images alike that no model takes for {name} that never met them"
            at = self.reading.index[f.group].tolist() if self.reading else []
            found += [Suspect(i, "", why, round(1 - f.keeps, 3), "group") for i in at]
        return found

    def _labels(self) -> list[Suspect]:
        wrong = self.wrong
        if wrong is None or not wrong.plain or wrong.share < FEWEST_WRONG or self.labels is None:
            return []
        if self.call == "cannot tell":
            return []
        rows = [self.doubt(i) for i in wrong.mask.nonzero().flatten().tolist()]
        return sorted(rows, key=lambda row: -row.score)

    def doubt(self, i: int) -> Suspect:
        """What speaks against the label of the sample's image ``i``."""
        assert self.labels is not None and self.reading is not None
        name = self.data.classes[int(self.labels.other[i])]
        margin = float(self.labels.margin[i])
        second = "agrees" if float(self.labels.confident[i]) > 0 else "does not agree"
        why = f"looks like {name} to models that never met it; confident learning {second}"
        return Suspect(int(self.reading.index[i]), name, why, round(margin, 3), "label")

    def _files(self) -> list[Suspect]:
        if self.reading is None:
            return []
        broken = [
            Suspect(i, "", f"cannot be read: {why}", 1.0, "file")
            for i, why in self.reading.broken.items()
        ]
        twins = []
        for first, second, likeness, kind in self.reading.twins:
            if kind == "copy":
                continue
            same = "the same picture" if likeness == 1 else "nearly the same picture"
            for one, two in ((first, second), (second, first)):
                other = self.source.classes[self.source.labels[two]]
                where = " of the test part" if self.source.is_test[two] else ""
                why = f"{same} as {self.source.names[two]}{where}, labelled {other}"
                twins.append(Suspect(one, "", why, likeness, "twin"))
        return broken + sorted(twins, key=lambda row: -row.score)

    def doubtful(self, count: int = 30) -> list[Suspect]:
        """The worst images, suspects first, then the most doubtful labels."""
        rows = {row.at: row for row in self.suspects}
        if self.labels is not None:
            doubts = self.labels.margin.argsort(descending=True)[:count].tolist()
            for row in map(self.doubt, (i for i in doubts if self.labels.margin[i] > 0)):
                rows.setdefault(row.at, row._replace(key="doubt"))
        groups = ["trigger", "group", "label", "twin", "file", "doubt"]
        rest = sorted(rows.values(), key=lambda row: (groups.index(row.key), -row.score))
        return rest[:count]

    def show(self) -> Any:
        """The page as a display of the notebook, without widgets or scripts."""
        from IPython.display import HTML

        return HTML(self._repr_html_())

    def _repr_html_(self) -> str:
        from nclib.audit.page import body

        return body(self)

    def __repr__(self) -> str:
        from nclib.audit.page import sentence

        return f"Audit({self.source.name}: {sentence(self)})"

    def save(self, out: Path | str) -> Path:
        """Write report.html and suspects.csv into the folder ``out``; the page's path."""
        from nclib.audit.page import save

        return save(self, Path(out))


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
    progress: Progress,
) -> None:
    """Every check in its order; each writes what it found before the next begins."""
    given = audit.options
    epochs, seed, controls = given["epochs"], given["seed"], given["controls"]
    first = look(audit.source, given["size"], given["limit"])
    each = epochs * first.most
    trainings = {"labels": 1, "triggers": MOST, "controls": MOST * (2 * controls + 1)}
    progress.todo = {FILES: len(audit.source)} | {k: each * n for k, n in trainings.items()}
    if not controls:
        del progress.todo["controls"]
    # small steps: at .1 a small network of few images may still leap when the training ends
    batch = min(128, max(8, first.most // 40))
    options = {"epochs": epochs, "cache": True, "lr": 0.05, "batch_size": batch}
    progress.tried(True, first.seconds, len(first.images))
    if not progress.bar.disable:
        progress.tried(False, *_trial(build, first.images.to(device), batch))
    with progress(FILES):
        audit.reading = read(audit.source, first, seed, progress.tick)
    if audit.reading.stopped:
        raise Stopped
    data = audit.data.to(device)
    if isinstance(model, str):
        model = named(model, data, trained=True)
    with progress("labels"):
        early, late = looks.trained(data, progress.watched(build, each), epochs, seed)
        whose = "a fresh model at its end"
        if model is not None:
            early = late = looks.of_model(model.to(device), data)
            audit.accuracy, whose = training.accuracy(model, data), "your model"
        if features is not None:
            early = late = looks.of_file(features, audit.source, audit.reading.index)
            whose = "your features"
        audit.labels = looks.labels(early, data.labels)
    with progress("triggers"):
        watched = progress.watched(build, each)
        audit.verdict = correction.transplant(data, build=watched, seed=seed, **options)
        if model is not None:
            audit.on_model = _on_model(audit.verdict, model, data)
    with progress("geometry"):
        audit.geometry = looks.shape_of(late, data.labels, whose)
    if controls:
        left = data.subset(~audit.verdict.mask.to(device))
        with progress("controls"):
            try:
                audit.planted = correction.planted(
                    left, runs=controls, seed=seed, build=progress.watched(build, each), **options
                )
            except ValueError as error:  # too few images to plant in; the verdict stands
                audit.notes.append(f"controls could not be planted: {error}")


def _trial(build: Build, images: Tensor, count: int) -> tuple[float, int]:
    """The seconds of one step on ``count`` images, so that the first estimate is no guess."""
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
