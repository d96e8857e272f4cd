"""An exercise whose answer is a detector: its score is held to an AUROC on two toy sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nclib import detection, geometry
from nclib.course.exercises import exercise, expect, tensor


def toys() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """A flip case and a trigger case: kind, features ``[400, 8]``, labels and bad ``[400]``."""
    for seed, kind in enumerate(("flips", "triggers")):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.arange(4).repeat(100)
        features = 8 * geometry.simplex_etf(4, 8).float()[labels]
        features += torch.randn(400, 8, generator=draw)
        bad = torch.zeros(400, dtype=torch.bool)
        if kind == "flips":
            bad[::10] = True
            labels = torch.where(bad, (labels + 1) % 4, labels)
        else:
            bad[:80:4] = True  # of class 0
            features[bad] += 5.0
        yield kind, features, labels, bad


def detector(name: str, above: float, *, hints: Sequence[str]) -> None:
    """Declare exercise ``name``: a function ``score(features, labels)`` -> ``[N]``, high is odd."""

    @exercise(name, hints=hints, reference=detection.robust_distance)
    def _(answer: Any) -> None:
        for kind, features, labels, bad in toys():
            score = tensor(answer(features, labels), "the score").double()
            expect(score.shape == labels.shape, f"one score per sample: {tuple(labels.shape)}")
            expect(bool(score.isfinite().all()), "the scores should be finite")
            reached = detection.auroc(score, bad)
            expect(reached > 0.1, f"on {kind} the AUROC is {reached:.2f}: turn the sign")
            told = f"on {kind} the AUROC is {reached:.2f}; above {above} is asked for"
            expect(reached > above, told)
