"""Explanations: captum, lime, shap and scikit-learn as oracles, and facts that need none."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances
from torch import nn

from nclib import explain, models
from nclib.data import ImageSet
from nclib.explain.surrogate import ridge, squares

captum = pytest.importorskip("captum.attr", reason="make test installs it")

METHODS = {
    "gradient": explain.gradient,
    "gradient x input": explain.gradient_x_input,
    "integrated gradients": explain.integrated_gradients,
    "Grad-CAM": explain.grad_cam,
    "occlusion": explain.occlusion,
    "surrogate": explain.surrogate,
    "Shapley": explain.shapley,
}


@pytest.fixture(scope="module")
def some():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16, generator=draw)
    return images, torch.tensor([0, 2, 1, 3])


@pytest.fixture(scope="module")
def net(some):
    model = models.build("cnn", ImageSet(*some, tuple("abcd")), seed=0, widths=(4, 6, 6, 8))
    return model.eval()


def summed(attribution):
    return attribution.sum(1).detach()


def test_the_slopes_are_captum_s(net, some):
    images, classes = some
    peer = captum.Saliency(net).attribute(images.clone().requires_grad_(), classes, abs=True)
    assert torch.allclose(explain.gradient(net, *some), summed(peer), atol=1e-6)
    peer = captum.InputXGradient(net).attribute(images.clone().requires_grad_(), classes)
    assert torch.allclose(explain.gradient_x_input(net, *some), summed(peer), atol=1e-6)
    peer = captum.IntegratedGradients(net).attribute(
        images.clone(), torch.full_like(images, 0.2), classes, n_steps=12, method="riemann_middle"
    )
    found = explain.integrated_gradients(net, *some, baseline=0.2, steps=12)
    assert torch.allclose(found, summed(peer), atol=1e-5)


def test_integrated_gradients_add_up_to_the_rise(net, some):
    images, classes = some
    found = explain.integrated_gradients(net, *some, steps=64).sum((1, 2))
    with torch.no_grad():
        ends = [net(x).gather(1, classes[:, None])[:, 0] for x in (images, 0 * images)]
    assert torch.allclose(found, ends[0] - ends[1], atol=2e-2 * float(found.abs().max()))


def test_grad_cam_is_captum_s(net, some):
    images, classes = some
    for name in ("conv4", "conv2"):
        peer = captum.LayerGradCam(net, getattr(net, name)).attribute(
            images.clone(), classes, relu_attributions=True
        )
        peer = captum.LayerAttribution.interpolate(peer, (16, 16), "bilinear")
        found = explain.grad_cam(net, *some, layer=name)
        assert torch.allclose(found, peer[:, 0].detach(), atol=1e-6)
    assert torch.equal(explain.grad_cam(net, *some), explain.grad_cam(net, *some, layer="conv4"))


def test_occlusion_is_captum_s(net, some):
    images, classes = some
    peer = captum.Occlusion(net).attribute(
        images.clone(), (3, 4, 4), (3, 2, 2), baselines=0.5, target=classes
    )
    found = explain.occlusion(net, *some, window=4, stride=2, fill=0.5)
    assert torch.allclose(found, peer[:, 0], atol=1e-5)


def test_occlusion_covers_the_edges_whatever_the_stride(some):
    images, classes = some
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    found = explain.occlusion(model, *some, window=5, stride=4)
    assert bool((found.abs() > 0).all())


def test_the_line_is_scikit_learn_s():
    draw = torch.Generator().manual_seed(0)
    on = torch.rand(80, 9, generator=draw) < 0.5
    scores, weights = torch.randn(80, generator=draw), torch.rand(80, generator=draw)
    peer = Ridge(alpha=2.0).fit(on.double().numpy(), scores.numpy(), weights.numpy())
    found = ridge(on, scores, weights, 2.0)
    assert torch.allclose(found, torch.from_numpy(peer.coef_), atol=1e-8)


def asked(net, image, cls, grid, on):
    """The class's logit with the squares of ``on`` [S, G] on and the others grey, as numpy's."""
    shown = torch.where(torch.as_tensor(on).bool()[:, grid][:, None], image, 0.5 * torch.ones(()))
    with torch.no_grad():
        return net(shown)[:, int(cls)].double().numpy()


def test_the_surrogate_is_lime_s(net, some):
    peer = pytest.importorskip("lime.lime_base", reason="make bench installs it")
    image, cls, grid = some[0][:1], some[1][:1], squares(some[0], 4)
    on = torch.rand(128, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    on[0] = True
    table = on.double().numpy()
    base = peer.LimeBase(lambda distance: np.exp(-(distance**2) / 0.25**2))
    _, slopes, *_ = base.explain_instance_with_data(
        table,
        asked(net, image, cls, grid, on)[:, None],
        pairwise_distances(table, table[:1], metric="cosine").ravel(),
        label=0,
        num_features=16,
        feature_selection="none",
    )
    wanted = torch.tensor([slope for _, slope in sorted(slopes)])
    found = per_square(explain.surrogate(net, image, cls, side=4, samples=128))
    assert torch.allclose(found.double(), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_shapley_values_are_shap_s(net, some):
    peer = pytest.importorskip("shap", reason="make bench installs it")
    image, cls, grid = some[0][:1], some[1][:1], squares(some[0], 8)
    exact = peer.ExactExplainer(partial(asked, net, image, cls, grid), np.zeros((1, 4)))
    wanted = torch.from_numpy(exact(np.ones((1, 4)), silent=True).values[0])
    found = explain.shapley(net, image, cls, side=8, orders=600)[0, ::8, ::8].flatten()
    assert torch.allclose(found.double(), wanted, atol=0.1 * float(wanted.abs().max()))
    assert float(found.sum()) == pytest.approx(float(wanted.sum()), abs=1e-4)


class Additive(nn.Module):
    """Four squares of 4 x 4 pixels, each with its own say; and two that count together only."""

    values = torch.tensor([1.0, -2.0, 0.0, 3.0])

    def __init__(self, together: float = 0.0) -> None:
        super().__init__()
        self.unused, self.together = nn.Linear(1, 1), together

    def forward(self, images):
        means = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)
        lit = 2 * (means - 0.5)  # 0 where a square is grey, 1 where it is white
        score = lit @ self.values.to(images) + self.together * lit[:, 0] * lit[:, 3]
        return torch.stack([score, -score], 1)


WHITE, ZERO = torch.ones(1, 3, 8, 8), torch.tensor([0])


def per_square(maps):
    return nn.functional.avg_pool2d(maps, 4).flatten()


def test_an_additive_model_is_read_exactly():
    found = per_square(explain.surrogate(Additive(), WHITE, ZERO, penalty=1e-6))
    assert torch.allclose(found, Additive.values, atol=1e-3)
    found = per_square(explain.shapley(Additive(), WHITE, ZERO, orders=2))
    assert torch.allclose(found, Additive.values, atol=1e-5)


def exact_shapley(game, count):
    values = torch.zeros(count)
    for order in itertools.permutations(range(count)):
        on = [False] * count
        for player in order:
            before = game(on)
            on[player] = True
            values[player] += game(on) - before
    return values / math.factorial(count)


def test_shapley_values_share_what_two_squares_do_together():
    def game(on):
        alone = sum(v for v, there in zip(Additive.values.tolist(), on, strict=True) if there)
        return alone + 4.0 * (on[0] and on[3])

    exact = exact_shapley(game, 4)
    assert torch.allclose(exact, torch.tensor([3.0, -2.0, 0.0, 5.0]))
    found = per_square(explain.shapley(Additive(4.0), WHITE, ZERO, orders=400))
    assert torch.allclose(found, exact, atol=0.3)
    assert float(found.sum()) == pytest.approx(float(exact.sum()), abs=1e-4)


def test_shapley_sampling_agrees_with_captum_s(net, some):
    images, classes = some[0][:1], some[1][:1]
    grid = squares(images, 8)
    peer = captum.ShapleyValueSampling(net).attribute(
        images, baselines=0.5, target=classes, feature_mask=grid.repeat(1, 3, 1, 1), n_samples=600
    )[0, 0]
    found = explain.shapley(net, images, classes, side=8, orders=600)[0]
    assert torch.allclose(found, peer, atol=0.1 * float(peer.abs().max()))


def test_a_counterfactual_swaps_what_decides():
    other = torch.full_like(WHITE, 0.5)
    other[..., 4:, 4:] = 0.0  # the last square speaks for the other class now, and weighs most
    changed, maps = explain.counterfactual(Additive(), WHITE, torch.tensor([1]), other, side=4)
    assert int(Additive()(changed).argmax()) == 1
    assert maps[0, 7, 7] == 1 and int((maps > 0).sum()) == 16
    same, none = explain.counterfactual(Additive(), WHITE, ZERO, other)
    assert torch.equal(same, WHITE) and not none.any()
    with pytest.raises(ValueError, match="others"):
        explain.counterfactual(Additive(), WHITE, ZERO, other[..., :4])


@pytest.mark.parametrize("name", METHODS)
def test_a_map_has_the_image_s_size_and_leaves_the_network_alone(name, net, some):
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    maps = METHODS[name](net, *some)
    assert maps.shape == (4, 16, 16) and maps.isfinite().all() and not maps.requires_grad
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    net.eval()


@pytest.mark.parametrize("name", METHODS)
def test_what_does_not_fit_is_refused(name, net, some):
    for images, classes in (
        (some[0] * 300, some[1]),
        (some[0], some[1] + 9),
        (some[0], some[1][:2]),
    ):
        with pytest.raises(ValueError):
            METHODS[name](net, images, classes)


def test_settings_that_do_not_fit_are_refused(net, some):
    for call, word in (
        (lambda: explain.integrated_gradients(net, *some, steps=0), "steps"),
        (lambda: explain.integrated_gradients(net, *some, baseline=2), "baseline"),
        (lambda: explain.grad_cam(net, *some, layer="fc"), "layer"),
        (lambda: explain.occlusion(net, *some, window=40), "window"),
        (lambda: explain.surrogate(net, *some, samples=0), "samples"),
        (lambda: explain.surrogate(net, *some, width=0), "width"),
        (lambda: explain.shapley(net, *some, fill=-1), "fill"),
        (lambda: explain.shapley(net, *some, side=0), "side"),
        (lambda: explain.randomised(net, 9), "layers"),
        (lambda: explain.restored(*some[:1] * 2, torch.zeros(4, 8, 8), 3), "maps"),
        (lambda: explain.restored(*some[:1] * 2, torch.zeros(4, 16, 16), 999), "count"),
        (lambda: explain.hit_rate(torch.zeros(4, 16, 16), torch.zeros(4, 16, 16).bool()), "place"),
    ):
        with pytest.raises(ValueError, match=word):
            call()


def test_pixels_are_put_back_from_the_top_of_the_map(some):
    images, originals = some[0], torch.zeros_like(some[0])
    maps = torch.arange(256.0).reshape(16, 16).expand(4, -1, -1)
    found = explain.restored(images, originals, maps, 16)
    assert not found[:, :, -1].any() and torch.equal(found[:, :, :-1], images[:, :, :-1])
    assert torch.equal(explain.restored(images, originals, maps, 0), images)


def test_the_hit_rate_of_the_place_is_one_and_of_its_opposite_zero():
    place = torch.zeros(2, 6, 6, dtype=torch.bool)
    place[:, :2, :3] = True
    assert explain.hit_rate(place.float(), place).tolist() == [1, 1]
    assert explain.hit_rate(-place.float(), place).tolist() == [0, 0]
    draw = torch.Generator().manual_seed(0)
    many = torch.rand(400, 6, 6, generator=draw)
    rate = explain.hit_rate(many, place[:1].expand(400, -1, -1)).mean()
    assert float(rate) == pytest.approx(6 / 36, abs=0.03)


def test_the_agreement_is_scipy_s_rank_correlation():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 5, 5, generator=draw).round(decimals=1) for _ in range(2))
    pairs = zip(a.abs().flatten(1), b.abs().flatten(1), strict=True)
    peer = [spearmanr(*pair).statistic for pair in pairs]
    assert explain.agreement(a, b).tolist() == pytest.approx(peer, abs=1e-6)
    assert explain.agreement(a, torch.ones_like(a)).tolist() == [0, 0, 0]


def test_the_last_layers_are_drawn_anew_and_no_others(net):
    before = net.state_dict()
    for layers, kept in ((0, 5), (1, 4), (3, 2), (5, 0)):
        after = explain.randomised(net, layers).state_dict()
        names = [n for n in before if n.endswith("weight") and before[n].ndim > 1]
        same = [torch.equal(before[n], after[n]) for n in names]
        assert same == [True] * kept + [False] * layers
