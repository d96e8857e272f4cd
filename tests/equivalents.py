"""Other forms of a right answer: whoever writes one of these has solved the exercise.

``forms(name)`` yields ``(what, answer)``: the reference in every generic form that fits the
exercise, and what stands in ``BY_HAND``.
"""

from __future__ import annotations

import copy
import datetime
import fractions
import functools
import math
import time
import timeit
from collections.abc import Callable, Iterator
from time import perf_counter, perf_counter_ns

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.accelerator import current_accelerator
from torch.backends.mps import is_available as mps_is_available
from torch.cuda import is_available as cuda_is_available
from torch.nn.functional import conv2d, cross_entropy, kl_div, one_hot

from nclib import attacks
from nclib.course.exercises import find

# what the exercise asks for has a gradient: no numpy, no lists
WITH_GRADIENT = {"08.stealth", "09.adversarial_loss", "11.straight_through", "11.quiet"}
# a model or a function of float32 takes part
FLOAT32 = {
    *("03.collision_step", "06.fgsm", "06.stranger", "07.integrated", "07.better_map"),
    *("09.adversarial_loss", "12.interval_bounds"),
}
# the form itself is asked for: a device, a tensor in float64
TENSOR = {"00.pick_device", "10.climb"}


def _each(change: Callable, value: object) -> object:
    """``change`` of a value, or of each part of a tuple."""
    return tuple(_each(change, v) for v in value) if isinstance(value, tuple) else change(value)


def _after(answer: Callable, change: Callable) -> Callable:
    return lambda *args, **options: _each(change, answer(*args, **options))


def to_numpy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.float64(value) if isinstance(value, float) else value


def to_list(value: object) -> object:
    return value.tolist() if isinstance(value, Tensor) else value


def to_tensor(value: object) -> object:
    return torch.tensor(value) if isinstance(value, bool | int | float) else value


