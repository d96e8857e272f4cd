"""The audit in words: its verdict, and what each check found."""

from __future__ import annotations

from collections import Counter

from nclib.audit.result import Result, is_crowd
from nclib.correction.verdict import KIN
from nclib.poisons.metrics import hit_rate


def sentence(audit: Result) -> str:
    """The verdict, in one sentence."""
    call = audit.call
    if call == "backdoor" and audit.verdict is not None:
        names = [audit.data.classes[c] for c in audit.verdict.classes]
        count = sum(row.key == "trigger" for row in audit.suspects)
        kind = "class" if len(names) == 1 else "classes"
        crowd = is_crowd(audit.verdict.findings[0])
        what = "look like all other classes" if crowd else "carry a trigger"
        return f"Backdoor in {kind} {', '.join(names)}: {count:,} of the images {what}."
    if call == "wrong labels" and audit.wrong is not None:
        named = sum(row.key == "label" for row in audit.suspects)
        rest = "" if audit.verdict else " Triggers were not looked for."
        return (
            f"Wrong labels: about {audit.wrong.share:.0%} of them, and {named:,} of the images "
            f"are named below.{rest}"
        )
    if call == "clean":
        return "Nothing found that I can find."
    return f"Cannot tell: {_why(audit)}."


def _why(audit: Result) -> str:
    if audit.verdict is None:
        return "the audit was stopped before triggers were looked for"
    unclear = [f for f in audit.verdict.findings if f.call == "unclear"]
    narrow = [f for f in unclear if f.kin < KIN]
    names = ", ".join(audit.data.classes[f.label] for f in narrow or unclear)
    if narrow:
        odd = "odd images of its own, or poison from there"
        return f"a group in {names} looks like one other class: {odd}"
    if unclear:
        return f"groups in {names} turn other classes, and the controls do not say why"
    if audit.verdict.call == "clean" and audit.strange:
        names = ", ".join(audit.data.classes[f.label] for f in audit.strange)
        return f"a group in {names} has a label that no model gives that never met it"
    return audit.verdict.reason


def files(audit: Result) -> str:
    """What the files alone show, in half a sentence each; "" for nothing."""
    if audit.reading is None:
        return ""
    kinds = Counter(twin.kind for twin in audit.reading.twins)
    counts = {
        "file(s) cannot be read": len(audit.reading.broken),
        "pair(s) of equal pictures have two labels": kinds["two labels"],
        "picture(s) are in the training and in the test part": kinds["train and test"],
        "picture(s) are there twice under one label": kinds["copy"],
    }
    return "; ".join(f"{n:,} {what}" for what, n in counts.items() if n)


def odds(audit: Result) -> list[str]:
    """What the planted controls say, each count with its exact 95% interval."""
    planted = audit.planted
    if planted is None:
        return []
    told = []
    for kind, (hits, runs) in planted.found.items():
        _, low, high = hit_rate(hits, runs)
        what = f"{kind} were" if kind.endswith("s") else f"A {kind} was"
        told.append(f"{what} found {hits} times of {runs} (a rate of {low:.0%} to {high:.0%})")
    wronged, of = planted.accused
    _, low, high = hit_rate(wronged, of)
    count = audit.data.num_classes
    anywhere = [1 - (1 - rate) ** count for rate in (low, high)]
    return [
        *told,
        f"A class without a trigger was accused {wronged} times of {of} (a rate of {low:.1%} to "
        f"{high:.1%}), so a set like this one, with {count} classes and no trigger, is accused of "
        f"some with a probability of {anywhere[0]:.0%} to {anywhere[1]:.0%}",
    ]


def found(audit: Result) -> dict[str, str]:
    """What each check found, by its name; "" where it was not done."""
    return {
        "files": "" if audit.reading is None else files(audit) or "nothing",
        "labels": _labels(audit),
        "triggers": _triggers(audit),
        "groups": _groups(audit),
        "geometry": "" if audit.geometry is None else f"measured on {audit.geometry.whose}",
        "controls": "" if audit.planted is None else "see the odds beside the verdict",
    }


def _labels(audit: Result) -> str:
    wrong = audit.wrong
    if wrong is None:
        return ""
    about = "about" if wrong.plain else "at most"
    return f"{about} {wrong.share:.1%} wrong; label and features agree on {wrong.agree:.0%}"


def _triggers(audit: Result) -> str:
    if audit.verdict is None:
        return ""
    calls = [finding.call for finding in audit.verdict.findings]
    counted = [f"{calls.count(k)} {k}" for k in ("backdoor", "unclear", "honest") if k in calls]
    return f"groups tested: {', '.join(counted) or 'none, because none turned strangers'}"


def _groups(audit: Result) -> str:
    if audit.verdict is None:
        return ""
    alone = [*filter(is_crowd, audit.accused), *audit.strange]
    told = [f"{int(f.group.sum())} in {audit.data.classes[f.label]}" for f in alone]
    return f"images whose label nobody else gives: {', '.join(told) or 'none'}"
