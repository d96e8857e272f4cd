"""The course's classifiers: a small CNN, an MLP and a ResNet-18 with a 3x3 stem.

Each normalises its input itself, so images stay in [0, 1] outside. Each names its layers from
shallow to deep in ``layer_names`` and ends in a linear classifier ``fc``. Everything else in the
package works on any ``nn.Module``; nothing requires these classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nclib.data import ImageSet
from nclib.doors import gradients, seed32


class Normalise(nn.Module):
    """Shift and scale the images: ``(x - mean) / std`` with one number for each per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float().reshape(1, -1, 1, 1))
        self.register_buffer("std", std.float().reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def conv_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class SmallCNN(nn.Module):
    """Four convolution blocks, the average over all pixels, a linear classifier.

    Layers conv1..conv4; ``[N, C, H, W]`` in, logits ``[N, K]`` out. 131,000 weights by default.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: tuple[int, ...] = (32, 64, 64, 128),
        strides: tuple[int, ...] = (1, 2, 1, 2),
        normalise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = normalise or nn.Identity()
        blocks = zip(pairwise((channels, *widths)), strides, strict=True)
        for i, ((inputs, outputs), stride) in enumerate(blocks, 1):
            self.add_module(f"conv{i}", conv_block(inputs, outputs, stride))
        self.layer_names = tuple(f"conv{i}" for i in range(1, len(widths) + 1))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.normalise(images)
        for name in self.layer_names:
            hidden = getattr(self, name)(hidden)
        return self.fc(hidden.mean((2, 3)))


class MLP(nn.Module):
    """Fully connected layers with ReLU, with or without batch normalisation, and a classifier.

    Layers hidden1, hidden2, ...; ``[N, C, H, W]`` in, logits ``[N, K]`` out.
    """

    def __init__(
        self,
        inputs: int,
        num_classes: int,
        widths: tuple[int, ...] = (256, 256),
        batchnorm: bool = True,
        normalise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = normalise or nn.Identity()
        for i, (n_in, n_out) in enumerate(pairwise((inputs, *widths)), 1):
            norm = [nn.BatchNorm1d(n_out)] if batchnorm else []
            layer = nn.Sequential(nn.Linear(n_in, n_out, bias=not batchnorm), *norm, nn.ReLU())
            self.add_module(f"hidden{i}", layer)
        self.layer_names = tuple(f"hidden{i}" for i in range(1, len(widths) + 1))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.normalise(images).flatten(1)
        for name in self.layer_names:
            hidden = getattr(self, name)(hidden)
        return self.fc(hidden)


def resnet18_3x3(channels: int, num_classes: int, normalise: nn.Module | None = None) -> nn.Module:
    """torchvision's ResNet-18 with the stem for small images: 3x3, stride 1, no max-pooling.

    He et al. 2016 (arXiv 1512.03385), section 4.2 for the stem.
    """
    from torchvision.models import resnet18  # slow to load, and the small networks do without

    net = resnet18(num_classes=num_classes)
    stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    net.conv1 = nn.Sequential(normalise or nn.Identity(), stem)
    net.maxpool = nn.Identity()
    net.layer_names = ("layer1", "layer2", "layer3", "layer4")
    return net


@gradients
def build(arch: str, data: ImageSet, *, seed: int = 0, **options: Any) -> nn.Module:
    """A fresh "cnn", "mlp", "resnet18" or "fast" for ``data``, on its device, from ``seed``.

    "fast" is ``nclib.fast.FastNet``. The channel means and deviations of ``data`` go into the
    model. ``options`` reach the class. Raises ``ValueError`` for an unknown ``arch`` and for images
    too small for it.
    """
    channels, height, width = data.shape
    std, mean = torch.std_mean(data.images, (0, 2, 3))
    options = {"normalise": Normalise(mean.cpu(), std.cpu().clamp_min(1e-3)), **options}
    model: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed32(seed))
        if arch == "cnn":
            # One 2-core CPU has to do: shrink images of 16 pixels and more early.
            options.setdefault("strides", (1, 2, 1, 2) if min(height, width) < 16 else (2, 2, 2, 1))
            model = SmallCNN(channels, data.num_classes, **options)
        elif arch == "mlp":
            model = MLP(channels * height * width, data.num_classes, **options)
        elif arch == "resnet18":
            model = resnet18_3x3(channels, data.num_classes, **options)
        elif arch == "fast":
            from nclib.fast import FastNet  # which trains, and so imports more than this file may

            if min(height, width) < 16:
                raise ValueError(f"arch: 'fast' needs 16 pixels and more; got {height} x {width}")
            model = FastNet(channels, data.num_classes, **options).whitened(data.images[:5000])
        else:
            raise ValueError(f"arch: got {arch!r}; allowed are 'cnn', 'mlp', 'resnet18', 'fast'")
    return model.to(data.device)
