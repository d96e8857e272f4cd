"""Audit your own data: is this training set poisoned?

``audit.run(images, labels)`` in a notebook, ``python -m nclib audit PATH`` elsewhere: one page, one
verdict, and what it rests on.
"""

from nclib.audit.cleaning import clean as clean
from nclib.audit.engine import run as run
from nclib.audit.result import Suspect as Suspect
from nclib.audit.shown import Audit as Audit
