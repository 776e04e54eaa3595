"""Events as log lines: one line per event, for any content."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kevents import Event, EventBroadcaster, EventSource, ObjectReference
from kevents._delivery.handlers import log_plainly, log_structured
from kevents._runtime.log import is_in_kevents
from kevents.events import SeriesEvent
from tests.support.sinks import PATIENCE, about

if TYPE_CHECKING:
    import pytest

HOSTILE = "a\nb\r\x1b[31m\x00\x9b\u2028\u202e\ud800 %s %d"


def event(message: str = "it happened", reason: str = "R", reference: ObjectReference | None = None) -> Event:
    """An event."""
    return Event(
        reference=reference or about(), type="Warning", reason=reason, message=message, source=EventSource("c"),
        time=0, serial=1,
    )  # fmt: skip


def test_plainly() -> None:
    """A plain line is logged through a printf-like function."""
    lines: list[str] = []
    log_plainly(lambda text, *args: lines.append(text % args), event())
    reference = "ObjectReference(kind='Pod', api_version='v1', namespace='prod', name='web-0', uid='uid-web-0')"
    assert lines == [f"Event({reference}): type: 'Warning' reason: 'R' it happened"]


def test_structured(caplog: pytest.LogCaptureFixture) -> None:
    """A structured record has the same content, with the fields as extra."""
    caplog.set_level(logging.INFO)
    log_structured(logging.getLogger("mine"), logging.INFO, event())
    log_structured(logging.getLogger("mine"), logging.INFO, event(reference=ObjectReference(kind="Node", name="n-1")))
    first, second = caplog.records
    text = 'Event occurred object=prod/web-0 kind=Pod type=Warning reason=R message="it happened"'
    assert (first.name, first.levelno, first.getMessage()) == ("mine", logging.INFO, text)
    expected = {
        "object": "prod/web-0", "field_path": "", "kind": "Pod", "api_version": "v1", "type": "Warning", "reason": "R",
        "event_message": "it happened",
    }  # fmt: skip
    assert {name: getattr(first, name) for name in expected} == expected
    assert second.object == "n-1"  # type: ignore[attr-defined]


def test_series_event(caplog: pytest.LogCaptureFixture) -> None:
    """Lines about an event of events.k8s.io include the escaped action, and the record has client-go's field names."""
    caplog.set_level(logging.INFO)
    series = SeriesEvent(
        regarding=about(),
        type="Warning",
        reason="R",
        action="A\n",
        note="n\x1b",
        source=EventSource("c"),
        time=0,
        serial=1,
    )
    lines: list[str] = []
    log_plainly(lambda text, *args: lines.append(text % args), series)
    log_structured(logging.getLogger("mine"), logging.INFO, series)
    assert lines[0].endswith(r"type: 'Warning' reason: 'R' action: 'A\n' n\x1b")
    (record,) = caplog.records
    assert tuple(getattr(record, name) for name in ("object", "type", "reason", "action", "note")) == (
        "prod/web-0",
        "Warning",
        "R",
        r"A\n",
        r"n\x1b",
    )
    assert not hasattr(record, "event_message")


def test_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 71: control characters and line breaks are escaped in both forms. The event itself is unchanged."""
    caplog.set_level(logging.INFO)
    hostile = event(HOSTILE, HOSTILE, ObjectReference(kind=HOSTILE, api_version="v1", name=HOSTILE, namespace=HOSTILE))
    lines: list[str] = []
    log_plainly(lambda text, *args: lines.append(text % args), hostile)
    log_structured(logging.getLogger("mine"), logging.INFO, hostile)
    (record,) = caplog.records
    texts = [lines[0], record.getMessage()]
    texts += [getattr(record, name) for name in ("object", "field_path", "kind", "reason", "event_message")]
    assert [text for text in texts if not text.isprintable()] == []
    assert hostile.message == HOSTILE


def test_a_logged_event_is_an_echo(caplog: pytest.LogCaptureFixture) -> None:
    """An event that a log handler records while an event is logged is a recursion."""
    heard: list[bool] = []
    log_plainly(lambda *_: heard.append(is_in_kevents()), event())
    assert heard == [True]
    assert not is_in_kevents()


def test_watchers(caplog: pytest.LogCaptureFixture) -> None:
    """The logging watchers log each event in order, with the given function, logger and level."""
    caplog.set_level(logging.DEBUG)
    broadcaster = EventBroadcaster()
    broadcaster.start_logging(logging.getLogger("plain").info)
    broadcaster.start_structured_logging()
    broadcaster.start_structured_logging(logging.DEBUG, logger=logging.getLogger("mine"))
    recorder = broadcaster.new_recorder("c")
    for number in range(20):
        recorder.event(about(), "Normal", "R", str(number))
    assert broadcaster.shutdown(PATIENCE) == 0
    levels = {"plain": logging.INFO, "kevents.events": logging.INFO, "mine": logging.DEBUG}
    for name, level in levels.items():
        records = [record for record in caplog.records if record.name == name]
        assert [record.levelno for record in records] == [level] * 20
    assert [
        record.event_message  # type: ignore[attr-defined]
        for record in caplog.records
        if record.name == "mine"
    ] == [str(number) for number in range(20)]


def test_a_function_that_raises() -> None:
    """A logging function that raises is counted as a failing handler."""
    broadcaster = EventBroadcaster()
    broadcaster.start_logging(lambda *_: 1 / 0)
    broadcaster.new_recorder("c").event(about(), "Normal", "R", "m")
    assert broadcaster.shutdown(PATIENCE) == 0
    assert broadcaster.statistics().watchers[0].failed == 1
