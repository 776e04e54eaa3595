"""The contract of an API server: the embedded server must behave like a real one."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.subjects import JSON_PATCH, MERGE, STRATEGIC, TABLE, EmbeddedSubject, bare

if TYPE_CHECKING:
    from tests.support.real_server import Response
    from tests.support.subjects import Wire

MICRO = "2026-07-24T09:00:00.123456Z"
LATER = "2026-07-24T09:00:01.123456Z"
NOW = datetime.now(timezone.utc)
AGE_2000 = f"{(NOW - datetime(2000, 1, 1, tzinfo=timezone.utc)).days // 365}y"
AGE_2010 = f"{(NOW - datetime(2010, 1, 1, tzinfo=timezone.utc)).days // 365}y"


def failure(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a Status of a failure."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body |= {"message": message, "code": code}
    if reason:
        body["reason"] = reason
    return body if details is None else {**body, "details": details}


def causes(response: Response) -> list[tuple[str, str]]:
    """Return field and reason of each cause."""
    return [(cause["field"], cause["reason"]) for cause in response.body["details"]["causes"]]


def names(listed: dict[str, Any]) -> list[str]:
    """Return the names of the items of a list."""
    return [item["metadata"]["name"] for item in listed["items"]]


class TestCreate:
    """POST of events in core/v1."""

    def test_stored_object(self, wire: Wire) -> None:
        """The answer to a create is the complete stored event with its keys in a fixed order."""
        made = wire.ok("POST", wire.events, wire.event())
        metadata = made["metadata"]
        assert list(made) == [
            "kind",
            "apiVersion",
            "metadata",
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "reportingComponent",
            "reportingInstance",
        ]
        assert {**wire.event(), "metadata": metadata, "eventTime": None} == made
        assert list(metadata) == ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]

    def test_metadata_of_the_server(self, wire: Wire) -> None:
        """The server sets uid, creationTimestamp and namespace."""
        body = wire.event()
        body["metadata"] = {"name": "a", "uid": "mine", "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "x"}
        metadata = wire.ok("POST", wire.events, body)["metadata"]
        assert wire.namespace == metadata["namespace"]
        assert metadata["uid"] != "mine"
        assert metadata["creationTimestamp"] > "2026"
        assert set(metadata) == {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}

    def test_status_201(self, wire: Wire) -> None:
        """A create is answered with 201 and JSON."""
        response = wire.request("POST", wire.events, wire.event())
        assert (response.status, response.headers["content-type"]) == (201, "application/json")

    def test_defaults(self, wire: Wire) -> None:
        """A minimal event is stored, and the fields that are always present are empty."""
        involved = {"namespace": wire.namespace}
        made = wire.ok("POST", wire.events, {"metadata": {"name": "a"}, "involvedObject": involved})
        del made["metadata"]
        assert made == {
            "kind": "Event",
            "apiVersion": "v1",
            "involvedObject": involved,
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "eventTime": None,
            "reportingComponent": "",
            "reportingInstance": "",
        }

    def test_same_name_again(self, wire: Wire) -> None:
        """A second create with the same name is 409 AlreadyExists."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("POST", wire.events, wire.event())
        details = {"name": "pod.1", "kind": "events"}
        expected = failure(409, "AlreadyExists", 'events "pod.1" already exists', details)
        assert (response.status, response.body) == (409, expected)

    def test_name_taken_in_the_other_view(self, wire: Wire) -> None:
        """Both API versions share their names."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("POST", wire.new_events, wire.new_event())
        details = {"name": "pod.1", "group": "events.k8s.io", "kind": "events"}
        expected = failure(409, "AlreadyExists", 'events.events.k8s.io "pod.1" already exists', details)
        assert (response.status, response.body) == (409, expected)

    @pytest.mark.parametrize(
        "fields",
        [
            {"message": "x" * 5000},
            {"reason": "r" * 200},
            {"reason": ""},
            {"type": "Weird"},
            {"type": ""},
            {"count": -4},
            {"reportingComponent": "a b", "reportingInstance": ""},
            {"firstTimestamp": None, "lastTimestamp": None},
        ],
        ids=["message", "long reason", "no reason", "type", "no type", "count", "controller", "times"],
    )
    def test_core_accepts(self, wire: Wire, fields: dict[str, Any]) -> None:
        """Without eventTime, core/v1 accepts nearly all values."""
        made = wire.ok("POST", wire.events, wire.event(**fields))
        assert {key: made.get(key) or None for key in fields} == {key: value or None for key, value in fields.items()}

    @pytest.mark.parametrize("name", ["A b:7", "q" * 300, "fd00:10::103", "ü"])
    def test_core_names(self, wire: Wire, name: str) -> None:
        """In core/v1 an event can have any name that fits into a path."""
        assert wire.ok("POST", wire.events, wire.event(name))["metadata"]["name"] == name

    @pytest.mark.parametrize("name", ["a/b", "a%b", "..", "."])
    def test_names_that_do_not_fit(self, wire: Wire, name: str) -> None:
        """A name that is invalid in a path is 422."""
        response = wire.request("POST", wire.events, wire.event(name))
        assert (response.status, causes(response)) == (422, [("metadata.name", "FieldValueInvalid")])

    def test_no_name(self, wire: Wire) -> None:
        """A missing name is 422 with the field."""
        response = wire.request("POST", wire.events, {**wire.event(), "metadata": {}})
        cause = {
            "reason": "FieldValueRequired",
            "message": "Required value: name or generateName is required",
            "field": "metadata.name",
        }
        message = f'Event "" is invalid: metadata.name: {cause["message"]}'
        expected = failure(422, "Invalid", message, {"kind": "Event", "causes": [cause]})
        assert (response.status, response.body) == (422, expected)

    def test_generate_name(self, wire: Wire) -> None:
        """With generateName, the server adds five characters."""
        metadata = wire.ok("POST", wire.events, {**wire.event(), "metadata": {"generateName": "gen-"}})["metadata"]
        assert metadata["generateName"] == "gen-"
        assert (metadata["name"][:4], len(metadata["name"])) == ("gen-", 9)

    def test_without_kind(self, wire: Wire) -> None:
        """The body needs no apiVersion and kind."""
        body = wire.event()
        del body["apiVersion"], body["kind"]
        assert wire.ok("POST", wire.events, body)["kind"] == "Event"

    def test_resource_version(self, wire: Wire) -> None:
        """A new event with a resourceVersion is a server error."""
        body = wire.event()
        body["metadata"]["resourceVersion"] = "5"
        response = wire.request("POST", wire.events, body)
        expected = failure(500, "", "resourceVersion should not be set on objects to be created")
        assert (response.status, response.body) == (500, expected)

    def test_no_content_type(self, wire: Wire) -> None:
        """A create without a content type is read as JSON."""
        assert wire.request("POST", wire.events, wire.event(), content_type="").status == 201

    def test_charset(self, wire: Wire) -> None:
        """Parameters of the content type are ignored."""
        response = wire.request("POST", wire.events, wire.event(), content_type="application/json; charset=utf-8")
        assert response.status == 201

    def test_dry_run(self, wire: Wire) -> None:
        """With dryRun nothing is stored, and the answer has no resourceVersion."""
        made = wire.ok("POST", f"{wire.events}?dryRun=All", wire.event())
        assert "resourceVersion" not in made["metadata"]
        assert wire.request("GET", f"{wire.events}/pod.1").status == 404

    def test_unicode(self, wire: Wire) -> None:
        """Text is returned unchanged."""
        message = 'ß 漢 🎉 "quoted" \\ \n\t<&>'
        assert wire.ok("POST", wire.events, wire.event(message=message))["message"] == message


class TestRefusals:
    """Refused creates and their messages."""

    def test_other_namespace_involved(self, wire: Wire) -> None:
        """An involved object in another namespace is 422."""
        response = wire.request("POST", wire.events, wire.event(involvedObject={"namespace": "other"}))
        cause = {
            "reason": "FieldValueInvalid",
            "message": 'Invalid value: "other": does not match event.namespace',
            "field": "involvedObject.namespace",
        }
        message = f'Event "pod.1" is invalid: involvedObject.namespace: {cause["message"]}'
        expected = failure(422, "Invalid", message, {"name": "pod.1", "kind": "Event", "causes": [cause]})
        assert (response.status, response.body) == (422, expected)

    @pytest.mark.parametrize(("namespace", "status"), [("default", 201), ("kube-system", 422)])
    def test_cluster_scoped(self, wire: Wire, namespace: str, status: int) -> None:
        """An event about a cluster-scoped object must be in `default`."""
        body = {"metadata": {"generateName": "node."}, "involvedObject": {"kind": "Node", "name": "n"}}
        assert wire.request("POST", f"/api/v1/namespaces/{namespace}/events", body).status == status

    @pytest.mark.parametrize(("namespace", "status"), [("default", 201), ("kube-system", 201), ("", 422)])
    def test_cluster_scoped_with_event_time(self, wire: Wire, namespace: str, status: int) -> None:
        """With eventTime, `kube-system` is allowed, too."""
        where = namespace or wire.namespace
        body = wire.event(eventTime=MICRO, action="A", involvedObject={"kind": "Node", "name": "n"})
        body["metadata"] = {"generateName": "node."}
        assert wire.request("POST", f"/api/v1/namespaces/{where}/events", body).status == status

    def test_namespace_of_the_body(self, wire: Wire) -> None:
        """A namespace in the body that differs from the path's is 400."""
        body = wire.event()
        body["metadata"]["namespace"] = "default"
        response = wire.request("POST", wire.events, body)
        message = "the namespace of the provided object does not match the namespace sent on the request"
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    def test_other_version(self, wire: Wire) -> None:
        """A body of another API version is 400."""
        response = wire.request("POST", wire.events, wire.event(apiVersion="events.k8s.io/v1"))
        message = "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    def test_other_kind(self, wire: Wire) -> None:
        """A body of another kind is 400."""
        response = wire.request("POST", wire.events, wire.event(kind="Pod"))
        message = (
            'Pod in version "v1" cannot be handled as a Event: converting (v1.Pod) to (core.Event): unknown conversion'
        )
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize("body", [b"{not json", b"", b"[]", b'"x"', b"\xff"])
    def test_no_json(self, wire: Wire, body: bytes) -> None:
        """A body that is no JSON object is 400."""
        response = wire.request("POST", wire.events, body)
        assert (response.status, response.body["reason"]) == (400, "BadRequest")
        start = (
            "the object provided is unrecognized (must be of type Event): couldn't get version/kind; json parse error"
        )
        assert response.body["message"].startswith(start)

    def test_null(self, wire: Wire) -> None:
        """The body `null` is an empty event."""
        assert wire.request("POST", wire.events, b"null").status == 422

    def test_content_type(self, wire: Wire) -> None:
        """A create in another content type is 415."""
        response = wire.request("POST", wire.events, wire.event(), content_type="text/plain")
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
        assert (response.status, response.body) == (415, failure(415, "UnsupportedMediaType", message))

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"count": "x"}, "cannot unmarshal string into Go struct field Event.count of type int32"),
            ({"count": 2**40}, "cannot unmarshal number 1099511627776 into Go struct field Event.count of type int32"),
            ({"count": True}, "cannot unmarshal bool into Go struct field Event.count of type int32"),
            ({"reason": 4}, "cannot unmarshal number into Go struct field Event.reason of type string"),
            ({"metadata": "x"}, "cannot unmarshal string into Go struct field Event.metadata of type v1.ObjectMeta"),
            ({"metadata": {"name": 5}}, "number into Go struct field ObjectMeta.metadata.name of type string"),
            (
                {"metadata": {"labels": {"a": 1}}},
                "number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            ({"source": {"component": 1}}, "number into Go struct field EventSource.source.component of type string"),
            ({"involvedObject": []}, "array into Go struct field Event.involvedObject of type v1.ObjectReference"),
            ({"lastTimestamp": 4}, "cannot unmarshal number into Go struct field Event.lastTimestamp of type string"),
            ({"lastTimestamp": "yesterday"}, 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00"'),
        ],
        ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
    )
    def test_wrong_type(self, wire: Wire, fields: dict[str, Any], text: str) -> None:
        """A field of the wrong type is 400, and the message names the field."""
        response = wire.request("POST", wire.events, wire.event(**fields))
        assert response.status == 400
        assert response.body["message"].startswith('Event in version "v1" cannot be handled as a Event: ')
        assert text in response.body["message"]

    def test_unknown_field(self, wire: Wire) -> None:
        """An unknown field is dropped with a warning."""
        response = wire.request("POST", wire.events, wire.event(bogus=1))
        assert "bogus" not in response.body
        assert (response.status, response.headers["warning"]) == (201, '299 - "unknown field \\"bogus\\""')

    def test_unknown_field_strict(self, wire: Wire) -> None:
        """With fieldValidation=Strict, an unknown field is 400."""
        response = wire.request("POST", f"{wire.events}?fieldValidation=Strict", wire.event(bogus=1))
        message = 'Event in version "v1" cannot be handled as a Event: strict decoding error: unknown field "bogus"'
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize("field", ["labels", "annotations"])
    def test_label_keys(self, wire: Wire, field: str) -> None:
        """A key with a space is 422 in labels and annotations."""
        body = wire.event()
        body["metadata"][field] = {"a b": "c"}
        response = wire.request("POST", wire.events, body)
        assert (response.status, causes(response)) == (422, [(f"metadata.{field}", "FieldValueInvalid")])

    def test_label_value(self, wire: Wire) -> None:
        """A label's value is validated, an annotation's is not."""
        body = wire.event()
        body["metadata"] |= {"labels": {"a": "b c"}, "annotations": {"Ex.com/a": "b c"}}
        response = wire.request("POST", wire.events, body)
        assert (response.status, causes(response)) == (422, [("metadata.labels", "FieldValueInvalid")])

    def test_too_large_for_etcd(self, wire: Wire) -> None:
        """A body over about 1.5 MB is 500, not 413."""
        response = wire.request("POST", wire.events, wire.event(message="x" * 1_600_000))
        assert (response.status, response.body) == (500, failure(500, "", "etcdserver: request is too large"))

    def test_one_megabyte(self, wire: Wire) -> None:
        """A body of 1.2 MB is stored."""
        assert wire.request("POST", wire.events, wire.event(message="x" * 1_200_000)).status == 201

    def test_too_large(self, wire: Wire) -> None:
        """A body over 3 MiB is 413."""
        response = wire.request("POST", wire.events, wire.event(message="x" * 3_200_000))
        message = "Request entity too large: limit is 3145728"
        assert (response.status, response.body) == (413, failure(413, "RequestEntityTooLarge", message))


