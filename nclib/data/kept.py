"""Images that took long to make or to read, kept as bytes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nclib import cache


def cached_uint8(key: object, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that ``make`` returns by name, from the cache where ``key`` was made before.

    ``key`` is whatever decides the result, the code that makes it included, and of the kinds that
    ``cache.fingerprint`` knows. Images are kept as uint8: a quarter of the room of float32.
    """
    path = cache.cache_root() / f"{cache.fingerprint(cached_uint8, key)}.safetensors"
    found = cache.load(path)
    if found is not None:
        return found[0]
    tensors = make()
    cache.save(path, tensors, {})
    return tensors
