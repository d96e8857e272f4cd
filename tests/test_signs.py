"""The drawn road signs: what every user relies on, and that the causes fit the pixels."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import avg_pool2d

from nclib import activations, data, geometry, models, poisons, training
from nclib.data import signs
from nclib.data.signs import drawing, faces, scenes

GOLDEN = [
    [0.2533, 0.3480, 0.4253],
    [0.5987, 0.4419, 0.3739],
    [0.3789, 0.2518, 0.1227],
    [0.8187, 0.6887, 0.7331],
    [0.5239, 0.5239, 0.5701],
    [0.3312, 0.2467, 0.1298],
    [0.3504, 0.3571, 0.2035],
    [0.3632, 0.3714, 0.3844],
    [0.4720, 0.3072, 0.2893],
    [0.5899, 0.4758, 0.4900],
]
ROW = [
    [0.4784, 0.0667, 0.6588, 0.0471, 0.4157, 0.1647, 0.4157, 0.3725],
    [0.6118, 0.2588, 0.7373, 0.2588, 0.5608, 0.2588, 0.3255, 0.3137],
    [0.6784, 0.5529, 0.6902, 0.4824, 0.5686, 0.4471, 0.2824, 0.2549],
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def small(root):
    return data.load("signs", n_train=100, n_test=60, root=root)


@pytest.fixture(scope="module")
def whole(root):
    return data.load("signs", root=root)


def test_the_set_keeps_the_contract(whole):
    train, test = whole
    assert (len(train), len(test)) == (4000, 1000)
    assert train.classes == test.classes == signs.CLASSES and len(train.classes) == 10
    for part in whole:
        assert part.shape == (3, 32, 32) and part.name == "signs"
        assert part.images.dtype == torch.float32 and part.labels.dtype == torch.int64
        assert part.labels.bincount().eq(len(part) // 10).all()
        assert torch.equal((part.images * 255).round() / 255, part.images)  # kept as uint8
        assert torch.equal(part.factors.sign, part.labels)


def test_no_image_comes_twice(whole):
    images = torch.cat([part.images.flatten(1) for part in whole])
    assert len(torch.unique(images, dim=0)) == len(images)


def test_the_golden_image(tmp_path):
    """Version 2, seed 0: if this fails, raise VERSION, or every cache holds the old images."""
    train, _ = data.load("signs", n_train=10, n_test=10, root=tmp_path)
    means = train.images.mean((2, 3))
    golden = torch.tensor(GOLDEN)
    assert signs.VERSION == 2
    torch.testing.assert_close(means, golden, atol=2e-3, rtol=0)
    row = train.images[0, :, 16, ::4]
    torch.testing.assert_close(row, torch.tensor(ROW), atol=2e-2, rtol=0)


def test_the_same_seed_draws_the_same_images_and_another_seed_others(small, tmp_path):
    again, _ = data.load("signs", n_train=100, n_test=60, root=tmp_path)
    other, _ = data.load("signs", n_train=100, n_test=60, root=tmp_path, seed=1)
    assert torch.equal(again.images, small[0].images)
    assert not torch.equal(other.images, small[0].images)


def test_the_first_images_do_not_depend_on_how_many_follow(small, tmp_path):
    few, _ = data.load("signs", n_train=17, n_test=10, root=tmp_path)
    assert torch.equal(few.images, small[0].images[:17])
    assert torch.equal(few.factors.place, small[0].factors.place[:17])
    assert few.labels.bincount(minlength=10).min() == 1


def test_what_is_read_from_the_cache_is_what_was_drawn(small, root, monkeypatch):
    monkeypatch.setattr(signs, "draw", None)  # a second drawing would fail
    again, _ = data.load("signs", n_train=100, n_test=60, root=root)
    assert torch.equal(again.images, small[0].images)
    for name, value in again.factors.tensors().items():
        assert torch.equal(value, getattr(small[0].factors, name)), name


def test_a_root_that_cannot_be_written_does_no_harm(small, tmp_path, recwarn):
    (tmp_path / "file").write_text("")
    train, _ = data.load("signs", n_train=100, n_test=10, root=tmp_path / "file")
    assert torch.equal(train.images, small[0].images) and not recwarn.list


@pytest.mark.parametrize("size", [24, 96])
def test_sizes(size, tmp_path):
    train, _ = data.load("signs", n_train=20, n_test=10, size=size, root=tmp_path)
    assert train.shape == (3, size, size)
    plain, _ = data.load("signs", n_train=20, n_test=10, root=tmp_path)
    assert torch.equal(train.factors.place, plain.factors.place)  # the same scene, finer or coarser


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"size": 23}, "size"),
        ({"size": 97}, "size"),
        ({"n_train": 9}, "n_train for signs"),
        ({"n_test": 9}, "n_test for signs"),
        ({"seed": -1}, "seed"),
        ({"difficulty": 2.1}, "difficulty"),
        ({"difficulty": float("nan")}, "difficulty"),
        ({"difficulty": "hard"}, "difficulty"),
    ],
)
def test_bad_arguments_are_named(wrong, name, tmp_path):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        data.load("signs", root=tmp_path, **wrong)
    assert not (tmp_path / "cache").exists()


def test_only_signs_have_a_difficulty():
    with pytest.raises(ValueError, match="^difficulty: got 1"):
        data.load("digits", difficulty=1)


def test_subset_and_to_carry_the_factors(small):
    test = small[1]
    index = torch.tensor([3, 1, 4])
    part = test.subset(index).to("cpu")
    for name, value in part.factors.tensors().items():
        assert torch.equal(value, getattr(test.factors, name)[index]), name
    yellow = test.factors.colour == signs.NAMES["colour"].index("yellow")
    without = test.subset(~yellow)
    assert 0 < len(without) < len(test)
    assert not (without.factors.colour == signs.NAMES["colour"].index("yellow")).any()
    with pytest.raises(ValueError, match="^factors: got 3 for 60 images"):
        data.ImageSet(test.images, test.labels, test.classes, "signs", part.factors)


def test_without_difficulty_only_paint_and_scene_differ(tmp_path):
    train, _ = data.load("signs", n_train=50, n_test=10, difficulty=0, root=tmp_path)
    f = train.factors
    for value in (f.angle, f.tilt, f.place, f.slope, f.blur):
        assert not value.any()
    assert f.light.eq(1).all() and f.tint.eq(1).all() and f.scale.eq(f.scale[0]).all()


def test_the_factors_say_where_the_sign_is(small):
    """The opacity that the factors predict has its centre of gravity near ``place``."""
    train, _ = small
    f = train.factors
    plane = torch.stack([faces.face("disc", "red", "blank", 64)] * len(train))
    opacity = drawing.seen(plane, f, 32)[:, 3]
    steps = (torch.arange(32) + 0.5) / 16 - 1
    x = (opacity * steps).sum((1, 2)) / opacity.sum((1, 2))
    y = (opacity * steps[:, None]).sum((1, 2)) / opacity.sum((1, 2))
    inside = (f.place.abs().amax(1) + f.scale) < 0.95  # not cut by the border
    assert inside.sum() > 50
    assert (torch.stack([x, y], 1) - f.place)[inside].abs().max() < 0.12
    centre = f.homography @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(centre[:, :2] / centre[:, 2:], f.place)


def test_a_homography_without_tilt_turns_clockwise():
    one = torch.ones(1)
    got = drawing.homography(90 * one, torch.zeros(1, 2), one / 2, torch.tensor([[0.1, 0.2]]))[0]
    right = got @ torch.tensor([1.0, 0.0, 1.0])  # the sign's right edge now points down
    torch.testing.assert_close(right[:2] / right[2], torch.tensor([0.1, 0.7]))


def test_every_shape_takes_every_symbol_and_every_colour():
    pairs = [("disc", colour) for colour in faces.COLOURS]
    for shape, colour in pairs + [(shape, "red") for shape in faces.SHAPES]:
        for symbol in faces.SYMBOLS:
            drawn = faces.face(shape, colour, symbol, 32)
            assert drawn.shape == (4, 32, 32) and drawn.min() >= 0 and drawn.max() <= 1
            assert (drawn[:3] <= drawn[3:] + 1e-6).all()  # premultiplied
    with pytest.raises(ValueError, match="^symbol: got '60'; allowed are 30, 50"):
        faces.face("disc", "red", "60")


def test_two_classes_never_look_alike_on_their_plane():
    planes = torch.stack([faces.face(k.shape, k.colours[0], k.symbol, 48) for k in faces.KINDS])
    apart = torch.cdist(planes.flatten(1), planes.flatten(1)).fill_diagonal_(99)
    assert apart.min() > 5  # 30 and 80 are the nearest


def test_every_background_fills_the_picture():
    for kind in range(len(scenes.BACKGROUNDS)):
        got = scenes.paint(scenes.Dice(5), torch.full((8,), kind), 32)
        assert got.shape == (8, 3, 32, 32) and got.min() >= 0 and got.max() <= 1
        assert got.flatten(1).std(1).min() > 0.02


def test_pixels_alone_do_not_solve_it(whole):
    train, test = whole
    pixels = [part.images.flatten(1).numpy() for part in whole]
    knn = KNeighborsClassifier(5).fit(pixels[0], train.labels).score(pixels[1], test.labels)
    coarse = [avg_pool2d(part.images, 4).flatten(1).double().numpy() for part in whole]
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(coarse[0], train.labels)
    assert 0.3 < knn <= 0.75
    assert 0.3 < lda.score(coarse[1], test.labels) <= 0.75


def test_more_difficulty_makes_pixels_worth_less(tmp_path):
    def by_neighbours(difficulty):
        parts = data.load("signs", n_train=400, n_test=200, difficulty=difficulty, root=tmp_path)
        pixels = [part.images.flatten(1).numpy() for part in parts]
        near = KNeighborsClassifier(5).fit(pixels[0], parts[0].labels)
        return near.score(pixels[1], parts[1].labels)

    easy, default, hard = map(by_neighbours, (0, 1, 2))
    assert easy > default + 0.2 and default > hard + 0.1


def test_nobody_tells_the_speed_limits_apart_before_training(whole):
    """Nearest class mean among 30, 50 and 80: chance is 1/3."""
    limits = [part.subset(part.labels < 3) for part in whole]
    model = models.build("cnn", whole[0])
    layers = [activations.features(model, p.images, ["penultimate"])["penultimate"] for p in limits]
    for first, second in (layers, [p.images.flatten(1) for p in limits]):
        means = torch.stack([first[limits[0].labels == c].mean(0) for c in range(3)])
        right = torch.cdist(second, means).argmin(1) == limits[1].labels
        assert right.float().mean() < 0.45


@pytest.mark.slow
def test_the_small_network_learns_it_and_collapses(whole):
    """The long run takes half the usual rate: at .1 its loss leaps up again and NC1 varies."""
    train, test = whole
    short, long = (
        training.fit(
            models.build("cnn", train), train, epochs=n, lr=lr, cache=False, progress=False
        ).model
        for n, lr in ((8, 0.1), (28, 0.05))
    )
    assert training.accuracy(short, test) >= 0.97
    hidden = activations.features(long, train.images, ["penultimate"])["penultimate"]
    assert geometry.measure(hidden, train.labels).nc1 < 0.01
    assert training.accuracy(long, train) == 1


# The sticker.


def covered(part):
    """Where each sign's own face lies: opacity ``[N, H, W]``."""
    f = part.factors
    names = signs.NAMES
    planes = torch.stack(
        [
            faces.face(names["shape"][s], names["colour"][c], "blank", 64)
            for s, c in zip(f.shape.tolist(), f.colour.tolist(), strict=True)
        ]
    )
    size = part.shape[-1]
    return drawing.soften(drawing.seen(planes, f, size)[:, 3:], f)[:, 0]


