"""A right answer is right in any idiom; every exercise of the course is asked for all of them."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from equivalents import BY_HAND, forms

from nclib.course import exercises, verdict

for lesson in pkgutil.iter_modules(exercises.__path__):
    importlib.import_module(f"{exercises.__name__}.{lesson.name}")
NAMES = sorted(exercises.EXERCISES)
NEEDS_GRADIENTS = {
    *("03.collision_step", "06.fgsm", "07.integrated", "13.langevin_step"),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_form_of_the_right_answer_is_right(name):
    told = {}
    count = 0
    for what, answer in forms(name):
        if what == "without gradients" and name in NEEDS_GRADIENTS:
            continue
        count += 1
        state, message = verdict(name, answer)
        if state != "correct":
            told[what] = message
    assert not told and count >= 5, told


def test_what_is_written_by_hand_belongs_to_an_exercise():
    assert set(BY_HAND) <= set(NAMES)
