"""Models of others: the right features, or a refusal that names the layer.

Each value is compared with one computed from the model's own parts, without hooks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
import torch
import torchvision.models as tv
from torch import nn
from torch.nn.functional import linear, relu

from nclib import activations, correction, data, models, poisons, training
from nclib.activations import classifier, evaluating, features, layer_names, penultimate, tap

IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
VIT = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu", n_train=400, n_test=200)


def built(make, **options):
    torch.manual_seed(0)
    model = make(num_classes=4, **options).eval()
    return model


@torch.no_grad()
def same(found, wanted):
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def maps(part):
    return lambda model, x: part(model, x).mean((2, 3))


def swin_maps(depth):
    """Channels last: ``[N, H, W, C]``."""
    return lambda model, x: model.features[:depth](x).mean((1, 2))


def vit_tokens(model, x):
    x = model._process_input(x)
    return torch.cat([model.class_token.expand(len(x), -1, -1), x], 1)


def googlenet_5b(model, x):
    model = nn.Sequential(OrderedDict((k, v) for k, v in model.named_children() if "aux" not in k))
    return model[: list(dict(model.named_children())).index("inception5b") + 1](x)


FOREIGN = {  # name: (model, options, the classifier, {layer: its features computed directly})
    "resnet18": (
        tv.resnet18,
        {},
        "fc",
        {"layer1": maps(lambda m, x: m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x))))))},
    ),
    "mobilenet_v3_small": (
        tv.mobilenet_v3_small,
        {},
        "classifier.3",
        {"features": maps(lambda m, x: m.features(x))},
    ),
    "convnext_tiny": (
        tv.convnext_tiny,
        {},
        "classifier.2",
        {
            "features": maps(lambda m, x: m.features(x)),
            "features.1.0": maps(lambda m, x: m.features[1][0](m.features[0](x))),
            # inside a block the channels are last
            "features.1.0.block.3": lambda m, x: (
                m.features[1][0].block[:4](m.features[0](x)).mean((1, 2))
            ),
        },
    ),
    "googlenet": (
        tv.googlenet,
        {"init_weights": False},
        "fc",
        {"inception5b": maps(googlenet_5b)},
    ),
    "vit": (
        lambda num_classes, **o: tv.VisionTransformer(mlp_dim=64, num_classes=num_classes, **o),
        VIT,
        "heads.head",
        {
            "conv_proj": maps(lambda m, x: m.conv_proj(x)),
            "encoder": lambda m, x: m.encoder(vit_tokens(m, x)).mean(1),
        },
    ),
    "swin_t": (
        tv.swin_t,
        {},
        "head",
        {
            "features": swin_maps(8),
            "features.0": swin_maps(1),
            "features.1": swin_maps(2),
            "features.2": swin_maps(3),
            "norm": lambda m, x: m.norm(m.features(x)).mean((1, 2)),
            "permute": lambda m, x: m.norm(m.features(x)).mean((1, 2)),
        },
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_torchvisions_networks(name):
    make, options, head, parts = FOREIGN[name]
    model = built(make, **options)
    assert classifier(model, IMAGES)[0] == head
    found = features(model, IMAGES, [*parts, "penultimate"], batch_size=3)
    with torch.no_grad():
        for layer, direct in parts.items():
            same(found[layer], direct(model, IMAGES))
        last = found["penultimate"]
        same(model.get_submodule(head)(last), model(IMAGES))
    everything = features(model, IMAGES)
    assert all(len(rows) == 5 and rows.ndim == 2 for rows in everything.values())
    assert not any(head.startswith(layer) for layer in everything)


def test_a_wide_image_and_channels_last():
    """Proportions decide where no layer speaks; where they speak against maps, it is refused."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.turn, self.fc = nn.Conv2d(3, 7, 1), nn.Identity(), nn.Linear(7, 4)

        def forward(self, x):
            return self.fc(self.turn(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))

    images, model = torch.rand(4, 3, 6, 9), Last()
    same(features(model, images, ["conv"])["conv"], model.conv(images).mean((2, 3)))
    with pytest.raises(ValueError, match=r"layers: 'turn' gives \(4, 6, 9, 7\).* pooled\(axis"):
        features(model, images, ["turn"])
    with torch.no_grad(), tap(model, ["turn"]) as seen:
        model(images)
    same(activations.pooled(seen["turn"], axis=-1), model.conv(images).mean((2, 3)))
    assert activations.pooled(seen["turn"], 2, axis=-1).shape == (4, 28)
    swin = built(tv.swin_t)
    wide = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        same(features(swin, wide, ["features"])["features"], swin.features(wide).mean((1, 2)))


