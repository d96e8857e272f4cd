"""Purifier weights as small safetensors files that say how they were made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from nclib import cache as kept
from nclib.defenses.purification.diffusion import Diffusion, build_diffusion
from nclib.defenses.purification.energy import Energy, build_energy
from nclib.doors import gradients

BUILDERS: dict[str, Callable[..., Energy | Diffusion]] = {
    "Energy": build_energy,
    "Diffusion": build_diffusion,
}


def save(model: Energy | Diffusion, path: str | Path, **made: object) -> None:
    """Write ``model`` in half precision; ``made`` says how it came about (data, seed, command).

    Raises ``ValueError`` for a model that diverged or that no ``build_...`` made, and ``OSError``
    where it cannot be written: a file that was there before then stays as it is.
    """
    if getattr(model, "diverged", False):
        raise ValueError("model: this energy diverged in training; it is not worth keeping")
    if type(model).__name__ not in BUILDERS or not model.recipe:
        raise ValueError("model: only what build_energy or build_diffusion made can be saved")
    record = {"kind": type(model).__name__, "recipe": model.recipe, "made": made}
    half = {name: weight.half() for name, weight in model.state_dict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as staging:
        draft = Path(staging) / path.name
        kept.save(draft, half, record)
        if not draft.exists():
            raise OSError(f"path: {path} could not be written")
        os.replace(draft, path)


@gradients
def load(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[Energy | Diffusion, dict[str, object]]:
    """What ``save`` wrote: the model in float32 and in evaluation mode, and how it was made.

    Raises ``FileNotFoundError`` where there is no file and ``ValueError`` for a file that is none
    of ours.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: {path} does not exist; `make purifiers` trains it")
    found = kept.load(path)
    if found is None or found[1].get("kind") not in BUILDERS:
        raise ValueError(f"path: {path} holds no purifier")
    weights, record = found
    options = dict(record["recipe"])
    for name in ("shape", "widths"):
        if name in options:
            options[name] = tuple(options[name])
    model = BUILDERS[record["kind"]](options.pop("arch"), options.pop("shape"), **options)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model.to(device).eval(), record["made"]