class TestTimes:
    """Parsing of times."""

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("2026-07-24T09:00:00Z", "2026-07-24T09:00:00Z"),
            ("2026-07-24T09:00:00.75+02:00", "2026-07-24T07:00:00Z"),
        ],
    )
    def test_seconds(self, wire: Wire, given: str, stored: str) -> None:
        """Timestamps are stored in whole seconds in UTC."""
        assert wire.ok("POST", wire.events, wire.event(lastTimestamp=given))["lastTimestamp"] == stored

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            (MICRO, MICRO),
            ("2026-07-24T09:00:00.000000Z", "2026-07-24T09:00:00.000000Z"),
            ("2026-07-24T11:00:00.000001+02:00", "2026-07-24T09:00:00.000001Z"),
        ],
    )
    def test_micro(self, wire: Wire, given: str, stored: str) -> None:
        """EventTime is stored in microseconds in UTC."""
        made = wire.ok("POST", wire.events, wire.event(eventTime=given, action="A"))
        assert made["eventTime"] == stored

    @pytest.mark.parametrize(
        "given", ["2026-07-24T09:00:00Z", "2026-07-24T09:00:00+00:00", "2026-07-24T09:00:00.123Z", "x"]
    )
    def test_micro_needs_six_digits(self, wire: Wire, given: str) -> None:
        """EventTime without exactly six fraction digits is 400."""
        response = wire.request("POST", wire.events, wire.event(eventTime=given, action="A"))
        assert response.status == 400
        start = f'Event in version "v1" cannot be handled as a Event: parsing time "{given}" as '
        assert response.body["message"].startswith(start)

    @pytest.mark.parametrize("given", ["2026-07-24 09:00:00Z", "2026-07-24T09:00:00", "2026-13-24T09:00:00Z"])
    def test_no_time(self, wire: Wire, given: str) -> None:
        """A time that is not RFC 3339 is 400."""
        assert wire.request("POST", wire.events, wire.event(lastTimestamp=given)).status == 400


