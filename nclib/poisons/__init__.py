"""Data poisoning (availability, targeted, backdoor): every attack returns a ``PoisonedSet``.

One idea per file: ``labels`` (flips), ``backdoors`` and their ``triggers``, backdoors ``covered``
by rightly labelled samples, ``clean_label`` backdoors, ``collisions`` in feature space, gradient
``matching``, the ``transfer`` setting, and ``metrics`` (what an attack achieved, beside the
control).
"""

from nclib.poisons import metrics, triggers
from nclib.poisons.backdoors import badnets, blended, sig, sticker
from nclib.poisons.clean_label import clean_label_backdoor, narcissus
from nclib.poisons.collisions import bullseye_polytope, convex_polytope, feature_collision
from nclib.poisons.covered import adaptive_blend, adaptive_patch, input_aware, wanet
from nclib.poisons.labels import label_flip
from nclib.poisons.matching import alignment, gradient_matching, random_shift
from nclib.poisons.sets import PoisonedSet, poisoned
from nclib.poisons.transfer import retrain_head
