"""One bar for the whole audit: how much is done, and how long the rest may take at most."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from tqdm.auto import tqdm

from nclib.correction import Build
from nclib.data import ImageSet

PATIENCE = 60  # seconds before an estimate is shown
OFTEN = 0.2  # seconds between two looks at the bar
FILES = "files"  # the stage that reads; every other one trains


class Progress:
    """What is left, in images to be read and to be trained on, times what one has taken so far."""

    def __init__(self, seconds: dict[str, float], shown: bool) -> None:
        self.seconds = seconds  # wall time by stage: the page shows it
        self.todo: dict[str, float] = {}  # images at most, by stage
        self.spent = {True: [0.0, 1e-9], False: [0.0, 1e-9]}  # reading?: seconds, images
        self.stage = ""
        self.model: nn.Module | None = None
        self.start = self.last = self.seen = time.perf_counter()
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self.bar = tqdm(total=100, desc="audit", bar_format=form, disable=not shown)

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
        self.bar.set_description(f"audit, {stage}")
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
        if now - self.seen < OFTEN:
            return
        self.seen, left, past = now, self.left(), now - self.start
        self.bar.n = max(self.bar.n, int(100 * past / (past + left)))
        if past > PATIENCE:
            self.bar.set_postfix_str(f"at most about {max(1, round(left / 60))} min to go")
        self.bar.refresh()

    def watched(self, build: Build, each: int) -> Build:
        """The same builder; each training of its models is ``each`` images less to do."""
        total, begun = self.todo[self.stage], 0

        def counted(part: ImageSet, seed: int) -> nn.Module:
            nonlocal begun
            self.todo[self.stage] = min(self.todo[self.stage], total - begun * each)
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
