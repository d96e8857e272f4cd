"""The attack of Carlini & Wagner: the smallest L2 change that fools the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nclib.attacks.common import (
    Model,
    check_counts,
    check_positive,
    margins,
    prepared,
    with_gradient,
)
from nclib.doors import gradients

# What ``abort_early`` means. A sample stops when its loss fell by less than this share in a tenth
# of the steps:
STUCK = 1e-4  # while it does not fool the model yet, because the way may start flat
STALL = 0.02  # once it does, and only comes nearer
SETTLED = 0.3  # its search ends when c is known within this share


@gradients
def cw_l2(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    kappa: float = 0.0,
    steps: int = 10_000,
    lr: float = 0.01,
    c: float = 1e-3,
    search_steps: int = 9,
    abort_early: bool = True,
    batch_size: int = 512,
    progress: bool = False,
) -> Tensor:
    """Minimise ``|x' - x|^2 + c max(kappa - margin, 0)`` over x' in [0, 1], with a search for c.

    ``images`` float32 ``[N, C, H, W]`` in [0, 1], ``labels`` int64 ``[N]``; with ``targets``
    ``[N]`` the goal is the target class; ``kappa`` is the logit margin to reach. Each sample has
    its own c: times 10 until it succeeds, then bisection of log c, ``search_steps`` values at most,
    each with up to ``steps`` steps of Adam; ``abort_early`` ends what no longer pays, sample by
    sample. The defaults are the paper's. Returns the nearest success; an image that cannot be
    fooled comes back unchanged. Raises ``ValueError`` for arguments that do not fit. Carlini &
    Wagner 2017 (arXiv 1608.04644).
    """
    check_counts(steps=steps, search_steps=search_steps, batch_size=batch_size)
    check_positive(lr=lr, c=c)
    if not (isinstance(kappa, int | float) and 0 <= kappa < math.inf):
        raise ValueError(f"kappa: got {kappa!r}; a number of 0 or more is allowed")
    with prepared(model, images, labels, targets) as (net, images, goal, sign):
        result = images.clone()
        done = _reached(sign * margins(net, images, goal, batch_size), kappa)
        chunks = (~done).nonzero().squeeze(1).split(batch_size) if not done.all() else ()
        bar = tqdm(total=len(chunks) * search_steps, desc="C&W", disable=not progress)
        for chunk in chunks:
            search = _Search(net, images[chunk], goal[chunk], sign, kappa, lr, c)
            for _ in range(search_steps):
                search.descend(steps, abort_early)
                search.next_c()
                bar.update()
            result[chunk] = search.best
        bar.close()
    return result


def _reached(score: Tensor, kappa: float, scale: Tensor | float = 0.0) -> Tensor:
    """Whether the margin is kappa or more; a tie within rounding of the logits does not count."""
    return (score >= kappa) & (score > 1e-5 * scale)


class _Search:
    """The search over c for one batch, every sample at its own c."""

    def __init__(
        self,
        model: Model,
        images: Tensor,
        goal: Tensor,
        sign: float,
        kappa: float,
        lr: float,
        c: float,
    ) -> None:
        self.model, self.images, self.goal, self.sign = model, images, goal, sign
        self.kappa, self.lr = kappa, lr
        self.c = torch.full((len(images),), float(c), device=images.device)
        self.lower, self.upper = torch.zeros_like(self.c), torch.full_like(self.c, math.inf)
        self.best, self.distance = images.clone(), torch.full_like(self.c, math.inf)
        self.found = torch.zeros_like(goal, dtype=torch.bool)

    def next_c(self) -> None:
        """Ten times c after failures only; then halfway, in log c, from failure to success."""
        self.upper = torch.where(self.found, self.c, self.upper)
        self.lower = torch.where(self.found, self.lower, self.c)
        lower = torch.maximum(self.lower, self.upper / 100)
        middle = (lower * self.upper).sqrt()
        self.c = torch.where(self.upper.isinf(), (self.c * 10).clamp_(max=1e10), middle)

    def descend(self, steps: int, abort_early: bool) -> None:
        """Adam on w, where ``x' = (tanh w + 1) / 2`` stays in [0, 1]; keep the nearest success."""
        self.found = torch.zeros_like(self.found)
        unknown = self.upper * (1 - SETTLED) > self.lower
        rows = (unknown | (not abort_early)).nonzero().squeeze(1)
        x0, goal, c, best, distance, found = (
            value[rows]
            for value in (self.images, self.goal, self.c, self.best, self.distance, self.found)
        )
        w = ((x0 * 2 - 1) * 0.999999).atanh()
        origin, before = w.tanh(), torch.full_like(c, math.inf)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        every = math.ceil(steps / 10)
        for step in range(steps if len(rows) else 0):
            x, fooled, loss, gradient = self.slope(w, origin, goal, c)

            near = (x - x0).square_().flatten(1).sum(1)
            closer = (near < distance).logical_and_(fooled)
            found |= fooled
            distance = torch.where(closer, near, distance)
            best = torch.where(closer.reshape(-1, 1, 1, 1), x, best)

            # Adam (Kingma & Ba 2015), in place
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square_(), 0.001)
            scale = math.sqrt(1 - 0.999 ** (step + 1))
            rate = self.lr * scale / (1 - 0.9 ** (step + 1))
            w.addcdiv_(first, second.sqrt().add_(1e-8 * scale), value=-rate)

            if abort_early and step and step % every == 0:
                falls = loss <= (1 - torch.where(found, STALL, STUCK)) * before
                self.keep(rows, best, distance, found)
                state = (rows, x0, goal, c, best, distance, found, w, origin, first, second, loss)
                live = (value[falls] for value in state)
                rows, x0, goal, c, best, distance, found, w, origin, first, second, before = live
                if not len(rows):
                    return
        self.keep(rows, best, distance, found)

    def keep(self, rows: Tensor, best: Tensor, distance: Tensor, found: Tensor) -> None:
        self.best[rows], self.distance[rows], self.found[rows] = best, distance, found

    def slope(
        self, w: Tensor, origin: Tensor, goal: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The images of w, which of them fool the model, the loss and its gradient at w.

        Only the model itself needs autograd: the hinge moves the two logits of the margin, and the
        slope of tanh is known.
        """
        t = w.tanh()
        with torch.enable_grad():
            x = (t * 0.5).add_(0.5).requires_grad_()
            logits = with_gradient(self.model(x))
        values, index = logits.detach(), goal[:, None]
        own = values.gather(1, index)
        other, rival = values.scatter(1, index, -math.inf).max(1, keepdim=True)
        score = (other - own).squeeze(1) * self.sign
        fooled = _reached(score, self.kappa, own.abs().squeeze(1))
        hinge = (self.kappa - score).relu_()
        pull = torch.where(hinge > 0, c * self.sign, 0.0)[:, None]
        pull = torch.zeros_like(values).scatter_(1, index, pull).scatter_(1, rival, -pull)
        (gradient,) = torch.autograd.grad(logits, x, pull)

        shift = (t - origin).mul_(0.5)
        loss = shift.square().flatten(1).sum(1).addcmul_(hinge, c)
        gradient = gradient.nan_to_num_().add_(shift, alpha=2).mul_((1 - t * t).mul_(0.5))
        return x.detach(), fooled, loss, gradient