class Rows(nn.Module):
    """Conv1d over the pixels: ``[N, C, L]``, channels second."""

    def __init__(self, after):
        super().__init__()
        self.conv, self.act, self.after = nn.Conv1d(1, 6, 3), nn.ReLU(), after
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        return self.fc(self.after(self.act(self.conv(x.flatten(1)[:, None]))).mean(-1))


class Block(nn.Module):
    """A residual block on channels-last maps, as in Swin."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


@pytest.mark.parametrize("size", [6, 8])
def test_a_residual_block_without_a_neighbour(size):
    """Its last layer shows the channels; where all axes are equally long, nothing does."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block, self.fc = nn.Conv2d(3, 8, 1), Block(8), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.block(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))

    torch.manual_seed(0)
    net, images = Net(), torch.rand(5, 3, size, size)
    direct = net.block(net.stem(images).permute(0, 2, 3, 1)).mean((1, 2))
    same(features(net, images, ["stem"])["stem"], net.stem(images).mean((2, 3)))
    same(penultimate(net, images), direct)
    if size == 8:
        with pytest.raises(ValueError, match=r"layers: 'block' gives \(5, 8, 8, 8\)"):
            features(net, images, ["block"])
    else:
        same(features(net, images, ["block"])["block"], direct)


def test_rows_with_channels_second():
    model, images = Rows(nn.Identity()), torch.rand(7, 1, 8, 8)
    found = features(model, images, ["conv", "act"])
    hidden = model.conv(images.flatten(1)[:, None])
    same(found["conv"], hidden.mean(2))
    same(found["act"], hidden.relu().mean(2))
    model = Rows(nn.Upsample(4))
    with pytest.raises(ValueError, match=r"'after' gives \(7, 6, 4\), and no layer beside it"):
        features(model, images, ["after"])


def test_a_transformer_with_the_sequence_first_is_refused():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.TransformerEncoderLayer(8, 2, 16)
            self.fc = nn.Linear(8, 10)

        def forward(self, x):
            return self.fc(self.body(x.squeeze(1).permute(1, 0, 2)).mean(0))

    images = torch.rand(5, 1, 8, 8)
    with pytest.raises(ValueError, match=r"'body' gives \(8, 5, 8\) for 5 images"):
        features(First(), images, ["body"])
    assert penultimate(First(), images).shape == (5, 8)


class HeadFirst(nn.Module):
    """The classifier is declared before the body."""

    def __init__(self, inputs=64, classes=10):
        super().__init__()
        self.fc2 = nn.Linear(32, classes)
        self.fc1 = nn.Linear(inputs, 32)

    def forward(self, z):
        return self.fc2(self.body(z))

    def body(self, z):
        return self.fc1(z.flatten(1)).relu()


class Aux(HeadFirst):
    """Has an auxiliary head that runs in training alone."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(32, 10)

    def forward(self, z):
        hidden = self.body(z)
        return (self.fc2(hidden), self.aux(hidden)) if self.training else self.fc2(hidden)


class SecondTask(HeadFirst):
    """Another head of the same size runs last, and is thrown away."""

    def __init__(self):
        super().__init__()
        self.rotation = nn.Linear(32, 10)

    def forward(self, z):
        answer = super().forward(z)
        self.rotation(self.body(z))
        return answer


class LogSoftmax(HeadFirst):
    def forward(self, z):
        return super().forward(z).log_softmax(1)


class Probabilities(HeadFirst):
    def forward(self, z):
        return super().forward(z).softmax(1)


class Answer(OrderedDict):
    """As transformers' ModelOutput: an ordered dict with attributes."""

    __getattr__ = OrderedDict.__getitem__


class HuggingFace(HeadFirst):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, pixel_values):
        hidden = self.body(pixel_values)
        for layer in self.encoder:
            hidden = layer(hidden)
        return Answer(logits=self.fc2(input=hidden), hidden_states=None)


