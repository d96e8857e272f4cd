"""Few-shot prototypes, contrastive losses and captions, against independent implementations."""

import math

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch.nn.functional import cosine_similarity

from nclib import representation
from nclib.course import captions
from nclib.data.signs import NAMES


def _blobs(count=30, classes=4, dim=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count * classes) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 0.5 * torch.randn(len(labels), dim, generator=draw), labels


def test_few_shot_with_all_images_is_the_nearest_centroid():
    support, query = _blobs(), _blobs(seed=1)
    found = representation.few_shot(support, query, shots=30, episodes=2)
    wanted = NearestCentroid().fit(*support).predict(query[0])
    assert found.shape == (2, len(query[1])) and (found.numpy() == wanted).all()


def test_few_shot_draws_anew_in_each_episode_and_is_fixed_by_the_seed():
    support, query = _blobs(), _blobs(seed=1)
    one, again = (representation.few_shot(support, query, 1, 5, seed=3) for _ in range(2))
    assert torch.equal(one, again) and not torch.equal(one[0], one[1])


@pytest.mark.parametrize("shots", [0, 31, 1.5])
def test_few_shot_refuses_more_shots_than_a_class_has(shots):
    with pytest.raises(ValueError, match="shots: got"):
        representation.few_shot(_blobs(), _blobs(), shots=shots)


def _pair(seed=0, count=7, dim=6):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dim, generator=draw) for _ in range(2)]


def test_nt_xent_is_equation_1_of_the_paper():
    first, second = _pair()
    rows, total = torch.cat([first, second]).double(), 0.0
    for i in range(14):
        exps = [math.exp(float(cosine_similarity(rows[i], r, dim=0)) / 0.3) for r in rows]
        total -= math.log(exps[(i + 7) % 14] / (sum(exps) - exps[i])) / 14
    assert float(representation.nt_xent(first, second, 0.3)) == pytest.approx(total, abs=1e-5)


def test_clip_loss_is_the_mean_of_both_directions():
    images, texts = _pair(1)
    cosines = cosine_similarity(images[:, None].double(), texts[None].double(), dim=2) / 0.2
    by_image = -torch.log_softmax(cosines, 1).diagonal().mean()
    by_text = -torch.log_softmax(cosines, 0).diagonal().mean()
    found = representation.clip_loss(images, texts, 0.2)
    assert float(found) == pytest.approx(float(by_image + by_text) / 2, abs=1e-5)


@pytest.mark.parametrize("loss", [representation.nt_xent, representation.clip_loss])
def test_a_temperature_of_zero_is_refused(loss):
    with pytest.raises(ValueError, match="temperature: got"):
        loss(*_pair(), 0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_views_differ_stay_in_range_and_leave_the_images_alone(channels):
    images = torch.rand(4, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    views = representation.two_views(images, torch.Generator().manual_seed(1))
    assert views.shape == (4, 2 * channels, 12, 12) and torch.equal(images, before)
    assert views.min() >= 0 and views.max() <= 1
    assert not torch.equal(views[:, :channels], views[:, channels:])
    assert torch.equal(views, representation.two_views(images, torch.Generator().manual_seed(1)))


def test_the_text_encoder_reads_words_and_not_their_order():
    texts = representation.Captions(("a red disc", "disc a red", "a blue disc"), dim=8)
    one, two, three = texts(torch.arange(3))
    torch.testing.assert_close(one, two)
    assert (one - three).norm() > 1e-3


def test_a_captioned_sign_is_what_its_caption_says():
    assert len(set(captions.CAPTIONS)) == 225
    drawn = captions.captioned(torch.tensor([0, 100, 224]), seed=3)
    for label, shape, colour, symbol in zip(
        drawn.labels.tolist(),
        drawn.factors.shape.tolist(),
        drawn.factors.colour.tolist(),
        drawn.factors.symbol.tolist(),
        strict=True,
    ):
        said = drawn.classes[label]
        assert f" {NAMES['colour'][colour]} {NAMES['shape'][shape]} " in said
        assert captions.caption(shape, colour, symbol) == said
    assert captions.caption(1, 2, 3) == "a red octagon that says stop"


def test_no_training_sign_shows_a_combination_that_is_held_out():
    train, test, held = captions.split(2, n_train=400, n_test=225)
    assert len(held) == 45 and not torch.isin(train.labels, held).any()
    assert torch.isin(held, test.labels).all() and captions.GOAL in train.labels
    words = {word for c in train.labels.unique() for word in train.classes[int(c)].split()}
    assert all(set(test.classes[int(c)].split()) <= words for c in held)


def test_short_trainings_lower_their_losses():
    train, test, held = captions.split(0, n_train=200, n_test=225)
    model = representation.paired(train, epochs=3)
    named = captions.name(model, test.images, captions.menu(10))
    assert named.shape == (225,) and set(named.tolist()) <= set(captions.menu(10).tolist())
    assert captions.menu(10)[0] == captions.GOAL and len(captions.menu(10).unique()) == 10
    before = representation.paired(train, epochs=1)
    pairs = [m.texts(test.labels) for m in (model, before)]
    images = [m(test.images) for m in (model, before)]
    losses = [representation.clip_loss(*p).item() for p in zip(images, pairs, strict=True)]
    assert losses[0] < losses[1]
    encoder = representation.simclr(train, epochs=1)
    assert encoder(train.images[:2]).shape == (2, 64)
