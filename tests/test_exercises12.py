"""Lesson 12: typical wrong answers are rejected with a useful word."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm
from torch import nn
from torch.nn.functional import conv2d

from nclib.course import verdict
from nclib.course.exercises import find


def two_sided(hits, n, alpha):
    return float(beta.ppf(alpha / 2, hits, n - hits + 1)) if hits else 0.0


def upper(hits, n, alpha):
    return float(beta.ppf(1 - alpha, hits + 1, n - hits)) if hits < n else 1.0


def normal_approximation(hits, n, alpha):
    share = hits / n
    return share - norm.ppf(1 - alpha) * (share * (1 - share) / n) ** 0.5


def nan_at_zero(hits, n, alpha):
    return float(beta.ppf(alpha, hits, n - hits + 1))


def no_cut(share, sigma):
    return float(sigma * norm.ppf(share))


def ties_ignored(votes):
    label = int(votes.argmax())
    rivals = votes.clone()
    rivals[label] = -1
    return label, int(votes[label] - rivals.max()) // 2


def not_halved(votes):
    label = int(votes.argmax())
    rivals = votes.clone()
    rivals[:label] += 1
    rivals[label] = -1
    return label, int(votes[label] - rivals.max())


def too_careful(votes):
    return int(votes.argmax()), 0


def in_order(key, partly=True):
    def buy(price, value, budget):
        order = np.argsort(key(price, value))
        spent = np.cumsum(price[order])
        if not partly:
            return value[order][spent <= budget].sum()
        spent = np.minimum(spent, budget)
        return (np.diff(spent, prepend=0) * value[order] / price[order]).sum()

    return buy


def whole_cells(price, value, budget):
    order = np.argsort(-value / price)
    return value[order][: 1 + int((np.cumsum(price[order]) <= budget).sum())].sum()


def through(half):
    """Bounds with another rule for the half width of a layer with weights."""

    def bounds(layers, low, high):
        for layer in layers:
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                middle, spread = layer((low + high) / 2), half(layer, (high - low) / 2)
                low, high = middle - spread, middle + spread
            else:
                low, high = layer(low), layer(high)
        return low, high

    return bounds


def absolute(layer, half, bias=None, by=abs):
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(half, by(layer.weight), bias)
    return conv2d(half, by(layer.weight), bias, layer.stride, layer.padding)


def straight_through(layers, low, high):
    for layer in layers:
        low, high = layer(low), layer(high)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
    return low, high


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("12.lower_bound", lambda hits, n, alpha: hits / n, "below the share"),
        ("12.lower_bound", two_sided, "two-sided"),
        ("12.lower_bound", upper, "below the share"),
        ("12.lower_bound", normal_approximation, "normal approximation"),
        ("12.lower_bound", nan_at_zero, "without any hit"),
        ("12.radius", no_cut, "below one half"),
        ("12.radius", lambda share, sigma: max(0.0, sigma * (share - 0.5)), "plane"),
        ("12.radius", lambda share, sigma: max(0.0, float(norm.ppf(share))), "multiply by sigma"),
        ("12.buy", in_order(lambda p, v: -v), "valuable cells first"),
        ("12.buy", in_order(lambda p, v: p), "cheapest"),
        ("12.buy", in_order(lambda p, v: p - v), "difference"),
        ("12.buy", in_order(lambda p, v: v / p), "worst bargain"),
        ("12.buy", in_order(lambda p, v: -v / p, partly=False), "in part"),
        ("12.buy", whole_cells, "bought whole"),
        ("12.buy", lambda price, value, budget: value.sum(), "more than the budget"),
        ("12.two_sided", lambda a, b, s: s * (norm.ppf(a) - norm.ppf(b)), "halve"),
        ("12.two_sided", lambda a, b, s: max(0.0, s * norm.ppf(a)), "second class"),
        ("12.two_sided", lambda a, b, s: s / 2 * (a - b), "quantiles first"),
        ("12.two_sided", lambda a, b, s: s / 2 * norm.ppf(a - b), "quantile of the difference"),
        ("12.two_sided", lambda a, b, s: (norm.ppf(a) - norm.ppf(b)) / 2, "multiply by sigma"),
        ("12.two_sided", lambda a, b, s: s / 2 * (norm.ppf(a) - norm.ppf(b)), "radius is 0"),
        ("12.interval_bounds", straight_through, "change places"),
        ("12.interval_bounds", through(lambda m, h: absolute(m, h, m.bias)), "bias"),
        ("12.interval_bounds", through(lambda m, h: absolute(m, h) / 2), "outside"),
        ("12.interval_bounds", through(lambda m, h: 2 * absolute(m, h)), "lower bound"),
        (
            "12.interval_bounds",
            through(lambda m, h: absolute(m, h, by=lambda w: w)),
            "with their signs",
        ),
        ("12.interval_bounds", lambda layers, low, high: layers(low), "two things"),
        ("12.certificate", ties_ignored, "change the label"),
        ("12.certificate", not_halved, "change the label"),
        ("12.certificate", too_careful, "too small"),
        ("12.certificate", lambda votes: (int(votes.argmin()), 0), "elect"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message


def test_the_bounds_are_those_of_the_adversarial_robustness_toolbox():
    theirs = pytest.importorskip(
        "art.estimators.certification.interval", reason="make test installs it"
    )
    torch.manual_seed(0)
    conv, line = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(64, 5)
    low = torch.rand(6, 3, 8, 8)
    high = (low + 0.1 * torch.rand(low.shape)).clamp(max=1)
    kernel = {"supplied_input_weights": conv.weight.data, "supplied_input_bias": conv.bias.data}
    dense = theirs.PyTorchIntervalDense(64, 5)
    dense.weight.data, dense.bias.data = line.weight.data, line.bias.data
    with torch.no_grad():
        box = torch.stack([low, high], 1)
        first = theirs.PyTorchIntervalConv2D(3, 4, 3, (6, 3, 8, 8), "cpu", 2, 1, 1, **kernel)
        box = dense(theirs.PyTorchIntervalReLU()(first(box)).reshape(6, 2, -1))
        net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), line)
        ours = find("12.interval_bounds").reference(net, low, high)
    assert torch.allclose(torch.stack(ours, 1), box, atol=1e-5)
    assert float((ours[1] - ours[0]).min()) > 0


def test_no_image_of_the_box_leaves_the_bounds():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    low = torch.rand(1, 1, 8, 8)
    high = low + 0.2
    with torch.no_grad():
        least, most = find("12.interval_bounds").reference(net, low, high)
        said = net(low + 0.2 * torch.rand(4000, 1, 8, 8).round())  # corners
    assert bool((said >= least - 1e-5).all() and (said <= most + 1e-5).all())


def test_the_shopping_on_a_grid_is_the_half_space():
    cells = np.linspace(-7, 8, 3001)
    price, value = norm.pdf(cells) / 200, norm.pdf(cells - 1) / 200
    found = find("12.buy").reference(price, value, 0.1)
    assert found == pytest.approx(norm.cdf(1 - norm.ppf(0.9)), abs=1e-3)
