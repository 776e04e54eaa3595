"""Objects, events and mixes of events for the measurements."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kevents import CorrelatorOptions, Event, EventSource, ObjectReference

__all__ = ["MIXES", "SOURCE", "Mix", "event", "manifest", "realistic", "reference"]

SOURCE: Final = EventSource("bench", "bench-0")
NEVER_SKIPPED: Final = 1 << 30
"""A burst size that no measurement exceeds."""

_NOON: Final = 1_790_000_000_000_000_000
_OBJECTS: Final = 300
_SHARES: Final = [1 / (number + 1) for number in range(_OBJECTS)]
_REASONS: Final = ("Scheduled", "Pulled", "Created", "Started", "BackOff")
_MESSAGES: Final = 3


def manifest(number: int = 0, namespace: str = "prod") -> dict[str, Any]:
    """Return a pod's manifest with newly created strings, as parsed from an API server's answer."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number}",
            "namespace": f"{namespace}",
            "uid": f"0d3f1c8a-6b0a-4c0e-9d5c-{number:012d}",
            "resourceVersion": f"{1000 + number}",
        },
    }


def reference(number: int = 0) -> ObjectReference:
    """Return a reference to the same pod."""
    metadata = manifest(number)["metadata"]
    return ObjectReference(
        kind="Pod",
        api_version="v1",
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
    )


def event(number: int, about: int = 0, reason: str = "BackOff", message: str = "back-off restarting") -> Event:
    """Return event `number` about one of the pods, as a recorder creates it, with a name as client-go's events have."""
    return Event(
        reference=reference(about),
        type="Normal",
        reason=reason,
        message=message,
        source=SOURCE,
        time=_NOON + number,
        serial=_NOON + number,
        name=f"web-{about}.{_NOON + number:x}",
    )


def realistic(number: int, seed: int = 1) -> list[tuple[int, str, str]]:
    """Return object, reason and message of `number` events: 300 objects with Pareto distribution, 5 reasons.

    The second most frequent object has half as many events as the first, the third a third of them, and so on. Four of
    five messages are one of three. The fifth is always new.
    """
    chance = random.Random(seed)
    drawn = []
    for serial, which in enumerate(chance.choices(range(_OBJECTS), _SHARES, k=number)):
        reason = chance.choice(_REASONS)
        text = f"try {chance.randrange(_MESSAGES)}" if chance.random() < 0.8 else f"number {serial}"
        drawn.append((which, reason, text))
    return drawn


@dataclass(frozen=True)
class Mix:
    """A mix of events: the resulting write, the events, and the correlator's options."""

    ends_in: str
    make: Callable[[int], list[Event]]
    burst_size: int = NEVER_SKIPPED

    @property
    def options(self) -> CorrelatorOptions:
        """The correlator's options for this mix."""
        return CorrelatorOptions(burst_size=self.burst_size)


def _identical(number: int) -> list[Event]:
    return [event(serial) for serial in range(number)]


def _new_messages(number: int) -> list[Event]:
    return [event(serial, message=f"number {serial}") for serial in range(number)]


def _new_objects(number: int) -> list[Event]:
    return [event(serial, about=serial) for serial in range(number)]


def _realistic(number: int) -> list[Event]:
    return [event(serial, *drawn) for serial, drawn in enumerate(realistic(number))]


MIXES: Final = {
    "identical": Mix("patch", _identical),
    "skipped": Mix("skip", _identical, burst_size=25),
    "messages": Mix("aggregate", _new_messages),
    "objects": Mix("create", _new_objects),
    "realistic": Mix("all of these", _realistic, burst_size=25),
}
"""The mixes by name. The Go program uses the same names."""
