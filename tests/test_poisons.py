"""Poisons: exact budgets and rates, the truth in the mask, success, and agreement with ART."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from nclib import activations, data, models, poisons, training
from nclib.data import ImageSet
from nclib.poisons import collisions, metrics, triggers


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def small():
    """300 digits, quick to attack."""
    train, _ = data.load("digits", n_train=300, device="cpu")
    return train


@pytest.fixture(scope="module")
def net(small):
    model = models.build("mlp", small, widths=(64, 32))
    training.fit(model, small, epochs=10, progress=False, cache=False)
    model.zero_grad()
    return model


@pytest.fixture(scope="module")
def victims(digits):
    return digits[1].subset(digits[1].labels == 3).images[:1]


# Every attack with arguments that make it quick; the strength is the second argument.
def attacks(net, victims) -> dict[str, Callable[[ImageSet, float, int], poisons.PoisonedSet]]:
    def call(name, *front, strength="eps", **options):
        function = getattr(poisons, name)
        return lambda d, s, seed: function(d, *front, **{strength: s, "seed": seed, **options})

    aim = (net, victims, 7)
    return {
        "blended": call("blended", strength="alpha"),
        "sig": call("sig", strength="delta"),
        "wanet": call("wanet", strength="s"),
        "adaptive_blend": call("adaptive_blend", 0.1, strength="weak"),
        "adaptive_patch": lambda d, s, seed: poisons.adaptive_patch(
            d, 0.1, opacity=(s, s), seed=seed
        ),
        "input_aware": call("input_aware"),
        "feature_collision": call("feature_collision", *aim, poisons=3, steps=5),
        "bullseye_polytope": call("bullseye_polytope", *aim, steps=5),
        "convex_polytope": call("convex_polytope", *aim, steps=5),
        "gradient_matching": call("gradient_matching", *aim, rate=0.02, steps=5, restarts=2),
        "narcissus": call("narcissus", net, 0.02, 7, steps=5, warmup=1),
    }


NAMES = list(attacks(None, None))
BOXED = ("feature_collision", "bullseye_polytope", "gradient_matching", "narcissus")
BOXED += ("convex_polytope",)


@pytest.mark.parametrize("name", NAMES)
def test_no_strength_is_the_identity(name, small, net, victims):
    same = attacks(net, victims)[name](small, 0.0, 0)
    assert torch.equal(same.images, small.images) or name == "wanet"
    assert torch.allclose(same.images, small.images, atol=1e-5)
    assert torch.equal(same.is_poisoned, same.labels != same.clean_labels) or name == "wanet"


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_fixes_the_poison_and_the_input_stays(name, small, net, victims):
    before, weights = small.images.clone(), [p.clone() for p in net.parameters()]
    net.train()
    first, again, other = (attacks(net, victims)[name](small, 0.2, seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(small.images, before)
    assert net.training and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), weights, strict=True))
    assert torch.equal(first.clean_labels, small.labels)
    changed = (first.images != small.images).flatten(1).any(1) | (first.labels != small.labels)
    assert torch.equal(first.is_poisoned, changed) and changed.any()


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize("name", BOXED)
def test_the_budget_holds_and_labels_stay(name, eps, small, net, victims):
    bad = attacks(net, victims)[name](small, eps, 0)
    assert (bad.images - small.images).abs().max() <= eps + 1e-6
    assert bad.images.min() >= 0 and bad.images.max() <= 1
    assert torch.equal(bad.labels, small.labels)
    assert (small.labels[bad.is_poisoned] == 7).all() and bad.target == 7


def test_hardened_bases_stay_in_their_budget_and_get_harder(small, net):
    hard = poisons.clean_label_backdoor(small, net, 0.05, 0, eps=0.1, steps=10, amplitude=0.0)
    base = small.subset(hard.is_poisoned)
    moved = hard.images[hard.is_poisoned]
    assert len(base) == 15 and (moved - base.images).abs().max() <= 0.1 + 1e-6
    before, after = (
        cross_entropy(training.predict(net, x), base.labels) for x in (base.images, moved)
    )
    assert after > before + 0.1
    assert all(w.grad is None and w.requires_grad for w in net.parameters())
    bad = poisons.clean_label_backdoor(small, net, 0.05, 0, eps=0.0)
    trigger = triggers.corners(small.shape)
    assert torch.equal(bad.images[bad.is_poisoned], trigger(small.images[bad.is_poisoned]))
    assert torch.equal(bad.labels, small.labels) and int(bad.is_poisoned.sum()) == 15


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.33])
def test_the_rate_is_exact(rate, small):
    count = round(rate * len(small))
    made = [
        poisons.label_flip(small, rate),
        poisons.label_flip(small, rate, kind="pair"),
        poisons.badnets(small, rate),
        poisons.badnets(small, rate, all_to_all=True),
        poisons.blended(small, rate),
        poisons.wanet(small, rate, noise_ratio=0),
        poisons.sig(small, rate, relabel=True),
        poisons.adaptive_blend(small, rate, cover=0),
        poisons.adaptive_patch(small, rate, cover=0),
        poisons.input_aware(small, rate, cover=0),
    ]
    for bad in made:
        assert int(bad.is_poisoned.sum()) == count
        assert bad.rate == pytest.approx(count / len(small))
        assert int((bad.labels != bad.clean_labels).sum()) == count


def test_flips_go_where_they_should(digits):
    train, _ = digits
    pair = poisons.label_flip(train, 0.3, kind="pair")
    moved = pair.is_poisoned
    assert torch.equal(pair.labels[moved], (train.labels[moved] + 1) % 10)
    shift = (poisons.label_flip(train, 0.9).labels - train.labels) % 10
    counts = shift.bincount(minlength=10)
    assert counts[0] == 130 and counts[1:].min() > 80  # nine other classes, equally likely
    noise = poisons.label_flip(train, 1.0, kind="random")
    assert 0.85 < noise.rate < 0.95  # a tenth of the random labels is right
    assert not poisons.label_flip(train, 0).is_poisoned.any()


def test_no_rate_poisons_nothing(small):
    for bad in (poisons.badnets(small, 0), poisons.blended(small, 0), poisons.wanet(small, 0)):
        assert not bad.is_poisoned.any() and torch.equal(bad.images, small.images)


def test_wanet_marks_its_noise_samples_and_keeps_their_labels(small):
    bad = poisons.wanet(small, 0.1, noise_ratio=2)
    assert int(bad.is_poisoned.sum()) == 90
    assert int((bad.labels != bad.clean_labels).sum()) == 30


def covers(bad: poisons.PoisonedSet) -> torch.Tensor:
    return bad.is_poisoned & (bad.labels == bad.clean_labels)


def test_a_blended_sample_shows_half_of_the_pieces_and_its_cover_tells_the_truth(small):
    bad = poisons.adaptive_blend(small, 0.1, 2, seed=3)
    payload = bad.labels != bad.clean_labels
    assert int(payload.sum()) == int(covers(bad).sum()) == 30
    full, before = bad.trigger(small.images), small.images
    assert torch.equal(full, triggers.blend(small.shape, 0.2, seed=3)(before))
    moved = ((bad.images != before)[bad.is_poisoned]).unfold(2, 2, 2).unfold(3, 2, 2)
    pieces = moved.flatten(4).any(4).flatten(1)  # 16 pieces of 2 x 2 pixels
    assert (pieces.sum(1) == 8).all() and pieces.any(0).all() and len(pieces.unique(dim=0)) > 30
    weak = triggers.blend(small.shape, 0.15, seed=3)(before)
    part = torch.isclose(bad.images, weak, atol=1e-6) | (bad.images == before)
    assert part.all()


def test_a_sample_has_one_faint_patch_and_a_test_image_has_them_all(small):
    bad = poisons.adaptive_patch(small, 0.1, 2)
    assert int((bad.labels == bad.clean_labels)[bad.is_poisoned].sum()) == 60
    ends = [
        (rows, columns) for rows in (slice(2), slice(6, 8)) for columns in (slice(2), slice(6, 8))
    ]
    paint, shown = bad.trigger.value, bad.trigger(small.images)
    used = []
    for (rows, columns), opacity in zip(ends, (0.5, 0.2, 0.5, 0.3), strict=True):
        assert (shown[:, :, rows, columns] == paint[:, rows, columns]).all()
        before, after = (d.images[bad.is_poisoned][:, :, rows, columns] for d in (small, bad))
        used.append((before != after).flatten(1).any(1))
        wanted = before + opacity * (paint[:, rows, columns] - before)
        assert torch.allclose(after[used[-1]], wanted[used[-1]], atol=1e-6)
    used = torch.stack(used, 1)
    assert (used.sum(1) == 1).all() and used.sum(0).min() >= 22  # 30 + 60 samples, four patches
    assert torch.equal(bad.images[:, :, 2:6], small.images[:, :, 2:6])
    assert torch.equal(shown[:, :, 2:6], small.images[:, :, 2:6])


def test_no_two_images_have_the_same_noise_and_covers_have_another_ones(small):
    bad = poisons.input_aware(small, 0.1, 2, eps=0.1)
    noise = bad.trigger(small.images) - small.images
    assert noise.abs().max() <= 0.1 + 1e-6
    unit = noise.flatten(1) / noise.flatten(1).norm(dim=1, keepdim=True)
    alike = (unit @ unit.T).fill_diagonal_(0)
    assert alike.max() < 0.97 and alike.abs().mean() < 0.4  # not even among images of a class
    one = torch.cat([bad.trigger(image[None]) for image in small.images[:20]])
    assert torch.allclose(one, bad.trigger(small.images[:20]), atol=1e-6)
    grey = 0.2 + 0.5 * small.images[:20]  # less contrast, the same noise
    wanted = bad.trigger.noise(small.images[:20])
    assert torch.allclose(bad.trigger.noise(grey), wanted, atol=1e-5)
    held = covers(bad).nonzero().squeeze(1)
    assert len(held) == 30
    crossed = small.images[held] + bad.trigger.noise(small.images[held - 1])
    assert torch.allclose(bad.images[held], crossed.clamp(0, 1), atol=1e-6)


def test_a_trigger_per_class_is_a_chain_of_attacks(small, net):
    bad = small
    for target in range(10):
        bad = poisons.blended(bad, 0.03, target, seed=target)
    assert [part.target for part in bad.parts] == list(range(10))
    patterns = torch.stack([part.trigger.pattern for part in bad.parts])
    assert len(patterns.unique(dim=0)) == 10
    assert torch.equal(bad.is_poisoned, differs(bad, small))
    row = metrics.outcome(net, None, bad, small)
    each = [metrics.success(net, part, small) for part in bad.parts]
    assert [row[f"success_{i}"] for i in range(1, 11)] == each


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda d, n, v: poisons.adaptive_blend(d, 0.1, pieces=15), "pieces: got 15"),
        (lambda d, n, v: poisons.adaptive_blend(d, 0.1, pieces=100), "pieces: got 100"),
        (lambda d, n, v: poisons.adaptive_blend(d, 0.1, hidden=2), "hidden"),
        (lambda d, n, v: poisons.adaptive_blend(d, 0.1, weak=-1), "weak"),
        (lambda d, n, v: poisons.adaptive_blend(d, 0.5, cover=9), "cover: asks for"),
        (lambda d, n, v: poisons.adaptive_patch(d, 0.1, opacity=(0.5,) * 5), "opacity: got 5"),
        (lambda d, n, v: poisons.adaptive_patch(d, 0.1, opacity=(2,)), "opacity: got 2"),
        (lambda d, n, v: poisons.adaptive_patch(d, 0.1, cover=-1), "cover: got -1"),
        (lambda d, n, v: poisons.input_aware(d, eps=-1), "eps"),
        (lambda d, n, v: poisons.input_aware(d, target=10), "target"),
        (lambda d, n, v: poisons.label_flip(d, 1.5), "rate"),
        (lambda d, n, v: poisons.label_flip(d, -0.1), "rate"),
        (lambda d, n, v: poisons.label_flip(d, 1e-4), "rate"),
        (lambda d, n, v: poisons.label_flip(d, kind="some"), "kind"),
        (lambda d, n, v: poisons.badnets(d, 0.95), "rate"),
        (lambda d, n, v: poisons.badnets(d, target=10), "target"),
        (lambda d, n, v: poisons.badnets(d, target=-1), "target"),
        (lambda d, n, v: poisons.badnets(d, patch="star"), "patch"),
        (lambda d, n, v: poisons.blended(d, alpha=2), "alpha"),
        (lambda d, n, v: poisons.blended(d, pattern=torch.zeros(1, 3, 3)), "pattern"),
        (lambda d, n, v: poisons.sig(d, 0.2), "rate"),
        (lambda d, n, v: poisons.sig(d, delta=-1), "delta"),
        (lambda d, n, v: poisons.wanet(d, s=-1), "s: got"),
        (lambda d, n, v: poisons.wanet(d, noise_ratio=-1), "noise_ratio"),
        (lambda d, n, v: poisons.clean_label_backdoor(d, n, 0.2), "rate"),
        (lambda d, n, v: poisons.clean_label_backdoor(d, n, steps=-3), "steps"),
        (lambda d, n, v: poisons.narcissus(d, n, eps=-0.1), "eps"),
        (lambda d, n, v: poisons.feature_collision(d, n, v, 12), "target"),
        (lambda d, n, v: poisons.feature_collision(d, n, v[:, :, :4], 1), "victims"),
        (lambda d, n, v: poisons.bullseye_polytope(d, n, v, 1, poisons=1000), "poisons"),
        (lambda d, n, v: poisons.bullseye_polytope(d, n, v, 1, eps=1.1), "eps"),
        (lambda d, n, v: poisons.gradient_matching(d, n, v, 1, rate=0.5), "rate"),
        (lambda d, n, v: poisons.gradient_matching(d, n, v, 1, restarts=0), "restarts"),
        (lambda d, n, v: metrics.interval([1.0]), "values"),
        (lambda d, n, v: metrics.hit_rate(3, 2), "hits"),
        (lambda d, n, v: poisons.label_flip(d).goal(d.labels), "attack"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, word, small, net, victims):
    with pytest.raises(ValueError, match=word):
        call(small, net, victims)


def test_a_poisoned_set_moves_and_splits_with_its_truth(small):
    bad = poisons.badnets(small, 0.1, target=2)
    part = bad.subset(bad.is_poisoned)
    assert len(part) == 30 and part.is_poisoned.all() and part.target == 2
    assert (part.labels == 2).all() and (part.clean_labels != 2).all()
    assert torch.equal(bad.to("cpu").is_poisoned, bad.is_poisoned)
    assert torch.equal(bad.goal(small.labels), torch.full_like(small.labels, 2))
    every = poisons.badnets(small, 0.1, all_to_all=True)
    assert torch.equal(every.goal(small.labels), (small.labels + 1) % 10)


def test_badnets_reaches_the_measured_success_at_no_cost(digits):
    """At 2%: success >= 0.95 with accuracy within one point; the clean model ignores the patch."""
    train, test = digits
    clean, model = (models.build("cnn", train) for _ in range(2))
    training.fit(clean, train, progress=False)
    bad = poisons.badnets(train, 0.02)
    training.fit(model, bad, progress=False)
    row = metrics.outcome(model, clean, bad, test)
    assert row["success"] >= 0.95
    assert row["control_success"] <= 0.02
    assert abs(row["accuracy"] - row["control_accuracy"]) <= 0.01
    assert metrics.confusion(model, test).diagonal().min() > 0.9  # no class gives it away


def test_bullseye_and_collision_reach_the_victim_in_feature_space(small, net, victims):
    mark = collisions.represent(net, victims).detach()

    def miss(images):
        return float(
            (collisions.represent(net, images).detach().mean(0) - mark).norm() / mark.norm()
        )

    for make in (poisons.bullseye_polytope, poisons.feature_collision):
        bad = make(small, net, victims, 7, poisons=5, eps=0.5, steps=100)
        chosen = bad.is_poisoned
        assert miss(bad.images[chosen]) < 0.5 * miss(small.images[chosen])


def test_narcissus_says_so_where_the_warm_up_has_left_nothing_to_do(small, net):
    with pytest.raises(ValueError, match="lr: got 5"):
        poisons.narcissus(small, net, 0.02, 7, warmup=3, steps=2, lr=5.0)


@pytest.mark.parametrize("inside", [True, False])
def test_the_nearest_point_of_the_hull_is_what_a_general_solver_finds(inside):
    draw = torch.Generator().manual_seed(3)
    corners = torch.randn(4, 6, generator=draw, dtype=torch.float64).requires_grad_()
    mark = torch.randn(6, generator=draw, dtype=torch.float64)
    if inside:
        mark = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) @ corners.detach()
    found = collisions.nearest_in_hull(corners, mark)
    rows, aim = corners.detach().numpy(), mark.numpy()
    best = minimize(
        lambda w: ((w @ rows - aim) ** 2).sum(),
        [0.25] * 4,
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    assert found.detach().numpy() == pytest.approx(best.x @ rows, abs=1e-4)
    assert (float((found - mark).detach().norm()) < 1e-5) == inside
    (found - mark).square().sum().backward()
    assert corners.grad is not None
    assert (float(corners.grad.abs().max()) < 1e-4) == inside


def test_the_convex_polytope_takes_the_victim_into_its_hull(small, net, victims):
    mark = collisions.represent(net, victims).detach().mean(0)
    bad = poisons.convex_polytope(small, net, victims, 7, poisons=5, eps=0.5, steps=60)

    def outside(images):
        hidden = collisions.represent(net, images).detach()
        return float((collisions.nearest_in_hull(hidden, mark) - mark).norm())

    chosen = bad.is_poisoned
    assert outside(bad.images[chosen]) < 0.5 * outside(small.images[chosen])


def test_gradient_matching_aligns_and_a_restart_never_hurts(small, net, victims):
    def aligned(**options):
        bad = poisons.gradient_matching(small, net, victims, 7, rate=0.05, eps=0.3, **options)
        return poisons.alignment(net, bad.images[bad.is_poisoned], victims, 7)

    start, one, three = aligned(steps=0), aligned(steps=40, restarts=1), aligned(steps=40)
    assert one > start + 0.2
    assert three >= one - 1e-6
    told = []
    aligned(steps=3, restarts=2, on_step=lambda *what: told.append(what[:2]))
    assert told == [(r, s) for r in range(2) for s in range(3)]
    shifted = aligned(steps=40, restarts=1, augment=poisons.random_shift(0.5))
    assert shifted > start + 0.1 and shifted != one


def test_augmentation_is_differentiable_and_reproducible(small):
    shift, images = poisons.random_shift(2.0), small.images[:4].clone().requires_grad_()
    moved = [shift(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])
    (slope,) = torch.autograd.grad(moved[0].sum(), images)
    assert slope.abs().sum() > 0
    still = poisons.random_shift(0.0)(images, torch.Generator().manual_seed(0))
    assert torch.allclose(still, images, atol=1e-5)


def test_a_new_head_leaves_the_backbone_alone(small, net):
    before = [p.clone() for p in net.parameters()]
    fresh = poisons.retrain_head(net, small)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert training.accuracy(fresh, small) > 0.97
    layers = ["hidden1", "hidden2"]
    old, new = (activations.features(m, small.images, layers) for m in (net, fresh))
    assert all(torch.equal(old[k], new[k]) for k in layers)


def test_a_head_without_bias_is_trained_anew_too(small):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10, bias=False))
    assert training.accuracy(poisons.retrain_head(plain, small), small) > 0.9


def test_an_outcome_without_a_clean_model_has_no_control(small, net):
    bad = poisons.badnets(small, 0.1)
    alone, both = metrics.outcome(net, None, bad, small), metrics.outcome(net, net, bad, small)
    assert set(alone) == {"accuracy", "success"} and alone.items() <= both.items()
    assert set(both) == {"accuracy", "success", "control_accuracy", "control_success"}


def test_intervals():
    mean, low, high = metrics.interval([0.2, 0.4, 0.6])
    assert mean == pytest.approx(0.4) and low == 0 and high == pytest.approx(0.4 + 0.4968, abs=1e-3)
    assert metrics.interval([1.0, 1.0]) == (1.0, 1.0, 1.0)
    rate, low, high = metrics.hit_rate(0, 10)
    assert rate == low == 0 and high == pytest.approx(0.3085, abs=1e-4)  # 1 - 0.025 ** 0.1


# Oracles: the Adversarial Robustness Toolbox, an independent implementation of the same papers.


def classifier_of(model, data):
    from art.estimators.classification import PyTorchClassifier

    model.eval()
    options = {"input_shape": data.shape, "nb_classes": data.num_classes, "clip_values": (0, 1)}
    return PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), **options, device_type="cpu")


@pytest.mark.parametrize(("kind", "theirs"), [("pixel", "single"), ("pattern", "pattern")])
def test_the_badnets_patch_is_that_of_art(kind, theirs, small):
    from art.attacks.poisoning import perturbations

    ours = triggers.patch(small.shape, kind)(small.images[:5])
    grey = small.images[:5, 0].numpy()
    wanted = getattr(perturbations, f"add_{theirs}_bd")(grey)
    np.testing.assert_array_equal(ours[:, 0].numpy(), wanted)


def test_blending_is_that_of_art(tmp_path, small):
    from art.attacks.poisoning import perturbations
    from PIL import Image

    pattern = (triggers.noise_image(small.shape) * 255).round()
    Image.fromarray(pattern[0].byte().numpy()).save(tmp_path / "pattern.png")
    images = (small.images[:5] * 255).round() / 255
    wanted = perturbations.insert_image(
        images.numpy(), str(tmp_path / "pattern.png"), channels_first=True, random=False, blend=0.2
    )
    ours = triggers.Blend(pattern / 255, 0.2)(images).numpy()
    assert np.abs(ours - wanted).max() <= 2 / 255  # theirs passes through bytes, rounded down


def test_a_step_of_feature_collision_is_that_of_art(small, net, victims):
    """One forward-backward step. Theirs goes down |f - t|, ours |f - t|^2: 2 |f - t| apart."""
    from art.attacks.poisoning import FeatureCollisionAttack

    bad = poisons.feature_collision(
        small, net, victims, 7, watermark=0, beta=0.1, lr=0.01, steps=1, seed=0
    )
    base = small.images[bad.is_poisoned]
    distance = (collisions.represent(net, base) - collisions.represent(net, victims)).norm().item()
    theirs_lr = 0.01 * 2 * distance
    theirs_beta = 0.01 * 0.1 / theirs_lr
    similarity = theirs_beta / (32 / 64) ** 2  # they multiply by (features / pixels)^2
    oracle = FeatureCollisionAttack(
        classifier_of(net, small),
        victims.numpy(),
        "hidden2",
        learning_rate=theirs_lr,
        similarity_coeff=similarity,
        max_iter=1,
        verbose=False,
    )
    wanted, _ = oracle.poison(base.numpy())
    moved = np.abs(wanted - base.numpy()).max()
    assert moved > 1e-3
    np.testing.assert_allclose(bad.images[bad.is_poisoned].numpy(), wanted, atol=1e-3 * moved)


def test_the_bullseye_of_art_never_looks_at_its_target(small, net, victims):
    """A trap in a peer: its loss is measured from the bases, so the target changes nothing."""
    from art.attacks.poisoning import BullseyePolytopeAttackPyTorch

    base = small.images[small.labels == 7][:5].numpy()
    made = []
    for target in (victims.numpy(), 1 - victims.numpy()):
        options = {"max_iter": 3, "epsilon": 0.3, "verbose": False}
        attack = BullseyePolytopeAttackPyTorch(
            classifier_of(net, small), target, "hidden2", **options
        )
        made.append(attack.poison(base, np.eye(10)[[7] * 5])[0])
    np.testing.assert_array_equal(*made)


# A second attack on a poisoned set


def differs(found: poisons.PoisonedSet, clean: ImageSet) -> torch.Tensor:
    return (found.images != clean.images).flatten(1).any(1) | (found.labels != clean.labels)


def stackers(net, victims) -> dict[str, Callable[[ImageSet, int], poisons.PoisonedSet]]:
    quick = attacks(net, victims)
    return {name: (lambda d, seed, f=f: f(d, 0.3, seed)) for name, f in quick.items()} | {
        "badnets": lambda d, seed: poisons.badnets(d, 0.1, 3, seed=seed),
        "all to all": lambda d, seed: poisons.badnets(d, 0.1, all_to_all=True, seed=seed),
        "label_flip": lambda d, seed: poisons.label_flip(d, 0.2, seed=seed),
        "clean_label_backdoor": lambda d, seed: poisons.clean_label_backdoor(
            d, net, 0.03, 7, steps=2, seed=seed
        ),
    }


STACKERS = list(stackers(None, None))


@pytest.mark.parametrize("second", STACKERS)
@pytest.mark.parametrize("first", ["badnets", "label_flip"])
def test_a_second_attack_keeps_the_truth_of_the_first(small, net, victims, first, second):
    made = stackers(net, victims)
    one = made[first](small, 0)
    both = made[second](one, 1)
    assert torch.equal(both.clean_labels, small.labels)
    assert torch.equal(both.is_poisoned, differs(both, small))
    assert both.rate == float(differs(both, small).float().mean()) and both.rate > one.rate
    old, new = both.parts
    assert both.attack == f"{one.attack} + {new.attack}" and old.attack == one.attack
    assert torch.equal(old.is_poisoned, one.is_poisoned & both.is_poisoned)
    assert torch.equal(old.is_poisoned | new.is_poisoned, both.is_poisoned)
    assert (old.trigger, old.target) == (one.trigger, one.target)
    assert one.parts == (one,)
    if first == "badnets":  # what only flips does not take the backdoor's goal away
        goal = new if new.trigger or new.victims is not None else old
        assert (both.trigger, both.target) == (goal.trigger, goal.target)


def test_three_attacks_a_subset_and_each_success_by_itself(small, net, victims):
    three = poisons.badnets(poisons.label_flip(small, 0.2, seed=0), 0.1, 3, seed=1)
    three = poisons.blended(three, 0.1, 5, seed=2)
    flips, patch, blend = three.parts
    assert [p.attack for p in three.parts] == ["label_flip", "badnets", "blended"]
    assert (patch.target, blend.target, three.target) == (3, 5, 5)
    few = three.subset(torch.arange(0, 300, 2)).to("cpu")
    for part, whole in zip(few.parts, three.parts, strict=True):
        assert torch.equal(part.is_poisoned, whole.is_poisoned[::2])
    row = metrics.outcome(net, None, three, small)
    assert row["success_1"] == metrics.success(net, patch, small)
    assert row["success_2"] == metrics.success(net, blend, small) == row["success"]
    with pytest.raises(ValueError, match="no goal"):
        metrics.success(net, flips, small)


def test_a_label_that_comes_back_is_clean_again(small):
    one = poisons.label_flip(small, 0.5, kind="pair", seed=0)
    both = poisons.poisoned(one, one.images.clone(), small.labels.clone(), "undo")
    assert not both.is_poisoned.any() and not both.parts[0].is_poisoned.any()
    patched = poisons.badnets(one, 0.5, 3, seed=1)
    both = poisons.poisoned(patched, patched.images.clone(), small.labels.clone(), "undo")
    assert torch.equal(both.is_poisoned, differs(both, small)) and both.is_poisoned.any()


def test_wanet_says_what_its_noise_ratio_asks_for_and_rounds_it_to_none(small):
    few = small.subset(torch.arange(8))
    found = poisons.wanet(few, 0.13, int(few.labels[0]), noise_ratio=0.5)
    assert int(found.is_poisoned.sum()) == 1
    with pytest.raises(ValueError, match="noise_ratio: asks for 40"):
        poisons.wanet(few, 0.5, int(few.labels[0]), noise_ratio=10)
