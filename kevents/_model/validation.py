"""What the values of options must be; a wrong one is named, with what it is and what it may be."""

from __future__ import annotations

import inspect

from kevents._model.wire import CORE_GROUP, EVENTS_GROUP

_SMALLEST = 1e-9
_LARGEST = 1e9
_SINK = ("create", "patch")
_NEEDED = {CORE_GROUP: "a CoreV1EventSink", EVENTS_GROUP: "an EventsV1EventSink"}
_TAKEN_BY = {CORE_GROUP: "kevents.EventBroadcaster", EVENTS_GROUP: "kevents.events.EventBroadcaster"}


def require_callable(name: str, value: object) -> None:
    """A function, or anything that can be called: plainly, since nobody would await what it gives.

    Raises:
        ValueError: If it is none.
        TypeError: If it is a coroutine function.
    """
    if not callable(value):
        raise ValueError(f"{name} must be callable, not {value!r}")
    if is_asynchronous(value):
        raise TypeError(f"{name} must be a plain function, not the coroutine function {value!r}")


def is_asynchronous(function: object) -> bool:
    """Whether it is a coroutine function, or an object that is called like one."""
    if inspect.iscoroutinefunction(function):
        return True
    return callable(function) and inspect.iscoroutinefunction(type(function).__call__)


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


def require_sink(sink: object, api_group: str = CORE_GROUP) -> None:
    """A sink that is called in threads, for events of an API group.

    Raises:
        TypeError: If a method is missing, or is a coroutine function, or the sink writes to another API.
    """
    for method in _methods(sink):
        if inspect.iscoroutinefunction(getattr(sink, method)):
            raise TypeError(f"{type(sink).__name__}.{method} is a coroutine function: kevents.aio is for such sinks")
    _require_group(sink, api_group)


def require_async_sink(sink: object, api_group: str = CORE_GROUP) -> None:
    """A sink that is called in an event loop, for events of an API group.

    Raises:
        TypeError: If a method is missing, or is no coroutine function, or the sink writes to another API.
    """
    for method in _methods(sink):
        if not inspect.iscoroutinefunction(getattr(sink, method)):
            raise TypeError(
                f"{type(sink).__name__}.{method} is no coroutine function: "
                f"this broadcaster needs an asynchronous sink, and {_TAKEN_BY[api_group]} takes this one"
            )
    _require_group(sink, api_group)


def _methods(sink: object) -> tuple[str, ...]:
    for method in _SINK:
        if not callable(getattr(sink, method, None)):
            raise TypeError(f"{type(sink).__name__} is no EventSink: it has no method {method}")
    return _SINK


def _require_group(sink: object, api_group: str) -> None:
    its_own = getattr(sink, "api_group", api_group)
    if its_own != api_group:
        raise TypeError(
            f"{type(sink).__name__} writes {its_own or 'core'}/v1 events, this broadcaster {api_group or 'core'}/v1 "
            f"ones: it needs {_NEEDED[api_group]}"
        )
