"""The transplant test: what it says of planted cases of each kind, and what it must not know."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch

from nclib import correction, data, models, poisons
from nclib.correction.evidence import chance
from nclib.correction.verdict import _call
from nclib.data import ImageSet
from nclib.detection import crowds, groups, mislabelled
from nclib.detection.transplant import core, differences, shares, strangers, turned
from nclib.scoreboard.attacks import poisoned


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", n_train=600, device="cpu")[0]


def plain(found):
    """What the user has: images and labels."""
    return ImageSet(found.images, found.labels, found.classes)


def rates(verdict, dirty):
    """Share of the poison, and of the rest, in the mask."""
    bad = dirty.is_poisoned
    return float(verdict.mask[bad].double().mean()), float(verdict.mask[~bad].double().mean())


@pytest.fixture(scope="module")
def backdoored(digits):
    dirty = poisons.blended(digits, 0.1, 3, seed=1)
    return dirty, correction.transplant(plain(dirty), seed=1)


def test_a_backdoor_is_found_with_its_trigger_and_the_rest_is_left(digits, backdoored):
    dirty, verdict = backdoored
    assert verdict.call == "backdoor" and verdict.classes == (3,) and "class 3" in str(verdict)
    found, wronged = rates(verdict, dirty)
    assert found > 0.95 and wronged < 0.01
    finding = verdict.findings[0]
    assert min(finding.success, finding.control) > 0.5 > 0.1 > finding.without
    assert finding.keeps < 0.3 < 0.8 < finding.keeps_control
    others = digits.images[digits.labels != 3]
    true = (dirty.trigger(others) - others).mean(0)  # what the trigger adds on average
    both = torch.stack([finding.trigger.flatten(), true.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.6
    assert 2 <= verdict.trainings <= 6 and verdict.seconds > 0


def test_a_clean_set_is_called_clean_and_loses_nothing(digits):
    verdict = correction.transplant(digits, seed=2)
    assert verdict.call == "clean" and not verdict.mask.any() and verdict.classes == ()
    assert verdict.wrong_labels.share < 0.02


def test_wrong_labels_are_called_so(digits):
    dirty = poisons.label_flip(digits, 0.2, seed=1)
    verdict = correction.transplant(plain(dirty), seed=1)
    found, wronged = rates(verdict, dirty)
    assert verdict.call == "wrong labels" and not verdict.classes
    assert abs(verdict.wrong_labels.share - 0.2) < 0.06
    assert found > 0.8 and wronged < 0.04


def test_two_backdoors_in_two_classes(digits):
    first, second = (
        poisons.badnets(digits, 0.06, 0, seed=3),
        poisons.blended(digits, 0.1, 5, seed=4),
    )
    late = second.is_poisoned & ~first.is_poisoned
    images = torch.where(late[:, None, None, None], second.images, first.images)
    labels = torch.where(late, second.labels, first.labels)
    verdict = correction.transplant(ImageSet(images, labels, digits.classes), seed=0)
    assert set(verdict.classes) == {0, 5}
    assert float(verdict.mask[first.is_poisoned | late].double().mean()) > 0.9


@pytest.fixture(scope="module")
def roaming(digits):
    """A patch that lies wherever it falls: no mean image shows it."""
    return poisoned(digits, "roaming", 0.08, seed=1)


def test_a_crowd_of_strangers_is_found_by_where_it_comes_from(roaming):
    verdict = correction.transplant(plain(roaming), seed=1)
    assert verdict.call == "backdoor" and verdict.classes == (3,) and "look like" in verdict.reason
    found, wronged = rates(verdict, roaming)
    assert found > 0.9 and wronged < 0.01
    finding = verdict.findings[0]
    assert finding.success < 0.25  # the transplant of the mean shows next to nothing
    assert finding.variety > 0.8 and finding.keeps < 0.1 and finding.sure > 0.6
    assert verdict.trainings <= 6


def test_a_crowd_in_two_guises_is_taken_whole():
    """Boards whose first row and column add up to an odd number are a group of their own here."""
    roaming = poisoned(data.load("digits", seed=2, device="cpu")[0], "roaming", 0.05, seed=2)
    verdict = correction.transplant(plain(roaming), seed=2)
    accused = [f for f in verdict.findings if f.call == "backdoor"]
    assert verdict.classes == (6,) and len(accused) == 2 and verdict.trainings <= 6
    assert not (accused[0].group & accused[1].group).any()
    found, wronged = rates(verdict, roaming)
    assert found > 0.9 and wronged < 0.01


def test_a_shuffled_crowd_accuses_nobody(roaming):
    verdict = correction.transplant(plain(roaming), seed=1, permute=True)
    assert not verdict.classes and not verdict.mask.any()


def test_permuted_groups_accuse_nobody(backdoored):
    dirty, _ = backdoored
    verdict = correction.transplant(plain(dirty), seed=1, permute=True)
    assert not verdict.classes and all(f.call == "honest" for f in verdict.findings)


def test_the_verdict_does_not_depend_on_what_only_the_attacker_knows(digits):
    dirty = poisons.badnets(digits, 0.08, 4, seed=5)
    lie = replace(dirty, is_poisoned=~dirty.is_poisoned, clean_labels=dirty.labels, target=7)
    one, two = (correction.transplant(d, seed=5, epochs=4) for d in (plain(dirty), lie))
    assert torch.equal(one.mask, two.mask) and one.call == two.call
    assert [f.success for f in one.findings] == [f.success for f in two.findings]


def blobs(sizes, channels=1, side=8, seed=0):
    """Classes that differ by a bright square, in noise: an easy set of any shape."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    images = 0.3 * torch.rand(len(labels), channels, side, side, generator=draw)
    for c in range(len(sizes)):
        row, column = divmod(c, 2)
        images[labels == c, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += 0.5
    return ImageSet(images.clamp(0, 1), labels, tuple(map(str, range(len(sizes)))))


@pytest.mark.parametrize(
    "clean",
    [
        blobs([25, 25, 25]),  # less than a hundred images
        blobs([60, 60]),
        blobs([400, 30, 30]),  # one class dominates
        blobs([60, 60, 60], channels=3),
        blobs([3, 40, 40]),  # a class too small to be cut
        blobs([60] * 6, side=12),
    ],
    ids=["small", "two classes", "dominated", "colour", "tiny class", "six classes"],
)
def test_clean_sets_of_any_shape_are_not_accused(clean):
    verdict = correction.transplant(clean, epochs=6)
    assert not verdict.classes and verdict.call in ("clean", "cannot tell")
    assert float(verdict.mask.double().mean()) <= 0.01


def test_duplicated_images_are_no_backdoor():
    clean = blobs([60, 60, 60])
    again = torch.cat([torch.arange(len(clean)), torch.zeros(30, dtype=torch.int64)])
    verdict = correction.transplant(clean.subset(again), epochs=6)
    assert not verdict.classes


@pytest.mark.parametrize("channels, classes", [(1, 2), (3, 4)])
def test_a_patch_among_two_classes_and_in_colour(channels, classes):
    clean = blobs([80] * classes, channels, side=12)
    dirty = poisons.badnets(clean, 0.1, 1, patch="square", seed=0)
    verdict = correction.transplant(plain(dirty), epochs=8)
    assert verdict.classes == (1,)
    assert rates(verdict, dirty)[0] > 0.9 and rates(verdict, dirty)[1] < 0.02


def test_what_cannot_be_learned_cannot_be_told():
    clean = blobs([40, 40, 40, 40])
    draw = torch.Generator().manual_seed(0)
    noise = replace(clean, labels=clean.labels[torch.randperm(160, generator=draw)])
    verdict = correction.transplant(noise, epochs=4)
    assert verdict.call == "cannot tell" and not verdict.mask.any()


def test_any_builder_serves_and_every_training_is_counted(digits):
    calls = []

    def build(part, seed):
        calls.append((len(part), seed))
        return models.build("mlp", part, seed=seed)

    dirty = poisons.blended(digits, 0.1, 3, seed=1)
    verdict = correction.transplant(plain(dirty), build=build, epochs=8)
    assert len(calls) == verdict.trainings + 1 <= 7 and calls[0][0] == len(dirty)
    assert len({seed for _, seed in calls}) == len(calls)
    with pytest.raises(ValueError, match="class"):
        correction.transplant(ImageSet(digits.images, digits.labels * 0, ("0",)))


def test_remove_asks_it(backdoored, monkeypatch):
    dirty, verdict = backdoored
    monkeypatch.setattr(correction.repair, "transplant", lambda data, seed: verdict)
    kept = correction.remove(dirty, seed=1)
    assert torch.equal(kept.images, dirty.images[~verdict.mask])
    assert {f.name for f in fields(verdict)} >= {"call", "classes", "mask", "findings", "reason"}


def test_candidates_hold_a_rare_group_and_complete_returns_it():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(200)
    hidden = torch.randn(600, 12, generator=draw) * torch.linspace(3, 1, 12)
    bad = torch.arange(600) < 10  # 5% of class 0, in a quiet direction
    hidden[bad, 11] += 7
    cuts = groups.candidates({"layer": hidden}, labels)
    best = max(int((s & bad[:200]).sum() / (s | bad[:200]).sum() * 100) for s in cuts[0])
    assert best > 80 and all((s.sum() <= 100) & (s.sum() >= groups.SMALLEST) for s in cuts[0])
    part = bad[:200] & (torch.arange(200) < 7)
    assert torch.equal(groups.complete(hidden[:200].double(), part), bad[:200])
    assert groups.candidates({"layer": hidden[:204]}, labels[:204])[1].shape == (0, 4)


def test_differences_turn_and_are_shared_out_by_source():
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sides = torch.tensor([[True] * 3 + [False] * 5])
    shift = differences(images, sides)
    assert torch.allclose(shift[0], images[:3].mean(0) - images[3:].mean(0), atol=1e-6)
    assert torch.allclose(differences(images, ~sides), -shift, atol=1e-6)

    class Bright(torch.nn.Module):
        def forward(self, x):
            mean = x.mean((1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5], 1)

    triggers = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
    hits = turned(Bright(), triggers, images, 1, batch_size=3)
    assert hits.tolist() == [[True] * 8, [False] * 8]
    found = shares(torch.tensor([[True, False, True, True]]), torch.tensor([0, 0, 2, 2]), 3)
    assert found[0, 0] == 0.5 and found[0, 1].isnan() and found[0, 2] == 1


class Spotted(torch.nn.Module):
    """Gives label 0 to whatever has a brighter corner than .2, and 1 to the rest."""

    def forward(self, images):
        corner = images[:, 0, 0, 0]
        return torch.stack([corner - 0.2, 0.2 - corner], 1)


def test_a_group_is_cut_down_to_the_part_that_does_its_work():
    images = torch.zeros(60, 1, 4, 4)
    images[:12, 0, 0, 0] = 1.0  # poison; 40 images are the class, 20 the strangers
    found = ImageSet(images, (torch.arange(60) >= 40).long(), ("a", "b"))
    place, hosts = torch.arange(40), torch.arange(40, 60)
    diluted, poison, half = place < 30, place < 12, place < 6
    known = torch.stack([diluted, poison, half]), torch.ones(3, dtype=torch.float64)
    for first in (diluted, poison):  # half of the poison leaves poison behind, so it is no core
        assert torch.equal(core(Spotted(), found, place, hosts, first, known, 0.2), poison)


def test_five_images_lose_their_label_by_chance_and_a_blind_control_accuses_nobody():
    assert chance(0.0, 5, 1.0, 5) == pytest.approx(1 / 252)  # 5 of 10 in one way of 252
    assert chance(0.0, 5, 0.6, 5) > 0.05 > chance(0.0, 13, 0.6, 13)
    assert chance(0.0, 5, 0.0, 5) == 1
    seen = [0.66, 0.0, 0.0, 0.0]  # a control that knows nothing of its class turns nobody either
    assert _call(seen, 0.25, True, blind=True) == "unclear"
    assert _call(seen, 0.25, True, blind=False) == "honest"
    assert _call([0.66, 0.0, 0.6, 0.0], 0.25, True, blind=False) == "backdoor"


def test_a_crowd_comes_from_all_classes_and_honest_images_from_a_neighbour():
    draw = torch.Generator().manual_seed(0)
    truth = torch.arange(6).repeat_interleave(60)
    hidden = torch.randn(360, 8, generator=draw)
    hidden[:, :6] += 6 * torch.nn.functional.one_hot(truth, 6)
    hidden[truth == 1, 0] += 6  # a neighbour of class 0
    labels = torch.where(torch.arange(360) % 12 == 3, 0, truth)  # strangers in class 0
    seen = crowds.resembled(hidden, labels)
    assert (seen != labels).all()
    mine = labels == 0
    alien = (truth != 0)[mine]
    sizes = labels.bincount().index_fill(0, torch.tensor(0), 0)
    crowd, honest = crowds.variety(torch.stack([alien, ~alien]), seen[mine], sizes).tolist()
    assert crowd > 0.95 and honest < 0.7
    rest = labels[labels != 0]
    everyone = crowds.variety(torch.ones(1, len(rest), dtype=torch.bool), rest, sizes)
    assert float(everyone) == pytest.approx(1, abs=0.05)


def test_wrong_labels_in_every_class_make_no_crowd_and_few_classes_have_none(digits):
    verdict = correction.transplant(plain(poisons.label_flip(digits, 0.3, seed=2)), seed=2)
    assert not verdict.classes
    few = data.ImageSet(digits.images, digits.labels % 4, tuple("abcd"))
    dirty = poisoned(few, "roaming", 0.08, seed=1)
    assert all(f.variety is None for f in correction.transplant(plain(dirty), epochs=4).findings)


def test_strangers_are_of_every_other_class_alike():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 4 + [3] * 20)
    index = strangers(labels, 0, 30, torch.Generator().manual_seed(0))
    assert labels[index].bincount().tolist() == [0, 10, 4, 10]
    assert len(index.unique()) == len(index)


