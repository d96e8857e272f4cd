"""Data poisoning, untargeted and targeted: every attack takes a set and returns a ``PoisonedSet``.

One idea per file: ``labels`` (flips), ``backdoors`` and their ``triggers``.
"""

from nclib.poisons.backdoors import badnets, blended, sig, wanet
from nclib.poisons.labels import label_flip
from nclib.poisons.sets import PoisonedSet

__all__ = ["PoisonedSet", "badnets", "blended", "label_flip", "sig", "wanet"]
