"""The results of the experiments: each finished row is on disk before the next one starts."""

from __future__ import annotations

from pathlib import Path

import torch

from nclib import table

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


class Table(table.Table):
    """The rows of ``data/results/NAME.csv``; ``key`` names the columns that identify a row."""

    def __init__(self, name: str, key: tuple[str, ...], folder: Path = RESULTS) -> None:
        super().__init__(folder / f"{name}.csv", lambda row: tuple(row[name] for name in key))
        self.names = key

    def has(self, **key: object) -> bool:
        """Whether the row with this key is finished."""
        return tuple(str(key[name]) for name in self.names) in self.rows


def facts(device: torch.device) -> dict[str, str]:
    """The columns "device" and "torch": where a row was measured, and with which version."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        count = torch.get_num_threads()
        name = f"{device}, {count} thread{'s' if count > 1 else ''}"
    return {"device": name, "torch": torch.__version__.split("+")[0]}