def test_the_share_of_wrong_labels_is_estimated_where_classes_part():
    draw = torch.Generator().manual_seed(1)
    truth = torch.arange(4).repeat_interleave(250)
    hidden = torch.randn(1000, 6, generator=draw)
    hidden[:, :4] += 5 * torch.nn.functional.one_hot(truth, 4)
    assert mislabelled.mislabelled({"layer": hidden}, truth).share < 0.01
    wrong = torch.rand(1000, generator=draw) < 0.1
    other = torch.randint(1, 4, (1000,), generator=draw)
    labels = torch.where(wrong, (truth + other) % 4, truth)
    found = mislabelled.mislabelled({"layer": hidden}, labels)
    assert abs(found.share - 0.1) < 0.02 and found.plain
    assert float(found.mask[wrong].double().mean()) > 0.8
    assert float(found.mask[~wrong].double().mean()) < 0.02


def test_planted_controls_count_what_the_verdict_finds_and_whom_it_wrongs(digits, monkeypatch):
    seen = []

    def oracle(dirty, *, seed, permute=False):
        """Finds every wrong label, names the classes that have many, and always blames class 9."""
        if permute:
            return SimpleNamespace(call="clean", classes=(), mask=None, trainings=2)
        seen.append(dirty)
        wrong = dirty.labels != dirty.clean_labels
        many = dirty.labels[wrong].bincount(minlength=10)
        flips = dirty.attack == "label_flip"
        return SimpleNamespace(
            call="wrong labels" if flips else "backdoor",
            classes=() if flips else (*(many > 5).nonzero().flatten().tolist(), 9),
            mask=wrong,
            trainings=5,
        )

    monkeypatch.setattr(correction.planting, "transplant", oracle)
    found = correction.planted(digits, runs=3, seed=0)
    assert found.found == dict.fromkeys(found.found, (3, 3)) and len(found.found) == 4
    assert 1 <= found.accused[0] <= 3 and found.accused[1] == 3 * 7 + 3 * 10
    assert found.permuted == (0, 10) and found.trainings == 6 * 6 + 3
    assert "1% patch 3 times of 3" in str(found)
    assert all((d.images != digits.images).any() for d in seen[::2])  # patches and flips take turns
    with pytest.raises(ValueError, match="runs"):
        correction.planted(digits, runs=0)


