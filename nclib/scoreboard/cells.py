"""One cell of the board: a victim, what is done about it, and the row that comes of it."""

from __future__ import annotations

import time
import warnings

import torch
from torch import nn

from nclib.scoreboard import methods
from nclib.scoreboard.cases import Case, origin, prepare
from nclib.scoreboard.grids import KINDS, NEEDS, Cell


def evaluate(cell: Cell) -> dict[str, object]:
    """The row of ``cell``; what is shared with other cells comes from the run cache.

    Raises ``KeyboardInterrupt`` where ctrl-C stopped a training, so that no row is half true.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training stopped")
        try:
            case = prepare(*cell[:4])
            found = methods.apply(cell, case)
        except UserWarning as stopped:
            raise KeyboardInterrupt(str(stopped)) from None
        model = found.pop("model")
        harmful, clean = case.train.harmful.cpu(), ~case.train.is_poisoned.cpu()
        row = cell._asdict() | {
            "kind": KINDS.get(cell.method, "detector"),
            "needs": NEEDS.get(cell.method, "nothing"),
            "poison_count": int(harmful.sum()),
        }
        mask = found.pop("removed", None)
        if mask is not None:
            row["fpr"] = float((mask & clean).sum() / clean.sum())
            if harmful.any():
                row["tpr"] = float((mask & harmful).sum() / harmful.sum())
        row |= found | _outcome(model, cell, case)
    seconds = round(time.perf_counter() - start, 2)
    if origin("cifar10") != "cifar10" and cell.dataset.startswith("cifar10"):
        row["source"] = "JPEG copies"
    place, version = _device(case.train.device), torch.__version__.split("+")[0]
    return row | {"seconds": seconds, "device": place, "torch": version}


def _outcome(model: nn.Module, cell: Cell, case: Case) -> dict[str, float]:
    """Accuracy, success of the attack, and what its trigger does to a clean model."""
    row = methods.after(model, case)
    if case.train.trigger is not None:
        clean = prepare(cell.dataset, "clean", 0.0, cell.seed).model
        row["control_asr"] = methods.after(clean, case)["asr"]
    return row


def _device(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
