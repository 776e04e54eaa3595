"""What the values of options must be; a wrong one is named, with what it is and what it may be."""

from __future__ import annotations

import inspect

_SMALLEST = 1e-9
_LARGEST = 1e9


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


def require_positive(name: str, value: float) -> float:
    """A number above 0, within what nanoseconds can hold.

    Raises:
        ValueError: If it is none.
    """
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"{name} must be a number from {_SMALLEST:g} to {_LARGEST:g}, not {value!r}")
    return float(value)


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
            raise TypeError(f"{type(sink).__name__}.{method} is a coroutine function: kevents.aio is for such sinks")


def require_async_sink(sink: object) -> None:
    """A sink that is called in an event loop.

    Raises:
        TypeError: If a method is missing, or is no coroutine function.
    """
    for method in ("create", "patch"):
        function = getattr(sink, method, None)
        if not callable(function):
            raise TypeError(f"{type(sink).__name__} is no EventSink: it has no method {method}")
        if not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{type(sink).__name__}.{method} is no coroutine function: "
                "this broadcaster needs an asynchronous sink, and kevents.EventBroadcaster takes this one"
            )
