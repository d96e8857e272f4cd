"""Cases for a class: files without their truth, and the answers encrypted under a passphrase.

The teacher calls ``deal`` and gives the folder away; students call ``case`` and ``save``; the
teacher calls ``mark``. Only the teacher needs the passphrase, and the package that encrypts.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nclib import places
from nclib.course import sealing
from nclib.course.capstone import Case, Finding, Sealed, draw, grade
from nclib.data import ImageSet


def deal(
    folder: str | Path,
    count: int,
    passphrase: str,
    dataset: str = "signs",
    n_train: int | None = None,
) -> list[str]:
    """Write ``count`` new cases and their encrypted answers; return the commitments.

    Raises ``ValueError`` for a passphrase below twelve characters and for a folder with answers.
    """
    folder = Path(folder)
    sealing.refuse(folder, passphrase)
    folder.mkdir(parents=True, exist_ok=True)
    words: dict[str, str] = {}
    for number in range(1, count + 1):
        name, word = f"case-{number:02}", secrets.token_hex(16)
        one = Sealed(name, word, dataset, n_train).case
        facts = {"name": name, "commitment": one.commitment, "classes": one.train.classes}
        _write(folder / f"{name}.npz", one.train, facts | {"dataset": one.train.name})
        words[name] = word
    sealing.seal(folder, {"from": [dataset, n_train], "words": words}, passphrase)
    return [case(folder / f"{name}.npz").commitment for name in words]


def case(path: str | Path) -> Case:
    """The case in a file. Raises ``ValueError`` for any other file."""
    train, facts = _read(path)
    return Case(facts["name"], train, facts["commitment"])


def save(finding: Finding, of: Case, path: str | Path) -> None:
    """Write a finding, to be handed in."""
    facts = {"name": of.name, "poisoned": bool(finding.poisoned)}
    facts |= {"classes": finding.cleaned.classes, "dataset": finding.cleaned.name}
    facts |= {"accused": [int(c) for c in finding.classes]}
    suspects = torch.as_tensor(finding.suspects).cpu().numpy()
    _write(Path(path), finding.cleaned, facts, suspects=suspects)


def mark(
    folder: str | Path, findings: Iterable[str | Path], passphrase: str
) -> list[dict[str, Any]]:
    """The points of each finding, with "file". Raises ``ValueError`` for a wrong passphrase."""
    folder, rows = Path(folder), []
    told = sealing.opened(folder, passphrase)
    for path in findings:
        cleaned, facts = _read(path)
        with np.load(path) as file:
            suspects = torch.from_numpy(file["suspects"])
        truth, test = draw(told["words"][facts["name"]], *told["from"])
        finding = Finding(facts["poisoned"], tuple(facts["accused"]), suspects, cleaned)
        row = grade(case(folder / f"{facts['name']}.npz"), finding, truth, test)
        rows.append({"file": Path(path).name} | row)
    return rows


def _write(path: Path, part: ImageSet, facts: dict[str, Any], **more: Any) -> None:
    images = (part.images.cpu() * 255).round().to(torch.uint8).numpy()
    labels, words = part.labels.cpu().numpy(), np.array(json.dumps(facts))
    with places.whole(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, images=images, labels=labels, facts=words, **more)


def _read(path: str | Path) -> tuple[ImageSet, dict[str, Any]]:
    try:
        with np.load(path) as file:
            images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
            facts = json.loads(str(file["facts"]))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"path: {path} holds no case and no finding ({error})") from None
    pictures: Tensor = images.float() / 255
    return ImageSet(pictures, labels, tuple(facts["classes"]), facts["dataset"]), facts
