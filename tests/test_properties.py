"""Properties that hold for any shape, kind, layout and scale; hypothesis tries to break them.

``NCLIB_PROPERTIES=1000`` asks for so many random examples of each; the suite tries the same 12.
"""

import os

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from torch import nn

from nclib import attacks, data, detection, geometry, poisons
from nclib.data import ImageSet
from nclib.defenses import partition, squeezing

MANY = int(os.environ.get("NCLIB_PROPERTIES", 0))
settings.register_profile(
    "nclib",
    max_examples=MANY or 12,
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("nclib")

SCALES = st.integers(-20, 20).map(lambda power: 10.0**power)
TWOS = st.integers(-60, 60).map(lambda power: 2.0**power)
SEEDS = st.integers(0, 2**31)
KINDS = st.sampled_from([torch.float32, torch.float64])
LAYOUTS = ("strided", "transposed", "offset")


def laid(rows: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers ``[N, D]`` in another place of memory."""
    if layout == "strided":
        wide = rows.new_full((len(rows), 2 * rows.shape[1]), torch.nan)
        wide[:, ::2] = rows
        return wide[:, ::2]
    if layout == "transposed":
        return rows.T.contiguous().T
    return torch.cat([rows.new_full((1, rows.shape[1]), torch.nan), rows])[1:]


@st.composite
def clouds(draw, least: int = 2, gaps: bool = False):
    """Features ``[N, D]`` in classes of any size, spread, place and scale, and their labels."""
    sizes = draw(st.lists(st.integers(least, 9), min_size=2, max_size=5))
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    if gaps:
        labels = labels * 2 + 1  # numbers without samples
    dim, generator = draw(st.integers(1, 10)), torch.Generator().manual_seed(draw(SEEDS))
    means = torch.randn(int(labels.max()) + 1, dim, generator=generator, dtype=torch.float64)
    spread = draw(st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 1.0, 30.0]))
    place = draw(st.sampled_from([0.0, 1.0, 100.0]))
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    features = (means[labels] + spread * noise + place) * draw(SCALES)
    order = torch.randperm(len(labels), generator=generator)
    return features[order].to(draw(KINDS)), labels[order]


def same(found: dict, wanted: dict, tolerance: float = 1e-6) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


def measured(features, labels):
    """The numbers of the geometry; a cloud whose means coincide has none."""
    try:
        return geometry.measure(features, labels)
    except ValueError as error:
        assume("coincide" not in str(error))
        raise


@given(clouds(least=1, gaps=True))
def test_geometry_is_finite(cloud):
    features, labels = cloud
    before = features.clone()
    found = measured(features, labels)
    assert all(torch.tensor(v).isfinite() for v in found.row().values()), found.row()
    assert torch.equal(features, before)
    assert geometry.residual(features, labels).mean() == pytest.approx(found.nc1)
    assert 0 <= found.ncc_accuracy <= 1 and found.nc1 >= 0 and found.cdnv >= 0


@given(clouds(least=1), TWOS, st.sampled_from(LAYOUTS), st.integers(1, 5), SEEDS)
def test_geometry_sees_neither_scale_nor_layout_nor_order_nor_batches(
    cloud, scale, layout, size, seed
):
    features, labels = cloud
    assume(1e-30 < float(features.abs().max()) * scale < 1e30)
    wanted = measured(features, labels).row()
    same(geometry.measure(features * scale, labels).row(), wanted)
    same(geometry.measure(laid(features, layout), labels).row(), wanted, 1e-9)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    same(geometry.measure(features[order], labels[order]).row(), wanted)
    batches = list(zip(features.split(size), labels.split(size), strict=True))
    same(geometry.measure_batches(batches).row(), wanted)


@pytest.mark.parametrize("name", detection.SCORES)
@given(clouds(), TWOS, st.sampled_from(LAYOUTS))
def test_scores_are_finite_and_see_neither_scale_nor_layout(name, cloud, scale, layout):
    features, labels = cloud
    assume(1e-30 < float(features.abs().max()) * scale < 1e30)
    before = features.clone()
    score = scored(name, features, labels)
    assert score.shape == labels.shape and score.dtype == torch.float64 and score.isfinite().all()
    assert torch.equal(features, before)
    other = scored(name, features * scale, labels)
    if name == "spectral":  # a squared length, not a ratio
        other = other / scale**2
    noise = {"nc1_residual": 1e-12, "class_norm": 1e-3}.get(name, 0)  # of full collapse, K = 2
    near = {"rtol": 1e-6, "atol": 1e-6 * float(score.abs().max()) + noise}
    torch.testing.assert_close(other, score, **near)
    torch.testing.assert_close(scored(name, laid(features, layout), labels), score, **near)


def scored(name, features, labels):
    options = {"folds": 2} if name == "confident_learning" else {}
    try:
        return detection.SCORES[name](features, labels, **options)
    except ValueError as error:
        assume("coincide" not in str(error))
        raise


NUMBERS = st.floats(-1e20, 1e20, allow_nan=False)


@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=2, max_size=40))
def test_rates_are_rates_and_turn_around(rows):
    score, bad = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    assume(bad.any() and not bad.all())
    found = detection.evaluate(score, bad)
    assert all(0 <= value <= 1 for value in found.values())
    assert detection.auroc(-score, bad) == pytest.approx(1 - found["auroc"])
    assert detection.auroc(score, ~bad) == pytest.approx(1 - found["auroc"])
    ranks = score.unique(return_inverse=True)[1]
    assert detection.auroc(ranks.double(), bad) == pytest.approx(found["auroc"])
    assert (score[detection.top(score, len(score))].diff() <= 0).all()


@pytest.mark.parametrize("rule", detection.RULES)
@settings(phases=[Phase.generate])  # a mixture is slow to shrink
@given(clouds(), TWOS, SEEDS)
def test_cuts_see_no_scale(rule, cloud, scale, seed):
    labels = cloud[1].repeat(3)
    draw = torch.Generator().manual_seed(seed)
    score = torch.rand(len(labels), dtype=torch.float64, generator=draw) ** 3
    mask = detection.RULES[rule](score, labels)
    assert mask.shape == labels.shape and mask.dtype == torch.bool and not mask.all()
    assert torch.equal(detection.RULES[rule](score * scale, labels), mask)


@given(clouds(), TWOS, st.sampled_from(LAYOUTS))
def test_two_samples_see_neither_scale_nor_layout(cloud, scale, layout):
    features, labels = cloud
    assume(1e-30 < float(features.abs().max()) * scale < 1e30)
    one, two = features[labels == 0], features[labels == 1]
    apart = detection.mmd(one, two)
    assert apart >= -1e-9 and detection.mmd(two, one) == pytest.approx(apart, abs=1e-6)
    assert detection.mmd(one, one) == pytest.approx(0, abs=1e-9)
    assert detection.mmd(one * scale, two * scale) == pytest.approx(apart, abs=1e-6)
    p = detection.mmd_test(laid(one, layout), two, permutations=19)
    assert 0 < p <= 1 and p == detection.mmd_test(one, two, permutations=19)
    assert p == detection.mmd_test(one * scale, two * scale, permutations=19)
    assert detection.witness(one, two).isfinite().all()


# Images


def placed(images: torch.Tensor, layout: str) -> torch.Tensor:
    """The same images in another layout of memory."""
    if layout == "channels_last":
        return images.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = images.repeat_interleave(2, 3)
        return wide[..., ::2]
    return images.transpose(2, 3).contiguous().transpose(2, 3)


@st.composite
def sets(draw, sides: tuple[int, int] = (8, 12)):
    """An ``ImageSet`` of any number, channels, size and layout; some of its images are one."""
    count, channels = draw(st.integers(8, 24)), draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(*sides)), draw(st.integers(*sides))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    images = torch.rand(count, channels, height, width, generator=generator)
    levels = draw(st.sampled_from([0, 1, 255]))
    images = (images * levels).round() / levels if levels else images
    if draw(st.booleans()):
        images = images[:1].expand_as(images)
    return ImageSet(images, torch.arange(count) % draw(st.integers(2, 4)), tuple("abcd"))


IMAGE_LAYOUTS = st.sampled_from(["channels_last", "strided", "transposed"])


class Plain(nn.Module):
    """Logits of any scale, by the same sums in every layout."""

    def __init__(self, pixels: int, scale: float, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(pixels, 4, generator=draw))

    def forward(self, images):
        return images.reshape(len(images), -1).contiguous() @ self.weight


ATTACKS = {
    "fgsm": lambda m, x, y, eps, **k: attacks.fgsm(m, x, y, eps, **k),
    "pgd": lambda m, x, y, eps, **k: attacks.pgd(m, x, y, eps, steps=3, restarts=2, **k),
    "pgd L2": lambda m, x, y, eps, **k: attacks.pgd(m, x, y, eps, steps=3, norm="L2", **k),
    "margin_pgd": lambda m, x, y, eps, **k: attacks.margin_pgd(m, x, y, eps, steps=3, **k),
    "square": lambda m, x, y, eps, **k: attacks.square(m, x, y, eps, queries=5, **k),
    "cw_l2": lambda m, x, y, eps, **k: attacks.cw_l2(m, x, y, steps=5, search_steps=2, **k),
}


@pytest.mark.parametrize("name", ATTACKS)
@given(
    sets((1, 6)),
    SCALES,
    st.sampled_from([0.0, 1e-20, 1e-3, 0.1, 1.0]),
    IMAGE_LAYOUTS,
    st.booleans(),
    SEEDS,
)
def test_attacks_stay_in_the_ball_whatever_the_layout(name, found, scale, eps, layout, aim, seed):
    x, y = found.images, found.labels
    model, before = Plain(x[0].numel(), scale, seed), x.clone()
    options = {"targets": (y + 1) % 4} if aim else {}
    made = ATTACKS[name](model, x, y, eps, **options)
    assert made.shape == x.shape and made.dtype == torch.float32 and torch.equal(x, before)
    assert made.isfinite().all() and made.min() >= 0 and made.max() <= 1
    change = (made - x).flatten(1)
    if name == "pgd L2":
        assert (change.norm(dim=1) <= eps * (1 + 1e-4) + 1e-6).all()
    elif name != "cw_l2":
        assert (change.abs() <= eps * (1 + 1e-4) + 1e-6).all()
    else:  # what comes back changed fools the model
        wrong = model(made).argmax(1) == options["targets"] if aim else model(made).argmax(1) != y
        assert (wrong | (change == 0).all(1)).all()
    assert torch.equal(ATTACKS[name](model, placed(x, layout), y, eps, **options), made)
    assert model.weight.grad is None and model.weight.requires_grad


POISONS = {
    "badnets": lambda d, rate, seed: poisons.badnets(d, rate, 1, seed=seed),
    "all to all": lambda d, rate, seed: poisons.badnets(d, rate, all_to_all=True, seed=seed),
    "blended": lambda d, rate, seed: poisons.blended(d, rate, 1, seed=seed),
    "sig": lambda d, rate, seed: poisons.sig(d, rate, 1, relabel=True, seed=seed),
    "wanet": lambda d, rate, seed: poisons.wanet(d, rate, 1, noise_ratio=0.5, seed=seed),
    "adaptive": lambda d, rate, seed: poisons.adaptive_blend(d, rate, 1, pieces=4, seed=seed),
    "patches": lambda d, rate, seed: poisons.adaptive_patch(d, rate, 1, cover=1, seed=seed),
    "input_aware": lambda d, rate, seed: poisons.input_aware(d, rate, 1, seed=seed),
    "label_flip": lambda d, rate, seed: poisons.label_flip(d, rate, seed=seed),
}


@given(
    sets(),
    st.lists(st.sampled_from(list(POISONS)), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.13, 0.25]),
    IMAGE_LAYOUTS,
    SEEDS,
)
def test_any_poisons_on_one_another_know_what_is_clean(clean, names, rate, layout, seed):
    def all_of(found):
        for i, name in enumerate(names):
            try:
                found = POISONS[name](found, rate, seed + i)
            except ValueError as error:  # the poisons before left too few to change
                assume("this attack may change" not in str(error))
                raise
        return found

    before, made = clean.images.clone(), all_of(clean)
    changed = (made.images != clean.images).flatten(1).any(1) | (made.labels != clean.labels)
    assert torch.equal(clean.images, before)
    assert torch.equal(made.clean_labels, clean.labels) and len(made.parts) == len(names)
    assert torch.equal(torch.stack([p.is_poisoned for p in made.parts]).any(0), made.is_poisoned)
    assert not (changed & ~made.is_poisoned).any()
    if len(names) == 1:
        assert torch.equal(made.is_poisoned, changed)
    other = all_of(ImageSet(placed(clean.images, layout), clean.labels, clean.classes))
    torch.testing.assert_close(other.images, made.images, rtol=0, atol=1e-6)
    assert torch.equal(other.labels, made.labels)


SQUEEZERS = {
    "bit_depth": lambda x: squeezing.bit_depth(x, 3),
    "median 2": squeezing.median,
    "median 3": lambda x: squeezing.median(x, 3),
    "median 4": lambda x: squeezing.median(x, 4),
    "non_local_means": lambda x: squeezing.non_local_means(x, 5, 3, 0.1),
    "jpeg": lambda x: squeezing.jpeg(x, 60),
    "jpeg_differentiable": lambda x: squeezing.jpeg_differentiable(x, 60),
}


@pytest.mark.parametrize("name", SQUEEZERS)
@given(sets(), IMAGE_LAYOUTS)
def test_squeezers_keep_shape_and_range_and_see_no_layout(name, found, layout):
    before = found.images.clone()
    made = SQUEEZERS[name](found.images)
    assert made.shape == before.shape and made.dtype == torch.float32
    assert made.min() >= -1e-6 and made.max() <= 1 + 1e-6
    assert torch.equal(found.images, before)
    torch.testing.assert_close(SQUEEZERS[name](placed(before, layout)), made, rtol=0, atol=1e-6)
    each = torch.cat([SQUEEZERS[name](before[i : i + 1]) for i in range(len(before))])
    torch.testing.assert_close(each, made, rtol=0, atol=1e-6)


@given(sets(), IMAGE_LAYOUTS, st.integers(1, 9))
def test_a_part_is_decided_by_the_pixels_alone(found, layout, k):
    where = partition.parts(found.images, k)
    assert torch.equal(partition.parts(placed(found.images, layout), k), where)
    assert torch.equal(partition.parts(found.images.flip(0), k), where.flip(0))
    votes = torch.randint(0, 9, (5, 4), generator=torch.Generator().manual_seed(k))
    labels, tolerated = partition.certificate(votes)
    for row, label, most in zip(votes, labels, tolerated, strict=True):
        for rival in set(range(4)) - {int(label)}:
            turned = row.clone()
            turned[label] -= most
            turned[rival] += most
            assert turned.argmax() == label


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data(), SEEDS)
def test_a_stratified_choice_has_every_class_in_proportion(sizes, pick, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    n = pick.draw(st.integers(len(sizes), len(labels)))
    chosen = data.stratified(labels, n, seed)
    assert len(chosen) == n == len(chosen.unique()) and (chosen.diff() > 0).all()
    counts = labels[chosen].bincount(minlength=len(sizes))
    assert (counts > 0).all()
    wanted = torch.tensor(sizes) * n / len(labels)
    assert ((counts - wanted).abs() < 1).all() or min(sizes) < 2 or (wanted < 1).any()
