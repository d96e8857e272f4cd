"""Randomised smoothing: a vote under Gaussian noise that no small L2 change can overturn.

Cohen, Rosenfeld and Kolter 2019 (arXiv 1902.02918); the methods are the paper's algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta, binom, norm
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.activations import evaluating
from nclib.cache import identity
from nclib.defenses.certificates import Log
from nclib.doors import finite, integer, number, numbers

ABSTAIN = -1
DRAW = 1000  # noise for one image comes in blocks of at most so many samples
PIECE = 128  # a CPU is up to twice as fast while a layer's output stays in its cache
CURTAIL = 10  # how often, without a target, to ask whether an abstention is certain


@numbers
def lower_bound(hits: np.ndarray | int, n: int, alpha: float) -> np.ndarray:
    """Clopper-Pearson: the share of which ``hits`` of ``n`` leaves a doubt of at most ``alpha``.

    With probability 1 - ``alpha`` the true share is at least this bound.
    """
    hits = np.asarray(hits)
    if not 0 < alpha < 1 or n < 1 or hits.min() < 0 or hits.max() > n:
        raise ValueError(
            f"hits, n, alpha: got {hits.min()}..{hits.max()}, {n}, {alpha}; "
            "0 <= hits <= n, n >= 1, 0 < alpha < 1 is allowed"
        )
    return np.where(hits == 0, 0.0, beta.ppf(alpha, np.maximum(hits, 1), n - hits + 1))


@numbers
def radius(share: np.ndarray | float, sigma: float) -> np.ndarray:
    """The L2 radius that a share of votes certifies: ``sigma * Phi^-1(share)``, 0 up to a half."""
    if not ((np.asarray(share) >= 0) & (np.asarray(share) <= 1)).all():  # NaN is neither
        raise ValueError(f"share: got {share}; 0 to 1 is allowed")
    return sigma * norm.ppf(np.maximum(share, 0.5))


@numbers
def gaussian(sigma: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The ``augment`` of ``training.fit`` for a classifier to be smoothed: noise, not cut off."""
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma: got {sigma}; 0 or more is allowed")

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(images.shape, generator=generator, device=images.device)
        return images + sigma * drawn

    return augment


@dataclass(frozen=True)
class Certificates:
    """One row per image, on the CPU: the vote's label (or ABSTAIN), its radius, the draws it took.

    ``labels`` int64, ``radii`` float64 in the images' units (L2), ``draws`` int64, all ``[N]``.
    """

    labels: Tensor
    radii: Tensor
    draws: Tensor

    def accuracy(self, labels: Tensor, radii: Sequence[float] | Tensor = (0.0,)) -> Tensor:
        """Certified accuracy ``[R]``: the share that is right with at least each of the radii."""
        right = self.labels == labels.cpu()
        asked = finite(torch.as_tensor(radii, dtype=torch.float64), "radii")
        return (right[:, None] & (self.radii[:, None] >= asked)).double().mean(0)


