"""One bar for the whole audit: how much is done, and how long the rest may take at most."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from tqdm.auto import tqdm

from nclib.correction import Build
from nclib.correction.crowds import TRAININGS
from nclib.data import ImageSet

PATIENCE = 60  # seconds before an estimate is shown
OFTEN, SELDOM = 0.2, 30  # seconds between two looks at the bar; between two lines of a log
FILES = "files"  # the stage that reads; every other one trains
MOST = 1 + TRAININGS  # trainings that the transplant test needs at most


class Progress:
    """What is left, in images to be read and to be trained on, times what one has taken so far.

    A terminal and a notebook show a bar; a log gets a line where a stage begins, and now and then.
    """

    def __init__(self, seconds: dict[str, float], shown: bool) -> None:
        self.seconds = seconds  # wall time by stage: the page shows it
        self.todo: dict[str, float] = {}  # images at most, by stage
        self.each = 0  # images that a training goes through
        self.spent = {True: [0.0, 1e-9], False: [0.0, 1e-9]}  # reading?: seconds, images
        self.stage = ""
        self.model: nn.Module | None = None
        self.start = self.last = self.seen = time.perf_counter()
        self.log = shown and not (sys.stderr.isatty() or "ipykernel" in sys.modules)
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        hidden = self.log or not shown
        self.bar = tqdm(total=100, desc="audit", bar_format=form, disable=hidden)

    def plan(self, files: int, each: int, controls: int) -> None:
        """What is to do at most: files to read, and trainings on ``each`` images."""
        self.each = each
        trainings = {"labels": 1, "triggers": MOST, "controls": MOST * (2 * controls + 1)}
        self.todo = {FILES: float(files)} | {stage: each * n for stage, n in trainings.items()}
        if not controls:
            del self.todo["controls"]

    def left(self) -> float:
        """Seconds to go, at most."""
        pace = {kind: seconds / count for kind, (seconds, count) in self.spent.items()}
        return sum(images * pace[stage == FILES] for stage, images in self.todo.items())

    def tried(self, reading: bool, seconds: float, images: int) -> None:
        """A trial before the work: what so many images took."""
        self.spent[reading] = [seconds, images]

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Inside, ``tick`` counts for this stage; what it did not need is needed no more."""
        began = self.last = time.perf_counter()
        self.stage = stage
        self._show()
        hook = register_module_forward_pre_hook(self._met)
        try:
            yield
            self.todo[stage] = 0
            self.tick(0)
        finally:
            hook.remove()
            self.model = None
            self.seconds[stage] = round(time.perf_counter() - began, 1)

    def tick(self, images: int = 1) -> None:
        """So many images more are done."""
        now, spent = time.perf_counter(), self.spent[self.stage == FILES]
        spent[0], spent[1], self.last = spent[0] + now - self.last, spent[1] + images, now
        self.todo[self.stage] = max(0.0, self.todo.get(self.stage, 0) - images)
        if now - self.seen > (SELDOM if self.log else OFTEN):
            self._show()

    def _show(self) -> None:
        self.seen = time.perf_counter()
        left, past = self.left(), self.seen - self.start
        self.bar.n = max(self.bar.n, int(100 * past / (past + left)))
        rest = f"at most about {max(1, round(left / 60))} min to go" if past > PATIENCE else ""
        if self.log:
            told = f"audit, {self.stage}: {self.bar.n}%{rest and ', '}{rest}"
            print(told, file=sys.stderr, flush=True)
        self.bar.set_description(f"audit, {self.stage}", refresh=False)
        self.bar.set_postfix_str(rest, refresh=False)
        self.bar.refresh()

    def watched(self, build: Build) -> Build:
        """The same builder; with each training of its models there is so much less to do."""
        total, begun = self.todo[self.stage], 0

        def counted(part: ImageSet, seed: int) -> nn.Module:
            nonlocal begun
            self.todo[self.stage] = min(self.todo[self.stage], total - begun * self.each)
            begun += 1
            self.model = build(part, seed)
            return self.model

        return counted

    def _met(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is self.model and module.training:
            self.tick(len(inputs[0]))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
