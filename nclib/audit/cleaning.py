"""A cleaned copy: everything but the suspects, in a new place; the original stays as it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from nclib.audit.result import Result
from nclib.places import whole


def clean(audit: Result, out: Path | str) -> int:
    """Write the set without its suspects to ``out`` and return how many images that leaves.

    A folder tree is copied into the new folder ``out``; of anything else, or where ``out`` ends in
    .txt, the names that stay are listed in that file. What another image is equal to goes with it
    only where the labels differ: nobody knows which is right. In a copy across train and test the
    training image goes. Raises ``ValueError`` where ``out`` is there already, or inside the set.
    """
    out, found = Path(out), audit.source
    gone = {row.at for row in audit.suspects if row.key != "twin" or not found.is_test[row.at]}
    stay = [i for i in range(len(found)) if i not in gone]
    if out.exists():
        raise ValueError(f"clean: {out} is there already; name a new place")
    root = found.root
    if root is None or not root.is_dir() or out.suffix == ".txt":
        with whole(out) as draft:
            lines = "".join(f"{found.names[i]}\n" for i in stay)
            draft.write_text(lines, encoding="utf-8", errors="backslashreplace")
        return len(stay)
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"clean: {out} lies inside {root}, which stays as it is")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".incoming-") as staging:
        draft = Path(staging, "copy")
        for i in stay:
            place = draft / found.names[i]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / found.names[i], place)
        os.replace(draft, out)  # whole or not at all
    return len(stay)
