"""What a lesson needs besides the subject: its start, claims, predictions, checks, controls."""

from nclib.course.checks import check, hint, solution, verdict
from nclib.course.claims import claim
from nclib.course.controls import interact
from nclib.course.photographs import stored
from nclib.course.predictions import predict, reveal
from nclib.course.session import DoesNotHold, start, strict
from nclib.places import results