class TestEventsV1:
    """POST of events in events.k8s.io/v1, and of core/v1 events with eventTime."""

    def test_stored_object(self, wire: Wire) -> None:
        """The answer is the complete event with the field names of events.k8s.io."""
        made = wire.ok("POST", wire.new_events, wire.new_event())
        always: dict[str, Any] = {
            "deprecatedSource": {},
            "deprecatedFirstTimestamp": None,
            "deprecatedLastTimestamp": None,
        }
        assert {**wire.new_event(), "metadata": made["metadata"], **always} == made
        assert list(made)[3:6] == ["eventTime", "reportingController", "reportingInstance"]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"note": "x" * 1025}, [("message", "FieldValueInvalid")]),
            ({"note": "é" * 513}, [("message", "FieldValueInvalid")]),
            ({"reason": "x" * 129}, [("reason", "FieldValueInvalid")]),
            ({"reason": ""}, [("reason", "FieldValueRequired")]),
            ({"action": "x" * 129}, [("action", "FieldValueInvalid")]),
            ({"action": ""}, [("action", "FieldValueRequired")]),
            ({"reportingInstance": "x" * 129}, [("reportingInstance", "FieldValueInvalid")]),
            ({"reportingInstance": ""}, [("reportingInstance", "FieldValueRequired")]),
            ({"reportingController": "x" * 64}, [("reportingController", "FieldValueInvalid")]),
            ({"reportingController": "a b"}, [("reportingController", "FieldValueInvalid")]),
            (
                {"reportingController": ""},
                [
                    ("reportingController", "FieldValueRequired"),
                    ("reportingController", "FieldValueInvalid"),
                    ("reportingController", "FieldValueInvalid"),
                ],
            ),
            ({"type": "Weird"}, [("type", "FieldValueInvalid")]),
            ({"type": ""}, [("type", "FieldValueInvalid")]),
            ({"eventTime": None}, [("eventTime", "FieldValueRequired")]),
            ({"deprecatedCount": 4}, [("count", "FieldValueInvalid")]),
            ({"deprecatedSource": {"component": "c"}}, [("source", "FieldValueInvalid")]),
            ({"deprecatedFirstTimestamp": "2026-07-24T09:00:00Z"}, [("firstTimestamp", "FieldValueInvalid")]),
            ({"deprecatedLastTimestamp": "2026-07-24T09:00:00Z"}, [("lastTimestamp", "FieldValueInvalid")]),
            ({"series": {"count": 1, "lastObservedTime": MICRO}}, [("series.count", "FieldValueInvalid")]),
            ({"series": {"count": 2}}, [("series.lastObservedTime", "FieldValueRequired")]),
            ({"regarding": {"kind": "Node", "name": "n"}}, [("involvedObject.namespace", "FieldValueInvalid")]),
            ({"note": "x" * 1025, "type": "W"}, [("message", "FieldValueInvalid"), ("type", "FieldValueInvalid")]),
        ],
        ids=lambda value: str(value)[:32] if isinstance(value, dict) else "",
    )
    def test_refused(self, wire: Wire, fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
        """An event that events.k8s.io does not accept is 422 with the field."""
        response = wire.request("POST", wire.new_events, wire.new_event(**fields))
        assert (response.status, response.body["reason"], causes(response)) == (422, "Invalid", expected)

    @pytest.mark.parametrize(
        "fields",
        [
            {"note": ""},
            {"note": "é" * 512},
            {"reason": "x" * 128},
            {"related": {"kind": "Node"}},
            {"reportingController": "example.com/controller"},
            {"series": {"count": 2, "lastObservedTime": MICRO}},
        ],
        ids=lambda value: str(value)[:32],
    )
    def test_accepted(self, wire: Wire, fields: dict[str, Any]) -> None:
        """An event within the limits is stored."""
        assert wire.request("POST", wire.new_events, wire.new_event(**fields)).status == 201

    def test_other_namespace(self, wire: Wire) -> None:
        """With eventTime, the object can be in another namespace."""
        response = wire.request("POST", wire.new_events, wire.new_event(regarding={"namespace": "o", "name": "n"}))
        assert response.status == 201

    def test_name(self, wire: Wire) -> None:
        """In events.k8s.io the name must be a DNS subdomain."""
        response = wire.request("POST", wire.new_events, wire.new_event("A b"))
        assert (response.status, causes(response)) == (422, [("metadata.name", "FieldValueInvalid")])

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"message": "x" * 1025}, ["message"]),
            ({"action": ""}, ["action"]),
            ({"action": "", "message": "x" * 1025}, ["action", "message"]),
            ({"reason": ""}, ["reason"]),
            ({"reportingComponent": "a b"}, ["reportingComponent"]),
        ],
        ids=str,
    )
    def test_core_with_event_time(self, wire: Wire, fields: dict[str, Any], expected: list[str]) -> None:
        """With eventTime, core/v1 has the same limits."""
        response = wire.request("POST", wire.events, wire.event(**{"eventTime": MICRO, "action": "A", **fields}))
        assert (response.status, [field for field, _ in causes(response)]) == (422, expected)

    def test_core_with_event_time_keeps_the_rest(self, wire: Wire) -> None:
        """With eventTime, core/v1 still accepts count, times, source and any type."""
        body = wire.event(eventTime=MICRO, action="A", type="Weird")
        assert wire.request("POST", wire.events, body).status == 201


class TestViews:
    """One event in two API versions."""

    def test_core_as_events_v1(self, wire: Wire) -> None:
        """A core/v1 event is readable through events.k8s.io with that group's field names."""
        metadata = wire.ok("POST", wire.events, wire.event())["metadata"]
        assert {
            "kind": "Event",
            "apiVersion": "events.k8s.io/v1",
            "metadata": metadata,
            "eventTime": None,
            "reportingController": "c",
            "reportingInstance": "h",
            "reason": "Started",
            "regarding": wire.event()["involvedObject"],
            "note": "hello",
            "type": "Normal",
            "deprecatedSource": {"component": "c", "host": "h"},
            "deprecatedFirstTimestamp": "2026-07-24T09:00:00Z",
            "deprecatedLastTimestamp": "2026-07-24T09:00:00Z",
            "deprecatedCount": 1,
        } == wire.ok("GET", f"{wire.new_events}/pod.1")

    def test_events_v1_as_core(self, wire: Wire) -> None:
        """An events.k8s.io event is readable through core/v1 with that group's field names."""
        series = {"count": 3, "lastObservedTime": LATER}
        related = {"kind": "Node", "name": "n"}
        body = wire.new_event(series=series, related=related)
        metadata = wire.ok("POST", wire.new_events, body)["metadata"]
        assert {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": metadata,
            "involvedObject": body["regarding"],
            "reason": "Started",
            "message": "hello",
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "type": "Normal",
            "eventTime": MICRO,
            "series": series,
            "action": "Starting",
            "related": related,
            "reportingComponent": "c",
            "reportingInstance": "h",
        } == wire.ok("GET", f"{wire.events}/pod.1")

    def test_delete_through_either(self, wire: Wire) -> None:
        """An event deleted in one version is gone from the other."""
        wire.ok("POST", wire.events, wire.event())
        wire.ok("DELETE", f"{wire.new_events}/pod.1")
        assert wire.request("GET", f"{wire.events}/pod.1").status == 404


