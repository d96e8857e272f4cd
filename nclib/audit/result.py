"""What an audit found: the verdict, the images to look at, and what both rest on.

``words`` and ``page`` tell it, ``shown`` is what the user holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nclib.audit.looks import Geometry, Labels
from nclib.audit.reading import Reading
from nclib.audit.sources import Source
from nclib.correction import Finding, Planted, Verdict
from nclib.correction.evidence import chance
from nclib.correction.verdict import CHANCE
from nclib.data import ImageSet
from nclib.detection.mislabelled import WrongLabels

FEWEST_WRONG = 0.01  # below this share, wrong labels are nobody's attack (``correction.verdict``)
STRANGE = (
    0.1  # a model knows the label of a group that it never met so seldom, beside random images
)
GRAVITY = ("trigger", "group", "label", "twin", "file", "doubt")


class Suspect(NamedTuple):
    """A row of suspects.csv; ``at`` is the position in the source."""

    at: int
    suggested: str
    reason: str
    score: float
    key: str  # one of ``GRAVITY``; "doubt" is in no list


def is_crowd(finding: Finding) -> bool:
    """Whether the group was found by what it looks like, and not by a transplant."""
    return finding.variety is not None


@dataclass
class Result:
    """What was found in a set; ``None`` for a check that did not run."""

    source: Source
    options: dict[str, Any]
    reading: Reading | None = None
    labels: Labels | None = None
    verdict: Verdict | None = None
    geometry: Geometry | None = None
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
        own = self.options.get("features") or self.options.get("model")
        if self.verdict is None or own and mine and mine.plain and mine.share >= FEWEST_WRONG:
            return mine
        return self.verdict.wrong_labels

    @property
    def mislabelled(self) -> bool:
        """Whether wrong labels can be told from right ones, and are more than a few."""
        return self.wrong is not None and self.wrong.plain and self.wrong.share >= FEWEST_WRONG

    @property
    def call(self) -> str:
        """ "clean", "wrong labels", "backdoor" or "cannot tell"."""
        if self.verdict is None:
            return "wrong labels" if self.mislabelled else "cannot tell"
        if self.verdict.call == "clean" and self.mislabelled:
            return "wrong labels"
        return "cannot tell" if self.verdict.call == "clean" and self.strange else self.verdict.call

    @property
    def exit_code(self) -> int:
        """0: nothing found; 1: something is suspicious, or nobody can tell."""
        return int(self.call != "clean" or bool(self.suspects))

    @property
    def accused(self) -> list[Finding]:
        """The groups with a backdoor."""
        found = self.verdict.findings if self.verdict and self.call == "backdoor" else ()
        return [finding for finding in found if finding.call == "backdoor"]

    @property
    def strange(self) -> list[Finding]:
        """Groups of a set without another finding, whose label no model gives that never met them.

        Of 12 groups of poison in sets called clean 8 are so, and 1 of 287 honest ones in all sets
        (``data/results/transplant_groups.csv``). What chance does to five images is not counted.
        """
        found = self.verdict.findings if self.verdict and self.verdict.call == "clean" else ()
        sizes = [int(f.group.sum()) for f in found]
        return [
            f
            for f, n in zip(found, sizes, strict=True)
            if f.keeps <= STRANGE * f.keeps_control
            if len(found) * chance(f.keeps, n, f.keeps_control, n) <= CHANCE
            if 2 * n <= int((self.data.labels == f.label).sum())
        ]

    @property
    def suspects(self) -> list[Suspect]:
        """Every image that should be looked at, or go: one row each, the gravest first."""
        rows: dict[int, Suspect] = {}
        groups = [self._group(finding) for finding in self.accused]
        others = [self._group(finding) for finding in self.strange]
        for row in (*sum(groups, []), *self._labels(), *sum(others, []), *self._files()):
            rows.setdefault(row.at, row)
        return list(rows.values())

    def _group(self, finding: Finding) -> list[Suspect]:
        name, count = self.data.classes[finding.label], int(finding.group.sum())
        key, score = "trigger", 1 - finding.keeps
        if finding.call != "backdoor":
            key = "group"
            why = f"one of {count} images alike that no model takes for {name} that never met them"
        elif is_crowd(finding):
            why = f"one of a group in {name} that looks like images of all other classes"
        else:
            score = finding.success - finding.without
            why = (
                f"carries what turns {finding.success:.0%} of other classes into {name}, and "
                f"{finding.without:.0%} once its group is gone"
            )
        at = self.reading.index[finding.group].tolist() if self.reading else []
        return [Suspect(i, "", why, round(score, 3), key) for i in at]

    def _labels(self) -> list[Suspect]:
        if self.labels is None or not self.mislabelled or self.call == "cannot tell":
            return []
        assert self.wrong is not None
        rows = [self.doubt(i) for i in self.wrong.mask.nonzero().flatten().tolist()]
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
        rows = [
            Suspect(i, "", f"cannot be read: {why}", 1.0, "file")
            for i, why in self.reading.broken.items()
        ]
        for first, second, likeness, kind in sorted(self.reading.twins, key=lambda t: -t.likeness):
            same = "the same picture" if likeness == 1 else "nearly the same picture"
            for one, two in ((first, second), (second, first)) if kind != "copy" else ():
                other = self.source.classes[self.source.labels[two]]
                where = " of the test part" if self.source.is_test[two] else ""
                why = f"{same} as {self.source.names[two]}{where}, labelled {other}"
                rows.append(Suspect(one, "", why, likeness, "twin"))
        return rows

    def doubtful(self, count: int = 30) -> list[Suspect]:
        """The worst images, suspects first, then the most doubtful labels."""
        rows = {row.at: row for row in self.suspects}
        if self.labels is not None:
            doubts = self.labels.margin.argsort(descending=True)[:count].tolist()
            for row in map(self.doubt, (i for i in doubts if self.labels.margin[i] > 0)):
                rows.setdefault(row.at, row._replace(key="doubt"))
        return sorted(rows.values(), key=lambda row: (GRAVITY.index(row.key), -row.score))[:count]
