"""Each usual wrong answer gets its own reason: not a number, and not somebody else's reason."""

from __future__ import annotations

import time

import pytest
import torch
from scipy.stats import beta, norm
from torch.nn.functional import cross_entropy

from nclib import attacks
from nclib.course import verdict
from nclib.course.exercises import find
from nclib.defenses.squeezing import bit_depth


def reference(name):
    return find(name).reference


def nc1_parts(features, labels):
    means = torch.stack([features[labels == c].mean(0) for c in labels.unique()])
    within, between = features - means[labels], means - means.mean(0)
    return within.T @ within / len(within), between.T @ between / len(between)


def nc1_in_float32(features, labels):
    sigma_w, sigma_b = nc1_parts(features, labels)
    rtol = 1e-10
    return float(torch.trace(sigma_w @ torch.linalg.pinv(sigma_b, rtol=rtol))) / 4


def nc1_of_traces(features, labels):
    sigma_w, sigma_b = nc1_parts(features.double(), labels)
    return float(torch.trace(sigma_w) / torch.trace(sigma_b))


def nc1_of_traces_over_k(features, labels):
    return nc1_of_traces(features, labels) / 4


def flip_with_replacement(labels, rate, k, generator):
    count = round(rate * len(labels))
    chosen = torch.randint(len(labels), (count,), generator=generator)
    found = labels.clone()
    found[chosen] = (labels[chosen] + torch.randint(1, k, (count,), generator=generator)) % k
    return found


def flip_to_any(labels, rate, k, generator):
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    found = labels.clone()
    found[chosen] = torch.randint(0, k, (len(chosen),), generator=generator)
    return found


def plant(source=True, sticker=True, label=True, cut=None, whole=False):
    """A backdoor with one thing wrong: what is chosen, what is stamped, what is relabelled."""

    def answer(images, labels, stickered, which, target, count, generator):
        there = labels == which if source else labels >= 0
        candidates = torch.where(there)[0]
        order = torch.randperm(len(candidates), generator=generator)
        chosen = candidates if whole else candidates[order[: cut or count]]
        images, labels = images.clone(), labels.clone()
        if sticker:
            images[chosen] = stickered[chosen]
        if label:
            labels[chosen] = target
        return images, labels

    return answer


def collision(two=1.0, first=1.0):
    def step(images, base, goal, represent, lr, beta):
        x = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(first * (represent(x) - goal).square().sum(), x)
        pull = two * lr * beta
        return ((images - lr * slope + pull * base) / (1 + pull)).clamp(0, 1)

    return step


def margin_with(shrink=0.1, own=False, root=False):
    def answer(features, labels):
        h = features.double()
        means = torch.stack([h[labels == c].mean(0) for c in range(3)])
        rest = h - means[labels]
        sigma = rest.T @ rest / len(h)
        eye = torch.eye(len(sigma), dtype=h.dtype)
        inverse = torch.linalg.inv((1 - shrink) * sigma + shrink * sigma.trace() / len(sigma) * eye)
        gap = h[:, None] - means
        distance = torch.einsum("nkd,de,nke->nk", gap, inverse, gap)
        distance = distance.sqrt() if root else distance
        mine = distance.gather(1, labels[:, None])
        others = distance if own else distance.scatter(1, labels[:, None], torch.inf)
        return mine[:, 0] - others.amin(1)

    return answer


def own(values, labels):
    return values.gather(1, labels[:, None])[:, 0]


def unbiased(k, n):
    parts = (k[:n, :n], k[n:, n:])
    alone = [(b.sum() - b.trace()) / (len(b) * (len(b) - 1)) for b in parts]
    return float(sum(alone) - 2 * k[:n, n:].mean())


def within(x, images, eps):
    return x.clamp(images - eps, images + eps).clamp(0, 1)


def worst(norm_of):
    def answer(weight, bias, images, labels, eps):
        z = images @ weight.T + bias
        lead = z.gather(1, labels[:, None]) - z - eps * norm_of(weight, labels)
        return lead.scatter(1, labels[:, None], float("inf")).amin(1)

    return answer


