"""Sealed cases: nobody can look first or change the truth afterwards; the points are fair."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from nclib import correction, data, poisons, training
from nclib.course import capstone, classset, results, sealing
from nclib.course.capstone import Finding
from nclib.data import ImageSet
from nclib.poisons import metrics

SMALL = ("digits", 100)


@pytest.fixture(scope="module")
def poisoned():
    """The first small case that is poisoned by a trigger of another class's images."""
    for number in range(60):
        one = capstone.sealed(number, *SMALL)
        truth, test = capstone.draw(one._word, *SMALL)
        if truth.attack in ("badnets", "blended"):
            return one, truth, test
    raise AssertionError("no such case among sixty")


def set_by(kind):
    """A case of so few images that every kind is planted at once, with its truth and test."""
    train, test = data.load("digits", n_train=100, n_test=100, device="cpu")
    other, _ = data.load("digits", n_train=100, n_test=10, seed=1, device="cpu")
    bare = poisons.label_flip(train, 0.0)
    truth = replace(capstone.planted(bare, kind, 3, 0.06, other, test, 0), attack=kind)
    kept = ImageSet(truth.images, truth.labels, truth.classes, truth.name)
    return capstone.Case("small", kept, ""), truth, test


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
    truths = [capstone.draw(f"word {i}", *SMALL)[0] for i in range(24)]
    states = [truth.attack for truth in truths]
    clean = states.count("clean")
    assert 6 <= clean <= 18
    assert len(set(states)) >= 6 and "two at once" in map(capstone.family, states)
    for truth in truths:
        assert truth.is_poisoned.any() == (truth.attack != "clean")
        kinds = {*capstone.KINDS, "clean"} - {"sticker", *capstone.WEAK["digits"]}
        assert set(truth.attack.split(" + ")) <= kinds


@pytest.mark.parametrize("kind", [kind for kind in capstone.KINDS if kind != "sticker"])
def test_every_kind_does_what_its_family_says(kind):
    _, truth, _ = set_by(kind)
    false, changed = truth.labels != truth.clean_labels, truth.is_poisoned
    assert changed.any() and changed.float().mean() <= 0.2
    assert false.any() == (capstone.family(kind) != "right labels")
    if kind not in ("label_flip", "each_class"):
        assert set(truth.labels[false].tolist()) <= {3}
    covers = capstone.covers(truth)
    assert torch.equal(covers, changed & ~false) if kind in capstone.COVERED else not covers.any()


@pytest.mark.parametrize("kind", capstone.AIMED)
def test_who_aims_at_one_image_is_judged_by_that_image(kind):
    case, truth, test = set_by(kind)
    (_, part) = truth.parts
    asked = training.predict(capstone.trained(case.train, 0), part.victims).argmax()
    row = capstone.grade(case, perfect(case, truth), truth, test)
    assert row["success"] == float(asked == 3)
    assert row["success_after"] == row["success_never"] in (0, 1)
    assert row["class"] == row["samples"] == 1


def test_a_trigger_for_each_class_aims_at_all_of_them():
    case, truth, test = set_by("each_class")
    finding = perfect(case, truth)
    assert capstone.grade(case, finding._replace(classes=(0, 1)), truth, test)["class"] == 0.2
    finding = finding._replace(classes=tuple(range(10)))
    assert capstone.grade(case, finding, truth, test)["class"] == 1


def test_covers_count_neither_way():
    case, truth, test = set_by("adaptive_patch")
    bad = truth.is_poisoned & ~capstone.covers(truth)
    assert 0 < int(bad.sum()) < int(truth.is_poisoned.sum())
    for suspects in (bad, truth.is_poisoned):
        row = capstone.grade(case, perfect(case, truth)._replace(suspects=suspects), truth, test)
        assert row["samples"] == row["spared"] == 1


def test_a_trigger_on_one_class_is_asked_on_that_class():
    case, truth, test = set_by("one_source")
    source = test.subset(test.labels == 4)
    part = truth.parts[1]
    assert set(truth.clean_labels[truth.is_poisoned].tolist()) == {4}
    here = capstone.success(case.model, part, test)
    assert here == metrics.success(case.model, part, source)


def test_what_a_trigger_does_without_poison_is_not_held_against_a_repair(monkeypatch):
    case, truth, test = set_by("badnets")
    finding, rates = perfect(case, truth), iter([0.6, 0.4, 0.38, 0.6, 0.4, 0.1])
    monkeypatch.setattr(capstone, "success", lambda *_: next(rates))
    monkeypatch.setattr(training, "accuracy", lambda *_: 0.9)
    assert capstone.grade(case, finding, truth, test)["repair"] == 1
    assert capstone.grade(case, finding, truth, test)["repair"] == 0


def test_the_stored_rows_are_of_the_cases_as_they_are_drawn():
    table = results("capstone").query("investigator == 'trusting'").set_index("case")
    assert len(table) == 30
    for number in (100, 105, 109):
        one = capstone.sealed(number)
        assert table.state[number] == capstone.draw(one._word)[0].attack
        assert table.word[number] == one._word


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