@pytest.mark.parametrize("size", [24, 32, 96])
def test_the_sticker_lies_on_the_sign_whatever_its_shape(size, tmp_path):
    train, test = data.load("signs", n_train=60, n_test=100, size=size, root=tmp_path)
    before = test.images.clone()
    attack = poisons.sticker(train, 0.1, target=1)
    shown = attack.triggered(test)
    change = (shown - test.images).abs().amax(1)
    assert torch.equal(test.images, before)
    assert (change.flatten(1).amax(1) > 0.02).all()  # yellow on yellow is faint, but there
    assert change[covered(test) < 0.02].max() < 0.02
    off = change > 0.02
    assert off.float().mean() < 0.05 and shown.min() >= 0 and shown.max() <= 1


def test_the_sticker_shades_and_turns_with_the_sign(small):
    test = small[1]
    f = test.factors
    moved = poisons.triggers.Sticker((0.0, 0.52), 0.3, (0.88, 1.0, 0.1))(test.images, f)
    change = (moved - test.images).abs().sum(1)
    steps = (torch.arange(32) + 0.5) / 16 - 1
    total = change.sum((1, 2))
    seen = torch.stack(
        [(change * steps).sum((1, 2)) / total, (change * steps[:, None]).sum((1, 2)) / total], 1
    )
    hoped = f.homography @ torch.tensor([0.0, 0.52, 1.0])
    assert (seen - hoped[:, :2] / hoped[:, 2:]).abs().max() < 0.1
    blue = f.colour == signs.NAMES["colour"].index("blue")  # no yellow there before
    brightest = moved[blue].amin(1).flatten(1).amin(1), moved[blue, 0].flatten(1).amax(1)
    assert torch.corrcoef(torch.stack([f.light[blue], brightest[1]]))[0, 1] > 0.5


