"""Sealed cases: nobody can look first or change the truth afterwards; the points are fair."""

import hashlib

import numpy as np
import pytest
import torch

from nclib import correction
from nclib.course import capstone, classset, sealing
from nclib.course.capstone import Finding

SMALL = ("digits", 100)


@pytest.fixture(scope="module")
def poisoned():
    """The first small case that is poisoned by a trigger of another class's images."""
    for number in range(60):
        one = capstone.sealed(number, *SMALL)
        truth, test = capstone.draw(one._word, *SMALL)
        if capstone.state(truth) in ("badnets", "blended"):
            return one, truth, test
    raise AssertionError("no such case among sixty")


def perfect(case, truth):
    bad = truth.is_poisoned
    return Finding(True, (truth.target,), bad, correction.remove(case.train, bad))


def test_the_commitment_tells_the_word_and_not_the_draw():
    word = "a secret word"
    assert capstone.committed(word) == hashlib.sha256(b"commitment a secret word").hexdigest()
    assert capstone.committed(word) != capstone.committed("a secret word ")
    assert hashlib.sha256(b"draw a secret word").hexdigest() != capstone.committed(word)


def test_a_word_draws_the_same_case_again_and_another_word_another():
    capstone.draw.cache_clear()
    first, _ = capstone.draw("one", *SMALL)
    capstone.draw.cache_clear()
    again, _ = capstone.draw("one", *SMALL)
    other, _ = capstone.draw("two", *SMALL)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    steps = first.images * 255
    assert torch.allclose(steps, steps.round(), atol=1e-3)  # as files of 8 bits have them


def test_about_half_of_the_cases_are_clean_and_the_others_differ():
    states = [capstone.state(capstone.draw(f"word {i}", *SMALL)[0]) for i in range(24)]
    clean = states.count("clean")
    assert 6 <= clean <= 18
    assert len(set(states)) >= 4


def test_a_case_holds_no_truth(poisoned):
    one, truth, _ = poisoned
    assert not hasattr(one.case.train, "is_poisoned") and one.case.train.factors is None
    assert one.case.commitment == capstone.committed(one._word)
    assert torch.equal(one.case.train.images, truth.images)


def test_an_envelope_opens_once_and_its_word_fits_the_commitment():
    one = capstone.sealed(3, *SMALL)
    row = one.hand_in(capstone.trusting(one.case))
    assert capstone.committed(row["word"]) == one.case.commitment
    with pytest.raises(ValueError, match="open already"):
        one.hand_in(capstone.trusting(one.case))


def test_a_finding_of_another_shape_leaves_the_envelope_closed():
    one = capstone.sealed(3, *SMALL)
    wrong = Finding(False, (), torch.zeros(5, dtype=torch.bool), one.case.train)
    with pytest.raises(ValueError, match=r"suspects: got torch.bool \(5,\)"):
        one.hand_in(wrong)
    assert not one.opened


def test_the_points_of_a_perfect_a_trusting_and_a_wild_finding(poisoned):
    one, truth, test = poisoned
    count = len(truth)
    best = capstone.grade(one.case, perfect(one.case, truth), truth, test)
    named = ("verdict", "class", "samples", "spared")
    assert [best[part] for part in named] == [1.0] * 4
    blind = capstone.grade(one.case, capstone.trusting(one.case), truth, test)
    assert [blind[part] for part in named] == [0.0, 0.0, 0.0, 1.0]
    everyone = Finding(True, (0, 1), torch.ones(count, dtype=torch.bool), one.case.train)
    wild = capstone.grade(one.case, everyone, truth, test)
    assert wild["verdict"] == 1 and wild["spared"] == 0 and wild["accused"] == 1
    assert best["score"] > max(blind["score"], wild["score"])


@pytest.mark.parametrize("named", [(), (0,), (0, 1)])
def test_two_targets_are_half_right_when_one_is_named(poisoned, named):
    one, truth, test = poisoned
    other = (truth.target + 1) % 10
    classes = tuple((truth.target, other)[i] for i in named)
    finding = perfect(one.case, truth)._replace(classes=classes)
    got = capstone.grade(one.case, finding, truth, test)["class"]
    assert got == {(): 0.0, (0,): 1.0, (0, 1): 0.5}[named]


def test_the_baselines_hand_in_what_they_promise():
    case = capstone.sealed(1, *SMALL).case
    calm, wild = capstone.trusting(case), capstone.suspicious(case)
    assert not calm.poisoned and not calm.suspects.any() and calm.cleaned is case.train
    assert wild.poisoned and int(wild.suspects.sum()) == 10
    assert len(wild.cleaned) == len(case.train) - 10
    most = case.train.labels[wild.suspects].bincount(minlength=10)
    assert most[wild.classes[0]] == most.max()


def test_a_class_set_goes_out_without_its_truth_and_comes_back_marked(tmp_path):
    pytest.importorskip("cryptography", reason="make test installs it")
    folder, secret = tmp_path / "set", "correct horse battery"
    commitments = classset.deal(folder, 2, secret, *SMALL)
    assert sorted(p.name for p in folder.iterdir()) == [
        "answers.json",
        "case-01.npz",
        "case-02.npz",
    ]
    with np.load(folder / "case-01.npz") as file:
        assert sorted(file.files) == ["facts", "images", "labels"]
    cases = [classset.case(folder / f"case-0{i}.npz") for i in (1, 2)]
    assert [case.commitment for case in cases] == commitments
    paths = [tmp_path / "ann-01.npz", tmp_path / "bob-02.npz"]
    for case, path in zip(cases, paths, strict=True):
        classset.save(capstone.trusting(case), case, path)
    rows = classset.mark(folder, paths, secret)
    assert [row["file"] for row in rows] == ["ann-01.npz", "bob-02.npz"]
    assert all(row["verdict"] == (row["state"] == "clean") for row in rows)
    words = sealing.opened(folder, secret)["words"]
    assert [capstone.committed(word) for word in words.values()] == commitments
    assert not any(word in (folder / "answers.json").read_text() for word in words.values())
    with pytest.raises(ValueError, match="does not open"):
        classset.mark(folder, paths, "another passphrase")
    with pytest.raises(ValueError, match="holds sealed answers"):
        classset.deal(folder, 1, secret, *SMALL)


def test_what_is_no_case_and_a_short_passphrase_are_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="holds no case"):
        classset.case(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="passphrase: too short"):
        classset.deal(tmp_path / "new", 1, "short")
    assert not (tmp_path / "new").exists()
