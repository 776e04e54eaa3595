"""Fuzz tests: every reader of foreign input returns a value of its type or raises its documented error.

By default each test runs fifty examples, and ``pytest tests/test_fuzz.py tests/export/test_fuzz.py
--hypothesis-profile=fuzz`` ten thousand (see ``docs/changing.md``).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kevents import Event, InvalidReferenceError, ObjectReference, get_reference
from kevents._model.wire import (
    clip,
    clip_json,
    event_name,
    format_micro_time,
    format_time,
    is_qualified_name,
    parse_time,
)
from kevents._queue.outcome import LONGEST_RETRY_AFTER, retry_after
from tests.model.test_reference import ANYTHING as OBJECTS
from tests.support.foreign import ANYTHING, JSON, TEXTS, spoilt, tried

fuzz = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

BODY: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "web-0.1", "namespace": "prod", "annotations": {"a": "b"}, "labels": {"c": "d"}},
    "involvedObject": {"kind": "Pod", "apiVersion": "v1", "namespace": "prod", "name": "web-0", "uid": "u"},
    "reason": "Started",
    "message": "It runs",
    "source": {"component": "operator", "host": "node"},
    "firstTimestamp": "2026-07-24T09:00:00Z",
    "lastTimestamp": "2026-07-24T09:05:00Z",
    "eventTime": None,
    "count": 3,
    "type": "Normal",
}
DIGITS = st.text("0123456789", max_size=12)
TIMES = (
    st.builds("{}-{}-{}T{}:{}:{}{}{}".format, *[DIGITS] * 6, st.sampled_from(["", ".5", ".123456789012"]),
              st.sampled_from(["Z", "z", "+02:00", "-23:59", "+99:99", ""]))
    | st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat)
    | TEXTS
)  # fmt: skip
DATES = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))


@fuzz
@given(OBJECTS)
def test_references(obj: object) -> None:
    """A reference has texts that JSON and UTF-8 can hold, or is refused with its own error."""
    reference = tried(get_reference, obj, refusal=InvalidReferenceError)
    if reference is not None:
        json.dumps(reference.to_dict(), ensure_ascii=False).encode()
        assert {type(value) for value in reference._values()} == {str}


@fuzz
@given(spoilt({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b", "uid": "c"}}))
def test_references_of_spoilt_manifests(body: Any) -> None:
    """A manifest with replaced or missing fields gives a valid reference or its error."""
    reference = tried(get_reference, body, refusal=InvalidReferenceError)
    if reference is not None:
        assert ObjectReference.from_dict(reference.to_dict()) == reference or not str(reference).isascii()


@fuzz
@given(DIGITS | DATES | TEXTS | st.floats().map(str) | st.integers().map(str), JSON, st.sampled_from(["", "x-"]))
@example("Thu, 01 Jan 1970 00:00:00 -9999", {}, "")
@example("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", {}, "")
def test_retry_after(header: str, details: Any, prefix: str) -> None:
    """Retry-After is None or between 0 and 60 seconds, for any header and body."""
    found = retry_after(
        {prefix + "Retry-After": header}, {"details": details}, datetime(2026, 1, 1, tzinfo=timezone.utc)
    )
    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER


@fuzz
@given(st.dictionaries(st.just("retryAfterSeconds"), ANYTHING) | ANYTHING)
def test_retry_after_seconds(details: Any) -> None:
    """Retry-After from the Status body alone is None or between 0 and 60 seconds."""
    found = retry_after(None, {"details": details})
    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER


@fuzz
@given(TIMES)
@example("0000-00-00T00:00:00Z")
@example("2026-02-30T00:00:00Z")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_times(text: str) -> None:
    """A time is read as nanoseconds that survive a round trip to the second, or is a ValueError."""
    found = tried(parse_time, text)
    if found is not None:
        assert parse_time(format_time(found)) // 10**9 == found // 10**9
        assert abs(found - parse_time(format_micro_time(found))) <= 1000


@fuzz
@given(
    st.datetimes(
        timezones=st.timezones() | st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23)))
    )
)
def test_moments(moment: datetime) -> None:
    """A datetime with a zone is read as its moment, to the microsecond."""
    assert moment - datetime(1970, 1, 1, tzinfo=timezone.utc) == timedelta(microseconds=parse_time(moment) // 1000)


@fuzz
@given(spoilt(BODY))
def test_events(body: Any) -> None:
    """A body is read as an event that can be sent again, or is a ValueError."""
    event = tried(Event.from_dict, body)
    if event is not None:
        json.dumps([event.to_dict(), event.to_patch()])
        assert repr(event)


@fuzz
@given(TEXTS, st.integers(0, 2**63 - 1))
def test_names(name: str, serial: int) -> None:
    """Any object's name gives a valid event name, and another serial gives another name."""
    found = event_name(name, serial)
    assert len(found) <= 253
    assert all(label and label[0] != "-" != label[-1] for label in found.split("."))
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert event_name(name, serial + 1) != found


@fuzz
@given(TEXTS, st.integers(0, 40))
def test_clipping(text: str, limit: int) -> None:
    """A clipped text fits the limit, for any content."""
    assert len(clip(text, limit).encode("utf-8", "surrogatepass")) <= max(limit, 0) or text == clip(text, limit)
    assert len(json.dumps(clip_json(text, 40 + limit))) <= 40 + limit


@fuzz
@given(TEXTS)
def test_qualified_names(text: str) -> None:
    """Any text can be tested for being a qualified name."""
    assert is_qualified_name(f"example.com/{text}") == is_qualified_name(text) or "/" in text
