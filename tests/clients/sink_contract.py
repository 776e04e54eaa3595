"""Contract suite for sinks: subclass `SinkContract`, define the fixture `make_sink`, and run pytest.

    class TestMySink(SinkContract):
        @pytest.fixture
        def make_sink(self):
            return lambda kubeconfig, request_timeout: MySink(...)

A sink whose methods are coroutines needs a wrapper that runs each call to its end. A sink for an API other than
core/v1 sets `shape`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest

from kevents import Event, EventSink, EventSource, ObjectReference, StatusError, UnavailableError
from kevents._model.wire import clean
from kevents.events import SeriesEvent
from kevents.testing import APIServer, Cause, Garbage, Hang, Request, Reset, Status
from tests.support.collector import no_collection
from tests.support.subjects import STRATEGIC, Wire

MakeSink = Callable[[Path, tuple[float, float]], EventSink]

TIMES: Final = (5.0, 15.0)
AT: Final = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
PATCH: Final = {"count": 2, "lastTimestamp": "2026-07-24T09:00:07Z", "message": "again"}

TEXTS: Final = {
    "emoji": "🔥 pod 世界 é",
    "lone surrogates": "a\ud800b\udfffc",
    "NUL": "a\x00b",
    "lines": "one\ntwo\r\nthree\u2028four",
    "escapes": '\x1b[31mred\x1b[0m "\\/<&>',
    "percent": "100% of %s done %d",
}
BROKEN_BODIES: Final = {
    "empty": b"",
    "HTML": b"<html>502 Bad Gateway</html>",
    "cut off": b'{"kind":"Status","mess',
    "no UTF-8": b"\xff\xfe\x00",
    "null": b"null",
    "list": b"[]",
    "number": b"12",
    "deep": b"[" * 5000 + b"]" * 5000,
    "a number of many digits": b'{"details":{"retryAfterSeconds":' + b"9" * 5000 + b"}}",
    "reason and message of a wrong type": b'{"reason":{"a":[1]},"message":["x"],"details":{"causes":[{"reason":7}]}}',
    "details: a text": b'{"details":"x"}',
    "details: a list": b'{"details":[1,2]}',
    "causes: a text": b'{"details":{"causes":"NamespaceTerminating"}}',
    "causes: an object": b'{"details":{"causes":{"reason":"x"}}}',
    "causes: of anything": b'{"details":{"causes":[null,1,"x",[],{},{"reason":null},{"message":"m"}]}}',
    "retryAfterSeconds: a text": b'{"details":{"retryAfterSeconds":"soon"}}',
    "retryAfterSeconds: no number": b'{"details":{"retryAfterSeconds":NaN}}',
    "retryAfterSeconds: endless": b'{"details":{"retryAfterSeconds":1e999}}',
}
RETRY_AFTER: Final[dict[tuple[str, int | None], float | None]] = {
    ("3", None): 3.0,
    (" 7 ", None): 7.0,
    ("0", None): 0.0,
    ("3", 9): 3.0,
    ("", 9): 9.0,
    ("-1", None): None,
    ("-1", 9): 9.0,
    ("soon", 4): 4.0,
    ("1e9", None): None,
    ("99999", None): 60.0,
    ("", -3): None,
    ("", 10**30): 60.0,
    ("0.5", None): 0.5,
    ("Fri, 24 Jul 1998 09:00:00 GMT", None): None,
    ("", None): None,
}
"""The header, the seconds in the body, and what is read."""


def event(namespace: str = "default", name: str = "pod.1", message: str = "hello", **fields: Any) -> dict[str, Any]:
    """The body of an event as a recorder builds it."""
    return CORE.event(namespace, name, message, **fields)


class Shape:
    """The format of events in core/v1, and their path.

    Attributes:
        base: The base path of the API.
        resource: The name of the resource in errors.
        invalid: A field and a value that the server refuses.
        text: The name of the message field.
        longest: The size of the longest text that the server always accepts, in bytes.
        too_large: Status codes for larger bodies.
        patch: A patch that changes an event.
    """

    base = "/api/v1"
    resource = "events"
    invalid: tuple[str, object] = ("involvedObject", {"kind": "Pod", "name": "p", "namespace": "elsewhere"})
    text = "message"
    longest = 1 << 20
    too_large = frozenset({413, 500})
    patch: Final = PATCH

    def event(
        self, namespace: str = "default", name: str = "pod.1", text: str = "hello", **fields: Any
    ) -> dict[str, Any]:
        """The body of an event as a recorder builds it."""
        reference = ObjectReference(kind="Pod", api_version="v1", namespace=namespace, name="pod", uid="u-1")
        values = {"type": "Normal", "reason": "Started", "source": EventSource("c", "h"), "time": AT, "serial": AT}
        return self.make(reference, text, name=name, **{**values, **fields}).to_dict()

    def make(self, reference: ObjectReference, text: str, **fields: Any) -> Event:
        """Build the event."""
        return Event(reference=reference, message=text, **fields)

    def patch_to(self, count: int, text: str = "again") -> dict[str, Any]:
        """The patch for this count."""
        return {**PATCH, "count": count, "message": text}

    def patched(self, before: str, after: str) -> str:
        """The text of an event after a patch."""
        return after

    def count(self, stored: dict[str, Any]) -> int:
        """The count of a stored event, in the form of core/v1."""
        return int(stored["count"])


class SeriesShape(Shape):
    """The format of events in events.k8s.io/v1, where only the series can be patched."""

    base = "/apis/events.k8s.io/v1"
    resource = "events.events.k8s.io"
    invalid = ("action", "")
    text = "note"
    longest = 1024
    too_large = frozenset({413, 422})
    patch: Final = {"series": {"count": 2, "lastObservedTime": "2026-07-24T09:00:07.000001Z"}}

    def make(self, reference: ObjectReference, text: str, **fields: Any) -> SeriesEvent:
        """Build the event."""
        return SeriesEvent(regarding=reference, note=text, action="Starting", **fields)

    def patch_to(self, count: int, text: str = "again") -> dict[str, Any]:
        """The patch for this count."""
        return {"series": {**self.patch["series"], "count": count}}

    def patched(self, before: str, after: str) -> str:
        """The text of an event after a patch."""
        return before

    def count(self, stored: dict[str, Any]) -> int:
        """The count of a stored event, in the form of core/v1."""
        return int(stored.get("series", {"count": 1})["count"])


CORE: Final = Shape()
SERIES: Final = SeriesShape()


def contains(expected: Any, actual: Any) -> bool:
    """Whether a JSON value contains all fields of another."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return all(key in actual and contains(value, actual[key]) for key, value in expected.items())
    return bool(expected == actual)


