"""For the tests of those who record events: fakes in memory, and an embedded API server.

From the smallest to the largest, take the first that can tell you what you ask:

- :class:`FakeRecorder`, or :class:`FakeEventsV1Recorder`, in place of a recorder: was the event recorded?
- :class:`FakeSink` under a real broadcaster: what is written, and what becomes of it when writing fails?
- :class:`APIServer` under a real client: the same over HTTP, for ``kubectl`` too.
"""

from kevents.testing._apiserver.server import (
    APIError,
    APIServer,
    Cause,
    Delay,
    Fault,
    Garbage,
    Hang,
    Request,
    Reset,
    Rule,
    Status,
)
from kevents.testing.clock import FakeClock
from kevents.testing.recorded import RecordedEvent, Refusal
from kevents.testing.recorder import FakeEventsV1Recorder, FakeRecorder
from kevents.testing.sink import FakeSink, LostAnswer, SinkRequest

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
