"""A fast network for small photographs (32 x 32), and the one way to train it.

In the manner of the record holders on CIFAR-10: Page's "How to train your ResNet" (2018), and
Jordan's "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498). The first layer
whitens patches and is not learned; biases learn 64 times faster than weights; labels are smoothed,
weights averaged; an image and its mirror image alternate from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, unfold

from nclib import device, training
from nclib.data import ImageSet


class Block(nn.Sequential):
    """3x3 convolution, half the pixels, 3x3 convolution; batch normalisation and GELU after each.

    The first filters pass their channel on unchanged (Dirac); the normalisation's scales stay 1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        convs = [nn.Conv2d(n, outputs, 3, padding=1, bias=False) for n in (inputs, outputs)]
        norms = [nn.BatchNorm2d(outputs, momentum=0.4) for _ in convs]
        super().__init__(
            convs[0], nn.MaxPool2d(2), norms[0], nn.GELU(), convs[1], norms[1], nn.GELU()
        )
        for conv, norm in zip(convs, norms, strict=True):
            nn.init.dirac_(conv.weight[: conv.in_channels])
            norm.weight.requires_grad_(False)


class FastNet(nn.Module):
    """Whitened 2x2 patches, three blocks, the maximum over all pixels, a linear classifier.

    Layers whiten, block1..block3; ``[N, C, H, W]`` of 16 pixels and more in, logits ``[N, K]`` out;
    2.0 million weights and .24 GFLOP an image forward at 32 x 32 in colour. ``whitened`` sets the
    first layer from images.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: tuple[int, int, int] = (64, 256, 256),
        normalise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = normalise or nn.Identity()
        patch = 8 * channels  # 2 x 2 pixels, each direction with both signs
        self.whiten = nn.Sequential(nn.Conv2d(channels, patch, 2), nn.GELU())
        self.block1 = Block(patch, widths[0])
        self.block2 = Block(widths[0], widths[1])
        self.block3 = Block(widths[1], widths[2])
        self.layer_names = ("whiten", "block1", "block2", "block3")
        self.fc = nn.Linear(widths[2], num_classes, bias=False)

    def whitened(self, images: Tensor) -> FastNet:
        """The same network, whose first layer decorrelates 2x2 patches as ``images`` have them."""
        conv = self.whiten[0]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        patches = unfold(self.normalise(images.cpu()), 2).transpose(1, 2).flatten(0, 1).double()
        power, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (axes / (power + 5e-4).sqrt()).T.flip(0).reshape(-1, *conv.weight.shape[1:])
        conv.weight.data.copy_(torch.cat([filters, -filters]))
        conv.weight.requires_grad_(False)
        nn.init.zeros_(conv.bias)
        return self

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.normalise(images)
        for name in self.layer_names:
            hidden = getattr(self, name)(hidden)
        return self.fc(hidden.amax((2, 3)) / 9)


class Averaged(torch.optim.SGD):
    """Nesterov SGD whose weights are pulled to their slow average every five steps, ever less.

    Zhang, Lucas, Hinton and Ba 2019 (arXiv 1907.08610), with a share of the slow weights that grows
    as the cube of the time and is 1 after the last of all ``steps``.
    """

    def __init__(self, groups: list[dict], momentum: float, steps: int) -> None:
        super().__init__(groups, momentum=momentum, nesterov=True)
        self.steps, self.done = steps, 0
        self.pairs = [(p, p.detach().clone()) for g in groups for p in g["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        value = super().step(closure)
        self.done += 1
        if self.done % 5 and self.done < self.steps:
            return value
        share = 0.95**5 * (self.done / self.steps) ** 3 if self.done < self.steps else 1.0
        for weight, slow in self.pairs:
            weight.copy_(slow.lerp_(weight, 1 - share))
        return value


def recipe(
    train: ImageSet,
    *,
    epochs: int = 8,
    lr: float = 1.5,
    momentum: float = 0.85,
    weight_decay: float = 1.3e-3,
    batch_size: int = 512,
    smoothing: float = 0.2,
) -> dict:
    """The keywords that make ``training.fit`` fast: ``fit(model, train, **recipe(train))``.

    The rate rises from a fifth of ``lr`` to ``lr`` (for a batch of 1024) in 23% of the steps and
    falls to 7% of it; biases take 64 times the rate and the same decay a step. Images are shifted
    by up to two pixels; bfloat16 where ``device.has_fast_bfloat16``. Raises ``ValueError`` for
    sizes below 1.
    """
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs, batch_size: got {epochs}, {batch_size}; allowed from 1 on")
    rate, steps = lr * batch_size / 1024, epochs * -(-len(train) // batch_size)
    place, half = train.device.type, device.has_fast_bfloat16(train.device)

    def optimizer(parameters: Iterable[nn.Parameter]) -> Averaged:
        learned = [p for p in parameters if p.requires_grad]
        matrices = [p for p in learned if p.ndim > 1]
        biases = [p for p in learned if p.ndim == 1]
        groups = [
            {"params": matrices, "lr": rate, "weight_decay": weight_decay},
            {"params": biases, "lr": 64 * rate, "weight_decay": weight_decay / 64},
        ]
        return Averaged(groups, momentum, steps)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(place, torch.bfloat16, enabled=half):
            return cross_entropy(model(images), labels, label_smoothing=smoothing)

    def schedule(share: float) -> float:
        return 0.2 + 0.8 * share / 0.23 if share < 0.23 else 1 - 0.93 * (share - 0.23) / 0.77

    plan = {"epochs": epochs, "batch_size": batch_size, "schedule": schedule, "mirror": True}
    return plan | {"optimizer": optimizer, "loss": loss, "augment": shifted}


def shifted(images: Tensor, generator: torch.Generator, by: int = 2) -> Tensor:
    """Each image moved by up to ``by`` pixels in each direction; reflected where it ran out."""
    count, _, height, width = images.shape
    wide = pad(images, (by,) * 4, mode="reflect").permute(0, 2, 3, 1)
    place: dict[str, Any] = {"device": images.device}
    down, right = torch.randint(2 * by + 1, (2, count, 1, 1), generator=generator, **place)
    rows, columns = torch.arange(height, **place)[:, None], torch.arange(width, **place)
    which = torch.arange(count, **place)[:, None, None]
    return wide[which, down + rows, right + columns].permute(0, 3, 1, 2)


def vote(model: nn.Module, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Logits ``[N, K]``, the mean over an image and two copies moved by a pixel, all mirrored too.

    The image counts as much as its two copies together. Evaluation mode, no gradients.
    """
    wide = pad(images, (1, 1, 1, 1), mode="reflect")
    views = [(0.25, images), (0.125, wide[..., :-2, :-2]), (0.125, wide[..., 2:, 2:])]
    both = [(share, x) for share, view in views for x in (view, view.flip(3))]
    return torch.stack([s * training.predict(model, x, batch_size) for s, x in both]).sum(0)