def refusal(call: Callable[..., None], *args: Any) -> StatusError:
    """The error of a call that the server must refuse."""
    with pytest.raises(StatusError) as caught:
        call(*args)
    assert StatusError is type(caught.value)
    return caught.value


def kubeconfig(server: Any, folder: Path, token: str = "") -> Path:
    """A kubeconfig for an embedded or real server: the administrator's, or with another token."""
    config = json.loads(server.kubeconfig().read_text(encoding="utf-8"))
    if token:
        config["users"][0]["user"]["token"] = token
    path = folder / f"kubeconfig-{secrets.token_hex(4)}"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


class PlainRequests:
    """A sink's requests against the embedded and the real API server."""

    shape: Shape = CORE

    @pytest.fixture
    def sink(self, make_sink: MakeSink, wire: Wire, tmp_path: Path) -> EventSink:
        """A sink with all permissions."""
        return make_sink(kubeconfig(wire.subject.server, tmp_path), TIMES)

    def stored(self, wire: Wire, name: str = "pod.1") -> dict[str, Any]:
        """The event as the server stores it."""
        return wire.ok("GET", f"{self.shape.base}/namespaces/{wire.namespace}/events/{name}")

    def test_is_a_sink(self, sink: EventSink) -> None:
        """A sink has both methods of the protocol."""
        assert isinstance(sink, EventSink)

    def test_create(self, wire: Wire, sink: EventSink) -> None:
        """A created event is stored field by field, and nothing is returned."""
        body = self.shape.event(wire.namespace)
        assert sink.create(wire.namespace, body) is None
        assert contains(body, self.stored(wire)), self.stored(wire)

    def test_patch(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 31: a patch changes its fields and nothing else."""
        sink.create(wire.namespace, self.shape.event(wire.namespace))
        before = self.stored(wire)
        assert sink.patch(wire.namespace, "pod.1", dict(self.shape.patch)) is None
        after = self.stored(wire)
        assert before["metadata"].pop("resourceVersion") != after["metadata"].pop("resourceVersion")
        assert after == {**before, **self.shape.patch}

    def test_annotations_and_labels(self, wire: Wire, sink: EventSink) -> None:
        """Annotations and labels are stored, also with empty values."""
        annotations, labels = {"example.com/a": "1 🔥\n", "b": ""}, {"app": "web", "x": ""}
        sink.create(wire.namespace, self.shape.event(wire.namespace, annotations=annotations, labels=labels))
        metadata = self.stored(wire)["metadata"]
        assert (metadata["annotations"], metadata["labels"]) == (annotations, labels)

    def test_texts(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 28: every text is stored unchanged, but a lone surrogate becomes the replacement character."""
        for number, (name, text) in enumerate(TEXTS.items()):
            event, expected = f"pod.{number}", clean(text)
            sink.create(wire.namespace, self.shape.event(wire.namespace, event, text, reason=text))
            stored = self.stored(wire, event)
            assert (name, stored[self.shape.text], stored["reason"]) == (name, expected, expected)
            sink.patch(wire.namespace, event, self.shape.patch_to(2, expected * 2))
            after = self.stored(wire, event)[self.shape.text]
            assert (name, after) == (name, self.shape.patched(expected, expected * 2))

    def test_longest_text(self, wire: Wire, sink: EventSink) -> None:
        """The longest text, 1 MiB in core/v1, can be created and patched."""
        before, after = "m" * self.shape.longest, "n" * self.shape.longest
        sink.create(wire.namespace, self.shape.event(wire.namespace, text=before))
        sink.patch(wire.namespace, "pod.1", self.shape.patch_to(2, after))
        assert self.stored(wire)[self.shape.text] == self.shape.patched(before, after)

    def test_too_large(self, wire: Wire, sink: EventSink) -> None:
        """An event that is too large is refused, by etcd (500, two messages) or before it (413, 422)."""
        for size in (1_600_000, 2 << 20, 4 << 20):
            error = refusal(sink.create, wire.namespace, self.shape.event(wire.namespace, text="m" * size))
            assert error.code in self.shape.too_large, (size, error)

    def test_microseconds(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 22: a MicroTime is stored with its six digits."""
        for fraction in ("000001", "123456", "120000", "999999"):
            name, moment = f"pod.{fraction}", f"2026-07-24T09:00:00.{fraction}Z"
            body = self.shape.event(wire.namespace, name)
            sink.create(wire.namespace, {**body, "eventTime": moment, "action": "Starting"})
            assert self.stored(wire, name)["eventTime"] == moment

    def test_name_in_use(self, wire: Wire, sink: EventSink) -> None:
        """A second event of the same name is refused: 409, AlreadyExists."""
        sink.create(wire.namespace, self.shape.event(wire.namespace))
        error = refusal(sink.create, wire.namespace, self.shape.event(wire.namespace))
        assert (error.code, error.reason) == (409, "AlreadyExists")

    def test_unknown_event(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 36: a patch of an event that does not exist is refused: 404, NotFound."""
        error = refusal(sink.patch, wire.namespace, "pod.9", dict(self.shape.patch))
        said = f'{self.shape.resource} "pod.9" not found'
        assert (error.code, error.reason, error.message) == (404, "NotFound", said)

    def test_unknown_namespace(self, sink: EventSink) -> None:
        """A namespace that does not exist is refused: 404, with its name in the message."""
        error = refusal(sink.create, "no-such-namespace", self.shape.event("no-such-namespace"))
        assert (error.code, error.reason) == (404, "NotFound")
        assert "no-such-namespace" in error.message

    def test_terminating_namespace(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 45: a terminating namespace is recognised by the cause in its 403."""
        sink.create(wire.namespace, self.shape.event(wire.namespace))
        wire.request("DELETE", f"/api/v1/namespaces/{wire.namespace}")
        error = refusal(sink.create, wire.namespace, self.shape.event(wire.namespace, name="pod.2"))
        assert (error.code, error.reason, error.causes) == (403, "Forbidden", ("NamespaceTerminating",))

    def test_invalid(self, wire: Wire, sink: EventSink) -> None:
        """Pitfall 41: an invalid event is refused with the server's message: 422, Invalid."""
        field, value = self.shape.invalid
        body = {**self.shape.event(wire.namespace), field: value}
        error = refusal(sink.create, wire.namespace, body)
        assert (error.code, error.reason) == (422, "Invalid")
        assert field in error.message

    def test_forbidden_patch(self, wire: Wire, make_sink: MakeSink, tmp_path: Path) -> None:
        """Pitfall 44: a user without the patch verb may create. The refused patch names the verb."""
        sink = make_sink(kubeconfig(wire.subject.server, tmp_path, wire.subject.tokens["creator"]), TIMES)
        sink.create(wire.namespace, self.shape.event(wire.namespace))
        error = refusal(sink.patch, wire.namespace, "pod.1", dict(self.shape.patch))
        assert (error.code, error.reason) == (403, "Forbidden")
        assert 'cannot patch resource "events"' in error.message

    def test_forbidden_create(self, wire: Wire, make_sink: MakeSink, tmp_path: Path) -> None:
        """Pitfall 43: a user without permissions is refused with the server's message."""
        sink = make_sink(kubeconfig(wire.subject.server, tmp_path, wire.subject.tokens["stranger"]), TIMES)
        error = refusal(sink.create, wire.namespace, self.shape.event(wire.namespace))
        assert (error.code, error.reason, error.causes) == (403, "Forbidden", ())
        assert 'User "stranger" cannot create resource "events"' in error.message

    def test_unknown_token(self, wire: Wire, make_sink: MakeSink, tmp_path: Path) -> None:
        """Pitfalls 42, 72: an unknown token gives a 401, and the token is not in the error."""
        token = secrets.token_hex(16)
        sink = make_sink(kubeconfig(wire.subject.server, tmp_path, token), TIMES)
        error = refusal(sink.create, wire.namespace, self.shape.event(wire.namespace))
        assert (error.code, error.reason) == (401, "Unauthorized")
        assert token not in f"{error!r} {error} {error.__dict__} {sink!r}"


class Faults:
    """A sink against faults of the embedded server."""

    shape: Shape = CORE
    unavailable: tuple[type[Exception], ...] = (UnavailableError, OSError)

    @pytest.fixture
    def troubled(self, make_sink: MakeSink, api_server: APIServer, tmp_path: Path) -> EventSink:
        """A sink whose server has scripted faults."""
        return make_sink(kubeconfig(api_server, tmp_path), TIMES)

    @pytest.fixture
    def hurried(self, make_sink: MakeSink, api_server: APIServer, tmp_path: Path) -> EventSink:
        """A sink with a read timeout of 0.2 s."""
        return make_sink(kubeconfig(api_server, tmp_path), (2, 0.2))

    def test_status(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfalls 40 to 46: every status except success is a StatusError with its code and message."""
        for code in (400, 401, 403, 404, 405, 408, 409, 413, 415, 418, 422, 429, 500, 502, 503, 504):
            api_server.fail(Status(code, "Because", "so it is"), times=2)
            refusals = [
                refusal(troubled.create, "default", self.shape.event()),
                refusal(troubled.patch, "default", "pod.1", dict(self.shape.patch)),
            ]
            for error in refusals:
                assert (error.code, error.reason, error.message) == (code, "Because", "so it is")
                assert (code, error.retry_after, error.causes) == (code, None, ())

    def test_redirect(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 75: a redirect without a location is a StatusError like any other."""
        api_server.fail(307, times=1)
        assert refusal(troubled.create, "default", self.shape.event()).code == 307

    def test_causes(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 45: the error has the causes of the Status body."""
        causes = (Cause("NamespaceTerminating", "m"), Cause("Other", "n", "f"))
        api_server.fail(Status(403, "Forbidden", causes=causes), times=1)
        assert refusal(troubled.create, "default", self.shape.event()).causes == ("NamespaceTerminating", "Other")

    def test_retry_after(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 39: a valid Retry-After, or the body's, is read as seconds and capped. Extreme ones are ignored."""
        for (header, seconds), expected in RETRY_AFTER.items():
            api_server.fail(Status(429, "TooManyRequests", retry_after=header, retry_after_seconds=seconds), times=1)
            found = refusal(troubled.create, "default", self.shape.event()).retry_after
            assert (header, seconds, found) == (header, seconds, expected)

    def test_retry_after_a_date(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 39: Retry-After may be a date."""
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
        api_server.fail(Status(503, retry_after=date), times=1)
        after = refusal(troubled.create, "default", self.shape.event()).retry_after
        assert after is not None
        assert 20 < after <= 30

    @pytest.mark.parametrize("code", [403, 409, 429, 500, 503])
    def test_broken_refusal(self, api_server: APIServer, troubled: EventSink, code: int) -> None:
        """Pitfall 45: a refusal with a malformed body is a StatusError with its code."""
        for name, body in BROKEN_BODIES.items():
            api_server.fail(Garbage(body, code, after_processing=False), times=1)
            with no_collection():
                error = refusal(troubled.create, "default", self.shape.event())
            assert (name, error.code, error.reason, error.causes) == (name, code, "", ())
            assert (name, error.retry_after) in {(name, None), (name, 60.0)}
            assert isinstance(error.message, str), name

    @pytest.mark.parametrize("code", [200, 201, 202, 204])
    def test_broken_success(self, api_server: APIServer, troubled: EventSink, code: int) -> None:
        """Pitfall 35: a 2xx is a success, with any body."""
        for body in {b""} if code == 204 else BROKEN_BODIES.values():
            number = len(api_server.events())
            api_server.fail(Garbage(body, code), times=2)
            troubled.create("default", self.shape.event(name=f"pod.{number}"))
            troubled.patch("default", f"pod.{number}", dict(self.shape.patch))
            assert [self.shape.count(stored) for stored in api_server.events()] == [2] * (number + 1), body

    def test_null_times(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 34: an answer with a null eventTime is a success."""
        api_server.fail(Garbage(json.dumps({**self.shape.event(), "eventTime": None}).encode(), 201), times=1)
        troubled.create("default", self.shape.event())

    def test_huge_success(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 78: only a part of an answer of 64 MiB is read, and the next request succeeds."""
        troubled.create("default", self.shape.event())
        api_server.fail(Garbage(b"x" * 1024, size=64 << 20), times=1)
        tracemalloc.start()
        try:
            troubled.patch("default", "pod.1", dict(self.shape.patch))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        troubled.patch("default", "pod.1", self.shape.patch_to(3))
        assert [self.shape.count(stored) for stored in api_server.events()] == [3]

    @pytest.mark.parametrize("after_processing", [False, True])
    def test_reset(self, api_server: APIServer, troubled: EventSink, *, after_processing: bool) -> None:
        """Pitfall 40: a broken connection is Unavailable, whether or not the event was stored. The next one is new."""
        api_server.fail(Reset(after_processing=after_processing), times=1)
        with pytest.raises(self.unavailable):
            troubled.create("default", self.shape.event())
        assert len(api_server.events()) == int(after_processing)
        troubled.create("default", self.shape.event(name="pod.2"))
        assert len([request for request in api_server.requests if request.method == "POST"]) == 2

    @pytest.mark.parametrize("after_processing", [False, True])
    def test_hang(self, api_server: APIServer, hurried: EventSink, *, after_processing: bool) -> None:
        """Pitfall 47: a request to a server that never answers ends at the timeout."""
        began = time.monotonic()
        with api_server.fail(Hang(after_processing=after_processing)), pytest.raises(self.unavailable):
            hurried.create("default", self.shape.event())
        assert time.monotonic() - began < 12  # the default is 15 s
        assert api_server.wait_for(lambda: api_server.requests)
        assert len(api_server.requests) == 1

    def test_away(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 40: an unreachable server is Unavailable, and is used again after its return."""
        troubled.create("default", self.shape.event())
        api_server.stop_listening()
        for _ in range(2):
            with pytest.raises(self.unavailable):
                troubled.patch("default", "pod.1", dict(self.shape.patch))
        api_server.listen_again()
        troubled.patch("default", "pod.1", dict(self.shape.patch))
        assert [self.shape.count(stored) for stored in api_server.events()] == [2]

    def test_unsendable(self, api_server: APIServer, troubled: EventSink) -> None:
        """A value that JSON cannot hold raises ValueError or TypeError, without a request."""
        for value in (object(), {1, 2}, b"\xff", 1j):
            with pytest.raises((ValueError, TypeError)) as caught:
                troubled.create("default", {**self.shape.event(), self.shape.text: value})
            assert not isinstance(caught.value, OSError)
        assert api_server.requests == ()

    def test_requests(self, api_server: APIServer, troubled: EventSink) -> None:
        """Pitfall 31: a create and a patch are one request each: path, content type and unchanged body."""
        body = self.shape.event()
        troubled.create("default", body)
        troubled.patch("default", "pod.1", dict(self.shape.patch))
        create, patch = api_server.requests
        assert (create.method, create.path) == ("POST", f"{self.shape.base}/namespaces/default/events")
        assert create.headers.get("content-type", "application/json") == "application/json"
        assert contains(without_times(body), without_times(create.body))
        assert (patch.method, patch.path) == ("PATCH", f"{self.shape.base}/namespaces/default/events/pod.1")
        assert (patch.headers["content-type"], patch.body) == (STRATEGIC, self.shape.patch)

    def test_nothing_is_changed(self, troubled: EventSink) -> None:
        """A sink does not change its arguments."""
        body, patch = self.shape.event(annotations={"a": "1"}), dict(self.shape.patch)
        before = json.dumps([body, patch])
        troubled.create("default", body)
        troubled.patch("default", "pod.1", patch)
        assert json.dumps([body, patch]) == before

    def test_one_connection(self, api_server: APIServer, troubled: EventSink) -> None:
        """A hundred consecutive requests, some refused or with broken answers, use one connection."""
        api_server.fail(422, times=10, when=lambda request: number_of(request) % 7 == 3)
        api_server.fail(Garbage(b"<html>"), times=10, when=lambda request: number_of(request) % 7 == 5)
        for number in range(100):
            with contextlib.suppress(StatusError):
                troubled.create("default", self.shape.event(name=f"pod.{number}"))
        assert (len(api_server.requests), api_server.connections) == (100, 1)

    def test_connections_of_threads(self, api_server: APIServer, troubled: EventSink) -> None:
        """Four threads use at most four connections."""
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(lambda number: troubled.create("default", self.shape.event(name=f"pod.{number}")), range(100))
            )
        assert len(api_server.events()) == 100
        assert api_server.connections <= 4


def without_times(body: dict[str, Any]) -> dict[str, Any]:
    """The body without its times, which client 37 writes in another format. Another test checks the stored times."""
    return {key: value for key, value in body.items() if not key.endswith(("Timestamp", "Time"))}


def number_of(request: Request) -> int:
    """The number in the name of the created event."""
    return int(request.body["metadata"]["name"].removeprefix("pod."))


class SinkContract(PlainRequests, Faults):
    """The whole suite."""

    @pytest.fixture
    def make_sink(self) -> MakeSink:
        """A function, defined by subclasses, that makes a sink from a kubeconfig and timeouts (connect, read)."""
        raise NotImplementedError


class SeriesContract(PlainRequests):
    """The suite for a sink of events.k8s.io/v1 whose answers and faults are those of a tested one of core/v1."""

    shape = SERIES
    unavailable = Faults.unavailable

    troubled = Faults.troubled
    test_causes = Faults.test_causes
    test_null_times = Faults.test_null_times
    test_reset = Faults.test_reset
    test_requests = Faults.test_requests


class SeriesFaults(Faults):
    """The rest of it."""

    shape = SERIES