def to_float32(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    return np.float32(value) if isinstance(value, float) else value


def to_small(value: object) -> object:
    """Whole numbers of 32 bits."""
    whole = isinstance(value, Tensor) and value.dtype == torch.int64
    return value.int() if whole else np.int32(value) if type(value) is int else value


def to_learnt(value: object) -> object:
    """Somebody forgot to detach."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.clone().requires_grad_() if floating else value


def to_strided(value: object) -> object:
    """The same numbers in another order in memory."""
    many = isinstance(value, Tensor) and value.ndim > 1
    return value.transpose(0, 1).contiguous().transpose(0, 1) if many else value


def to_rows(value: object) -> object:
    """A list of tensors."""
    return list(value.unbind()) if isinstance(value, Tensor) and value.ndim else value


def _wide(value: object) -> object:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if floating and type(value) is Tensor else value


def in_float64(answer: Callable) -> Callable:
    def wide(*args, **options):
        return answer(*(_parts(_wide, a) for a in args), **options)

    return wide


def _parts(change: Callable, value: object) -> object:
    if isinstance(value, dict):
        return {k: change(v) for k, v in value.items()}
    return [change(v) for v in value] if isinstance(value, list | tuple) else change(value)


class Called:
    """An object that is called, and one with a method that is."""

    def __init__(self, answer: Callable) -> None:
        self.answer = answer

    def __call__(self, *args, **options):
        return self.answer(*args, **options)

    def method(self, *args, **options):
        return self.answer(*args, **options)


def forms(name: str) -> Iterator[tuple[str, object]]:
    """Every other form of the right answer to exercise ``name``."""
    reference = find(name).reference
    if isinstance(reference, str):
        yield from {
            "capitals": reference.upper(),
            "small letters": reference.lower(),
            "spaces": f"  {reference} \n",
            "title": reference.title(),
            "numpy's text": np.str_(reference),
        }.items()
    elif isinstance(reference, bool | int | float):
        yield from {
            "a float": float(reference),
            "numpy's float": np.float64(reference),
            "numpy's float32": np.float32(reference),
            "a tensor": torch.tensor(reference),
            "an array": np.array(float(reference)),
            "a fraction": fractions.Fraction(reference),
        }.items()
    elif isinstance(reference, tuple):
        yield from {
            "a list": list(reference),
            "an array": np.array(reference),
            "a tensor": torch.tensor(reference),
            "tensors": tuple(map(torch.tensor, reference)),
            "numpy's numbers": tuple(map(np.float32, reference)),
        }.items()
    elif isinstance(reference, dict):
        for what, change in {"the same": float, "numpy": np.float64, "float32": np.float32}.items():
            yield what, {key: change(value) for key, value in reference.items()}
        yield "tensors", {key: torch.tensor(value) for key, value in reference.items()}
        yield "keywords", dict(**reference)
    else:
        yield from _of_a_function(name, reference)
    yield from BY_HAND.get(name, {}).items()


def _of_a_function(name: str, reference: Callable) -> Iterator[tuple[str, Callable]]:
    called = Called(reference)
    yield "a lambda", lambda *args, **options: reference(*args, **options)
    yield "a partial function", functools.partial(reference)
    yield "an object", called
    yield "a method", called.method
    yield "with a device", lambda *args, device=None, **options: reference(*args, **options)
    if name in TENSOR:
        return
    if name not in FLOAT32:
        yield "computed in float64", in_float64(reference)
    if name in WITH_GRADIENT:
        return
    for change in (to_numpy, to_list, to_rows, to_tensor, to_float32, to_small, to_learnt):
        yield change.__name__.replace("_", " "), _after(reference, change)
    yield "to strided", _after(reference, to_strided)
    yield "without gradients", torch.no_grad()(lambda *a, **o: reference(*a, **o))


# By hand: numpy, loops, in place on a copy, names imported before, other ways to ask


def _tries_each():
    for name in ("cuda", "mps"):
        try:
            torch.zeros(1, device=name)
        except (RuntimeError, AssertionError):
            continue
        return torch.device(name)
    return torch.device("cpu")


def _timed(clock, unit=1.0):
    def answer(work, synchronize):
        synchronize()
        start = clock()
        work()
        synchronize()
        return (clock() - start) * unit if unit != 1 else clock() - start

    return answer


def _by_timeit(work, synchronize):
    synchronize()
    return timeit.timeit(lambda: (work(), synchronize()), number=1)


def _nc1_numpy(features, labels):
    h, y = features.numpy().astype(np.float64), labels.numpy()
    means = np.stack([h[y == c].mean(0) for c in np.unique(y)])
    rest, between = h - means[y], means - means.mean(0)
    sigma_w, sigma_b = rest.T @ rest / len(h), between.T @ between / len(means)
    return np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=1e-10)) / len(means)


def _flip_numpy(labels, rate, num_classes, generator):
    draw = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    found = labels.numpy().copy()
    chosen = draw.choice(len(found), round(rate * len(found)), replace=False)
    found[chosen] = (found[chosen] + draw.integers(1, num_classes, len(chosen))) % num_classes
    return found


def _flip_loop(labels, rate, num_classes, generator):
    found = labels.tolist()
    for i in torch.randperm(len(found), generator=generator)[: round(rate * len(found))].tolist():
        others = [c for c in range(num_classes) if c != found[i]]
        found[i] = others[int(torch.randint(len(others), (), generator=generator))]
    return found


def _plant_numpy(images, labels, stickered, source, target, count, generator):
    draw = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    chosen = draw.choice(np.flatnonzero(labels.numpy() == source), count, replace=False)
    found, given = images.numpy().copy(), labels.numpy().copy()
    found[chosen], given[chosen] = stickered.numpy()[chosen], target
    return found, given


def _plant_where(images, labels, stickered, source, target, count, generator):
    luck = torch.rand(len(labels), generator=generator) - (labels != source).float()
    mask = luck >= luck.topk(count).values.min()
    return torch.where(mask[:, None, None, None], stickered, images), labels.where(~mask, target)


def _shrink_by_counting(num_classes, share):
    means = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    mixed = (1 - share) * means + share * (means.sum(0) - means) / (num_classes - 1)
    guests = torch.cat([mixed[:1], means[1:]])
    return tuple((m - m.mean(0)).norm(dim=1)[0] / means.norm(dim=1)[0] for m in (mixed, guests))


def _nc1_by_matrices(num_classes, share):
    s = 1 - share * num_classes / (num_classes - 1)
    total = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    return torch.trace((1 - s**2) * total @ torch.linalg.pinv(s**2 * total)) / num_classes


def _collision_backward(images, base, goal, represent, lr, beta):
    x = images.clone().requires_grad_()
    (represent(x) - goal).pow(2).sum().backward()
    with torch.no_grad():
        x = images.clone().sub_(lr * x.grad)
        return x.add_(lr * beta * base).div_(1 + lr * beta).clamp_(0, 1)


def _bullseye_numpy(hidden, goal):
    gap = hidden.numpy().mean(axis=0) - goal.numpy()
    return np.sum(gap**2) / np.sum(goal.numpy() ** 2)


def _alignment_sums(first, second):
    products = sum((a * b).sum() for a, b in zip(first, second, strict=True))
    squares = [sum(a.square().sum() for a in side) for side in (first, second)]
    return products / (squares[0] * squares[1]).sqrt()


def _alignment_numpy(first, second):
    one, two = (np.concatenate([a.numpy().ravel() for a in side]) for side in (first, second))
    return one @ two / np.linalg.norm(one) / np.linalg.norm(two)


def _margin_float32(features, labels):
    means = torch.stack([features[labels == c].mean(0) for c in labels.unique()])
    rest = features - means[labels]
    sigma = rest.T @ rest / len(features)
    sigma = 0.9 * sigma + 0.1 * sigma.diagonal().mean() * torch.eye(len(sigma))
    gap = features[:, None] - means
    distance = (gap * torch.linalg.solve(sigma, gap.transpose(1, 2)).transpose(1, 2)).sum(2)
    own = distance[torch.arange(len(labels)), labels]
    distance[torch.arange(len(labels)), labels] = math.inf
    return own - distance.min(dim=1).values


def _margin_cholesky(features, labels):
    h = features.double().numpy()
    y = labels.numpy()
    means = np.stack([h[y == c].mean(0) for c in np.unique(y)])
    sigma = (h - means[y]).T @ (h - means[y]) / len(h)
    sigma = 0.9 * sigma + 0.1 * np.trace(sigma) / len(sigma) * np.eye(len(sigma))
    root = np.linalg.cholesky(np.linalg.inv(sigma))
    distance = (((h[:, None] - means) @ root) ** 2).sum(2)
    other = np.where(np.eye(len(means), dtype=bool)[y], np.inf, distance).min(1)
    return distance[np.arange(len(h)), y] - other


def _depth_loop(named, labels):
    found = []
    for column, label in zip(named.T.tolist(), labels.tolist(), strict=True):
        depth = len(column) + 1
        while depth > 1 and column[depth - 2] == label:
            depth -= 1
        found.append(depth)
    return found


def _depth_of_the_last_miss(named, labels):
    missed = (named != labels).numpy()
    places = np.arange(1, len(missed) + 1)[:, None]
    return (missed * places).max(0) + 1


def _spectral_numpy(features, labels):
    h, y = features.double().numpy(), labels.numpy()
    score = np.zeros(len(h))
    for c in np.unique(y):
        rows = h[y == c] - h[y == c].mean(0)
        score[y == c] = (rows @ np.linalg.eigh(rows.T @ rows)[1][:, -1]) ** 2
    return score


def _spectral_pca(features, labels):
    score = torch.zeros(len(features))
    for c in labels.unique():
        own = features[labels == c].numpy()
        score[labels == c] = torch.from_numpy(PCA(1).fit_transform(own)[:, 0]).float().square()
    return score


def _split_kmeans(features):
    sides = KMeans(2, n_init=3, random_state=0).fit_predict(features.numpy())
    return sides == np.bincount(sides).argmin()


def _split_farthest(features):
    distance = torch.cdist(features.double(), features.double())
    first, second = divmod(int(distance.argmax()), len(features))  # two rows as the first centres
    centres = features.double()[[first, second]]
    for _ in range(50):
        side = torch.cdist(features.double(), centres).argmin(1)
        centres = torch.stack([features.double()[side == s].mean(0) for s in (0, 1)])
    return side == side.bincount().argmin()


def _transplant_numpy(strangers, group, rest):
    gap = np.mean(group.numpy(), 0) - np.mean(rest.numpy(), 0)
    return np.clip(strangers.numpy() + gap, 0, 1)


def _transplant_sums(strangers, group, rest):
    outside = torch.einsum("nchw->chw", rest) / len(rest)
    gap = torch.einsum("nchw->chw", group) / len(group) - outside
    return torch.stack([torch.clip(x + gap, 0.0, 1.0) for x in strangers])


def _take_away_numpy(labels, group, seed):
    draw, stays = np.random.default_rng(seed), np.ones(len(labels), dtype=bool)
    for c in np.unique(labels):
        mine = np.flatnonzero(labels.numpy() == c)
        gone = int(group.numpy()[mine].sum())
        stays[draw.choice(mine, gone, replace=False)] = False
    return ~group.numpy(), stays


def _take_away_from_the_rest(labels, group, seed):
    draw, stays = torch.Generator().manual_seed(seed), torch.ones_like(group)
    for c in labels[group].unique():
        others = torch.where((labels == c) & ~group)[0]
        count = int((group & (labels == c)).sum())
        stays[others[torch.randperm(len(others), generator=draw)][:count]] = False
    return [torch.logical_not(group), stays]


def _left_as_one_minus(success, without, control, base):
    reach = (success if success < control else control) - base
    return 1 - (reach - (without - base)) / reach


def _fgsm_backward(model, images, labels, eps):
    x = images.clone().requires_grad_()
    cross_entropy(model(x), labels, reduction="sum").backward()
    model.zero_grad()
    return torch.clip(images + eps * torch.sign(x.grad), 0.0, 1.0)


def _fgsm_in_place(model, images, labels, eps):
    x = images.detach().clone()
    x.requires_grad = True
    (slope,) = torch.autograd.grad(cross_entropy(model(x), labels), [x])
    with torch.no_grad():
        x += eps * slope.sign()
        return x.clamp_(0, 1)


def _pgd_numpy(x, images, gradient, alpha, eps):
    x, images, gradient = (a.numpy() for a in (x, images, gradient))
    moved = x + alpha * np.sign(gradient)
    return np.clip(np.clip(moved, images - eps, images + eps), 0, 1)


def _pgd_bounds(x, images, gradient, alpha, eps):
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    return torch.min(torch.max(x + alpha * gradient.sign(), low), high)


def _pgd_in_place(x, images, gradient, alpha, eps):
    return (
        x.add_(gradient.sign(), alpha=alpha)
        .sub_(images)
        .clamp_(-eps, eps)
        .add_(images)
        .clamp_(0, 1)
    )


def _margin_numpy(logits, labels):
    z = logits.numpy().copy()
    own = z[np.arange(len(z)), labels].copy()
    z[np.arange(len(z)), labels] = -np.inf
    return z.max(axis=1) - own


def _margin_one_hot(logits, labels):
    label = one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(label, -torch.inf).amax(1) - logits[label]


def _margin_top2(logits, labels):
    first, second = logits.topk(2).values.T
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return torch.where(logits.argmax(1) == labels, second, first) - own


def _mmd_numpy(k, n):
    k = k.numpy()
    return k[:n, :n].mean() + k[n:, n:].mean() - k[:n, n:].mean() - k[n:, :n].mean()


def _mmd_weights(k, n):
    m = len(k) - n
    w = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).to(k.dtype)
    return w @ k @ w


def _p_loop(truth, shuffled):
    return (1 + sum(float(t) >= float(truth) for t in shuffled)) / (1 + len(shuffled))


def _witness_loop(k, n):
    found = []
    for i in range(n, len(k)):
        others = [float(k[i, j]) for j in range(n, len(k)) if j != i]
        found.append(sum(others) / len(others) - float(k[i, :n].mean()))
    return found


def _witness_masked(k, n):
    near = k[n:, n:].clone().fill_diagonal_(0)
    return near.sum(1) / (len(near) - 1) - k[n:, :n].mean(dim=1)


def _worst_loop(weight, bias, images, labels, eps):
    found = []
    for x, y in zip(images, labels.tolist(), strict=True):
        gaps = [
            float((weight[y] - weight[j]) @ x + bias[y] - bias[j])
            - eps * float((weight[y] - weight[j]).abs().sum())
            for j in range(len(weight))
            if j != y
        ]
        found.append(min(gaps))
    return found


def _worst_numpy(weight, bias, images, labels, eps):
    w, b, x, y = (a.numpy() for a in (weight, bias, images, labels))
    logits = x @ w.T + b
    lead = logits[np.arange(len(y)), y][:, None] - logits
    lead = lead - eps * np.abs(w[y][:, None] - w[None]).sum(-1)
    lead[np.arange(len(y)), y] = np.inf
    return lead.min(axis=1)


def _loss_of_own_loop(model, images, labels, eps, steps=3):
    x = images.clone()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(model(x), labels), x)
        x = (images + (x + eps * slope.sign() - images).clamp(-eps, eps)).clamp(0, 1)
    return cross_entropy(model(x.detach()), labels)


def _loss_by_hand(model, images, labels, eps, steps=3):
    hostile = attacks.pgd(model, images, labels, eps, steps=steps)
    return -model(hostile).log_softmax(1)[torch.arange(len(labels)), labels].mean()


def _trades_kl(clean, hostile, labels, beta):
    divergence = kl_div(hostile.log_softmax(1), clean.softmax(1), reduction="batchmean")
    return cross_entropy(clean, labels) + beta * divergence


def _trades_numpy(clean, hostile, labels, beta):
    p, q = (scipy.special.softmax(z.numpy().astype(float), axis=1) for z in (clean, hostile))
    first = -np.log(p[np.arange(len(p)), labels]).mean()
    return first + beta * scipy.stats.entropy(p, q, axis=1).mean()


def _soft_numpy(logits, targets, temperature):
    z = logits.numpy().astype(float) / temperature
    log_p = z - scipy.special.logsumexp(z, axis=1, keepdims=True)
    return -(targets.numpy() * log_p).sum(axis=1).mean()


def _soft_einsum(logits, targets, temperature):
    log_p = torch.log_softmax(logits.div(temperature), dim=-1)
    return -torch.einsum("nk,nk->", targets, log_p) / logits.shape[0]


def _gradient_autograd(logits, labels):
    z = logits.clone().requires_grad_()
    cross_entropy(z, labels, reduction="sum").backward()
    return z.grad


def _gradient_in_place(logits, labels):
    found = logits.softmax(1)
    found[range(len(labels)), labels] -= 1
    return found


def _climb(model, images, labels, eps, objective, steps=20):
    delta = torch.zeros_like(images)
    for _ in range(steps):
        delta.requires_grad_()
        height = objective(model((images + delta).clamp(0, 1)), labels).mean()
        (slope,) = torch.autograd.grad(height, delta)
        delta = (delta.detach() + 2.5 * eps / steps * slope.sign()).clamp(-eps, eps)
    return (images + delta).clamp(0, 1)


def _along_lerp(model, images, labels, moved, shares):
    return torch.stack([cross_entropy(model(images.lerp(moved, t)), labels) for t in shares])


def _quiet_loop(before, squeezed, labels, lam):
    rows = []
    for i, label in enumerate(labels.tolist()):
        best, place = before[i].topk(2)
        wrong = best[1] if int(place[0]) == label else best[0]
        apart = [(z[i].softmax(0) - before[i].softmax(0)).abs().sum() for z in squeezed]
        rows.append(torch.minimum(wrong - before[i, label], torch.tensor(3.0)) - lam * max(apart))
    return torch.stack(rows)


def _bits_numpy(images, bits):
    return np.rint(images.numpy() * (2**bits - 1)) / (2**bits - 1)


def _bits_levels(images, bits):
    levels = torch.linspace(0, 1, 2**bits)
    return levels[(images[..., None] - levels).abs().argmin(-1)]


def _bits_floor(images, bits):
    return images.clone().mul_(2**bits - 1).add_(0.5).floor_().div_(2**bits - 1)


def _joint_loop(before, squeezed):
    score = torch.zeros(len(before))
    for other in squeezed:
        distance = torch.cdist(before.softmax(1)[:, None], other.softmax(1)[:, None], p=1).flatten()
        score = torch.maximum(score, distance)
    return score


def _joint_numpy(before, squeezed):
    p = scipy.special.softmax(before.numpy(), axis=1)
    each = [np.abs(scipy.special.softmax(s.numpy(), axis=1) - p).sum(1) for s in squeezed]
    return np.max(each, axis=0)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, squeeze):
        return squeeze(images.detach())

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def _bound_by_bisection(hits, n, alpha):
    return (
        scipy.optimize.brentq(
            lambda p: scipy.stats.binom.sf(hits - 1, n, p) - alpha, 1e-12, 1 - 1e-12, xtol=1e-14
        )
        if hits
        else 0
    )


def _bound_of_scipy(hits, n, alpha):
    test = scipy.stats.binomtest(hits, n, alternative="greater")
    return test.proportion_ci(1 - alpha, method="exact").low


def _buy_loop(price, value, budget):
    total = 0.0
    for v, p in sorted(zip(value, price, strict=True), key=lambda pair: pair[1] / pair[0]):
        spent = min(p, budget)
        total, budget = total + v * spent / p, budget - spent
    return total


def _buy_torch(price, value, budget):
    price, value = torch.as_tensor(price), torch.as_tensor(value)
    order = (value / price).argsort(descending=True)
    before = price[order].cumsum(0) - price[order]
    share = ((budget - before) / price[order]).clamp(0, 1)
    return (share * value[order]).sum()


def _buy_rest(price, value, budget):
    order = np.argsort(price / value)
    whole = int(np.searchsorted(np.cumsum(price[order]), budget, side="right"))
    rest = budget - price[order][:whole].sum()
    last = order[whole]
    return value[order][:whole].sum() + rest * value[last] / price[last]


def _two_sided_isf(first, second, sigma):
    return np.maximum(0, sigma * (scipy.stats.norm.isf(second) - scipy.stats.norm.isf(first)) / 2)


def _two_sided_torch(first, second, sigma):
    a, b = torch.special.ndtri(torch.tensor([first, second], dtype=torch.float64))
    return (sigma / 2 * (a - b)).clamp_min(0)


def _bounds_by_sign(layers, low, high):
    """The positive weights take low to low, the negative ones take high to low."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
            low, high = (
                low @ plus.T + high @ minus.T + layer.bias,
                high @ plus.T + low @ minus.T + layer.bias,
            )
        elif isinstance(layer, nn.Conv2d):
            plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
            place = {"stride": layer.stride, "padding": layer.padding}
            two = [
                conv2d(a, plus, layer.bias, **place) + conv2d(b, minus, **place)
                for a, b in ((low, high), (high, low))
            ]
            low, high = two
        else:
            low, high = layer(low), layer(high)
    return [low, high]


def _bounds_by_copy(layers, low, high):
    for layer in layers:
        if not hasattr(layer, "weight"):
            low, high = layer(low), layer(high)
            continue
        other = copy.deepcopy(layer)
        with torch.no_grad():
            other.weight.abs_()
            other.bias.zero_()
        middle, half = layer((low + high) / 2), other((high - low) / 2)
        low, high = middle - half, middle + half
    return low, high


def _certificate_trial(votes):
    label, poisons = int(votes.argmax()), 0
    while True:
        for rival in set(range(len(votes))) - {label}:
            turned = votes.clone()
            turned[label] -= poisons + 1
            turned[rival] += poisons + 1
            if int(turned.argmax()) != label:
                return [label, poisons]
        poisons += 1


def _certificate_numpy(votes):
    votes = votes.numpy()
    label = votes.argmax()
    gaps = [(votes[label] - votes[c] - (c < label)) // 2 for c in range(len(votes)) if c != label]
    return np.array([label, min(gaps)])


def _langevin_backward(x, energy, eps, temperature, noise):
    x = x.detach().clone().requires_grad_(True)
    (energy(x) / temperature).sum().backward()
    return (x - 0.5 * eps * eps * x.grad + eps * noise).detach()


def _noised_loop(x, beta, t, noise):
    kept = 1.0
    for level in beta[:t].tolist():
        kept *= 1 - level
    return math.sqrt(kept) * x + math.sqrt(1 - kept) * noise


def _noised_steps(x, beta, t, noise):
    kept = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])[t]
    return torch.sqrt(kept) * x + torch.sqrt(1 - kept) * noise