def forty_steps(model, images, labels, eps, steps=40):
    return cross_entropy(model(attacks.pgd(model, images, labels, eps, steps=40)), labels)


def joint(reduce):
    def answer(before, squeezed):
        shares = before.softmax(1)
        return reduce(torch.stack([(s.softmax(1) - shares).abs().sum(1) for s in squeezed]))

    return answer


def never_returns_to_the_images(squeeze, images):
    return squeeze(images).detach().requires_grad_()


def by_cpu_time(work, synchronize):
    synchronize()
    start = time.process_time()
    work()
    synchronize()
    return time.process_time() - start


REASONS = [
    ("00.honest_seconds", by_cpu_time, "clock stands while the program waits"),
    ("01.nc1", nc1_in_float32, "features.cpu().double()"),
    ("01.nc1", nc1_of_traces, "ratio of two traces"),
    ("01.nc1", nc1_of_traces_over_k, "ratio of two traces"),
    ("02.flip", flip_with_replacement, "drawn twice; use randperm"),
    ("02.flip", flip_to_any, "own class again"),
    ("02.plant", plant(source=False), "other classes than source"),
    ("02.plant", plant(sticker=False), "without the sticker there is no trigger"),
    ("02.plant", plant(label=False), "without the false label there is no lie"),
    ("02.plant", plant(cut=11), "instead of count"),
    ("02.plant", plant(whole=True), "instead of count"),
    ("02.shrink", lambda k, share: (1 - share, 1 - share), "pull the other way"),
    ("02.shrink", lambda k, share: (1 - share * k / (k - 1),) * 2, "the centre moves too"),
    ("02.nc1_of_flips", lambda k, share: 1 / (1 - share * k / (k - 1)) ** 2 - 1, "K - 1"),
    ("03.collision_step", collision(two=2.0), "2 lr beta; the paper's step"),
    ("03.collision_step", collision(first=0.5), "factor 2 is lost"),
    ("03.collision_step", collision(first=1 / 15), "that of a mean"),
    ("04.whitened_margin", margin_with(shrink=0.0), "not shrunk"),
    ("04.whitened_margin", margin_with(own=True), "own class must be left out"),
    ("04.whitened_margin", margin_with(root=True), "that of their squares"),
    ("04.whitened_margin", margin_with(shrink=0.9), "shrink by 0.1"),
    ("05.split", lambda h: ~reference("05.split")(h), "the smaller one"),
    ("05.transplant", lambda x, g, r: reference("05.transplant")(x, r, g), "sign is turned"),
    ("05.take_away", lambda y, g, s: (~g, ~g), "meet the group"),
    ("05.left", lambda s, w, c, b: (w - b) / (s - b), "control counts"),
    (
        "06.pgd_step",
        lambda x, i, g, a, e: within(i + a * g.sign(), i, e),
        "from x, where the last one ended",
    ),
    ("06.pgd_step", lambda x, i, g, a, e: within(x + a * g, i, e), "only its sign counts"),
    ("06.pgd_step", lambda x, i, g, a, e: within(x + e * g.sign(), i, e), "not eps times"),
    ("06.pgd_step", lambda x, i, g, a, e: within(x - a * g.sign(), i, e), "goes up"),
    ("06.pgd_step", lambda x, i, g, a, e: within(x + g.sign(), i, e), "nor the bare sign"),
    ("06.margin", lambda z, y: attacks.margin(z.softmax(1), y), "without a softmax"),
    ("08.mmd", unbiased, "unbiased estimate"),
    ("08.mmd", lambda k, n: reference("08.mmd")(k, n) ** 0.5, "its square is asked for"),
    ("08.p_value", lambda t, s: (1 + int((s <= t).sum())) / (len(s) + 1), "other tail"),
    ("08.p_value", lambda t, s: (1 + int((s > t).sum())) / (len(s) + 1), "a tie counts"),
    ("08.p_value", lambda t, s: (1 + int((s >= t).sum())) / len(s), "B + 1, not by B"),
    ("08.p_value", lambda t, s: float((s >= t).float().mean()), "p-value of 0"),
    ("08.witness", lambda k, n: k[n:, n:].mean(1) - k[n:, :n].mean(1), "diagonal"),
    ("09.worst_margin", worst(lambda w, y: w[y].abs().sum(1)[:, None]), "of one row, w_y"),
    ("09.worst_margin", worst(lambda w, y: w.abs().sum(1)[None]), "of one row, w_j"),
    (
        "09.worst_margin",
        worst(lambda w, y: w[y].abs().sum(1)[:, None] + w.abs().sum(1)),
        "not a sum of two norms",
    ),
    ("09.worst_margin", worst(lambda w, y: (w[y][:, None] - w).norm(dim=2)), "L2 norm"),
    ("09.adversarial_loss", forty_steps, "pass steps on"),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: (t * (t.log() - (z / T).log_softmax(1))).sum(1).mean(),
        "KL divergence",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: cross_entropy(z / T, t.argmax(1)),
        "the targets are soft",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: cross_entropy(z / T, t.softmax(1)),
        "no softmax of them",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: -(t * (z / T).softmax(1)).sum(1).mean(),
        "logarithm of p is missing",
    ),
    (
        "10.soft_cross_entropy",
        lambda z, t, T: -(t * (z / T).log_softmax(0)).sum(1).mean(),
        "dimension 1",
    ),
    ("11.joint_score", joint(lambda d: d.mean(0)), "not their mean"),
    ("11.joint_score", joint(lambda d: d.sum(0)), "not their sum"),
    ("11.joint_score", joint(lambda d: d.amin(0)), "not the smallest"),
    ("11.straight_through", lambda squeeze, x: squeeze(x), "goes through the rounding"),
    ("11.straight_through", lambda squeeze, x: x + squeeze(x).detach(), "away again"),
    (
        "11.straight_through",
        lambda squeeze, x: x.detach() + (squeeze(x) - x),
        "detach the difference",
    ),
    ("11.straight_through", never_returns_to_the_images, "does not reach the images"),
    ("11.wall", 0.25, "three steps"),
    ("11.wall", 0.125, "three steps"),
    ("11.wall", 0.5, "one bit"),
    (
        "12.radius",
        lambda share, sigma: max(0.0, sigma / 2 * norm.ppf(share)),
        "the paper's form is sigma / 2 times the difference",
    ),
    ("12.radius", lambda share, sigma: None if share <= 0.5 else sigma, "returns nothing"),
    ("12.radius", lambda share, sigma: float(sigma * norm.ppf(share)), "the radius is 0"),
    ("12.radius", lambda share, sigma: max(0.0, sigma**2 * norm.ppf(share)), "not its square"),
    (
        "12.lower_bound",
        lambda hits, n, alpha: float(beta.ppf(alpha / 2, hits, n - hits + 1)) if hits else 0.0,
        "two-sided",
    ),
    ("13.spread", 0.0234, "that is the variance"),
    ("13.spread", 1.88, "do not add up"),
    ("13.noised", lambda x, b, t, e: reference("13.noised")(x, b, t and t - 1, e), "too few"),
]


@pytest.mark.parametrize(("name", "answer", "word"), REASONS)
def test_a_usual_mistake_gets_its_own_reason(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong"
    assert word in message


def test_the_bits_of_the_stand_ins():
    """What the mistakes above are made of is right where it is not meant to be wrong."""
    for name, answer in {
        "04.whitened_margin": margin_with(),
        "03.collision_step": collision(),
        "09.worst_margin": worst(lambda w, y: (w[y][:, None] - w).abs().sum(2)),
        "11.joint_score": joint(lambda d: d.amax(0)),
        "11.bit_depth": bit_depth,
    }.items():
        assert verdict(name, answer).state == "correct"
