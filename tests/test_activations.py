"""Features per layer of any module, taken without leaving a trace."""

import pytest
import torch
import torchvision
from torch import nn

from nclib import activations, data, geometry, models
from nclib.defenses.squeezing import Squeezed


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu", n_train=60, n_test=20)[0]


@pytest.mark.parametrize("arch", ["cnn", "mlp", "resnet18"])
def test_our_models_name_their_layers(digits, arch):
    model = models.build(arch, digits)
    found = activations.features(model, digits.images, batch_size=17)
    assert tuple(found) == model.layer_names
    assert all(h.shape[0] == 60 and h.ndim == 2 for h in found.values())
    last = activations.penultimate(model, digits.images, batch_size=17)
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


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), nn.ReLU()])
def test_a_later_layer_that_works_in_place_changes_nothing(relu):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), relu, nn.Linear(4, 2))
    images = torch.rand(20, 1, 2, 2)
    (found,) = activations.features(model, images, ["1"]).values()
    assert found.min() < 0
    assert torch.equal(found, model[1](images.flatten(1)))
    with activations.tap(model, ["1"]) as seen:
        model(images)
    assert seen["1"].min() < 0 and seen["1"].requires_grad


def test_features_of_a_model_that_works_in_place_by_a_function():
    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.fc = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.first(x).relu_())

    torch.manual_seed(0)
    (found,) = activations.features(Clipped(), torch.rand(20, 4), ["first"]).values()
    assert found.min() < 0


def test_an_error_on_the_way_leaves_mode_and_gradients_as_they_were(digits):
    model = models.build("cnn", digits).train()
    with pytest.raises(ValueError, match="pool: got 0"):
        activations.features(model, digits.images, pool=0)
    assert model.training and torch.is_grad_enabled()
    assert not hasattr(activations, "stream")  # a generator would leak both into its caller's loop


def test_pooling():
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert torch.equal(activations.pooled(x), x.mean((2, 3)))
    assert activations.pooled(x, "flat").shape == (2, 48)
    assert activations.pooled(x, 2).shape == (2, 12)
    assert activations.pooled(x[:, :, 0, 0]).shape == (2, 3)
    with pytest.raises(ValueError, match="pool: got 'max'"):
        activations.pooled(x, "max")
    with pytest.raises(ValueError, match="pool: got 'max'"):
        activations.pooled(x[:, :, 0, 0], "max")  # also where there is nothing to pool
    with pytest.raises(ValueError, match="activation: got"):
        activations.pooled(x[0, 0, 0])


def test_bad_layers_and_models_are_refused(digits):
    model = models.build("cnn", digits)
    with pytest.raises(ValueError, match=r"layers: got \['conv9'\]"):
        activations.features(model, digits.images, ["conv9"])
    with pytest.raises(ValueError, match="batch_size: got 0"):
        activations.features(model, digits.images, batch_size=0)
    with pytest.raises(
        ValueError, match="model: Squeezed has no layers .* name them, .*model.conv1"
    ):
        activations.features(Squeezed(model, torch.round), digits.images)
    with pytest.raises(ValueError, match="no nn.Linear"):
        activations.classifier(nn.Conv2d(1, 1, 1))