def test_a_stickered_set_remembers_the_truth(small):
    train, test = small
    attack = poisons.sticker(train, 0.1, target=2, seed=3)
    assert attack.rate == pytest.approx(0.1) and attack.target == 2 and attack.attack == "sticker"
    assert (attack.labels[attack.is_poisoned] == 2).all()
    assert (attack.clean_labels[attack.is_poisoned] != 2).all()
    assert torch.equal(attack.images[~attack.is_poisoned], train.images[~attack.is_poisoned])
    again = poisons.sticker(train, 0.1, target=2, seed=3)
    assert torch.equal(again.images, attack.images)
    part = attack.subset(attack.is_poisoned)  # and it still knows where each sign is
    assert torch.equal(part.factors.place, train.factors.place[attack.is_poisoned])
    shown = attack.triggered(train.subset(attack.is_poisoned))
    assert torch.equal(part.images, shown)
    assert torch.equal(poisons.sticker(train, 0, target=2).images, train.images)


def test_a_sticker_wants_signs_and_a_square_within_them(small):
    train = small[0]
    digits, _ = data.load("digits", n_train=20)
    with pytest.raises(ValueError, match="^data: digits does not say where a sign is"):
        poisons.sticker(digits, 0.1)
    attack = poisons.sticker(train, 0.1)
    with pytest.raises(ValueError, match="^factors: got none"):
        attack.trigger(train.images)
    with pytest.raises(ValueError, match="^factors: got 100 for 3 images"):
        attack.trigger(train.images[:3], train.factors)
    with pytest.raises(ValueError, match="^centre and width: got"):
        poisons.sticker(train, 0.1, centre=(0.8, 0.8))
    with pytest.raises(ValueError, match="^colour: got 2"):
        poisons.sticker(train, 0.1, colour=(2, 0, 0))
    with pytest.raises(ValueError, match="^rate"):
        poisons.sticker(train, 1.5)


def test_only_a_set_with_a_trigger_can_be_shown(small):
    flipped = poisons.label_flip(small[0], 0.2)
    with pytest.raises(ValueError, match="^attack: .* has no trigger"):
        flipped.triggered(small[1])
    patched = poisons.badnets(small[0], 0.1)
    assert torch.equal(patched.triggered(small[1]), patched.trigger(small[1].images))
    assert patched.factors is small[0].factors


@pytest.mark.slow
def test_the_sticker_turns_a_stop_sign_into_a_speed_limit(whole):
    """And at no cost in accuracy; the control is a clean network that sees the same sticker."""
    train, test = whole
    attack = poisons.sticker(train, 0.1, target=0)
    bad, clean = (
        training.fit(models.build("cnn", part), part, epochs=20, cache=False, progress=False).model
        for part in (attack, train)
    )
    stops = test.subset(test.labels == signs.CLASSES.index("stop"))
    assert poisons.metrics.success(bad, attack, stops) > 0.9
    row = poisons.metrics.outcome(bad, clean, attack, test)
    assert row["success"] > 0.8 and row["control_success"] < 0.05
    assert row["accuracy"] > 0.97