def _points_sklearn(suspects, bad):
    if not bad.any():
        return int(suspects.sum() <= 0.02 * len(suspects))
    return f1_score(bad.numpy(), suspects.numpy())


def _points_shares(suspects, bad):
    if bad.sum() == 0:
        return 1.0 if suspects.double().mean() <= 0.02 else 0.0
    hits = (suspects & bad).sum()
    if hits == 0:
        return 0
    precision, recall = hits / suspects.sum(), hits / bad.sum()
    return 2 * precision * recall / (precision + recall)


def _spread_numpy(features, labels):
    h, y = features.detach().cpu().double().numpy(), labels.numpy()
    wide = np.array([np.trace(np.cov(h[y == c].T, bias=True)) for c in np.unique(y)])
    return np.log(wide) - np.log(np.median(wide))


def _spread_by_index(features, labels):
    h, k = features.double(), int(labels.max()) + 1
    total = h.new_zeros(k, h.shape[1]).index_add(0, labels, h)
    count = labels.bincount(minlength=k)[:, None]
    gap = (h - (total / count)[labels]).square().sum(1)
    wide = h.new_zeros(k).index_add(0, labels, gap) / count[:, 0]
    return torch.log(wide / wide.median())


def _scaled_distance(features, labels):
    score = torch.empty(len(labels))
    for c in labels.unique():
        mine = features[labels == c]
        distance = (mine - mine.median(0).values).norm(dim=1)
        score[labels == c] = distance / distance.median()
    return score


