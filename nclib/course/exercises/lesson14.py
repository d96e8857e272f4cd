"""Exercises and predictions of lesson 14: prototypes, CDNV, two losses of pairs, a steady mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nclib import representation
from nclib.course.exercises import Wrong, close, exercise, expect, prediction, tensor


def _prototypes(support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    classes = range(int(labels.max()) + 1)
    means = torch.stack([support[labels == c].mean(0) for c in classes])
    return torch.cdist(queries, means).argmin(1)


@exercise(
    "14.prototypes",
    reference=_prototypes,
    hints=(
        "One mean for each class: support[labels == c].mean(0), stacked.",
        "torch.cdist(queries, means) has a row for each query; argmin(1) is the nearest mean.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 0, 2, 1, 0])  # unequal, and in no order
    centres = torch.randn(3, 4, generator=draw) * torch.tensor([[1.0], [1.0], [4.0]])
    support = centres[labels] + torch.randn(10, 4, generator=draw)
    queries = centres[torch.arange(60) % 3] + 1.5 * torch.randn(60, 4, generator=draw)
    found = tensor(answer(support, labels, queries), "the classes")
    expect(tuple(found.shape) == (60,), f"one class for each query: [60], not {[*found.shape]}")
    most = int(found.max())
    expect(most < 3, f"the classes are 0, 1 and 2, and you name {most}: the number of an image?")
    means = [sum(x for x, c in zip(support, labels, strict=True) if c == k) for k in range(3)]
    means = [m / int((labels == k).sum()) for k, m in enumerate(means)]
    wanted = torch.tensor(
        [min(range(3), key=lambda k: float((q - means[k]).norm())) for q in queries]
    )
    if torch.equal(found.long(), wanted):
        return
    stacked = torch.stack(means)
    if torch.equal(found.long(), (queries @ stacked.T).argmax(1)):
        raise Wrong("that is the largest inner product: a long mean wins too often")
    if torch.equal(found.long(), labels[torch.cdist(queries, support).argmin(1)]):
        raise Wrong("that is the class of the nearest image; take the nearest mean of a class")
    if torch.equal(found.long(), torch.cdist(queries, stacked).argmax(1)):
        raise Wrong("that is the mean farthest away")
    unit = torch.nn.functional.normalize
    if torch.equal(found.long(), (unit(queries) @ unit(stacked).T).argmax(1)):
        raise Wrong("that is the largest cosine: take the smallest distance")
    if torch.equal(found.long(), torch.cdist(queries, stacked, p=1).argmin(1)):
        raise Wrong("that is the L1 distance, the sum over the features; take the Euclidean one")
    share = float((found != wanted).double().mean())
    raise Wrong(f"{share:.0%} of the queries get another class than that of the nearest mean")


def _cdnv(a: Tensor, b: Tensor) -> float:
    means = [x.mean(0) for x in (a, b)]
    spread = sum(float((x - m).square().sum(1).mean()) for x, m in zip((a, b), means, strict=True))
    return spread / (2 * float((means[0] - means[1]).square().sum()))


@exercise(
    "14.cdnv",
    reference=_cdnv,
    hints=(
        "The variance of a class: the mean of the squared distances to its mean, summed over D.",
        "Add the two variances; divide by twice the squared distance of the means.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    a = torch.randn(40, 6, generator=draw)
    b = 2 * torch.randn(30, 6, generator=draw) + 3
    found, wanted = float(tensor(answer(a, b), "the CDNV")), _cdnv(a, b)
    both = torch.cat([a - a.mean(0), b - b.mean(0)]).square().sum(1).mean()
    apart = float((a.mean(0) - b.mean(0)).norm())
    wrong = {
        2 * wanted: "twice the right value: the sum of the two variances is divided by 2 d²",
        wanted * apart: "the distance of the means is to be squared",
        wanted / 6: "the variance is summed over the D features, not averaged",
        float(both) / apart**2: "each class has its own variance; the pooled one weighs by number",
        1 / wanted: "that is the distance over the variances: turn the fraction over",
    }
    one = "that is the variance around one mean for all features: take var(0), and sum"
    for unbiased in (True, False):
        wrong[float(sum(x.var(unbiased=unbiased) for x in (a, b))) / 2 / apart**2] = one
    for value, why in wrong.items():
        if abs(found / value - 1) < 1e-3:
            raise Wrong(why)
    expect(abs(found / wanted - 1) < 0.05, f"your value is {found:.4f}; {wanted:.4f} is right")
    scaled = float(tensor(answer(5 * a + 1, 5 * b + 1), "the CDNV"))
    expect(abs(scaled / found - 1) < 1e-3, "scaled and shifted features have the same CDNV")


@exercise(
    "14.nt_xent",
    reference=representation.nt_xent,
    hints=(
        "Stack the views, give each row the length 1; all cosines are one product, 2N x 2N.",
        "Put -inf on the diagonal (masked_fill). The twin of row i is row (i + N) mod 2N.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    first = torch.randn(6, 5, generator=draw)
    second = first + torch.randn(6, 5, generator=draw)
    found = float(tensor(answer(first, second, 0.5), "the loss"))
    both = torch.cat([first, second]).double()
    both = both / both.norm(dim=1, keepdim=True)

    def loss(
        own: bool, halves: bool, rows: Tensor, temperature: float = 0.5, away: int = 6
    ) -> float:
        total = 0.0
        for i in range(12 if not halves else 6):
            twin = (i + away) % 12
            rest = [j for j in range(12) if own or j != i] if not halves else range(6, 12)
            score = torch.stack([rows[i] @ rows[j] for j in rest]) / temperature
            total += float(score.logsumexp(0) - rows[i] @ rows[twin] / temperature)
        return total / (12 if not halves else 6)

    wanted = loss(False, False, both)
    wrong = {
        loss(True, False, both): "a view is compared with itself, too: take the diagonal out",
        loss(False, True, both): "all 2N - 1 other views are in the sum, not only the N twins",
        loss(False, False, torch.cat([first, second]).double()): "the rows need the length 1",
        loss(False, False, both, 2.0): "the cosines are divided by the temperature",
        12 * wanted: "that is the sum over the views; take their mean",
        loss(True, False, both, away=0): "row i should find its twin, row i + N, and not itself",
    }
    scores = (both @ both.T / 0.5).fill_diagonal_(0)
    zeros = torch.nn.functional.cross_entropy(scores, torch.arange(12).roll(6))
    wrong[float(zeros)] = "a cosine of 0 still counts as a view: the diagonal needs minus infinity"
    for value, why in wrong.items():
        if abs(found / value - 1) < 1e-4:
            raise Wrong(why)
    expect(abs(found / wanted - 1) < 1e-4, f"your loss is {found:.4f}; {wanted:.4f} is right")
    uniform = float(tensor(answer(torch.ones(4, 3), torch.ones(4, 3), 0.5), "the loss"))
    close(uniform, 1.9459101, "the loss of eight equal views, log 7,")


@exercise(
    "14.zero_shot",
    reference=lambda images, texts: (
        torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
    ).argmax(1),
    hints=(
        "Give each row the length 1; then all cosines are one matrix product.",
        "The caption of an image is the largest cosine in its row: argmax(1).",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(30, 8, generator=draw)
    texts = torch.randn(7, 8, generator=draw) * torch.linspace(0.3, 4, 7)[:, None]
    found = tensor(answer(images, texts), "the captions").long()
    expect(tuple(found.shape) == (30,), f"one caption for each image: [30], not {[*found.shape]}")
    cosine = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
    if torch.equal(found, (images @ texts.T).argmax(1)):
        raise Wrong("that is the largest inner product: a long text vector wins too often")
    if torch.equal(found, torch.cdist(images, texts).argmin(1)):
        raise Wrong("that is the nearest text; the loss has arranged directions: take the cosine")
    expect(torch.equal(found, cosine.argmax(1)), "the caption with the largest cosine is asked for")


def _steady(shots: Tensor) -> Tensor:
    return shots.median(dim=1).values


@exercise(
    "14.steady",
    reference=_steady,
    hints=(
        "The mean moves as far as you push one of its parts. Which middle does not?",
        "shots.median(dim=1).values takes the middle value of each feature.",
    ),
)
def _(answer: Any) -> None:
    draw = torch.Generator().manual_seed(4)
    shots = torch.randn(3, 5, 20, generator=draw) + 10
    before = shots.clone()
    found = tensor(answer(shots), "the prototypes").double()
    expect(torch.equal(shots, before), "the shots that came in should stay as they were: copy")
    expect(
        tuple(found.shape) == (3, 20),
        f"one prototype for each class: [3, 20], not {[*found.shape]}",
    )
    away = float((found - 10).norm(dim=1).max())
    expect(away < 7, "without a liar the prototype should lie in the middle of its shots")
    for liar in range(5):
        lying = shots.clone()
        lying[:, liar] += 1000
        moved = tensor(answer(lying), "the prototypes").double() - found
        far = float(moved.norm(dim=1).max())
        expect(far < 15, f"one of five shots moves by 4,472, and your prototype by {far:,.0f}")


prediction(
    "14.new_classes",
    "Five-shot accuracy on classes that were never trained on, after 0, 2, 6 and 16 epochs?",
    reading="rises",
    usual={
        "peaks": "that is what the next experiment shows: there the new task splits the old "
        "classes",
        "flat": "the first epochs already learn edges and colours that new signs have, too",
        "falls": "what collapses are the training classes; a new class need not go with them",
    },
)

prediction(
    "14.merged",
    "How well do five shots tell the two members of a merged class apart, while it collapses?",
    reading="peaks",
    usual={
        "rises": "the loss has no reason to keep them apart, and weight decay one to forget",
        "falls": "in the first epochs any feature helps: the network learns to see signs at all",
        "flat": "the first epochs help, and the collapse takes it back",
    },
)

prediction(
    "14.backbone",
    "The poisoned backbone: which share of new classes under the sticker is still named rightly?",
    below=0.5,
    usual={
        (0.6, None): "the new classes were never poisoned, but the features that name them were",
        (None, 0.1): "chance is a fifth: pushed to one place they still get some class",
    },
)

prediction(
    "14.unlabelled",
    "A sticker on half of one class, no labels: which share of other signs does it lead there?",
    below=0.2,
    usual={
        (0.3, None): "so it does with wrong labels; without any, nothing ties sticker and class",
    },
)

prediction(
    "14.combination",
    "45 combinations were held out. Which share of their signs gets the right one of 45 captions?",
    above=0.5,
    usual={
        (None, 0.1): "the network has not seen the combination, but each of its words",
        (0.95, None): "at 32 pixels some symbols are hard to read, for known combinations as well",
    },
)
