"""nclib: the small package behind the course on neural collapse and poisoned data."""

__version__ = "0.1.0"