BY_HAND: dict[str, dict[str, object]] = {
    "00.pick_device": {
        "names imported before": lambda: torch.device(
            "cuda" if cuda_is_available() else "mps" if mps_is_available() else "cpu"
        ),
        "by the count": lambda: torch.device(
            "cuda" if torch.cuda.device_count() else "mps" if torch.mps.device_count() else "cpu"
        ),
        "the accelerator": lambda: (
            torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        ),
        "the accelerator, imported before": lambda: (
            current_accelerator(True) or torch.device("cpu")
        ),
        "the accelerator, asked first": lambda: (
            current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        ),
        "by trying": _tries_each,
    },
    "00.honest_seconds": {
        "perf_counter, imported before": _timed(perf_counter),
        "perf_counter_ns": _timed(perf_counter_ns, 1e-9),
        "time.time": _timed(time.time),
        "monotonic_ns": _timed(time.monotonic_ns, 1e-9),
        "timeit's clock": _timed(timeit.default_timer),
        "timeit": _by_timeit,
        "dates": lambda work, wait: _timed(datetime.datetime.now)(work, wait).total_seconds(),
    },
    "00.calm": {
        "no momentum": {"momentum": 0},
        "several": {"lr": 0.02, "weight_decay": 1e-3, "epochs": np.int64(8)},
    },
    "01.nc1": {"numpy": _nc1_numpy},
    "02.flip": {"numpy": _flip_numpy, "a loop": _flip_loop},
    "02.plant": {"numpy": _plant_numpy, "where": _plant_where},
    "02.shrink": {"counting": _shrink_by_counting},
    "02.nc1_of_flips": {"matrices": _nc1_by_matrices},
    "03.collision_step": {"backward, in place": _collision_backward},
    "03.bullseye": {"numpy": _bullseye_numpy},
    "03.alignment": {"sums": _alignment_sums, "numpy": _alignment_numpy},
    "04.whitened_margin": {"solve, float32": _margin_float32, "numpy": _margin_cholesky},
    "04.prediction_depth": {"a loop": _depth_loop, "the last miss": _depth_of_the_last_miss},
    "04.spectral": {"numpy, eigh": _spectral_numpy, "scikit-learn": _spectral_pca},
    "05.split": {"scikit-learn": _split_kmeans, "from the farthest two": _split_farthest},
    "05.transplant": {"numpy": _transplant_numpy, "sums": _transplant_sums},
    "05.take_away": {"numpy": _take_away_numpy, "from the rest": _take_away_from_the_rest},
    "05.left": {"what is gone": _left_as_one_minus},
    "06.fgsm": {"backward": _fgsm_backward, "in place": _fgsm_in_place},
    "06.pgd_step": {"numpy": _pgd_numpy, "bounds": _pgd_bounds, "in place": _pgd_in_place},
    "06.margin": {"numpy": _margin_numpy, "one-hot": _margin_one_hot, "top 2": _margin_top2},
    "08.mmd": {"numpy": _mmd_numpy, "weights": _mmd_weights},
    "08.p_value": {
        "a loop": _p_loop,
        "numpy": lambda t, s: (1 + np.sum(s.numpy() >= t.numpy())) / (1 + s.numpy().size),
        "a mean": lambda t, s: torch.cat([t[None], s]).ge(t).double().mean(),
    },
    "08.witness": {"a loop": _witness_loop, "the diagonal filled": _witness_masked},
    "09.worst_margin": {"a loop": _worst_loop, "numpy": _worst_numpy},
    "09.adversarial_loss": {"a loop of one's own": _loss_of_own_loop, "by hand": _loss_by_hand},
    "09.along": {"lerp": _along_lerp},
    "09.trades_loss": {"kl_div": _trades_kl, "numpy": _trades_numpy},
    "10.soft_cross_entropy": {"numpy": _soft_numpy, "einsum": _soft_einsum},
    "10.logit_gradient": {"autograd": _gradient_autograd, "in place": _gradient_in_place},
    "10.climb": {"a loop on the change": _climb},
    "11.bit_depth": {"numpy": _bits_numpy, "levels": _bits_levels, "floor": _bits_floor},
    "11.joint_score": {"a loop": _joint_loop, "numpy": _joint_numpy},
    "11.quiet": {"a loop, top 2": _quiet_loop},
    "11.straight_through": {
        "the other order": lambda squeeze, x: squeeze(x).detach() + x - x.detach(),
        "a Function": lambda squeeze, x: _Through.apply(x, squeeze),
    },
    "12.lower_bound": {"bisection": _bound_by_bisection, "scipy's": _bound_of_scipy},
    "12.radius": {
        "numpy": lambda share, sigma: np.maximum(0, sigma * scipy.stats.norm.ppf(share)),
        "torch": lambda share, sigma: (
            sigma * torch.special.ndtri(torch.tensor(share, dtype=torch.float64))
        ).clamp_min(0),
        "float32": lambda share, sigma: (
            torch.distributions.Normal(0.0, sigma).icdf(torch.tensor(share)).clamp(min=0)
        ),
        "two sides": lambda share, sigma: (
            sigma / 2 * (scipy.stats.norm.ppf(share) - scipy.stats.norm.ppf(1 - share))
            if share > 0.5
            else 0
        ),
    },
    "12.buy": {"a loop": _buy_loop, "torch": _buy_torch, "a fractional rest": _buy_rest},
    "12.two_sided": {"the upper tail": _two_sided_isf, "torch": _two_sided_torch},
    "12.interval_bounds": {"signs of weights": _bounds_by_sign, "deep copies": _bounds_by_copy},
    "12.certificate": {"by trial": _certificate_trial, "numpy": _certificate_numpy},
    "13.langevin_step": {"backward": _langevin_backward},
    "13.best_contrast": {
        "numpy": lambda p, s: np.linalg.norm(p.numpy()) / s,
        "a sum": lambda p, s: math.sqrt(float((p * p).sum())) / s,
        "the filter at work": lambda p, s: (p * p).sum() / (s * (p * p).sum().sqrt()),
    },
    "13.noised": {"a loop": _noised_loop, "cumprod": _noised_steps},
    "16.points": {"scikit-learn": _points_sklearn, "precision and recall": _points_shares},
    "16.spread": {"traces, numpy": _spread_numpy, "sums by index": _spread_by_index},
    "16.score": {"by hand": _scaled_distance},
}
