"""Switches the garbage collector off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch the collector off: near the recursion limit, other objects' finalisers fail, and the test with them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
