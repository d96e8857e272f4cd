"""Lesson 14: each typical mistake is rejected for its own reason, and the optional cell runs."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from nclib.course import verdict

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def _means(support, labels):
    return torch.stack([support[labels == c].mean(0) for c in range(int(labels.max()) + 1)])


def by_product(support, labels, queries):
    return (queries @ _means(support, labels).T).argmax(1)


def by_neighbour(support, labels, queries):
    return labels[torch.cdist(queries, support).argmin(1)]


def by_cosine(support, labels, queries):
    return (normalize(queries) @ normalize(_means(support, labels)).T).argmax(1)


def by_blocks(support, labels, queries):
    return torch.cdist(queries, _means(support, labels), p=1).argmin(1)


def itself(first, second, temperature):
    both = normalize(torch.cat([first, second]))
    return cross_entropy(both @ both.T / temperature, torch.arange(len(both)))


def zero_diagonal(first, second, temperature):
    both = normalize(torch.cat([first, second]))
    scores = (both @ both.T / temperature).fill_diagonal_(0)
    return cross_entropy(scores, torch.arange(len(both)).roll(len(first)))


def farthest(support, labels, queries):
    return torch.cdist(queries, _means(support, labels)).argmax(1)


def distances(support, labels, queries):
    return torch.cdist(queries, _means(support, labels))


def apart(a, b):
    return (a.mean(0) - b.mean(0)).norm()


def cdnv(*, half=True, square=True, summed=True, pooled=False):
    def answer(a, b):
        spread = [(x - x.mean(0)).square() for x in (a, b)]
        total = sum((s.sum(1) if summed else s.mean(1)).mean() for s in spread)
        if pooled:
            total = 2 * torch.cat(spread).sum(1).mean()
        apart = (a.mean(0) - b.mean(0)).norm()
        return float(total / (2 if half else 1) / (apart**2 if square else apart))

    return answer


def nt_xent(*, itself=False, cross=False, length=True, divide=True, add=False):
    def answer(first, second, temperature):
        one, two = (normalize(v) if length else v for v in (first, second))
        left, right = (one, two) if cross else (torch.cat([one, two]),) * 2
        scores = left @ right.T
        scores = scores / temperature if divide else scores * temperature
        if not cross and not itself:
            scores.fill_diagonal_(-torch.inf)
        goal = torch.arange(len(scores))
        goal = goal if cross else goal.roll(len(one))
        return float(cross_entropy(scores, goal, reduction="sum" if add else "mean"))

    return answer


def in_place(shots):
    shots[:, 0] = 0
    return shots[:, 1:].mean(1)


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("14.prototypes", by_product, "inner product"),
        ("14.prototypes", by_neighbour, "nearest image"),
        ("14.prototypes", farthest, "farthest away"),
        ("14.prototypes", distances, "one class for each query"),
        ("14.prototypes", by_cosine, "largest cosine"),
        ("14.prototypes", by_blocks, "L1 distance"),
        ("14.cdnv", lambda a, b: 1 / cdnv()(a, b), "turn the fraction over"),
        ("14.cdnv", lambda a, b: (a.var() + b.var()) / 2 / apart(a, b) ** 2, "around one mean"),
        ("14.prototypes", lambda s, y, q: torch.cdist(q, s).argmin(1), "number of an image"),
        ("14.nt_xent", itself, "not itself"),
        ("14.nt_xent", zero_diagonal, "minus infinity"),
        ("14.prototypes", lambda s, y, q: torch.zeros(len(q), dtype=torch.int64), "another class"),
        ("14.cdnv", cdnv(half=False), "twice the right value"),
        ("14.cdnv", cdnv(square=False), "to be squared"),
        ("14.cdnv", cdnv(summed=False), "not averaged"),
        ("14.cdnv", cdnv(pooled=True), "its own variance"),
        ("14.cdnv", lambda a, b: 1.0, "is right"),
        ("14.nt_xent", nt_xent(itself=True), "compared with itself"),
        ("14.nt_xent", nt_xent(cross=True), "all 2N - 1"),
        ("14.nt_xent", nt_xent(length=False), "length 1"),
        ("14.nt_xent", nt_xent(divide=False), "divided by the temperature"),
        ("14.nt_xent", nt_xent(add=True), "take their mean"),
        ("14.zero_shot", lambda i, t: (i @ t.T).argmax(1), "inner product"),
        ("14.zero_shot", lambda i, t: torch.cdist(i, t).argmin(1), "take the cosine"),
        ("14.zero_shot", lambda i, t: (normalize(i) @ normalize(t).T).argmax(0), "one caption"),
        ("14.zero_shot", lambda i, t: (normalize(i) @ normalize(t).T).argmin(1), "largest cosine"),
        ("14.steady", lambda shots: shots.mean(1), "moves by"),
        ("14.steady", lambda shots: shots[:, 1], "moves by"),
        ("14.steady", lambda shots: shots.median(1).values[0], "one prototype for each class"),
        ("14.steady", lambda shots: torch.zeros(3, 20), "in the middle"),
        ("14.steady", in_place, "should stay as they were"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, message


def trimmed(shots):
    return shots.sort(1).values[:, 1:-1].mean(1)


def medoid(shots):
    return torch.stack([s[torch.cdist(s, s).median(1).values.argmin()] for s in shots])


def without_the_farthest(shots):
    apart = torch.stack([torch.cdist(s, s).median(1).values for s in shots])
    keep = apart.argsort(1)[:, :-1]
    return torch.stack([s[k].mean(0) for s, k in zip(shots, keep, strict=True)])


@pytest.mark.parametrize("answer", [trimmed, medoid, without_the_farthest])
def test_other_steady_prototypes_are_taken(answer):
    assert verdict("14.steady", answer).state == "correct"


def test_other_forms_of_right_answers_are_taken():
    def by_class(support, labels, queries):
        means = [support[labels == c].mean(0) for c in labels.unique()]
        return [min(range(3), key=lambda c: float((q - means[c]).norm())) for q in queries]

    def unbiased(a, b):
        spread = [x.var(0).sum() for x in (a, b)]  # divided by N - 1
        return sum(spread) / 2 / (a.mean(0) - b.mean(0)).square().sum()

    def interleaved(first, second, temperature):
        rows = normalize(torch.stack([first, second], 1).flatten(0, 1))
        scores = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
        return cross_entropy(scores, torch.arange(len(rows)) ^ 1)

    assert verdict("14.prototypes", by_class).state == "correct"
    assert verdict("14.cdnv", unbiased).state == "correct"
    assert verdict("14.nt_xent", interleaved).state == "correct"


def published_clip(**names):
    """The function of the lesson's optional cell, which no run of the course executes."""
    lesson = json.loads((NOTEBOOKS / "14_with_few_labels_or_none.ipynb").read_text())
    sources = ("".join(cell["source"]) for cell in lesson["cells"])
    cell = next(source for source in sources if "def published_clip(" in source)
    space = {"torch": torch, "import_module": importlib.import_module, "CLIP": True} | names
    exec(cell.split("\n\n\nprint(")[0], space)
    return space["published_clip"]