@pytest.mark.parametrize("kind", [HeadFirst, Aux, SecondTask, LogSoftmax, Probabilities])
def test_the_classifier_is_what_gives_the_answer(kind):
    torch.manual_seed(0)
    model, images = kind().train(), torch.rand(6, 1, 8, 8)
    assert classifier(model, images)[0] == "fc2"
    same(penultimate(model, images), model.body(images))
    assert layer_names(model, images) == ("fc1",)
    assert model.training
    with pytest.raises(ValueError, match="images: got None.*linear layers"):
        classifier(model)
    with pytest.raises(ValueError, match="images: got None.*linear layers"):
        layer_names(model)


def test_an_output_object_with_logits():
    torch.manual_seed(0)
    model, images = HuggingFace().eval(), torch.rand(6, 1, 8, 8)
    assert classifier(model, images)[0] == "fc2"
    assert layer_names(model, images) == ("fc1", "encoder.0", "encoder.1")
    first, second = model.encoder[0](model.body(images)), None
    second = model.encoder[1](first)
    found = features(model, images, ["encoder.0", "penultimate"])
    same(found["encoder.0"], first)
    same(found["penultimate"], second)
    with tap(model, ["", "penultimate"]) as seen:
        answer = model(images)
    assert torch.equal(seen[""], answer.logits)
    (slope,) = torch.autograd.grad(answer.logits.sum(), seen["penultimate"])
    same(slope, model.fc2.weight.sum(0).expand(6, -1))


@pytest.mark.parametrize("repair", ["etf_head", "retrain_head"])
def test_a_new_head_goes_where_the_answer_comes_from(digits, repair):
    train, test = digits
    torch.manual_seed(0)
    model = HeadFirst()
    training.fit(model, train, epochs=15, progress=False, cache=False)
    before = training.accuracy(model, test)
    assert before > 0.8
    if repair == "etf_head":
        fresh = correction.etf_head(
            model, train, epochs=12, lr=0.1, progress=False, cache=False
        ).model
        gram = fresh.fc2.weight @ fresh.fc2.weight.T
        cosines = gram / gram.diagonal().mean()
        assert torch.allclose(cosines[~torch.eye(10, dtype=bool)], torch.tensor(-1 / 9), atol=1e-4)
    else:
        fresh = poisons.retrain_head(model, train)
        assert torch.equal(fresh.fc1.weight, model.fc1.weight)
    assert training.accuracy(fresh, test) > before - 0.1


def test_a_classifier_with_computed_weights_is_not_replaced(digits):
    model = HeadFirst()
    nn.utils.parametrizations.weight_norm(model.fc2)
    assert classifier(model, digits[0].images)[0] == "fc2"
    for repair in (correction.etf_head, poisons.retrain_head):
        with pytest.raises(ValueError, match="classifier 'fc2' is computed from other parameters"):
            repair(model, digits[0])


def test_a_model_with_an_output_object_trains_and_is_repaired(digits):
    train, test = digits
    torch.manual_seed(0)
    model = HuggingFace()
    training.fit(model, train, epochs=20, weight_decay=1e-4, progress=False, cache=False)
    assert training.accuracy(model, test) > 0.8
    assert training.accuracy(poisons.retrain_head(model, train), test) > 0.8
    fresh = correction.etf_head(model, train, epochs=12, lr=0.1, progress=False, cache=False).model
    assert training.accuracy(fresh, test) > 0.7


def test_no_linear_layer_gives_the_answer():
    class Functional(HeadFirst):
        def forward(self, z):
            return linear(self.body(z), self.fc2.weight)

    images = torch.rand(3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"no linear layer of Functional .* ran are \['fc1'\]"):
        penultimate(Functional(), images)
    with pytest.raises(ValueError, match="no linear layer of Two"):
        Two = type("Two", (HeadFirst,), {"forward": lambda s, z: 2 * HeadFirst.forward(s, z)})
        classifier(Two(), images)
    with pytest.raises(ValueError, match="model: Pair returns a tuple"):
        Pair = type("Pair", (HeadFirst,), {"forward": lambda s, z: (s.fc2(s.body(z)), z)})
        classifier(Pair(), images)


class Rnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, z):
        return self.fc(self.rnn(z.squeeze(1))[0][:, -1])


def test_a_layer_without_one_tensor_is_named():
    torch.manual_seed(0)
    model, images = Rnn(), torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="layers: 'rnn' returns a tuple"):
        features(model, images)
    same(penultimate(model, images), model.rnn(images.squeeze(1))[0][:, -1])


