"""What a lesson needs besides the subject: its start, claims, predictions, checks, controls.

One idea per file, named so; ``exercises`` has a file for each lesson, ``ranges`` and ``shown`` are
the numbers and the tables of claims and predictions, ``frames`` makes controls move on a saved
page. For single lessons: ``captions`` (14), ``photographs`` (stored features), ``capstone`` and,
for a class, ``classset`` with ``sealing`` (16).
"""

from nclib.course.checks import check, hint, solution, verdict
from nclib.course.claims import claim
from nclib.course.controls import interact
from nclib.course.photographs import stored
from nclib.course.predictions import predict, reveal
from nclib.course.session import DoesNotHold, start, strict
from nclib.places import results