class Processor:
    """Checks what the real one takes: captions, and colour images of 8 bits, height first."""

    def __call__(self, text, images, return_tensors, padding):
        assert return_tensors == "pt" and padding and all(isinstance(t, str) for t in text)
        assert all(p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for p in images)
        wanted = torch.tensor([int(p.mean()) % len(text) for p in images])
        return {"scores": nn.functional.one_hot(wanted, len(text)).float()}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_the_cell_of_clip_speaks_the_interface_of_transformers(monkeypatch, shape):
    asked = []

    def loading(kind):
        return SimpleNamespace(from_pretrained=lambda weights: asked.append(weights) or kind())

    class Model(nn.Module):
        def forward(self, scores):
            return SimpleNamespace(logits_per_image=scores)

    hub = SimpleNamespace(CLIPProcessor=loading(Processor), CLIPModel=loading(Model))
    monkeypatch.setitem(sys.modules, "transformers", hub)
    images = torch.stack([torch.full(shape, value / 255) for value in (0, 1, 2, 4)])
    menu = ["a disc", "a triangle", "an octagon"]
    assert published_clip()(images, menu, "w") == [menu[i] for i in (0, 1, 2, 1)]
    assert asked == ["w", "w"]


def test_the_cell_of_clip_says_why_it_did_not_run(monkeypatch):
    images = torch.zeros(2, 3, 8, 8)
    assert "CLIP is False" in published_clip(CLIP=False)(images, ["a disc"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert published_clip()(images, ["a disc"]) == "not run: ModuleNotFoundError"