def test_a_layer_that_did_not_run_is_named():
    model, images = Aux(), torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="layers: 'aux' did not run"):
        features(model, images, ["fc1", "aux"])
    with tap(model.eval(), ["fc1", "aux"]) as seen:
        model(images)
        with pytest.raises(ValueError, match="layers: 'aux' did not run"):
            seen["aux"]
        model.train()(images)
        assert seen["aux"].shape == (4, 10)
        model.eval()(images)
        with pytest.raises(ValueError, match="layers: 'aux' did not run"):
            seen["aux"]  # what an earlier pass left is gone


def test_a_layer_named_twice_and_a_module_with_two_names():
    torch.manual_seed(0)
    model, images = HeadFirst(), torch.rand(4, 1, 8, 8)
    model.twin = model.fc1
    found = features(model, images, ["fc1", "fc1", "twin"], batch_size=3)
    assert list(found) == ["fc1", "twin"] and found["fc1"].shape == (4, 32)
    assert torch.equal(found["fc1"], found["twin"])


@pytest.mark.parametrize("how", ["wrapped", "in place", "a part"])
def test_a_compiled_model_that_has_run(how):
    torch.manual_seed(0)
    plain, images = HeadFirst().eval(), torch.rand(4, 1, 8, 8)
    hidden = plain.body(images)
    model = plain
    if how == "wrapped":
        model = torch.compile(plain, backend="eager")
    elif how == "in place":
        plain.compile(backend="eager")
    else:
        plain.fc1 = torch.compile(plain.fc1, backend="eager")
    with torch.no_grad():
        model(images)  # without hooks: later ones may be skipped
    assert classifier(model, images)[0] == "fc2"
    same(penultimate(model, images), hidden)
    same(features(model, images, ["fc1"])["fc1"].relu(), hidden)
    assert layer_names(model, images) == ("fc1",)
    assert torch.compiler.is_compiling() is False
    from torch._dynamo.eval_frame import _stance

    assert _stance.stance == "default"


class InPlace(HeadFirst):
    def forward(self, z):
        hidden = self.fc1(z.flatten(1))
        return self.fc2(hidden.relu_()).mul_(2).div_(2)


@pytest.mark.parametrize("grad", [True, False])
def test_in_place_operations_reach_neither_the_record_nor_the_gradient(grad):
    torch.manual_seed(0)
    model, images = InPlace(), torch.rand(4, 1, 8, 8)
    hidden = model.fc1(images.flatten(1))
    with torch.set_grad_enabled(grad), tap(model, ["fc1", "fc2", "penultimate"]) as seen:
        answer = model(images)
        answer.zero_() if not grad else None
    same(seen["fc1"], hidden)
    same(seen["penultimate"], relu(hidden))
    same(seen["fc2"], model.fc2(relu(hidden)))
    if grad:
        (slope,) = torch.autograd.grad(answer[:, 3].sum(), seen["fc1"])
        same(slope, model.fc2.weight[3] * (hidden > 0))


def test_two_threads_on_one_model_in_training():
    """Each gets its own features, in evaluation mode, and the model its mode back."""
    torch.manual_seed(0)
    model = models.SmallCNN(1, 10).train()
    torch.manual_seed(1)
    parts = torch.rand(2, 60, 1, 8, 8)
    layers = ["conv2", "penultimate"]
    wanted = [features(model, part, layers) for part in parts]
    wrong, start = [0, 0], threading.Barrier(2)

    def work(i):
        start.wait()
        for _ in range(25):
            found = features(model, parts[i], layers, batch_size=20)
            close = (torch.allclose(found[k], wanted[i][k], atol=1e-5) for k in layers)
            wrong[i] += not all(close)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0, 0]
    assert model.training and all(m.training for m in model.modules())


def test_evaluation_that_overlaps():
    """Whoever leaves first, the model stays in evaluation mode until the last has left."""
    for first in (0, 1):
        model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval()))
        held = [evaluating(model), evaluating(model)]
        for block in held:
            block.__enter__()
        held[first].__exit__(None, None, None)
        assert not model.training
        held[1 - first].__exit__(None, None, None)
        assert [m.training for m in model.modules()] == [True, True, True, False]
    model.eval()
    with evaluating(model):
        model.train()
        with evaluating(model):
            assert not model.training
        assert model.training  # as the inner block found it
    assert not model.training
