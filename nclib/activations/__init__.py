"""What a network computes on the way: features per named layer, taken by forward hooks.

Works on any ``nn.Module``. A layer is a name from ``model.named_modules()``, or "penultimate": the
tensor that enters the classifier. The classifier is the linear layer whose output is the model's
output, found by running the model, wherever it was declared.
"""

from nclib.activations.features import PENULTIMATE as PENULTIMATE
from nclib.activations.features import Seen as Seen
from nclib.activations.features import classifier as classifier
from nclib.activations.features import features as features
from nclib.activations.features import layer_names as layer_names
from nclib.activations.features import logits as logits
from nclib.activations.features import penultimate as penultimate
from nclib.activations.features import replaceable as replaceable
from nclib.activations.features import tap as tap
from nclib.activations.hooks import evaluating as evaluating
from nclib.activations.layouts import pooled as pooled
