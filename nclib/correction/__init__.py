"""Repair a poisoned training set or a poisoned model: remove, relabel, fine-tune, ETF head.

``transplant`` decides what to remove without being told how much is poisoned, and gives its reasons
(``verdict``); so does ``consensus``, for sparse wrong labels (``opinions``); the rest acts on such
a decision (``repair``). Report every repair beside ``random_removal`` of the same count and beside
the oracle, which knows the poison.
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