class Smooth:
    """The class that ``model`` names most often under Gaussian noise of deviation ``sigma``.

    ``model`` maps images ``[N, C, H, W]`` to logits ``[N, num_classes]``.
    """

    @numbers
    def __init__(self, model: nn.Module, num_classes: int, sigma: float) -> None:
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma: got {sigma}; a positive number is allowed")
        integer(num_classes, "num_classes", 2)
        self.model, self.num_classes, self.sigma = model, num_classes, sigma

    @numbers
    def predict(
        self,
        images: Tensor,
        n: int = 1000,
        alpha: float = 0.001,
        batch_size: int = 1000,
        seed: int = 0,
    ) -> Tensor:
        """The smoothed class ``[N]``, or ABSTAIN where the top two are too close to tell.

        Wrong (not the class of infinitely many draws) with probability at most ``alpha`` each.
        """
        _check(images, n, n, alpha, batch_size, seed)
        counts = self._counts(images, range(len(images)), n, "predict", batch_size, seed)
        (first, second), top = np.sort(counts, 1)[:, :-3:-1].T, counts.argmax(1)
        doubt = np.minimum(1, 2 * binom.sf(first - 1, first + second, 0.5))  # exact, two-sided
        return torch.from_numpy(np.where(doubt <= alpha, top, ABSTAIN))

    @numbers
    def certify(
        self,
        images: Tensor,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch_size: int = 1000,
        *,
        target: float | None = None,
        seed: int = 0,
        path: str | Path | None = None,
        progress: bool = True,
    ) -> Certificates:
        """Labels and L2 radii of all ``images``; each is false with probability at most ``alpha``.

        ``n0`` draws choose the class, ``n`` fresh ones bound its share; ``batch_size`` noisy
        images, of several images at once, go through the model together. An image stops early once
        it is certain to abstain; the answer is that of all n draws. With a ``target`` radius an
        image also stops once that radius is certified or out of reach: the doubt ``alpha`` is
        then shared between looks at n/100, n/10 and n draws, so the radius stays valid.

        ``path`` names a journal that the certified images of each second enter together; the same
        call after a kill goes on from there, and a file that is something else, or belongs to
        another run, raises ``ValueError``. The noise depends on ``seed``, the image's position, and
        ``batch_size`` below 1000, so a resumed run gives the same answer as an unbroken one.
        """
        _check(images, n0, n, alpha, batch_size, seed, target)
        labels = np.full(len(images), ABSTAIN)
        radii, draws = np.zeros(len(images)), np.zeros(len(images), dtype=int)
        log = None
        if path is not None:
            model, content = identity(self.model), identity(images)
            about = {"model": model, "images": content, "num_classes": self.num_classes}
            about |= {"sigma": self.sigma, "n0": n0, "n": n, "alpha": alpha, "target": target}
            log = Log(path, about | {"seed": seed, "block": min(batch_size, DRAW)})
            for i, *row in log.rows:
                labels[i], radii[i], draws[i] = row
        todo = np.setdiff1d(np.arange(len(images)), [r[0] for r in log.rows] if log else [])
        together = max(1, batch_size // n0)
        with tqdm(total=len(todo), desc="certifying", unit="image", disable=not progress) as bar:
            for group in np.split(todo, range(together, len(todo), together)):
                rows = self._certified(images, group, n0, n, alpha, batch_size, target, seed)
                for i, *row in log.passing(rows) if log else rows:
                    labels[i], radii[i], draws[i] = row
                    bar.update()
        return Certificates(*(torch.from_numpy(a) for a in (labels, radii, draws)))

    def _certified(
        self,
        images: Tensor,
        group: np.ndarray,
        n0: int,
        n: int,
        alpha: float,
        batch_size: int,
        target: float | None,
        seed: int,
    ) -> Iterator[tuple[int, int, float, int]]:
        """Yield (index, label, radius, draws) of each image as soon as its outcome is decided."""
        chosen = self._counts(images, group, n0, "choose", batch_size, seed).argmax(1)
        looks = _looks(n, alpha, target)
        needed = 0.5 if target is None else norm.cdf(target / self.sigma)
        enough = least_hits(n, looks[-1][1], needed)
        alive, hits, best = np.arange(len(group)), np.zeros(len(group), int), np.zeros(len(group))
        drawn = 0
        for look, doubt in looks:
            phase = f"look {look}"
            counts = self._counts(images, group[alive], look - drawn, phase, batch_size, seed)
            hits[alive] += counts[np.arange(len(alive)), chosen[alive]]
            drawn = look
            over = hits[alive] + (n - drawn) < enough  # even if every draw to come were a hit
            if doubt:
                share = lower_bound(hits[alive], drawn, doubt)
                best[alive] = np.maximum(best[alive], radius(share, self.sigma))
            if doubt and target is not None:
                at_most = 1 - lower_bound(drawn - hits[alive], drawn, doubt)
                over |= (share >= needed) | (at_most < needed)
            over |= drawn == n
            for i in alive[over]:
                label = chosen[i] if best[i] > 0 else ABSTAIN
                yield int(group[i]), int(label), float(best[i]), n0 + drawn
            alive = alive[~over]
            if not len(alive):
                return

    def _counts(
        self,
        images: Tensor,
        which: Sequence[int] | np.ndarray,
        n: int,
        phase: str,
        batch_size: int,
        seed: int,
    ) -> np.ndarray:
        """Votes ``[len(which), K]`` of ``n`` noisy copies of each image; whole blocks go together.

        Each block of noise has its own seed, made of the image's position, the phase and the
        block's number: what the other images do changes nothing.
        """
        size = min(DRAW, batch_size)
        blocks = [
            (row, int(i), start, min(size, n - start))
            for row, i in enumerate(which)
            for start in range(0, n, size)
        ]
        votes = torch.zeros(len(which) * self.num_classes, dtype=torch.int64, device=images.device)
        generator = torch.Generator(images.device)
        with evaluating(self.model), torch.no_grad():
            for batch in _batches(blocks, batch_size):
                noisy = images.new_empty(sum(b[3] for b in batch), *images.shape[1:])
                end = 0
                for _, i, start, count in batch:
                    generator.manual_seed(_seed(seed, i, phase, start))
                    part = noisy[end : end + count]
                    part.normal_(0, self.sigma, generator=generator).add_(images[i])
                    end += count
                repeats = torch.tensor([b[3] for b in batch]).to(images.device)
                rows = torch.tensor([b[0] for b in batch]).to(images.device)
                rows = rows.repeat_interleave(repeats)
                pieces = noisy.split(PIECE if images.device.type == "cpu" else len(noisy))
                named = torch.cat([self._classes(piece) for piece in pieces])
                cells = rows * self.num_classes + named
                votes += torch.bincount(cells, minlength=len(votes))
        return votes.reshape(len(which), self.num_classes).cpu().numpy()

    def _classes(self, noisy: Tensor) -> Tensor:
        """The class of each noisy image; one beyond K would be a vote for the next image."""
        logits = finite(self.model(noisy), "logits")
        if logits.shape != (len(noisy), self.num_classes):
            got, wanted = tuple(logits.shape), (len(noisy), self.num_classes)
            raise ValueError(f"model: returned {got}; logits {wanted} are needed")
        return logits.argmax(1)


@lru_cache  # every group of images asks again
def least_hits(n: int, alpha: float, share: float) -> int:
    """The fewest hits in ``n`` draws whose lower bound exceeds ``share``; n + 1 if none does."""
    return int(np.searchsorted(lower_bound(np.arange(n + 1), n, alpha), share, side="right"))


def _looks(n: int, alpha: float, target: float | None) -> list[tuple[int, float]]:
    """(draws so far, doubt spent there); a doubt of 0 asks only what is already certain.

    The doubts add up to ``alpha``: by the union bound all looks together fail that rarely.
    """
    if target is None:
        steps = sorted({-(-n * k // CURTAIL) for k in range(1, CURTAIL)} - {n})
        return [*((step, 0.0) for step in steps), (n, alpha)]
    steps = sorted({s for s in (n // 100, n // 10, n) if s > 0})
    return [(step, alpha / len(steps)) for step in steps]


def _batches(blocks: list[tuple], batch_size: int) -> Iterator[list[tuple]]:
    """Consecutive blocks whose counts fit into ``batch_size`` together."""
    batch: list[tuple] = []
    held = 0
    for block in blocks:
        if batch and held + block[3] > batch_size:
            yield batch
            batch, held = [], 0
        batch, held = [*batch, block], held + block[3]
    if batch:
        yield batch


def _seed(seed: int, index: int, phase: str, start: int) -> int:
    words = [seed, index, int.from_bytes(phase.encode()), start]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(
    images: Tensor,
    n0: int,
    n: int,
    alpha: float,
    batch_size: int,
    seed: int,
    target: float | None = None,
) -> None:
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images: got {tuple(images.shape)}; [N, C, H, W] with N >= 1 is allowed")
    finite(images, "images")
    for name, count in (("n0", n0), ("n", n), ("batch_size", batch_size)):
        integer(count, name, 1)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: got {alpha}; 0 < alpha < 1 is allowed")
    integer(seed, "seed", 0)
    if target is not None:
        number(target, "target", 0)
