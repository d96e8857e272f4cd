"""Networks by the name under which timm or Hugging Face know them: timm:NAME, hf:NAME."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nclib import activations, models
from nclib.data import ImageSet

NEEDS = {"timm": "timm", "hf": "transformers"}


class Foreign(nn.Module):
    """A network that wants images of its own size, normalised: images [0, 1] in, logits out."""

    def __init__(self, body: nn.Module, side: int | None, mean: Any, std: Any) -> None:
        super().__init__()
        self.body, self.side, self.channels = body, side, len(mean)
        self.normalise = models.Normalise(torch.tensor(mean), torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        if self.side is not None and images.shape[2:] != (self.side, self.side):
            images = interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        output = self.body(self.normalise(images.expand(-1, self.channels, -1, -1)))
        return output if isinstance(output, Tensor) else output.logits


def package(name: str) -> tuple[Any, str]:
    """The package that knows ``timm:NAME`` or ``hf:NAME``, and NAME; refuses like ``named``."""
    hub, _, word = name.partition(":")
    if hub not in NEEDS or not word:
        raise ValueError(f"model: got {name!r}; timm:NAME or hf:NAME is allowed")
    try:
        return import_module(NEEDS[hub]), word
    except ImportError:
        raise ValueError(
            f"model: {name} needs the package {NEEDS[hub]}; pip install {NEEDS[hub]}"
        ) from None


def named(name: str, part: ImageSet, *, trained: bool, seed: int = 0) -> nn.Module:
    """The network ``timm:NAME`` or ``hf:NAME`` for the classes of ``part``, on its device.

    ``trained`` takes the published weights, whose classes have to be those of ``part``, by their
    names or in their order; else the weights are drawn from ``seed``. Raises ``ValueError`` for
    another name, for a package that is not installed, and for other classes.
    """
    known, word = package(name)
    count = None if trained else part.num_classes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make = _timm if name.startswith("timm:") else _hugging
        model, words = make(known, word, count)
    model = model.to(part.device).eval()
    if trained:
        _ordered(model, words, part, name)
    return model


def _timm(timm: Any, name: str, count: int | None) -> tuple[Foreign, list[str]]:
    options = {"pretrained": True} if count is None else {"num_classes": count}
    try:
        body = timm.create_model(name, **options)
    except RuntimeError as error:  # an unknown name
        raise ValueError(f"model: timm:{name}: {error}") from None
    facts = getattr(body, "pretrained_cfg", {})
    fixed = count is None or facts.get("fixed_input_size")  # fresh convolutions take any size
    side = facts.get("input_size", (3, None, None))[1] if fixed else None
    mean, std = facts.get("mean", (0.5,) * 3), facts.get("std", (0.5,) * 3)
    return Foreign(body, side, mean, std), list(facts.get("label_names") or ())


def _hugging(package: Any, name: str, count: int | None) -> tuple[Foreign, list[str]]:
    kind = package.AutoModelForImageClassification
    if count is None:
        body = kind.from_pretrained(name)
    else:
        body = kind.from_config(package.AutoConfig.from_pretrained(name, num_labels=count))
    sizes = package.AutoImageProcessor.from_pretrained(name)
    wide = sizes.size.get("height", sizes.size.get("shortest_edge"))
    known = body.config.id2label
    return Foreign(body, wide, sizes.image_mean, sizes.image_std), [known[i] for i in sorted(known)]


def _ordered(model: nn.Module, known: list[str], part: ImageSet, name: str) -> None:
    """Sort the rows of the classifier like the classes of ``part``, those of the same name."""
    head = activations.replaceable(model, part.images[:2])
    place = {_plain(word): i for i, word in enumerate(known)}
    if all(_plain(word) in place for word in part.classes):
        rows = [place[_plain(word)] for word in part.classes]
    elif head.out_features == part.num_classes:
        rows = list(range(part.num_classes))
    else:
        raise ValueError(
            f"model: {name} knows {head.out_features} classes ({', '.join(known[:3])}, ...); the "
            f"{part.num_classes} of this set ({', '.join(part.classes[:3])}, ...) are needed"
        )
    head.weight = nn.Parameter(head.weight.detach()[rows])
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows])
    head.out_features = len(rows)


def _plain(word: str) -> str:
    return word.lower().replace("_", " ").strip()
