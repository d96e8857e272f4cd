"""Features per layer of any module, taken without leaving a trace."""

import pytest
import torch
import torchvision
from torch import nn

from nclib import activations, data, geometry, models


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu", n_train=60, n_test=20)[0]


@pytest.mark.parametrize("arch", ["cnn", "mlp", "resnet18"])
def test_our_models_name_their_layers(digits, arch):
    model = models.build(arch, digits)
    found = activations.features(model, digits.images, batch_size=17)
    assert tuple(found) == model.layer_names
    assert all(h.shape[0] == 60 and h.ndim == 2 for h in found.values())
    last = activations.features(model, digits.images, ["penultimate"])["penultimate"]
    assert torch.allclose(model.fc(last), model.eval()(digits.images), atol=1e-5)
    assert torch.allclose(last, found[model.layer_names[-1]], atol=1e-5)


def test_torchvisions_resnet18_untouched():
    """Nothing of ours in the model: names from its own modules, geometry per layer, state kept."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images, labels = torch.rand(12, 3, 48, 48), torch.arange(12) % 3
    layers = ["layer1", "layer2.0.conv1", "layer4", "avgpool"]
    found = activations.features(model, images, layers, batch_size=5)
    assert [h.shape for h in found.values()] == [(12, 64), (12, 128), (12, 512), (12, 512)]
    assert torch.allclose(found["layer4"], found["avgpool"], atol=1e-6)
    measured = geometry.by_layer(found, labels, activations.classifier(model)[1])
    assert measured["avgpool"].nc4 is not None
    assert measured["layer1"].nc4 is None
    assert activations.layer_names(model)[-2:] == ("layer4", "avgpool")
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_tap_keeps_gradients_and_cleans_up_after_an_error(digits):
    model = models.build("cnn", digits)
    images = digits.images[:4].clone().requires_grad_()
    with activations.tap(model, ["conv2", "penultimate"]) as seen:
        model(images)
    seen["conv2"].sum().backward()
    assert images.grad.abs().sum() > 0
    assert seen["penultimate"].shape == (4, 128)
    with pytest.raises(RuntimeError), activations.tap(model, ["conv2"]):
        model(torch.rand(2, 7, 8, 8))
    assert not model.conv2._forward_hooks


def test_pooling():
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert torch.equal(activations.pooled(x), x.mean((2, 3)))
    assert activations.pooled(x, "flat").shape == (2, 48)
    assert activations.pooled(x, 2).shape == (2, 12)
    assert activations.pooled(x[:, :, 0, 0]).shape == (2, 3)
    with pytest.raises(ValueError, match="pool: got 'max'"):
        activations.pooled(x, "max")
    with pytest.raises(ValueError, match="activation: got"):
        activations.pooled(x[0])


def test_bad_layers_and_models_are_refused(digits):
    model = models.build("cnn", digits)
    with pytest.raises(ValueError, match=r"layers: got \['conv9'\]"):
        activations.features(model, digits.images, ["conv9"])
    with pytest.raises(ValueError, match="no nn.Linear"):
        activations.classifier(nn.Conv2d(1, 1, 1))
