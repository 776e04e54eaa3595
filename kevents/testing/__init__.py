"""Test doubles for code that records events: fakes in memory, and an embedded API server.

Use the smallest one that answers the question of the test:

- :class:`FakeRecorder` or :class:`FakeEventsV1Recorder` in place of a recorder: was the event recorded?
- :class:`FakeSink` under a real broadcaster: which requests are made, and what happens when a request fails?
- :class:`APIServer` under a real client: the same over HTTP, also for ``kubectl``.
"""

from kevents.testing._apiserver.faults import Delay, Fault, Garbage, Hang, Reset, Rule, Status
from kevents.testing._apiserver.requests import APIError, Cause, Request
from kevents.testing._apiserver.server import APIServer
from kevents.testing.recorder import FakeEventsV1Recorder, FakeRecorder, RecordedEvent, Refusal
from kevents.testing.sink import FakeClock, FakeSink, LostAnswer, SinkRequest

__all__ = [
    "APIError",
    "APIServer",
    "Cause",
    "Delay",
    "FakeClock",
    "FakeEventsV1Recorder",
    "FakeRecorder",
    "FakeSink",
    "Fault",
    "Garbage",
    "Hang",
    "LostAnswer",
    "RecordedEvent",
    "Refusal",
    "Request",
    "Reset",
    "Rule",
    "SinkRequest",
    "Status",
]
