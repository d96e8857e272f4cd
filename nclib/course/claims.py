"""A claim: a sentence, the number that was measured for it, and the range that makes it true."""

from __future__ import annotations

from typing import Any

from IPython.display import display

from nclib.course import ranges, session
from nclib.course.shown import Shown


def claim(
    sentence: str,
    values: object,
    *,
    above: float | None = None,
    below: float | None = None,
    near: tuple[float, float] | None = None,
    control: object = None,
    every: bool = False,
) -> None:
    """Show what was measured for ``sentence``, the range allowed, the control, and if it holds.

    ``values`` is a number or a row of them (seeds, say), numpy's and torch's too: the claim holds
    where their mean lies above ``above``, below ``below`` or within ``near=(value, tolerance)``;
    with ``every=True`` each of them must. ``control`` is what the number has to be read beside, as
    values or as ``{name: values}``; it decides nothing. Where a test runs the lesson on its default
    data set a claim that does not hold raises ``DoesNotHold``. Raises ``ValueError`` for no range
    and for values that are not finite numbers.
    """
    row, inside = ranges.numbers("values", values), ranges.allowed(above, below, near)
    if not isinstance(sentence, str) or not sentence.strip():
        raise ValueError(f"sentence: got {sentence!r:.80}; allowed is a sentence")
    given = control if isinstance(control, dict) else {"control": control}
    named = {str(n): ranges.numbers(f"control {n}", v) for n, v in given.items() if v is not None}
    holds = all(one in inside for one in (row if every else [ranges.mean(row)]))
    verdict = "holds" if holds else "does not hold here"
    wanted = f"{inside}, each" if every else str(inside)
    rows: list[tuple[str, ...]] = [("measured", ranges.spread(row), wanted, verdict)]
    rows += [(name, ranges.spread(numbers), "", "") for name, numbers in named.items()]
    record: dict[str, Any] = {
        "sentence": sentence,
        "values": row,
        "claimed": wanted,
        "control": list(named.items()),
    }
    record |= {"holds": holds, "dataset": session.dataset()}
    session.elsewhere()
    display(Shown(sentence, ("", "number", "claimed", "verdict"), rows, holds, record))
    session.insist(holds, f"{sentence}: measured {ranges.spread(row)}; claimed is {wanted}")
