"""The garbage collector, out of the way."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect nothing meanwhile: at the end of the stack the finalisers of others fail, and the test with them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
