"""What is measured with: objects, events, and the mixes of events that a correlator meets."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kevents import CorrelatorOptions, Event, EventSource, ObjectReference

__all__ = ["MIXES", "SOURCE", "Mix", "event", "manifest", "realistic", "reference"]

SOURCE: Final = EventSource("bench", "bench-0")
NEVER_SKIPPED: Final = 1 << 30
"""A burst that no measurement uses up."""

_NOON: Final = 1_790_000_000_000_000_000
_OBJECTS: Final = 300
_SHARES: Final = [1 / (number + 1) for number in range(_OBJECTS)]
_REASONS: Final = ("Scheduled", "Pulled", "Created", "Started", "BackOff")
_MESSAGES: Final = 3


def manifest(number: int = 0, namespace: str = "prod") -> dict[str, Any]:
    """A pod's manifest, every text of it new, as parsed from an answer of the API server."""
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
    """A reference to the same pod."""
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
    """The so-manieth event, about one of the pods, as a recorder makes it."""
    return Event(
        reference=reference(about),
        type="Normal",
        reason=reason,
        message=message,
        source=SOURCE,
        time=_NOON + number,
        serial=_NOON + number,
    )


def realistic(number: int, seed: int = 1) -> list[tuple[int, str, str]]:
    """Object, reason and message of so many events: 300 objects of which few are noisy (Pareto), 5 reasons.

    The second noisiest object has half as many events as the noisiest, the third a third of them, and so on. Four of
    five messages are one of three; the fifth is always new.
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
    """A mix of events: which write each ends in, how it is made, and the correlator's options."""

    ends_in: str
    make: Callable[[int], list[Event]]
    burst_size: int = NEVER_SKIPPED

    @property
    def options(self) -> CorrelatorOptions:
        """Of the correlator that is to meet it."""
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
"""By name; client-go's program knows the same names."""
