"""The fast network for photographs: what its first layer does, how it is trained, how it votes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import unfold

from nclib import device, fast, models, training
from nclib.data import ImageSet


@pytest.fixture(scope="module")
def stripes():
    """Two classes of noisy 16 x 16 pictures: stripes that lie, stripes that stand."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(128) % 2
    lying = (torch.arange(16) // 2 % 2).float()[:, None].expand(16, 16)
    plain = torch.where(labels[:, None, None] == 0, lying, lying.T)[:, None].expand(-1, 3, -1, -1)
    images = 0.25 + 0.3 * plain + 0.2 * torch.rand(plain.shape, generator=generator)
    return ImageSet(images, labels, ("lying", "standing"), "stripes")


def test_the_first_layer_whitens_patches_and_does_not_learn(stripes):
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mixed = (images + images.roll(1, 3) + 2 * images.mean(1, keepdim=True)) / 4  # correlated
    data = ImageSet(mixed, torch.arange(64) % 2, ("a", "b"))
    model = models.build("fast", data)
    conv = model.whiten[0]
    out = conv(model.normalise(mixed))[:, :12].transpose(0, 1).flatten(1).double()
    found = out @ out.T / out.shape[1]
    assert torch.allclose(found, torch.eye(12).double(), atol=0.03)
    plain = unfold(model.normalise(mixed), 2).transpose(0, 1).flatten(1).double()
    assert (plain @ plain.T / plain.shape[1] - torch.eye(12)).abs().max() > 0.3  # was not white
    assert torch.equal(conv.weight[:12], -conv.weight[12:]) and not conv.weight.requires_grad


def test_the_recipe_trains_in_a_few_epochs(stripes):
    model = models.build("fast", stripes, widths=(16, 16, 16))
    before = model.whiten[0].weight.clone()
    plan = fast.recipe(stripes, epochs=8, batch_size=32)
    run = training.fit(model, stripes, **plan, cache=False, progress=False)
    assert run.history["loss"][-1] < run.history["loss"][0]
    assert training.accuracy(model, stripes) > 0.95
    assert torch.equal(model.whiten[0].weight, before)
    again = models.build("fast", stripes, widths=(16, 16, 16))
    training.fit(again, stripes, **plan, cache=False, progress=False)
    assert torch.equal(again.fc.weight, model.fc.weight)


def test_the_schedule_rises_and_falls(stripes):
    pace = fast.recipe(stripes)["schedule"]
    assert [round(pace(share), 6) for share in (0, 0.23, 1)] == [0.2, 1.0, 0.07]
    assert pace(0.1) < pace(0.2) and pace(0.5) > pace(0.9)


def test_the_weights_end_on_their_average():
    weight = nn.Parameter(torch.zeros(1))
    optimiser = fast.Averaged([{"params": [weight], "lr": 1.0}], momentum=0.5, steps=7)
    path = []
    for _ in range(7):
        weight.grad = torch.ones(1)
        optimiser.step()
        path.append(float(weight.detach()))
    plain = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([plain], 1.0, momentum=0.5, nesterov=True)
    for _ in range(5):
        plain.grad = torch.ones(1)
        sgd.step()
    share = 0.95**5 * (5 / 7) ** 3
    assert path[4] == pytest.approx(
        (1 - share) * float(plain.detach()), rel=1e-5
    )  # slow weights began at 0
    assert path[5] < path[4] and path[6] == pytest.approx(path[4])  # and step 7 returns to them


def test_every_epoch_sees_the_mirror_images_of_the_last(stripes):
    seen = []

    def keep(images, generator):
        seen.append(images.clone())
        return images

    model = models.build("mlp", stripes)
    plan = {"augment": keep, "mirror": True, "batch_size": 128, "cache": False, "progress": False}
    training.fit(model, stripes, epochs=2, **plan)
    rows = [sorted(map(tuple, batch[:, 0, 0].tolist())) for batch in seen]
    turned = sorted(map(tuple, seen[1].flip(3)[:, 0, 0].tolist()))
    assert rows[0] == turned and rows[0] != rows[1]
    asis = {tuple(row) for row in stripes.images[:, 0, 0].tolist()}
    assert 32 < sum(row in asis for row in rows[0]) < 96  # about half start mirrored


def test_shifts_reach_two_pixels_each_way_and_keep_the_picture():
    picture = torch.zeros(400, 1, 9, 9)
    picture[:, :, 4, 4] = 1
    moved = fast.shifted(picture, torch.Generator().manual_seed(0))
    places = {tuple(p) for p in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert moved.sum() == 400
    assert places == {(r, c) for r in range(2, 7) for c in range(2, 7)}


def test_the_vote_is_the_same_for_the_mirror_image(stripes):
    model = models.build("fast", stripes, widths=(16, 16, 16)).eval()
    some = stripes.images[:8]
    votes = fast.vote(model, some)
    assert votes.shape == (8, 2)
    constant = torch.full((2, 3, 16, 16), 0.3)  # every view is the same: the vote is the model's
    assert torch.allclose(fast.vote(model, constant), training.predict(model, constant), atol=1e-5)
    assert not torch.allclose(votes, training.predict(model, some), atol=1e-5)


def test_sizes_that_do_not_fit_are_refused(stripes):
    small = ImageSet(torch.rand(4, 1, 8, 8), torch.arange(4) % 2, ("a", "b"))
    with pytest.raises(ValueError, match="16 pixels"):
        models.build("fast", small)
    with pytest.raises(ValueError, match="epochs"):
        fast.recipe(stripes, epochs=0)


def test_bfloat16_is_chosen_by_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert device.has_fast_bfloat16("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not device.has_fast_bfloat16("cuda")
    assert not device.has_fast_bfloat16("mps")
    for known in ({"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_bf16": False}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert device.has_fast_bfloat16("cpu") == any(known.values())
