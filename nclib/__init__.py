"""nclib: the small package behind the course on neural collapse and poisoned data."""

import os

# Before torch loads: waiting threads sleep. By default they spin, and two lessons on two cores
# take each other's core while they wait (benchmarks/threads.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"
