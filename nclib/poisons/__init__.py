"""Data poisoning, untargeted and targeted: every attack takes a set and returns a ``PoisonedSet``.

One idea per file: ``labels`` (flips), ``backdoors`` and their ``triggers``, ``clean_label``
backdoors, ``collisions`` in feature space, gradient ``matching``, the ``transfer`` setting, and
``metrics`` (what an attack achieved, beside the control).
"""

from nclib.poisons import metrics, triggers
from nclib.poisons.backdoors import badnets, blended, sig, sticker, wanet
from nclib.poisons.clean_label import clean_label_backdoor, narcissus
from nclib.poisons.collisions import bullseye_polytope, feature_collision
from nclib.poisons.labels import label_flip
from nclib.poisons.matching import alignment, gradient_matching, random_shift
from nclib.poisons.sets import PoisonedSet, poisoned
from nclib.poisons.transfer import retrain_head

__all__ = [
    "PoisonedSet",
    "alignment",
    "badnets",
    "blended",
    "bullseye_polytope",
    "clean_label_backdoor",
    "feature_collision",
    "gradient_matching",
    "label_flip",
    "metrics",
    "narcissus",
    "poisoned",
    "random_shift",
    "retrain_head",
    "sig",
    "sticker",
    "triggers",
    "wanet",
]
