"""Purifier weights as small safetensors files that say how they were made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nclib import cache as kept
from nclib import places
from nclib.defenses.purification.diffusion import Diffusion, build_diffusion
from nclib.defenses.purification.energy import Energy, build_energy
from nclib.doors import gradients

BUILDERS: dict[str, Callable[..., Energy | Diffusion]] = {
    "Energy": build_energy,
    "Diffusion": build_diffusion,
}


def save(model: Energy | Diffusion, path: str | Path, **made: object) -> None:
    """Write ``model`` in half precision; ``made`` says how it came about (data, seed, command).

    Raises ``ValueError`` for a model that diverged or that no ``build_...`` made, and for a file
    that is there and holds no purifier, and ``OSError`` where it cannot be written: a file that was
    there before then stays as it is.
    """
    if getattr(model, "diverged", False):
        raise ValueError("model: this energy diverged in training; it is not worth keeping")
    if type(model).__name__ not in BUILDERS or not model.recipe:
        raise ValueError("model: only what build_energy or build_diffusion made can be saved")
    record = {"kind": type(model).__name__, "recipe": model.recipe, "made": made}
    half = {name: weight.half() for name, weight in model.state_dict().items()}
    path = Path(path)
    if path.exists() and path.stat().st_size:
        _read(path)
    with places.whole(path) as draft:
        kept.save(draft, half, record)
        if not draft.exists():
            raise OSError(f"path: {path} could not be written")


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
    weights, record = _read(path)
    options = dict(record["recipe"])
    for name in ("shape", "widths"):
        if name in options:
            options[name] = tuple(options[name])
    options.pop("arch", None)  # files of version 0.1 name it
    model = BUILDERS[record["kind"]](options.pop("shape"), **options)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model.to(device).eval(), record["made"]


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error below says it
        found = kept.load(path)
    if found is None or found[1].get("kind") not in BUILDERS:
        raise ValueError(f"path: {path} holds no purifier")
    return found
