"""Repair a poisoned training set or a poisoned model: remove, relabel, fine-tune, ETF head.

``transplant`` decides what to remove without being told how much is poisoned, and gives its reasons
(``verdict``, which rests on ``evidence``, and on ``crowds`` where no mean image shows a trigger;
``planting`` counts how often it is right on given data); so does ``consensus``, for sparse wrong
labels (``opinions``). ``repair`` acts on such a decision. Rivals that repair the model:
``pruning``, ``reversal`` (Neural Cleanse), ``isolation`` (ABL, ASSET). Report every repair beside
``random_removal`` of the same count and beside the oracle, which knows the poison.
"""

from nclib.correction.evidence import Finding
from nclib.correction.opinions import (
    Build,
    Consensus,
    consensus,
    core_of,
    jitter,
    lookalikes,
    typicality,
)
from nclib.correction.planting import Planted, planted
from nclib.correction.repair import etf_head, fine_tune, outcome, random_removal, relabel, remove
from nclib.correction.verdict import Verdict, transplant
