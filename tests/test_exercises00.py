"""Lesson 00: the checks turn typical mistakes away, and say why."""

import ast
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from nclib.course import verdict
from nclib.course.exercises import find
from nclib.course.exercises.lesson00 import STORMY


def one_liner():
    return torch.device("mps" if torch.backends.mps.is_built() else "CPU")


def by_name():
    return "cuda" if torch.cuda.is_available() else "cpu"


def no_mac():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mac_first():
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return no_mac()


def built():
    return torch.device("cuda" if torch.backends.cuda.is_built() else "cpu")


def never_waits(work, synchronize):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def waits_too_late(work, synchronize):
    synchronize()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    synchronize()
    return seconds


def counts_what_waited(work, synchronize):
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def by_process_time(work, synchronize):
    synchronize()
    start = time.process_time()
    work()
    synchronize()
    return time.process_time() - start


def forgets_the_work(work, synchronize):
    start = time.perf_counter()
    synchronize()
    return time.perf_counter() - start


def twice(work, synchronize):
    work()
    return find("00.honest_seconds").reference(work, synchronize)


def milliseconds(work, synchronize):
    return 1000 * find("00.honest_seconds").reference(work, synchronize)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("00.pick_device", one_liner, "neither is available"),
        ("00.pick_device", by_name, "the text 'cpu'"),
        ("00.pick_device", no_mac, "only mps is available"),
        ("00.pick_device", mac_first, "both are available"),
        ("00.pick_device", built, "neither is available"),
        ("00.pick_device", lambda: torch.device("CPU"), "RuntimeError"),
        ("00.pick_device", lambda: 0, "no device"),
        ("00.honest_seconds", never_waits, "before the work is done"),
        ("00.honest_seconds", waits_too_late, "before the work is done"),
        ("00.honest_seconds", counts_what_waited, "queued before"),
        ("00.honest_seconds", forgets_the_work, "never called"),
        ("00.honest_seconds", twice, "2 times"),
        ("00.honest_seconds", milliseconds, "should be seconds"),
        ("00.honest_seconds", lambda work, wait: "fast", "never called"),
        ("00.honest_seconds", by_process_time, "stands while"),
        ("00.calm", "a low rate", "give a dictionary"),
        ("00.calm", {"rate": 0.01}, "is none of lr"),
        ("00.calm", {"lr": "low"}, "lr should be a number"),
        ("00.calm", {"lr": True}, "lr should be a number"),
        ("00.calm", {"lr": 0.0}, "0.0001 to 1 is allowed"),
        ("00.calm", {"lr": float("nan")}, "0.0001 to 1 is allowed"),
        ("00.calm", {}, "whose two runs parted"),
        ("00.calm", {"lr": 0.1, "epochs": 12}, "whose two runs parted"),
        ("00.calm", {"batch_size": 64.5}, "batch_size is a whole number"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, (state, message)


def with_else():
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    elif torch.backends.mps.is_available():
        return torch.device("mps")
    else:
        return torch.device("cpu")


def by_monotonic(work, synchronize):
    synchronize()
    start = time.monotonic()
    work()
    synchronize()
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("00.pick_device", with_else),
        ("00.honest_seconds", by_monotonic),
        ("00.calm", {"momentum": 0}),
        ("00.calm", {"lr": np.float64(0.02), "epochs": torch.tensor(8)}),
    ],
)
def test_another_right_answer_is_accepted(name, answer):
    assert verdict(name, answer).state == "correct", verdict(name, answer)


def test_the_calm_recipe_starts_from_the_recipe_of_the_lesson():
    """What the check calls the recipe from above is what the notebook's settings say."""
    path = Path(__file__).resolve().parents[1] / "notebooks" / "00_device_and_setup.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (line,) = re.findall(r"RECIPE = (\{.+?\})", "\n".join("".join(c["source"]) for c in cells))
    assert ast.literal_eval(line).items() <= STORMY.items()


def test_the_check_of_the_device_leaves_this_machine_as_it_was():
    before = torch.cuda.is_available(), torch.backends.mps.is_built(), time.perf_counter
    verdict("00.pick_device", with_else)
    verdict("00.honest_seconds", never_waits)
    assert (torch.cuda.is_available(), torch.backends.mps.is_built(), time.perf_counter) == before
