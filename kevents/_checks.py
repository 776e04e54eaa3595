"""What the values of options must be; a wrong one is named, with what it is and what it may be."""

from __future__ import annotations

import inspect
import math


def require_callable(name: str, value: object) -> None:
    """A function, or anything that can be called.

    Raises:
        ValueError: If it is none.
    """
    if not callable(value):
        raise ValueError(f"{name} must be callable, not {value!r}")


def require_count(name: str, value: object, hint: str = "") -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}{hint}")
    return value


def require_positive(name: str, value: object) -> float:
    """A finite number above 0.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        return False


def require_sink(sink: object) -> None:
    """A sink that is called in threads.

    Raises:
        TypeError: If a method is missing, or is a coroutine function.
    """
    for method in ("create", "patch"):
        function = getattr(sink, method, None)
        if not callable(function):
            raise TypeError(f"{type(sink).__name__} is no EventSink: it has no method {method}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{type(sink).__name__}.{method} is a coroutine function: this broadcaster needs a plain one")
