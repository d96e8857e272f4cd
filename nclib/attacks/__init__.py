"""Attacks at test time: ``attack(model, images, labels, ...) -> images``.

Each leaves the model as it found it, stays within eps and [0, 1], and refuses bad input.
gradient.py has FGSM and PGD, carlini_wagner.py the smallest change, square.py the black box,
adaptive.py the ways around a defence, report.py the table and the gradient-masking checklist.
"""

from nclib.attacks.adaptive import MeanLogits, bpda, eot, transfer
from nclib.attacks.carlini_wagner import cw_l2
from nclib.attacks.common import cross_entropy, margin
from nclib.attacks.gradient import fgsm, margin_pgd, pgd
from nclib.attacks.report import masking_report, robustness
from nclib.attacks.square import square
