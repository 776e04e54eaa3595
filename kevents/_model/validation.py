"""Validation of options and sinks. Errors name the option, the wrong value and the allowed ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf
from typing import TypeVar

from kevents._model.wire import CORE_GROUP, EVENTS_GROUP, format_error

_T = TypeVar("_T")

_SMALLEST = 1e-9
_LARGEST = 1e9
_SINKS = {CORE_GROUP: "a CoreV1EventSink", EVENTS_GROUP: "an EventsV1EventSink"}
_SYNC_BROADCASTERS = {CORE_GROUP: "kevents.EventBroadcaster", EVENTS_GROUP: "kevents.events.EventBroadcaster"}


def seconds_of(wait: Callable[[_T], float], state: _T) -> float:
    """Seconds that the user's function returns. Raises ValueError if it raises, or returns no valid number."""
    try:
        seconds = float(wait(state))
    except BaseException as error:  # noqa: BLE001 - SystemExit must not end a thread of kevents either
        raise ValueError(f"raised {format_error(error)}") from None
    if 0.0 <= seconds < inf:
        return seconds
    raise ValueError(f"returned {seconds}, not a number of seconds")


def require_callable(name: str, value: object) -> None:
    """Raise ValueError for an option that is not callable.

    Raise TypeError for a coroutine function, which would never be awaited.
    """
    if not callable(value):
        raise ValueError(f"{name} must be callable, not {value!r}")
    if is_asynchronous(value):
        raise TypeError(f"{name} must be a plain function, not the coroutine function {value!r}")


def is_asynchronous(function: object) -> bool:
    """True for a coroutine function, and for an object whose ``__call__`` is one."""
    if inspect.iscoroutinefunction(function):
        return True
    return callable(function) and inspect.iscoroutinefunction(type(function).__call__)


def require_count(name: str, value: object, hint: str = "") -> int:
    """The value, if it is an integer of at least 1. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}{hint}")
    return value


def require_positive(name: str, value: float) -> float:
    """The value, if it is a number above 0 that a count of nanoseconds can hold. Raises ValueError."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"{name} must be a number from {_SMALLEST:g} to {_LARGEST:g}, not {value!r}")
    return float(value)


def require_sink(sink: object, api_group: str = CORE_GROUP, *, asynchronous: bool = False) -> None:
    """Raise TypeError for a sink without the methods, with methods of the other kind, or of another API group."""
    if isinstance(sink, type):
        raise TypeError(f"{sink.__name__} is a class, not an EventSink: give an instance, {sink.__name__}(...)")
    sink_type = type(sink).__name__
    for name in ("create", "patch"):
        method = getattr(sink, name, None)
        if not callable(method):
            raise TypeError(
                f"{sink_type} is not an EventSink: it has no method {name}; give {_SINKS[api_group]}, which takes a "
                "client of the official package"
            )
        if inspect.iscoroutinefunction(method) and not asynchronous:
            raise TypeError(f"{sink_type}.{name} is a coroutine function: use a broadcaster of kevents.aio")
        if asynchronous and not inspect.iscoroutinefunction(method):
            raise TypeError(
                f"{sink_type}.{name} is not a coroutine function: "
                f"use {_SYNC_BROADCASTERS[api_group]}, or an asynchronous sink"
            )
    group = getattr(sink, "api_group", api_group)
    if group != api_group:
        raise TypeError(
            f"{sink_type} writes {group or 'core'}/v1 events, but this broadcaster records "
            f"{api_group or 'core'}/v1 events: use {_SINKS[api_group]}"
        )


def how_to_install(extra: str) -> str:
    """The commands that install an extra, from a package index or in a checkout."""
    return f"pip install 'kevents[{extra}]', or in a checkout pip install '.[{extra}]'"
