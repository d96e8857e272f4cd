"""The checks of lesson 16 reject typical mistakes, each for its own reason."""

import pytest
import torch

from nclib import detection
from nclib.course import capstone, verdict


def precision(suspects, bad):
    return float((suspects & bad).sum() / suspects.sum().clamp_min(1))


def forgot_the_clean_set(suspects, bad):
    return float(2 * (suspects & bad).sum() / (suspects.sum() + bad.sum()).clamp_min(1))


def widths(features, labels, centre=None, power=2):
    rows = [features[labels == c].double() for c in labels.unique()]
    middle = [r.mean(0) if centre is None else centre for r in rows]
    gaps = [(r - m).norm(dim=1) ** power for r, m in zip(rows, middle, strict=True)]
    return torch.stack([gap.mean() for gap in gaps])


def relative(wide):
    return (wide / wide.median()).log()


def some(case):
    return torch.arange(len(case.train)) < 3


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("16.points", precision, "F1"),
        ("16.points", forgot_the_clean_set, "clean set"),
        ("16.points", lambda s, b: 1.0, "no suspects"),
        ("16.spread", lambda h, y: widths(h, y) / widths(h, y).median(), "take the logarithm"),
        ("16.spread", lambda h, y: widths(h, y).log(), "divide by the median"),
        ("16.spread", lambda h, y: (widths(h, y) / widths(h, y).mean()).log(), "not the mean"),
        ("16.spread", lambda h, y: relative(widths(h, y, h.double().mean(0))), "own class"),
        ("16.spread", lambda h, y: relative(widths(h, y, power=1)), "square the distances"),
        ("16.spread", lambda h, y: y.double(), "one number per class"),
        ("16.investigate", lambda case: (True, 3), "return capstone.Finding"),
        (
            "16.investigate",
            lambda case: capstone.Finding(False, (), some(case), case.train),
            "still there are suspects",
        ),
        (
            "16.investigate",
            lambda case: capstone.trusting(case)._replace(classes=(3,)),
            "still a class",
        ),
        (
            "16.investigate",
            lambda case: capstone.trusting(case)._replace(cleaned=case.train.images),
            "ImageSet",
        ),
        ("16.score", lambda h, y: -detection.robust_distance(h, y), "turn the sign"),
        ("16.score", lambda h, y: detection.random_score(y), "0.8 is asked for"),
        ("16.score", detection.whitened_margin, "triggers"),
        ("16.score", lambda h, y: h.norm(), "one score"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


def test_any_finding_of_the_right_form_is_taken():
    assert verdict("16.investigate", capstone.trusting)[0] == "correct"