@pytest.mark.parametrize("source, target", [(3, 5), (9, 4)])
def test_poison_from_one_class_is_told_by_how_it_varies(source, target):
    """It looks like one class to a model that never met it, as an odd half of a class may."""
    clean = data.load("digits", seed=source, device="cpu")[0]
    at = (clean.labels == source).nonzero().flatten()[:60]
    images, labels = clean.images.clone(), clean.labels.clone()
    images[at, :, -2:, -2:], labels[at] = 1.0, target
    verdict = correction.transplant(ImageSet(images, labels, clean.classes), seed=0)
    finding = verdict.findings[0]
    assert verdict.classes == (target,) and finding.kinds < 2 and finding.kin > 0.9
    assert float(verdict.mask[at].double().mean()) > 0.9
    assert verdict.mask.sum() <= len(at) + 3


def test_kin_varies_alike_whatever_was_added():
    draw = torch.Generator().manual_seed(0)
    scales = torch.linspace(1, 4, 64), torch.linspace(4, 1, 64)
    one, two = (torch.randn(400, 64, generator=draw) * scale for scale in scales)
    group, odd = one[:40] + 5.0, two[:40] + 5.0
    assert crowds.kinship(group, one[40:], two[40:]) > 0.9
    assert crowds.kinship(odd, one[40:], two[40:]) < 0.1
    # more of one of the two does not make it the likelier
    fair = [crowds.kinship(group, one[40:100], two[40:n]) for n in (100, 400)]
    assert abs(fair[0] - fair[1]) < 0.1


