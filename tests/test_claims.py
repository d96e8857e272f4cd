"""A claim shows its number, its range and its control, and raises where a test runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from nclib.course import DoesNotHold, claim, claims, ranges, session
from nclib.course.shown import CLAIM


@pytest.fixture
def shown(monkeypatch):
    """What the claims display; not strict unless a test says so."""
    monkeypatch.delenv("NCLIB_STRICT", raising=False)
    tables = []
    monkeypatch.setattr(claims, "display", tables.append)
    return tables


def verdict(shown):
    return shown[-1].record["holds"]


@pytest.mark.parametrize(
    "values",
    [
        0.8,
        1,
        np.float32(0.75),
        np.float16(0.75),
        np.array([0.6, 0.9]),
        torch.tensor(0.9, requires_grad=True),
        torch.tensor([0.7, 0.8], dtype=torch.bfloat16),
        [torch.tensor(0.7), np.float64(0.9), 1],
        (value / 10 for value in range(7, 10)),
        np.arange(1, 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_number_or_row_of_numbers_is_measured(values, shown):
    claim("it is large", values, above=0.7, below=3)
    assert verdict(shown) and all(type(v) is float for v in shown[-1].record["values"])
    json.dumps(shown[-1].record)


@pytest.mark.parametrize(
    "values",
    [
        [],
        None,
        float("nan"),
        [0.8, float("inf")],
        torch.tensor([0.8, torch.nan]),
        torch.zeros(0),
        True,
        np.bool_(True),
        torch.tensor(True),
        [True, False],
        "0.8",
        ["0.8"],
        [[0.8]],
        np.ones((2, 2)),
        {"a": 0.8},
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_finite_number_is_refused(values, shown):
    with pytest.raises(ValueError, match="(?s)values: got .*; allowed is a finite number"):
        claim("it is large", values, above=0.7)
    if values is not None:
        with pytest.raises(ValueError, match="control x: got"):
            claim("it is large", 0.8, above=0.7, control={"x": values})
    assert not shown


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "range: got"),
        ({"above": 1, "near": (1, 2)}, "range: got"),
        ({"above": 1, "below": 1}, "nothing lies between"),
        ({"above": 2, "below": 1}, "nothing lies between"),
        ({"above": float("nan")}, "above: got nan"),
        ({"below": float("inf")}, "below: got inf"),
        ({"above": [1, 2]}, "above: got 2 numbers"),
        ({"near": 1}, "near: got 1"),
        ({"near": (1, -0.1)}, "near: got"),
    ],
)
def test_a_claim_without_a_range_that_can_fail_is_refused(options, word, shown):
    with pytest.raises(ValueError, match=word):
        claim("it is", 0.8, **options)
    for sentence in ("", " ", None):
        with pytest.raises(ValueError, match="sentence: got"):
            claim(sentence, 0.8, above=0)


@pytest.mark.parametrize(
    ("values", "options", "holds"),
    [
        (0.7, {"above": 0.7}, False),
        (0.71, {"above": 0.7}, True),
        (0.7, {"below": 0.7}, False),
        (-1, {"below": 0}, True),
        (0.5, {"above": 0.4, "below": 0.6}, True),
        (0.7, {"above": 0.4, "below": 0.6}, False),
        (0, {"near": (0, 0)}, True),
        (0.5, {"near": (0.75, 0.25)}, True),
        (1.1, {"near": (0.75, 0.25)}, False),
        ([0.1, 0.9], {"above": 0.4}, True),  # the mean
        ([0.1, 0.9], {"above": 0.4, "every": True}, False),
        ([0.5, 0.9], {"above": 0.4, "every": True}, True),
    ],
)
def test_the_mean_decides_or_every_one(values, options, holds, shown):
    claim("it is", values, **options)
    assert verdict(shown) is holds
    text = str(shown[-1])
    assert ("does not hold here" in text) is not holds
    assert ("each" in text) is ("every" in options)


def test_number_range_control_and_verdict_stand_side_by_side(shown):
    claim("removal leaves it", [0.8, 0.9], above=0.7, control={"oracle": 0.02, "none": [1, 0.9]})
    assert str(shown[-1]).split("\n") == [
        "removal leaves it",
        "  measured   0.85 (0.8 to 0.9, 2 values)   above 0.7   holds",
        "  oracle     0.02",
        "  none       0.95 (0.9 to 1, 2 values)",
    ]
    claim("one control", 1, near=(1, 0.1), control=0.5)
    assert "control    0.5" in str(shown[-1]) and "1 ± 0.1" in str(shown[-1])


def test_a_notebook_gets_a_table_with_every_text_escaped_and_a_record(shown):
    claim("<b>a</b> & b", 0.8, above=0.7, control={"<i>": 1})
    bundle = shown[-1]._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", CLAIM}
    assert "<b>" not in bundle["text/html"] and "<i>" not in bundle["text/html"]
    assert "&lt;b&gt;a&lt;/b&gt; &amp; b" in bundle["text/html"]
    assert '<th scope="row"' in bundle["text/html"] and "<caption" in bundle["text/html"]
    assert bundle[CLAIM]["sentence"] == "<b>a</b> & b" and bundle[CLAIM]["control"] == [
        ("<i>", [1])
    ]


@pytest.mark.parametrize(
    ("strict", "dataset", "raises"),
    [
        ("1", None, True),
        ("1", "signs", True),
        ("1", "mnist", False),
        ("1", "folder:/x", False),
        ("0", "signs", False),
        ("no", None, False),
    ],
)
def test_it_raises_where_a_test_runs_it_and_on_the_default_data_alone(
    strict, dataset, raises, shown, monkeypatch
):
    monkeypatch.setenv("NCLIB_STRICT", strict)
    lesson = {"claim": claim} | ({"DATASET": dataset} if dataset else {})
    wrapped = "def inner(v):\n    claim('it is small', v, below=0.1)\ninner({})"
    exec(wrapped.format(0.05), lesson)
    if raises:
        with pytest.raises(DoesNotHold, match="it is small: measured 0.5; claimed is below 0.1"):
            exec(wrapped.format(0.5), lesson)
    else:
        exec(wrapped.format(0.5), lesson)
    assert len(shown) == 2  # it is shown in any case
    assert shown[-1].record["dataset"] == dataset and "does not hold here" in str(shown[-1])


def test_on_other_data_it_says_once_whose_numbers_the_text_is_about(shown, capsys, monkeypatch):
    monkeypatch.setattr(session, "_told", set())
    for dataset in ("signs", "mnist", "mnist"):
        exec("claim('it is', 0.8, above=0.7)", {"claim": claim, "DATASET": dataset})
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "'signs'" in told and "'mnist'" in told


def test_a_terminal_gets_plain_text():
    code = "from nclib.course import claim; claim('it is', 0.8, above=0.7)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "it is\n  measured   0.8   above 0.7   holds\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.98765, "0.988"), (61.28, "61.3"), (1300, "1,300"), (12345.6, "12,346")]
    + [(0.0008, "0.0008"), (8e-6, "8.00e-06"), (3e7, "3.00e+07"), (-0.5, "-0.5")],
)
def test_numbers_are_short(value, text):
    assert ranges.short(value) == text
