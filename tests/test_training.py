"""Training, its cache and its interruption; the key that the cache is kept under."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from nclib import activations, cache, data, geometry, models, training


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))
    return tmp_path / "runs"


def small(train, seed=0):
    return models.build("mlp", train, seed=seed, widths=(32,))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_digits_reach_strong_collapse(digits):
    """The targets of the course: NC1 < 0.01, cosine std < 0.07, NC4 = 0, test accuracy >= .985."""
    train, test = digits
    model = models.build("cnn", train)
    training.fit(model, train, progress=False)
    (last,) = activations.features(model, train.images, ["penultimate"]).values()
    found = geometry.measure(last, train.labels, model.fc)
    assert found.nc1 < 0.01
    assert found.nc2_angle < 0.07
    assert found.nc4 == 0
    assert training.accuracy(model, test) >= 0.985


def test_the_seed_fixes_the_run_and_another_seed_changes_it(digits):
    train, _ = digits
    runs = []
    for seed in (0, 0, 1):
        model = small(train)
        training.fit(model, train, epochs=2, seed=seed, cache=False, progress=False)
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_run_is_read_back_whole(digits, own_cache):
    train, _ = digits
    options = {
        "epochs": 3,
        "probes": {
            "norm": lambda m: {"fc": m.fc.weight.norm(), "one": 1.0},
            "bias": lambda m: m.fc.bias,
        },
        "progress": False,
    }
    first = training.fit(small(train), train, **options)
    again = training.fit(small(train), train, **options)
    assert (first.cached, again.cached) == (False, True)
    assert torch.equal(weights(first.model), weights(again.model))
    assert first.history.keys() == again.history.keys()
    assert again.history["probe_epoch"] == [1, 2, 3]
    assert again.history["bias"].shape == (3, 10)
    assert again.history["norm/one"] == [1, 1, 1]
    assert torch.equal(again.history["norm/fc"], first.history["norm/fc"])
    assert len(list(own_cache.glob("*.safetensors"))) == 1
    assert not list(own_cache.glob(".incoming-*"))


@pytest.mark.parametrize("change", ["weights", "data", "epochs", "probe", "loss", "targets"])
def test_any_change_trains_anew(digits, change):
    train, _ = digits
    train = train.subset(torch.arange(200))

    def fit(model, data, **options):
        return training.fit(model, data, **{"epochs": 1, "progress": False} | options)

    assert not fit(small(train), train).cached
    assert fit(small(train), train).cached
    changed = {
        "weights": lambda: fit(small(train, seed=1), train),
        "data": lambda: fit(small(train), train.subset(torch.arange(200).flip(0))),
        "epochs": lambda: fit(small(train), train, epochs=2),
        "probe": lambda: fit(small(train), train, probes={"a": lambda m: m.fc.bias.sum()}),
        "loss": lambda: fit(small(train), train, loss=lambda m, x, y: m(x).square().mean()),
        "targets": lambda: fit(small(train), train, targets=train.labels.flip(0)),
    }[change]
    assert not changed().cached


def test_fingerprints_tell_functions_apart():
    scale = 2.0
    double, same = lambda x: x * scale, lambda x: x * scale  # noqa: E731
    assert cache.fingerprint(double.__code__.co_code) == cache.fingerprint(same.__code__.co_code)
    first = cache.fingerprint(double)
    scale = 3.0
    assert cache.fingerprint(double) != first  # the closure counts
    assert cache.fingerprint(lambda x: x + 1) != cache.fingerprint(lambda x: x + 2)
    assert cache.fingerprint(1) != cache.fingerprint(1.0) != cache.fingerprint("1.0")
    assert cache.fingerprint([1, [2]]) != cache.fingerprint([[1], 2])
    with pytest.raises(ValueError, match="cannot fingerprint"):
        cache.fingerprint(object())


def test_a_broken_file_is_made_again(digits, own_cache):
    train, _ = digits
    training.fit(small(train), train, epochs=1, progress=False)
    (file,) = own_cache.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="cannot be read"):
        assert not training.fit(small(train), train, epochs=1, progress=False).cached
    assert training.fit(small(train), train, epochs=1, progress=False).cached


def test_a_cache_that_cannot_be_written_only_warns(digits, tmp_path, monkeypatch):
    train, _ = digits
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept"):
        run = training.fit(small(train), train, epochs=1, progress=False)
    assert len(run.history["loss"]) == 1


def test_ctrl_c_leaves_a_usable_state(digits, own_cache):
    train, test = digits
    calls = []

    def loss(model, images, labels):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(model(images), labels)

    model = small(train)
    with pytest.warns(UserWarning, match="stopped after 2 epochs"):
        run = training.fit(model, train, epochs=9, loss=loss, progress=False)
    assert run.interrupted
    assert run.history["epoch"] == [1, 2]
    assert training.accuracy(run.model, test) > 0.5
    assert not model._forward_hooks
    assert not own_cache.exists()  # half a run is not kept


def test_probes_change_nothing(digits):
    train, _ = digits
    modes, plain, probed = [], small(train), small(train)
    training.fit(plain, train, epochs=5, cache=False, progress=False)
    probe = {"mode": lambda m: modes.append(m.training) or 0.0}
    run = training.fit(
        probed, train, epochs=5, probes=probe, probe_at=(0, 5), cache=False, progress=False
    )
    assert torch.equal(weights(plain), weights(probed))
    assert modes == [False, False]
    assert run.history["probe_epoch"] == [0, 5]


def test_soft_targets_and_augmentation_reach_the_loss(digits):
    train, _ = digits
    soft = torch.full((len(train), 10), 0.1)
    seen = []

    def loss(model, images, targets):
        seen.append((images.min(), targets.shape[1]))
        return nn.functional.cross_entropy(model(images), targets)

    options = {"augment": lambda x, g: x * 0 + 2, "targets": soft, "loss": loss}
    training.fit(small(train), train, epochs=1, cache=False, progress=False, **options)
    assert all(low == 2 and k == 10 for low, k in seen)


def test_the_last_layer_is_evaluated_without_touching_the_mode(digits):
    train, _ = digits
    model = small(train).train()
    model.hidden1[1].eval()
    training.predict(model, train.images)
    assert model.training
    assert not model.hidden1[1].training


@pytest.mark.parametrize(
    "count, batch_size, sizes",
    [
        (7, 3, [3, 2, 2]),
        (993, 32, [32] + 31 * [31]),
        (5, 2, [3, 2]),
        (64, 32, [32, 32]),
        (66, 32, [22] * 3),
        (3, 1, [1] * 3),
    ],
)
def test_no_batch_of_many_is_a_single_sample(digits, count, batch_size, sizes):
    part, seen = digits[0].subset(torch.arange(count)), []

    def loss(model, images, labels):
        seen.append(len(images))
        return nn.functional.cross_entropy(model(images), labels)

    model = models.build("mlp", part, widths=(8,), batchnorm=batch_size > 1)
    options = {"epochs": 1, "loss": loss, "cache": False, "progress": False}
    training.fit(model, part, batch_size=batch_size, **options)
    assert seen == sizes


def test_the_model_is_left_in_evaluation_mode_whatever_happens(digits):
    train, _ = digits
    for loss, error in [(lambda m, x, y: m(x).sum() * float("nan"), ValueError), (None, None)]:
        model, options = small(train), {"epochs": 1, "cache": False, "progress": False}
        with pytest.raises(error) if error else nullcontext():
            training.fit(model, train, loss=loss, **options)
        assert not any(module.training for module in model.modules())


def test_bad_arguments_are_refused(digits):
    train, _ = digits
    with pytest.raises(ValueError, match="epochs"):
        training.fit(small(train), train, epochs=0)
    with pytest.raises(ValueError, match="targets: got 3"):
        training.fit(small(train), train, targets=torch.zeros(3, 10))
    with pytest.raises(ValueError, match="loss became"):
        training.fit(small(train), train, lr=1e9, epochs=3, progress=False)
    with pytest.raises(ValueError, match="batch_size: got 0"):
        training.predict(small(train), train.images, batch_size=0)
    with pytest.raises(ValueError, match="arch: got 'vgg'"):
        models.build("vgg", train)


def test_accuracy_takes_changed_images_one_per_label(digits):
    train, _ = digits
    model = models.build("mlp", train)
    rolled = train.images.roll(1, 0)
    said = training.predict(model, rolled).argmax(1)
    wanted = float((said == train.labels).float().mean())
    assert training.accuracy(model, train, rolled) == wanted
    with pytest.raises(ValueError, match="images: got 1"):
        training.accuracy(model, train, rolled[:1])


def test_stop_after_is_the_beginning_of_the_whole_training(digits):
    train, _ = digits
    runs = [
        training.fit(
            models.build("mlp", train),
            train,
            epochs=4,
            stop_after=last,
            probes={"weight": lambda model: next(model.parameters()).detach()},
            probe_at=(2,),
            progress=False,
        )
        for last in (None, 2)
    ]
    assert len(runs[0].history["epoch"]) == 4 and len(runs[1].history["epoch"]) == 2
    assert torch.equal(runs[0].history["weight"], runs[1].history["weight"])
    assert runs[0].history["loss"][:2] == runs[1].history["loss"]
    for last in (0, 5):
        with pytest.raises(ValueError, match=f"stop_after: got {last}; an integer from 1 to 4"):
            training.fit(runs[0].model, train, epochs=4, stop_after=last)