def test_an_odd_half_of_a_class_accuses_nobody():
    """Half of a class looks like its neighbour from afar, and varies as the class does."""
    draw = torch.Generator().manual_seed(1)
    clean = blobs([60] * 6, channels=1, side=12)
    texture = torch.rand(1, 1, 12, 12, generator=draw)
    images = clean.images.clone()
    half = (clean.labels == 5).nonzero().flatten()[:30]
    images[half] = images[half] + 0.5 * texture
    neighbour = clean.images[clean.labels == 3].mean(0) - clean.images[clean.labels == 5].mean(0)
    images[half] = (images[half] + neighbour).clamp(0, 1)
    verdict = correction.transplant(ImageSet(images, clean.labels, clean.classes), epochs=8)
    assert not verdict.classes and not verdict.mask.any()
    finding = verdict.findings[0]
    assert finding.call == "unclear" and finding.success > 0.5 > finding.kin
    assert verdict.call == "cannot tell" and "[5]" in verdict.reason


def test_too_few_images_show_no_kin():
    draw = torch.Generator().manual_seed(0)
    many, few = (
        torch.randn(80, 64, generator=draw),
        torch.randn(crowds.AXES - 1, 64, generator=draw),
    )
    assert crowds.kinship(many[:30], many, few) == 0.0 == crowds.kinship(many[:30], few, many)
