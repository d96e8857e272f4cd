"""Attacks at test time: ``attack(model, images, labels, ...) -> images``.

Each leaves the model as it found it, stays within eps and [0, 1], and refuses bad input.
gradient.py has FGSM and PGD, carlini_wagner.py the smallest change, square.py the black box,
adaptive.py the ways around a defence, robustness.py the table of attacks, masking.py the checklist
of masked gradients.
"""

from nclib.attacks.adaptive import MeanLogits, bpda, eot, transfer
from nclib.attacks.carlini_wagner import cw_l2
from nclib.attacks.common import cross_entropy, margin
from nclib.attacks.gradient import fgsm, margin_pgd, pgd
from nclib.attacks.masking import masking_report
from nclib.attacks.robustness import robustness
from nclib.attacks.square import square