class TestPatch:
    """PATCH of events."""

    @pytest.mark.parametrize("content_type", [STRATEGIC, MERGE, f"{STRATEGIC}; charset=utf-8"])
    def test_repeat(self, wire: Wire, content_type: str) -> None:
        """The patch of a repeated event changes only count, lastTimestamp and message."""
        made = wire.ok("POST", wire.events, wire.event())
        change = {"count": 2, "lastTimestamp": "2026-07-24T09:00:01Z", "message": "again"}
        response = wire.patch("pod.1", change, content_type)
        after = bare(response.body)
        version = after["metadata"].pop("resourceVersion")
        assert int(version) > int(made["metadata"].pop("resourceVersion"))
        assert (200, {**made, **change}) == (response.status, after)

    def test_json_patch(self, wire: Wire) -> None:
        """A JSON Patch is applied operation by operation."""
        wire.ok("POST", wire.events, wire.event())
        patch = [
            {"op": "test", "path": "/count", "value": 1},
            {"op": "replace", "path": "/reason", "value": "x"},
            {"op": "add", "path": "/metadata/labels", "value": {"a~b": "c"}},
            {"op": "copy", "from": "/message", "path": "/action"},
            {"op": "remove", "path": "/count"},
            {"op": "move", "from": "/metadata/labels/a~0b", "path": "/metadata/labels/d"},
        ]
        after = bare(wire.patch("pod.1", patch, JSON_PATCH).body)
        assert (after["reason"], after["action"], "count" in after) == ("x", "hello", False)
        assert after["metadata"]["labels"] == {"d": "c"}

    @pytest.mark.parametrize(
        "operation",
        [{"op": "test", "path": "/reason", "value": "no"}, {"op": "remove", "path": "/no"}],
        ids=["test", "remove"],
    )
    def test_json_patch_that_does_not_fit(self, wire: Wire, operation: dict[str, str]) -> None:
        """A JSON Patch that cannot be applied is 422."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", [operation], JSON_PATCH)
        message = "the server rejected our request due to an error in our request"
        assert (response.status, response.body) == (422, failure(422, "Invalid", message, {}))

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
    def test_content_type(self, wire: Wire, content_type: str) -> None:
        """A patch in another content type is 415."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"count": 2}, content_type)
        expected = failure(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        assert (response.status, response.body) == (415, expected)

    @pytest.mark.parametrize("new", [False, True])
    def test_unknown_name(self, wire: Wire, new: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """A patch of a missing event is 404 NotFound."""
        response = wire.patch("x.1", {"series": {"count": 2}}, new=new)
        resource = "events.events.k8s.io" if new else "events"
        details = {"name": "x.1", **({"group": "events.k8s.io"} if new else {}), "kind": "events"}
        expected = failure(404, "NotFound", f'{resource} "x.1" not found', details)
        assert (response.status, response.body) == (404, expected)

    @pytest.mark.parametrize("content_type", [STRATEGIC, MERGE])
    def test_null_removes(self, wire: Wire, content_type: str) -> None:
        """Null removes a field."""
        body = wire.event()
        body["metadata"]["labels"] = {"a": "b"}
        wire.ok("POST", wire.events, body)
        after = wire.patch("pod.1", {"count": None, "metadata": {"labels": None}}, content_type).body
        assert ("count" in after, "labels" in after["metadata"]) == (False, False)

    def test_nothing_changes(self, wire: Wire) -> None:
        """A patch without changes keeps the resourceVersion."""
        made = wire.ok("POST", wire.events, wire.event())
        assert made == bare(wire.patch("pod.1", {"count": 1, "bogus": 7}).body)

    def test_merges_deeply(self, wire: Wire) -> None:
        """Maps are merged key by key."""
        body = wire.event()
        body["metadata"]["annotations"] = {"a": "1", "b": "2"}
        wire.ok("POST", wire.events, body)
        after = wire.patch("pod.1", {"metadata": {"annotations": {"b": "3", "c": "4"}}}).body
        assert after["metadata"]["annotations"] == {"a": "1", "b": "3", "c": "4"}

    @pytest.mark.parametrize(
        ("content_type", "body", "message"),
        [
            (STRATEGIC, b"{bad", "invalid character 'b' looking for beginning of object key string"),
            (STRATEGIC, b"", "unexpected end of JSON input"),
            (STRATEGIC, b"[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            (MERGE, b"", "error decoding patch: unexpected end of JSON input"),
            (MERGE, b"null", "Invalid JSON Patch"),
            (
                MERGE,
                b"[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                JSON_PATCH,
                b"{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
        ],
    )
    def test_unreadable(self, wire: Wire, content_type: str, body: bytes, message: str) -> None:
        """A malformed patch is 400."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", body, content_type)
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"count": "x"}, '"map[count:x]": unrecognized type: int32'),
            ({"reason": 4}, '"map[reason:4]": cannot convert int64 to string'),
            ({"source": {"host": 4}, "count": 1}, '"map[count:1 source:map[host:4]]": cannot convert int64 to string'),
            ({"lastTimestamp": "x"}, '"map[lastTimestamp:x]": parsing time "x"'),
            ({"eventTime": "2026-07-24T09:00:00Z"}, 'parsing time "2026-07-24T09:00:00Z"'),
        ],
        ids=str,
    )
    def test_wrong_type(self, wire: Wire, change: dict[str, Any], text: str) -> None:
        """A patch with a field of the wrong type is 422, not 400."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", change)
        assert (response.status, causes(response)) == (422, [("patch", "FieldValueInvalid")])
        assert text in response.body["message"]

    @pytest.mark.parametrize("content_type", [MERGE, JSON_PATCH])
    def test_wrong_type_otherwise(self, wire: Wire, content_type: str) -> None:
        """This also applies to the other kinds of patches."""
        wire.ok("POST", wire.events, wire.event())
        patch = [{"op": "replace", "path": "/count", "value": "x"}] if content_type == JSON_PATCH else {"count": "x"}
        response = wire.patch("pod.1", patch, content_type)
        assert (response.status, causes(response)) == (422, [("patch", "FieldValueInvalid")])

    @pytest.mark.parametrize(
        ("metadata", "status", "reason"),
        [
            ({"name": "other"}, 400, "BadRequest"),
            ({"namespace": "other"}, 400, "BadRequest"),
            ({"resourceVersion": "1"}, 409, "Conflict"),
            ({"uid": "1"}, 422, "Invalid"),
            ({"labels": {"a b": "c"}}, 422, "Invalid"),
        ],
        ids=str,
    )
    def test_metadata(self, wire: Wire, metadata: dict[str, Any], status: int, reason: str) -> None:
        """A patch cannot rename an event or apply to an older version of it."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"metadata": metadata, "count": 5})
        assert (response.status, response.body["reason"]) == (status, reason)

    def test_conflict(self, wire: Wire) -> None:
        """The message of a conflict names the fix."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"metadata": {"resourceVersion": "1"}, "count": 5})
        message = (
            'Operation cannot be fulfilled on events "pod.1": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
        assert response.body == failure(409, "Conflict", message, {"name": "pod.1", "kind": "events"})

    def test_involved_namespace(self, wire: Wire) -> None:
        """A patched core/v1 event must still be about its own namespace."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"involvedObject": {"namespace": "other"}})
        assert (response.status, causes(response)) == (422, [("involvedObject.namespace", "FieldValueInvalid")])

    def test_too_large(self, wire: Wire) -> None:
        """A patch that makes the event too large for etcd is 500."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"message": "x" * 1_600_000}, MERGE)
        assert (response.status, response.body) == (500, failure(500, "", "etcdserver: request is too large"))

    def test_dry_run(self, wire: Wire) -> None:
        """A patch with dryRun changes nothing."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.ok("PATCH", f"{wire.events}/pod.1?dryRun=All", {"count": 70}, MERGE)["count"] == 70
        assert wire.ok("GET", f"{wire.events}/pod.1")["count"] == 1

    def test_series(self, wire: Wire) -> None:
        """Through events.k8s.io, a series can be added and increased."""
        wire.ok("POST", wire.new_events, wire.new_event())
        wire.patch("pod.1", {"series": {"count": 2, "lastObservedTime": MICRO}}, new=True)
        response = wire.patch("pod.1", {"series": {"count": 3}}, new=True)
        assert response.body["series"] == {"count": 3, "lastObservedTime": MICRO}

    @pytest.mark.parametrize(
        ("change", "fields"),
        [
            ({"note": "x"}, ["message"]),
            ({"reason": "x"}, ["reason", "reason"]),
            ({"type": "Warning"}, ["type"]),
            ({"action": "x"}, ["action"]),
            ({"regarding": {"name": "x"}}, ["involvedObject"]),
            ({"related": {"name": "x"}}, ["related"]),
            ({"eventTime": LATER}, ["eventTime"]),
            ({"reportingController": "x"}, ["reportingController"]),
            ({"reportingInstance": "x"}, ["reportingInstance"]),
            ({"deprecatedCount": 3}, ["count"]),
            ({"deprecatedSource": {"component": "x"}}, ["source"]),
            ({"deprecatedLastTimestamp": "2026-07-24T09:00:00Z"}, ["lastTimestamp"]),
            ({"series": {"count": 1, "lastObservedTime": MICRO}}, ["series.count"]),
        ],
        ids=str,
    )
    def test_immutable(self, wire: Wire, change: dict[str, Any], fields: list[str]) -> None:
        """Through events.k8s.io, other fields are immutable."""
        wire.ok("POST", wire.new_events, wire.new_event())
        response = wire.patch("pod.1", change, new=True)
        assert (response.status, [field for field, _ in causes(response)]) == (422, fields)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (
                {"regarding": {"uid": "u"}},
                (
                    'involvedObject: Invalid value: {"Kind":"Pod","Namespace":"NS","Name":"pod","UID":"u",'
                    '"APIVersion":"v1","ResourceVersion":"","FieldPath":""}: field is immutable'
                ),
            ),
            ({"deprecatedCount": 3}, "count: Invalid value: 3: field is immutable"),
            ({"note": "x"}, 'message: Invalid value: "x": field is immutable'),
            (
                {"deprecatedSource": {"host": "x"}},
                'source: Invalid value: {"Component":"","Host":"x"}: field is immutable',
            ),
        ],
        ids=["object", "number", "text", "source"],
    )
    def test_immutable_text(self, wire: Wire, change: dict[str, Any], text: str) -> None:
        """The message contains the refused value."""
        wire.ok("POST", wire.new_events, wire.new_event())
        response = wire.patch("pod.1", change, new=True)
        assert f'Event "pod.1" is invalid: {text.replace("NS", wire.namespace)}' == response.body["message"]

    def test_core_patch_of_events_v1(self, wire: Wire) -> None:
        """Through core/v1, all fields of an events.k8s.io event can change."""
        wire.ok("POST", wire.new_events, wire.new_event())
        assert wire.patch("pod.1", {"message": "x", "count": 4}).status == 200
        assert wire.ok("GET", f"{wire.new_events}/pod.1")["deprecatedCount"] == 4

    def test_labels_through_events_v1(self, wire: Wire) -> None:
        """Labels can always change."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"metadata": {"labels": {"a": "b"}}}, new=True)
        assert (response.status, response.body["metadata"]["labels"]) == (200, {"a": "b"})


class TestPut:
    """PUT of events."""

    def test_replaces(self, wire: Wire) -> None:
        """A PUT replaces the event and keeps its identity."""
        made = wire.ok("POST", wire.events, wire.event())
        after = wire.ok("PUT", f"{wire.events}/pod.1", wire.event(count=9))
        assert (9, made["metadata"]["uid"]) == (after["count"], after["metadata"]["uid"])

    def test_creates(self, wire: Wire) -> None:
        """A PUT of a missing event creates it."""
        assert wire.request("PUT", f"{wire.events}/pod.1", wire.event()).status == 201

    def test_other_name(self, wire: Wire) -> None:
        """The name in the body must match the path."""
        response = wire.request("PUT", f"{wire.events}/pod.2", wire.event())
        message = "the name of the object (pod.1) does not match the name on the URL (pod.2)"
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    def test_old_version(self, wire: Wire) -> None:
        """A PUT for an older version is a conflict."""
        wire.ok("POST", wire.events, wire.event())
        body = wire.event(count=9)
        body["metadata"]["resourceVersion"] = "1"
        assert wire.request("PUT", f"{wire.events}/pod.1", body).status == 409


class TestRead:
    """GET and DELETE."""

    def test_get(self, wire: Wire) -> None:
        """A GET returns the same object as the create."""
        made = wire.ok("POST", wire.events, wire.event())
        assert made == wire.ok("GET", f"{wire.events}/pod.1")

    def test_escaped_name(self, wire: Wire) -> None:
        """Names in paths can be escaped."""
        wire.ok("POST", wire.events, wire.event("A b:7"))
        assert wire.ok("GET", f"{wire.events}/A%20b%3a7")["metadata"]["name"] == "A b:7"

    def test_list(self, wire: Wire) -> None:
        """A list has its own version, and its items have no kind."""
        wire.ok("POST", wire.events, wire.event("b.1"))
        last = wire.ok("POST", wire.events, wire.event("a.1"))
        listed = wire.ok("GET", wire.events)
        assert (listed["kind"], listed["apiVersion"], names(listed)) == ("EventList", "v1", ["a.1", "b.1"])
        assert int(listed["metadata"]["resourceVersion"]) >= int(last["metadata"]["resourceVersion"])
        assert next(iter(listed["items"][0])) == "metadata"

    def test_list_of_events_v1(self, wire: Wire) -> None:
        """The other API version lists the same events."""
        wire.ok("POST", wire.events, wire.event("a.1"))
        listed = wire.ok("GET", wire.new_events)
        assert (listed["kind"], listed["apiVersion"], names(listed)) == ("EventList", "events.k8s.io/v1", ["a.1"])

    def test_list_of_all_namespaces(self, wire: Wire) -> None:
        """Without a namespace, the events of all namespaces are listed."""
        wire.ok("POST", wire.events, wire.event())
        listed = wire.ok("GET", f"/api/v1/events?fieldSelector=metadata.namespace={wire.namespace}")
        assert names(listed) == ["pod.1"]

    def test_list_of_an_unknown_namespace(self, wire: Wire) -> None:
        """A missing namespace has no events."""
        assert wire.ok("GET", "/api/v1/namespaces/no-such/events")["items"] == []

    def test_versions_grow(self, wire: Wire) -> None:
        """Each write gets a greater resourceVersion."""
        versions = [wire.ok("POST", wire.events, wire.event(f"{n}"))["metadata"]["resourceVersion"] for n in range(3)]
        versions.append(wire.patch("0", {"count": 2}).body["metadata"]["resourceVersion"])
        assert all(int(a) < int(b) for a, b in itertools.pairwise(versions))

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_unknown_name(self, wire: Wire, method: str) -> None:
        """A missing event is 404 NotFound."""
        response = wire.request(method, f"{wire.events}/no")
        expected = failure(404, "NotFound", 'events "no" not found', {"name": "no", "kind": "events"})
        assert (response.status, response.body) == (404, expected)

    def test_delete(self, wire: Wire) -> None:
        """A delete is answered with a Status of success that names the object."""
        made = wire.ok("POST", wire.events, wire.event())
        assert {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": "pod.1", "kind": "events", "uid": made["metadata"]["uid"]},
        } == wire.ok("DELETE", f"{wire.events}/pod.1")
        assert wire.request("GET", f"{wire.events}/pod.1").status == 404

    def test_delete_collection(self, wire: Wire) -> None:
        """A delete of the collection removes the selected objects and returns them."""
        wire.ok("POST", wire.events, wire.event("a.1"))
        wire.ok("POST", wire.events, wire.event("b.1", reason="Other"))
        assert names(wire.ok("DELETE", f"{wire.events}?fieldSelector=reason=Other")) == ["b.1"]
        assert names(wire.ok("GET", wire.events)) == ["a.1"]

    @pytest.mark.parametrize(("method", "suffix"), [("POST", "/pod.1"), ("PUT", ""), ("OPTIONS", ""), ("PATCH", "")])
    def test_method(self, wire: Wire, method: str, suffix: str) -> None:
        """A method that the path does not support is 405."""
        response = wire.request(method, wire.events + suffix, {})
        message = "the server does not allow this method on the requested resource"
        assert (response.status, response.body) == (405, failure(405, "MethodNotAllowed", message, {}))

    def test_create_without_namespace(self, wire: Wire) -> None:
        """Events cannot be created without a namespace in the path."""
        assert wire.request("POST", "/api/v1/events", wire.event()).status == 405

    @pytest.mark.parametrize("path", ["/api/v1/events/x", "/api/v1/nope", "/api/v1/namespaces/default/nope/x"])
    def test_unknown_resource(self, wire: Wire, path: str) -> None:
        """A missing resource is 404 without details."""
        response = wire.request("GET", path)
        message = "the server could not find the requested resource"
        assert (response.status, response.body) == (404, failure(404, "NotFound", message, {}))

    @pytest.mark.parametrize("path", ["/nope", "/apis/nope.io/v1", "/apis/nope.io/v1/things"])
    def test_unknown_path(self, wire: Wire, path: str) -> None:
        """A missing path is 404 in plain text."""
        response = wire.request("GET", path)
        assert (response.status, response.body) == (404, "404 page not found\n")


class TestSelect:
    """Selectors and pages."""

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("involvedObject.name=pod", ["a", "b"]),
            ("involvedObject.kind=Pod,involvedObject.apiVersion==v1,involvedObject.uid=", ["a", "b"]),
            ("involvedObject.name=other", ["c"]),
            ("involvedObject.fieldPath=,involvedObject.resourceVersion=", ["a", "b", "c"]),
            ("reason=Other", ["b"]),
            ("reason!=Other", ["a", "c"]),
            ("type=Warning", ["c"]),
            ("source=c", ["a", "b"]),
            ("source=late", ["c"]),
            ("reportingComponent=late", ["c"]),
            ("metadata.name=a", ["a"]),
            ("metadata.name!=a,type=Normal", ["b"]),
            ("metadata.namespace=default", []),
        ],
    )
    def test_fields(self, wire: Wire, selector: str, expected: list[str]) -> None:
        """A field selector selects by the fields of core/v1."""
        wire.ok("POST", wire.events, wire.event("a"))
        wire.ok("POST", wire.events, wire.event("b", reason="Other"))
        involved = {"namespace": wire.namespace, "name": "other"}
        late = wire.event("c", type="Warning", involvedObject=involved, source={}, reportingComponent="late")
        wire.ok("POST", wire.events, late)
        assert names(wire.ok("GET", f"{wire.events}?fieldSelector={selector}")) == expected

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [("regarding.name=pod", ["a"]), ("reportingController=x", []), ("reason=Started,type=Normal", ["a"])],
    )
    def test_fields_of_events_v1(self, wire: Wire, selector: str, expected: list[str]) -> None:
        """In events.k8s.io, field selectors use that group's field names."""
        wire.ok("POST", wire.events, wire.event("a"))
        assert names(wire.ok("GET", f"{wire.new_events}?fieldSelector={selector}")) == expected

    @pytest.mark.parametrize(
        ("new", "selector", "message"),
        [
            (False, "bogus=1", "field label not supported: bogus"),
            (False, "regarding.name=1", "field label not supported: regarding.name"),
            (True, "involvedObject.name=1", "field label not supported: involvedObject.name"),
            (False, "a", "invalid selector: 'a'; can't understand 'a'"),
        ],
    )
    def test_bad_fields(self, wire: Wire, new: bool, selector: str, message: str) -> None:  # noqa: FBT001 - a parameter of the test
        """An unsupported field selector is 400."""
        response = wire.request("GET", f"{wire.new_events if new else wire.events}?fieldSelector={selector}")
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("app", ["a", "b"]),
            ("!app", ["c"]),
            ("app=x", ["a"]),
            ("app==x", ["a"]),
            ("app!=x", ["b", "c"]),
            ("app%20in%20(x,y)", ["a", "b"]),
            ("app%20notin%20(x)", ["b", "c"]),
            ("app,app!=y", ["a"]),
        ],
    )
    def test_labels(self, wire: Wire, selector: str, expected: list[str]) -> None:
        """A label selector selects by labels."""
        for name, labels in (("a", {"app": "x"}), ("b", {"app": "y"}), ("c", {})):
            body = wire.event(name)
            body["metadata"]["labels"] = labels
            wire.ok("POST", wire.events, body)
        assert names(wire.ok("GET", f"{wire.events}?labelSelector={selector}")) == expected

    def test_bad_labels(self, wire: Wire) -> None:
        """A malformed label selector is 400."""
        response = wire.request("GET", f"{wire.events}?labelSelector=a===b")
        assert (response.status, response.body["reason"]) == (400, "BadRequest")

    def test_pages(self, wire: Wire) -> None:
        """With a limit, a list has pages. All but the last have the number of remaining items."""
        for name in "abcde":
            wire.ok("POST", wire.events, wire.event(name))
        first = wire.ok("GET", f"{wire.events}?limit=2")
        second = wire.ok("GET", f"{wire.events}?limit=2&continue={first['metadata']['continue']}")
        third = wire.ok("GET", f"{wire.events}?limit=2&continue={second['metadata']['continue']}")
        assert [names(page) for page in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
        left = [page["metadata"].get("remainingItemCount") for page in (first, second, third)]
        assert (left, "continue" in third["metadata"]) == ([3, 1, None], False)
        assert len({page["metadata"]["resourceVersion"] for page in (first, second, third)}) == 1

    def test_pages_with_a_selector(self, wire: Wire) -> None:
        """With a selector, a page has no number of remaining items."""
        for name in "abc":
            wire.ok("POST", wire.events, wire.event(name))
        page = wire.ok("GET", f"{wire.events}?limit=1&fieldSelector=type=Normal")
        assert (names(page), "remainingItemCount" in page["metadata"]) == (["a"], False)

    def test_pages_of_one_moment(self, wire: Wire) -> None:
        """All pages show the state at the first page, whatever was written since."""
        for name in "abcd":
            wire.ok("POST", wire.events, wire.event(name))
        first = wire.ok("GET", f"{wire.events}?limit=2")
        wire.ok("DELETE", f"{wire.events}/c")
        wire.patch("d", {"count": 5})
        wire.ok("POST", wire.events, wire.event("bb"))
        rest = wire.ok("GET", f"{wire.events}?continue={first['metadata']['continue']}")
        assert [(item["metadata"]["name"], item["count"]) for item in rest["items"]] == [("c", 1), ("d", 1)]
        assert {"resourceVersion": first["metadata"]["resourceVersion"]} == rest["metadata"]

    def test_expired_page(self, wire: Wire) -> None:
        """A page of a compacted version is 410, with a token for the rest at another version."""
        for name in "abcd":
            wire.ok("POST", wire.events, wire.event(name))
        first = wire.ok("GET", f"{wire.events}?limit=2")
        wire.ok("DELETE", f"{wire.events}/c")
        wire.ok("POST", wire.events, wire.event("e"))
        wire.subject.compact()
        response = wire.request("GET", f"{wire.events}?limit=2&continue={first['metadata']['continue']}")
        message = response.body.pop("message")
        metadata = response.body.pop("metadata")
        assert response.body == {"kind": "Status", "apiVersion": "v1", "status": "Failure"} | {
            "reason": "Expired",
            "code": 410,
        }
        assert (response.status, message[:42]) == (410, "The provided continue parameter is too old")
        rest = wire.ok("GET", f"{wire.events}?limit=2&continue={metadata['continue']}")
        assert (names(rest), list(metadata)) == (["d", "e"], ["continue"])
        assert int(rest["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])

    def test_page_of_a_version(self, wire: Wire) -> None:
        """A continue token cannot be combined with a version."""
        for name in "ab":
            wire.ok("POST", wire.events, wire.event(name))
        token = wire.ok("GET", f"{wire.events}?limit=1")["metadata"]["continue"]
        response = wire.request("GET", f"{wire.events}?limit=1&resourceVersion=1&continue={token}")
        message = "specifying resource version is not allowed when using continue"
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize("query", ["limit=x", "continue=bogus", "resourceVersion=abc"])
    def test_bad_parameters(self, wire: Wire, query: str) -> None:
        """A malformed parameter is 400."""
        response = wire.request("GET", f"{wire.events}?{query}")
        assert (response.status, response.body["reason"]) == (400, "BadRequest")


class TestNamespaces:
    """Namespaces and events in them."""

    def test_unknown(self, wire: Wire) -> None:
        """An event in a missing namespace is 404 for the namespace."""
        body = {**wire.event(), "metadata": {"name": "a"}}
        response = wire.request("POST", "/api/v1/namespaces/no-such/events", body)
        expected = failure(404, "NotFound", 'namespaces "no-such" not found', {"name": "no-such", "kind": "namespaces"})
        assert (response.status, response.body) == (404, expected)

    def test_create(self, wire: Wire) -> None:
        """A namespace is Active and labelled with its name."""
        found = wire.ok("GET", f"/api/v1/namespaces/{wire.namespace}")
        assert (found["kind"], found["status"]) == ("Namespace", {"phase": "Active"})
        assert {"kubernetes.io/metadata.name": wire.namespace} == found["metadata"]["labels"]
        assert found["spec"] == {"finalizers": ["kubernetes"]}

    def test_create_again(self, wire: Wire) -> None:
        """A create of an existing namespace is 409."""
        response = wire.request("POST", "/api/v1/namespaces", {"metadata": {"name": wire.namespace}})
        details = {"name": wire.namespace, "kind": "namespaces"}
        expected = failure(409, "AlreadyExists", f'namespaces "{wire.namespace}" already exists', details)
        assert (response.status, response.body) == (409, expected)

    def test_bad_name(self, wire: Wire) -> None:
        """A namespace's name must be a DNS label, and becomes a label's value."""
        response = wire.request("POST", "/api/v1/namespaces", {"metadata": {"name": "Term_"}})
        expected = [("metadata.name", "FieldValueInvalid"), ("metadata.labels", "FieldValueInvalid")]
        assert (response.status, causes(response)) == (422, expected)

    def test_list(self, wire: Wire) -> None:
        """The four standard namespaces exist."""
        found = set(names(wire.ok("GET", "/api/v1/namespaces")))
        assert found >= {"default", "kube-system", "kube-public", "kube-node-lease", wire.namespace}

    def test_protected(self, wire: Wire) -> None:
        """The namespace `default` cannot be deleted."""
        response = wire.request("DELETE", "/api/v1/namespaces/default")
        why = 'namespaces "default" is forbidden: this namespace may not be deleted'
        assert (response.status, response.body["message"]) == (403, why)

    def test_terminating(self, wire: Wire) -> None:
        """A deleted namespace is Terminating until a controller has emptied it."""
        gone = wire.ok("DELETE", f"/api/v1/namespaces/{wire.namespace}")
        assert gone["status"] == {"phase": "Terminating"}
        assert gone["metadata"]["deletionTimestamp"] > "2026"
        assert gone == wire.ok("DELETE", f"/api/v1/namespaces/{wire.namespace}")

    @pytest.mark.parametrize("new", [False, True])
    def test_create_while_terminating(self, wire: Wire, new: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """A create in a terminating namespace is 403 with the cause NamespaceTerminating."""
        wire.ok("DELETE", f"/api/v1/namespaces/{wire.namespace}")
        response = (
            wire.request("POST", wire.new_events, wire.new_event())
            if new
            else wire.request("POST", wire.events, wire.event())
        )
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {wire.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        resource, group = ("events.events.k8s.io", {"group": "events.k8s.io"}) if new else ("events", {})
        message = (
            f'{resource} "pod.1" is forbidden: '
            f"unable to create new content in namespace {wire.namespace} because it is being terminated"
        )
        details = {"name": "pod.1", **group, "kind": "events", "causes": [cause]}
        assert (response.status, response.body) == (403, failure(403, "Forbidden", message, details))

    def test_patch_while_terminating(self, wire: Wire) -> None:
        """Objects in a terminating namespace can still be patched."""
        wire.ok("POST", wire.events, wire.event())
        wire.ok("DELETE", f"/api/v1/namespaces/{wire.namespace}")
        assert wire.patch("pod.1", {"count": 2}).status == 200


class TestAccess:
    """Tokens and permissions."""

    def test_bad_token(self, wire: Wire) -> None:
        """An unknown token is 401."""
        response = wire.request("GET", wire.events, token="bad")
        assert (response.status, response.body) == (401, failure(401, "Unauthorized", "Unauthorized"))

    def test_no_token(self, wire: Wire) -> None:
        """Without a token, the user is anonymous and has no permissions: 403."""
        response = wire.request("POST", wire.events, wire.event(), token="")
        message = (
            'events is forbidden: User "system:anonymous" cannot create resource "events" in API group "" '
            f'in the namespace "{wire.namespace}"'
        )
        assert (response.status, response.body) == (403, failure(403, "Forbidden", message, {"kind": "events"}))

    @pytest.mark.parametrize(
        ("method", "suffix", "verb"),
        [
            ("GET", "", "list"),
            ("GET", "?watch=1", "watch"),
            ("POST", "", "create"),
            ("DELETE", "", "deletecollection"),
            ("GET", "/x", "get"),
            ("PATCH", "/x", "patch"),
            ("PUT", "/x", "update"),
            ("DELETE", "/x", "delete"),
        ],
    )
    @pytest.mark.parametrize("new", [False, True])
    def test_forbidden(self, wire: Wire, method: str, suffix: str, verb: str, new: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """The message of a 403 names user, verb, resource, group and namespace."""
        path = (wire.new_events if new else wire.events) + suffix
        response = wire.request(method, path, {}, user="stranger", content_type=MERGE)
        group = "events.k8s.io" if new else ""
        subject = ("events.events.k8s.io" if new else "events") + (' "x"' if "x" in suffix else "")
        message = (
            f'{subject} is forbidden: User "stranger" cannot {verb} resource "events" in API group "{group}" '
            f'in the namespace "{wire.namespace}"'
        )
        details = {"name": "x", "group": group, "kind": "events"}
        expected = {key: value for key, value in details.items() if value and (key != "name" or "x" in suffix)}
        assert (response.status, response.body) == (403, failure(403, "Forbidden", message, expected))

    def test_cluster_scope(self, wire: Wire) -> None:
        """For a cluster-scoped resource, the message names the cluster scope."""
        response = wire.request("GET", "/api/v1/nodes/x", user="stranger")
        message = (
            'nodes "x" is forbidden: User "stranger" cannot get resource "nodes" in API group "" at the cluster scope'
        )
        details = {"name": "x", "kind": "nodes"}
        assert (response.status, response.body) == (403, failure(403, "Forbidden", message, details))

    def test_unknown_resource(self, wire: Wire) -> None:
        """Permissions are checked before existence."""
        assert wire.request("GET", "/apis/nope.io/v1/things", user="stranger").status == 403

    def test_before_the_body(self, wire: Wire) -> None:
        """Permissions are checked before the body and the namespace."""
        path = "/api/v1/namespaces/no-such/events"
        assert wire.request("POST", path, b"{", user="stranger", content_type="x/y").status == 403

    def test_recorder(self, wire: Wire) -> None:
        """The verbs create and patch are sufficient for a recorder."""
        statuses = [
            wire.request("POST", wire.events, wire.event(), user="recorder").status,
            wire.request("PATCH", f"{wire.events}/pod.1", {"count": 2}, user="recorder", content_type=MERGE).status,
            wire.request("GET", f"{wire.events}/pod.1", user="recorder").status,
            wire.request("GET", wire.events, user="recorder").status,
        ]
        assert statuses == [201, 200, 403, 403]

    def test_create_only(self, wire: Wire) -> None:
        """Without the verb patch, a patch is 403, whether or not the event exists."""
        wire.request("POST", wire.events, wire.event(), user="creator")
        response = wire.request("PATCH", f"{wire.events}/pod.1", {"count": 2}, user="creator", content_type=MERGE)
        message = (
            'events "pod.1" is forbidden: User "creator" cannot patch resource "events" in API group "" '
            f'in the namespace "{wire.namespace}"'
        )
        assert (response.status, response.body["message"]) == (403, message)

    def test_paths(self, wire: Wire) -> None:
        """Health and version are public. Discovery requires a token."""
        open_to_all = [
            wire.request("GET", path, token="").status for path in ("/healthz", "/livez", "/readyz", "/version")
        ]
        closed = [wire.request("GET", path, token="").status for path in ("/api", "/apis", "/api/v1")]
        assert (open_to_all, closed) == ([200] * 4, [403] * 3)
        assert wire.request("GET", "/api", user="stranger").status == 200

    def test_path_text(self, wire: Wire) -> None:
        """The message of a refused path contains the path."""
        message = 'forbidden: User "system:anonymous" cannot get path "/api"'
        assert wire.request("GET", "/api", token="").body == failure(403, "Forbidden", message, {})


class TestShapes:
    """The `Accept` header."""

    def test_table(self, wire: Wire) -> None:
        """A table of events has the columns that kubectl prints."""
        wire.ok("POST", wire.events, wire.event(message=" hello \n"))
        response = wire.request("GET", wire.events, accept=TABLE)
        head = [(column["name"], column["priority"]) for column in response.body["columnDefinitions"]]
        assert (response.status, response.body["kind"]) == (200, "Table")
        assert response.body["apiVersion"] == "meta.k8s.io/v1"
        assert head == [
            ("Last Seen", 0),
            ("Type", 0),
            ("Reason", 0),
            ("Object", 0),
            ("Subobject", 1),
            ("Source", 1),
            ("Message", 0),
            ("First Seen", 1),
            ("Count", 1),
            ("Name", 1),
        ]
        cells = response.body["rows"][0]["cells"]
        assert cells[1:7] == ["Normal", "Started", "pod/pod", "", "c, h", "hello"]
        assert cells[8:] == [1, "pod.1"]
        assert response.body["rows"][0]["object"]["kind"] == "PartialObjectMetadata"

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"source": {"component": "c"}, "reportingInstance": ""}, ["pod/pod", "", "c", "hello", 1]),
            ({"source": {}}, ["pod/pod", "", "c, h", "hello", 1]),
            ({"source": {}, "reportingComponent": "", "reportingInstance": ""}, ["pod/pod", "", "", "hello", 1]),
            ({"source": {"component": "x"}}, ["pod/pod", "", "x, h", "hello", 1]),
            ({"count": 7}, ["pod/pod", "", "c, h", "hello", 7]),
            ({"count": 0}, ["pod/pod", "", "c, h", "hello", 1]),
        ],
        ids=str,
    )
    def test_table_cells(self, wire: Wire, fields: dict[str, Any], expected: list[object]) -> None:
        """Cells fall back from the old fields to the new ones."""
        wire.ok("POST", wire.events, wire.event(**fields))
        cells = wire.request("GET", wire.events, accept=TABLE).body["rows"][0]["cells"]
        assert [cells[3], cells[4], cells[5], cells[6], cells[8]] == expected

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, (AGE_2000, "pod/pod", "", AGE_2010, 1)),
            ({"firstTimestamp": None, "lastTimestamp": None}, ("<unknown>", "pod/pod", "", "<unknown>", 1)),
            ({"lastTimestamp": None}, (AGE_2010, "pod/pod", "", AGE_2010, 1)),
            ({"firstTimestamp": None}, (AGE_2000, "pod/pod", "", "<unknown>", 1)),
            ({"lastTimestamp": "2099-07-24T09:00:00Z"}, ("<invalid>", "pod/pod", "", AGE_2010, 1)),
            (
                {"firstTimestamp": None, "lastTimestamp": None, "eventTime": "2010-01-01T00:00:00.000001Z"},
                (AGE_2010, "pod/pod", "", AGE_2010, 1),
            ),
            (
                {"series": {"count": 4, "lastObservedTime": "2010-01-01T00:00:00.000001Z"}, "count": 2},
                (AGE_2010, "pod/pod", "", AGE_2010, 4),
            ),
            ({"series": {"count": 4}, "count": 2}, ("<unknown>", "pod/pod", "", AGE_2010, 4)),
            (
                {"involvedObject": {"namespace": "NS", "kind": "Widget", "fieldPath": "spec.x"}},
                (AGE_2000, "widget", "spec.x", AGE_2010, 1),
            ),
            ({"involvedObject": {"namespace": "NS", "name": "x"}}, (AGE_2000, "/x", "", AGE_2010, 1)),
        ],
        ids=str,
    )
    def test_table_ages(self, wire: Wire, fields: dict[str, Any], expected: tuple[object, ...]) -> None:
        """Ages come from the series, then the old times, then eventTime. Incomplete objects are printed as well."""
        if "involvedObject" in fields:
            fields = {"involvedObject": {**fields["involvedObject"], "namespace": wire.namespace}}
        times = {"firstTimestamp": "2010-01-01T00:00:00Z", "lastTimestamp": "2000-01-01T00:00:00Z", "action": "A"}
        wire.ok("POST", wire.events, wire.event(**{**times, **fields}))
        cells = wire.request("GET", wire.events, accept=TABLE).body["rows"][0]["cells"]
        assert (cells[0], cells[3], cells[4], cells[7], cells[8]) == expected

    def test_table_of_one(self, wire: Wire) -> None:
        """A single event is available as a table, an error is not."""
        wire.ok("POST", wire.events, wire.event())
        assert len(wire.request("GET", f"{wire.events}/pod.1", accept=TABLE).body["rows"]) == 1
        assert wire.request("GET", f"{wire.events}/no", accept=TABLE).body["kind"] == "Status"

    def test_table_of_namespaces(self, wire: Wire) -> None:
        """A table of namespaces has three columns."""
        body = wire.request("GET", f"/api/v1/namespaces/{wire.namespace}", accept=TABLE).body
        assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Status", "Age"]
        assert [wire.namespace, "Active"] == body["rows"][0]["cells"][:2]

    def test_metadata_only(self, wire: Wire) -> None:
        """The metadata of an object can be requested alone."""
        made = wire.ok("POST", wire.events, wire.event())
        accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        response = wire.request("GET", f"{wire.events}/pod.1", accept=accept)
        head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        assert {**head, "metadata": made["metadata"]} == bare(response.body)

    def test_metadata_only_in_lists(self, wire: Wire) -> None:
        """The metadata of listed objects can be requested alone."""
        made = wire.ok("POST", wire.events, wire.event())
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        body = bare(wire.request("GET", wire.events, accept=accept).body)
        item = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}
        assert (body["kind"], body["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
        assert body["items"] == [item]

    @pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, application/json"])
    def test_json(self, wire: Wire, accept: str) -> None:
        """The default format is JSON."""
        response = wire.request("GET", wire.events, accept=accept)
        assert (response.status, response.headers["content-type"]) == (200, "application/json")

    @pytest.mark.parametrize(
        "accept",
        [
            "application/xml",
            "application/*",
            "application/json;as=Bogus;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        ],
    )
    def test_not_acceptable(self, wire: Wire, accept: str) -> None:
        """An unsupported format is 406."""
        response = wire.request("GET", wire.events, accept=accept)
        assert (response.status, response.body["reason"]) == (406, "NotAcceptable")


class TestWatch:
    """Watches."""

    def test_changes(self, wire: Wire) -> None:
        """A watch from a list's version gets each change with the complete object."""
        version = wire.ok("GET", wire.events)["metadata"]["resourceVersion"]
        with wire.watching(f"{wire.events}?watch=1&resourceVersion={version}") as lines:
            made = wire.ok("POST", wire.events, wire.event())
            after = bare(wire.patch("pod.1", {"count": 2}).body)
            wire.ok("DELETE", f"{wire.events}/pod.1")
            told = list(itertools.islice(lines, 3))
        assert [{"type": "ADDED", "object": made}, {"type": "MODIFIED", "object": after}] == told[:2]
        last = told[2]["object"]["metadata"].pop("resourceVersion")
        assert int(last) > int(after["metadata"].pop("resourceVersion"))
        assert {"type": "DELETED", "object": after} == told[2]

    def test_from_the_past(self, wire: Wire) -> None:
        """A watch starts after the given version."""
        first = wire.ok("POST", wire.events, wire.event("a"))
        second = wire.ok("POST", wire.events, wire.event("b"))
        version = first["metadata"]["resourceVersion"]
        with wire.watching(f"{wire.events}?watch=true&resourceVersion={version}") as lines:
            assert {"type": "ADDED", "object": second} == next(lines)

    @pytest.mark.parametrize("query", ["", "&resourceVersion=0"])
    def test_from_the_present(self, wire: Wire, query: str) -> None:
        """Without a version, a watch starts with the existing objects."""
        made = wire.ok("POST", wire.events, wire.event())
        with wire.watching(f"{wire.events}?watch=1{query}") as lines:
            assert {"type": "ADDED", "object": made} == next(lines)

    @pytest.mark.parametrize("true", ["1", "true", "True", "t"])
    def test_true(self, wire: Wire, true: str) -> None:
        """`watch` accepts all of Go's forms of true. Client 31 sends `True`."""
        made = wire.ok("POST", wire.events, wire.event())
        with wire.watching(f"{wire.events}?watch={true}") as lines:
            assert {"type": "ADDED", "object": made} == next(lines)

    def test_other_view(self, wire: Wire) -> None:
        """A watch through events.k8s.io shows core/v1 events in its own form."""
        with wire.watching(f"{wire.new_events}?watch=1") as lines:
            wire.ok("POST", wire.events, wire.event())
            assert {"type": "ADDED", "object": wire.ok("GET", f"{wire.new_events}/pod.1")} == next(lines)

    def test_selector(self, wire: Wire) -> None:
        """An object that starts to match is ADDED, and one that no longer matches is DELETED."""
        with wire.watching(f"{wire.events}?watch=1&fieldSelector=reason=Other") as lines:
            wire.ok("POST", wire.events, wire.event("a"))
            wire.ok("POST", wire.events, wire.event("b", reason="Other"))
            wire.patch("a", {"reason": "Other"})
            wire.patch("b", {"reason": "Third"})
            told = [(line["type"], line["object"]["metadata"]["name"]) for line in itertools.islice(lines, 3)]
        assert told == [("ADDED", "b"), ("ADDED", "a"), ("DELETED", "b")]

    def test_timeout(self, wire: Wire) -> None:
        """A watch ends after timeoutSeconds."""
        wire.ok("POST", wire.events, wire.event())
        with wire.watching(f"{wire.events}?watch=1&timeoutSeconds=1") as lines:
            assert [line["type"] for line in lines] == ["ADDED"]

    def test_table(self, wire: Wire) -> None:
        """In tables, only the first line has the columns."""
        with wire.watching(f"{wire.events}?watch=1", TABLE) as lines:
            wire.ok("POST", wire.events, wire.event("a"))
            wire.ok("POST", wire.events, wire.event("b"))
            told = [line["object"] for line in itertools.islice(lines, 2)]
        assert [bool(table["columnDefinitions"]) for table in told] == [True, False]
        assert [table["rows"][0]["cells"][9] for table in told] == ["a", "b"]

    def test_forgotten(self, wire: Wire) -> None:
        """A watch from a compacted version gets an ERROR event and ends."""
        version = wire.ok("POST", wire.events, wire.event("a"))["metadata"]["resourceVersion"]
        for name in "bc":
            wire.ok("POST", wire.events, wire.event(name))
        wire.subject.compact()
        with wire.watching(f"{wire.events}?watch=1&resourceVersion={version}") as lines:
            told = list(lines)
        gone = failure(410, "Expired", "The resourceVersion for the provided watch is too old.")
        assert [{"type": "ERROR", "object": gone}] == told

    def test_last_change_is_kept(self, wire: Wire) -> None:
        """The last change is never compacted."""
        wire.ok("POST", wire.events, wire.event("a"))
        for name in "b" if isinstance(wire.subject, EmbeddedSubject) else "bcde":
            last = wire.ok("POST", wire.events, wire.event(name))
            wire.subject.compact()
            version = int(last["metadata"]["resourceVersion"]) - 1
            with wire.watching(f"{wire.events}?watch=1&resourceVersion={version}") as lines:
                found = next(lines)
            if found["type"] == "ADDED":  # otherwise the real server has written a lease in between
                break
        assert {"type": "ADDED", "object": last} == found

    def test_future(self, wire: Wire) -> None:
        """A watch from a future version gets no earlier changes and no error."""
        version = int(wire.ok("GET", wire.events)["metadata"]["resourceVersion"]) + 100_000
        with wire.watching(f"{wire.events}?watch=1&timeoutSeconds=1&resourceVersion={version}") as lines:
            wire.ok("POST", wire.events, wire.event())
            assert list(lines) == []

    def test_no_bookmarks(self, wire: Wire) -> None:
        """A watch of events has no bookmarks, even if they are allowed."""
        version = wire.ok("GET", wire.events)["metadata"]["resourceVersion"]
        query = f"watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={version}"
        with wire.watching(f"{wire.events}?{query}") as lines:
            assert list(lines) == []

    def test_bad_version(self, wire: Wire) -> None:
        """A version that is no number is 500."""
        response = wire.request("GET", f"{wire.events}?watch=1&resourceVersion=abc")
        message = 'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'
        assert (response.status, response.body) == (500, failure(500, "", message))


class TestOtherKinds:
    """Objects that events are about."""

    def test_config_map(self, wire: Wire) -> None:
        """A config map can be created, read, changed and deleted."""
        path = f"/api/v1/namespaces/{wire.namespace}/configmaps"
        made = wire.ok("POST", path, {"metadata": {"name": "a"}, "data": {"x": "1"}})
        assert (made["kind"], made["apiVersion"], made["data"]) == ("ConfigMap", "v1", {"x": "1"})
        assert wire.ok("PATCH", f"{path}/a", {"data": {"y": "2"}}, STRATEGIC)["data"] == {"x": "1", "y": "2"}
        assert names(wire.ok("GET", path)) == ["a"]
        assert wire.ok("DELETE", f"{path}/a")["status"] == "Success"
        assert wire.request("GET", f"{path}/a").status == 404

    @pytest.mark.parametrize("shape", ["", "PartialObjectMetadata"])
    def test_endpoint_slice(self, wire: Wire, shape: str) -> None:
        """Endpoint slices can be listed and watched, with or without everything but their metadata."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{wire.namespace}/endpointslices"
        accept = f"application/json;as={shape};g=meta.k8s.io;v=v1" if shape else ""
        version = wire.ok("GET", path)["metadata"]["resourceVersion"]
        endpoints = [{"addresses": ["10.1.2.3"], "targetRef": {"kind": "Pod", "name": "web-0", "uid": "u"}}]
        labels = {"kubernetes.io/service-name": "web"}
        with wire.watching(f"{path}?watch=1&resourceVersion={version}", accept) as lines:
            metadata = {"name": "web-1", "labels": labels}
            made = wire.ok("POST", path, {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints})
            told = next(lines)
        accept = accept.replace(shape, f"{shape}List") if shape else ""
        listed = wire.request("GET", path, accept=accept).body["items"]
        assert ("ADDED", made["metadata"]) == (told["type"], told["object"]["metadata"])
        assert [item["metadata"]["labels"] for item in listed] == [labels]
        assert ("endpoints" in told["object"], "endpoints" in listed[0]) == (not shape, not shape)

    def test_config_map_name(self, wire: Wire) -> None:
        """The name of a config map must be a DNS subdomain."""
        path = f"/api/v1/namespaces/{wire.namespace}/configmaps"
        response = wire.request("POST", path, {"metadata": {"name": "A_b"}})
        assert (response.status, causes(response)) == (422, [("metadata.name", "FieldValueInvalid")])

    def test_pod(self, wire: Wire) -> None:
        """A new pod is Pending and has generation 1."""
        path = f"/api/v1/namespaces/{wire.namespace}/pods"
        body = {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        made = wire.ok("POST", path, body)
        assert (made["status"]["phase"], made["metadata"]["generation"]) == ("Pending", 1)
        cells = wire.request("GET", path, accept=TABLE).body["rows"][0]["cells"]
        assert cells[:3] == ["pod", "0/1", "Pending"]

    def test_node(self, wire: Wire) -> None:
        """A node has no namespace."""
        made = wire.ok("POST", "/api/v1/nodes", {"metadata": {"name": f"node-{wire.namespace}"}})
        assert "namespace" not in made["metadata"]
        wire.ok("DELETE", f"/api/v1/nodes/{made['metadata']['name']}")

    def test_custom_resource(self, wire: Wire) -> None:
        """A custom resource keeps all its fields."""
        wire.subject.register_widgets()
        path = f"/apis/example.com/v1/namespaces/{wire.namespace}/widgets"
        body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"a": [1, {}]}}
        made = wire.ok("POST", path, body)
        assert (made["spec"], made["metadata"]["generation"]) == ({"a": [1, {}]}, 1)
        after = wire.ok("PATCH", f"{path}/w", {"spec": {"b": 1}}, MERGE)
        assert (after["spec"], after["metadata"]["generation"]) == ({"a": [1, {}], "b": 1}, 2)
        listed = wire.ok("GET", path)
        assert (listed["kind"], listed["items"][0]["kind"]) == ("WidgetList", "Widget")

    def test_custom_resource_refusals(self, wire: Wire) -> None:
        """Messages contain the custom resource's group, a strategic merge patch is 415, and a body needs a kind."""
        wire.subject.register_widgets()
        path = f"/apis/example.com/v1/namespaces/{wire.namespace}/widgets"
        message = 'widgets.example.com "no" not found'
        details = {"name": "no", "group": "example.com", "kind": "widgets"}
        assert wire.request("GET", f"{path}/no").body == failure(404, "NotFound", message, details)
        assert wire.request("PATCH", f"{path}/no", {}, content_type=STRATEGIC).status == 415
        assert wire.request("POST", path, {"metadata": {"name": "w"}}).status == 400

    def test_custom_resource_columns(self, wire: Wire) -> None:
        """A table of custom resources has a name and an age."""
        wire.subject.register_widgets()
        path = f"/apis/example.com/v1/namespaces/{wire.namespace}/widgets"
        body = wire.request("GET", path, accept=TABLE).body
        assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Age"]


class TestDiscovery:
    """Discovery, health and version."""

    def test_groups(self, wire: Wire) -> None:
        """The group of events is listed with its version."""
        version = {"groupVersion": "events.k8s.io/v1", "version": "v1"}
        group = {"name": "events.k8s.io", "versions": [version], "preferredVersion": version}
        assert group in wire.ok("GET", "/apis")["groups"]
        assert wire.ok("GET", "/apis/events.k8s.io") == {"kind": "APIGroup", "apiVersion": "v1", **group}

    @pytest.mark.parametrize("path", ["/api/v1", "/apis/events.k8s.io/v1"])
    def test_resources(self, wire: Wire, path: str) -> None:
        """Events are listed in both groups with their verbs."""
        listed = wire.ok("GET", path)
        event = next(resource for resource in listed["resources"] if resource["name"] == "events")
        event.pop("storageVersionHash", None)
        assert listed["kind"] == "APIResourceList"
        assert event == {
            "name": "events",
            "singularName": "event",
            "namespaced": True,
            "kind": "Event",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["ev"],
        }

    def test_versions(self, wire: Wire) -> None:
        """The core versions are listed."""
        assert wire.ok("GET", "/api")["versions"] == ["v1"]

    @pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
    def test_health(self, wire: Wire, path: str) -> None:
        """A healthy server answers ok."""
        assert wire.request("GET", path).body == "ok"

    def test_version(self, wire: Wire) -> None:
        """The version has a major and a minor part."""
        version = wire.ok("GET", "/version")
        assert (version["major"], version["gitVersion"].startswith(f"v1.{version['minor']}.")) == ("1", True)
