"""Invalid options are refused in the constructor."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kevents._correlation.correlator import EventCorrelator
from kevents._correlation.options import CorrelatorOptions
from kevents._model.objects import Event, EventSource, ObjectReference

NUMBERS = ["lru_cache_size", "burst_size", "qps", "max_events", "max_interval_in_seconds"]
COUNTS = ["lru_cache_size", "burst_size", "max_events"]
FUNCTIONS = ["key_func", "message_func", "spam_key_func", "clock"]
OBJECT = pytest.param(object(), id="object()")


def make(**options: Any) -> CorrelatorOptions:
    """Build the options."""
    return CorrelatorOptions(**options)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [0, -1, -0.5, math.nan, math.inf, -math.inf, True, False, "5", b"5", [], 1 + 0j, OBJECT], ids=repr
)
def test_bad_numbers(name: str, value: object) -> None:
    """Pitfall 59: 0, negative, NaN, infinite, a bool or a text is a ``ValueError`` that names option and value."""
    with pytest.raises(ValueError, match=name) as caught:
        make(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_whole(name: str) -> None:
    """Pitfall 59: a count is a whole number."""
    with pytest.raises(ValueError, match="whole number"):
        make(**{name: 2.0})


@pytest.mark.parametrize(
    "name", ["lru_cache_size", "qps", "max_interval_in_seconds", "count_identical", "catch_up", *FUNCTIONS]
)
def test_none_where_it_switches_nothing_off(name: str) -> None:
    """Pitfall 59: None is refused where it has no meaning."""
    with pytest.raises(ValueError, match=name):
        make(**{name: None})


@pytest.mark.parametrize("name", ["burst_size", "max_events"])
def test_none_switches_off(name: str) -> None:
    """None is accepted for the two parts that can be switched off, and the error for a 0 explains this."""
    assert getattr(make(**{name: None}), name) is None
    with pytest.raises(ValueError, match="None switches"):
        make(**{name: 0})


@pytest.mark.parametrize("name", ["qps", "max_interval_in_seconds"])
@pytest.mark.parametrize("value", [10**400, 1e300, 1e10, 5e-324, 1e-10])
def test_absurd_numbers(name: str, value: float) -> None:
    """Extreme numbers are refused, instead of overflowing in the worker later."""
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        dict.fromkeys(COUNTS, 10**30),
        {"qps": 1e-9, "max_interval_in_seconds": 1e9},
        {"qps": 1e9, "max_interval_in_seconds": 1e-9},
        {"qps": 1, "max_interval_in_seconds": 1},
        dict.fromkeys(COUNTS, 1),
    ],
)
def test_whatever_is_accepted_works(options: dict[str, Any]) -> None:
    """Accepted options never make a correlator fail."""
    correlator = EventCorrelator(make(**options))
    reference, source = ObjectReference(name="web"), EventSource("c")
    for number in range(30):
        event = Event(
            reference=reference,
            type="Normal",
            reason="R",
            message=str(number % 7),
            source=source,
            time=0,
            serial=number,
        )
        correlator.event_correlate(event)


@pytest.mark.parametrize("name", ["count_identical", "catch_up"])
@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_yes_or_no(name: str, value: object) -> None:
    """A switch must be True or False."""
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_callable(name: str) -> None:
    """A function option must be callable."""
    with pytest.raises(ValueError, match=name):
        make(**{name: "event.reason"})


def test_defaults() -> None:
    """The defaults are client-go's."""
    options = CorrelatorOptions()
    actual = (options.lru_cache_size, options.burst_size, options.max_events, options.max_interval_in_seconds)
    assert actual == (4096, 25, 10, 600)
    assert options.qps == 1 / 300


def test_options_do_not_change() -> None:
    """Options are immutable, so that they can be shared."""
    with pytest.raises(AttributeError):
        CorrelatorOptions().qps = 1.0  # type: ignore[misc]
