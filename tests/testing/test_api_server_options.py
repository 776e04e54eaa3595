"""Options of requests: dry runs, preconditions, finalizers, and lists and watches of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.subjects import JSON_PATCH, MERGE, STRATEGIC, TABLE
from tests.testing.test_api_server_contract import MICRO, causes, failure, names

if TYPE_CHECKING:
    from tests.support.subjects import Wire

FINALIZER = "example.com/kevents"
TOO_OLD = "The resourceVersion for the provided list is too old."


def widgets(wire: Wire) -> str:
    """Return the path of custom resources."""
    wire.subject.register_widgets()
    return f"/apis/example.com/v1/namespaces/{wire.namespace}/widgets"


def made(wire: Wire, name: str = "a", **metadata: Any) -> str:
    """Create a custom resource and return its path."""
    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, **metadata}, "spec": {}}
    wire.ok("POST", widgets(wire), body)
    return f"{widgets(wire)}/{name}"


def listed(wire: Wire, query: str = "") -> list[str]:
    """Return the names of the listed events."""
    return names(wire.ok("GET", f"{wire.events}?{query}"))


class TestDryRun:
    """A dry run is validated and changes nothing."""

    def test_create_is_checked(self, wire: Wire) -> None:
        """A dry run of a create is refused like the create, because of the event, its name or its namespace."""
        wire.ok("POST", wire.events, wire.event())
        tried = [
            wire.request("POST", f"{wire.events}?dryRun=All", wire.event("b", involvedObject={"namespace": "o"})),
            wire.request("POST", f"{wire.events}?dryRun=All", wire.event()),
            wire.request("POST", "/api/v1/namespaces/none/events?dryRun=All", {"metadata": {"name": "a"}}),
        ]
        assert [response.status for response in tried] == [422, 409, 404]

    def test_put(self, wire: Wire) -> None:
        """A dry run of a PUT replaces and creates nothing."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.ok("PUT", f"{wire.events}/pod.1?dryRun=All", wire.event(count=7))["count"] == 7
        assert wire.request("PUT", f"{wire.events}/pod.2?dryRun=All", wire.event("pod.2")).status == 201
        assert [item["count"] for item in wire.ok("GET", wire.events)["items"]] == [1]

    def test_delete_collection(self, wire: Wire) -> None:
        """A dry run of a delete of the collection returns the objects and deletes none."""
        wire.ok("POST", wire.events, wire.event())
        assert names(wire.ok("DELETE", f"{wire.events}?dryRun=All")) == ["pod.1"] == listed(wire)

    @pytest.mark.parametrize("name", ["", "/pod.1"], ids=["all", "one"])
    def test_in_the_body(self, wire: Wire, name: str) -> None:
        """The option of a delete can be in its body, as kubectl sends it."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.request("DELETE", wire.events + name, {"dryRun": ["All"]}).status == 200
        assert listed(wire) == ["pod.1"]

    def test_a_body_goes_before_the_query(self, wire: Wire) -> None:
        """The query of a delete is ignored if there is a body."""
        wire.ok("POST", wire.events, wire.event())
        wire.ok("DELETE", f"{wire.events}/pod.1?dryRun=All", {"gracePeriodSeconds": 0})
        assert listed(wire) == []

    def test_of_a_namespace(self, wire: Wire) -> None:
        """A dry run of a delete leaves a namespace unchanged."""
        path = f"/api/v1/namespaces/{wire.namespace}"
        wire.ok("DELETE", f"{path}?dryRun=All")
        assert wire.ok("GET", path)["status"]["phase"] == "Active"

    @pytest.mark.parametrize(
        ("method", "kind"), [("POST", "CreateOptions"), ("PUT", "UpdateOptions"), ("DELETE", "DeleteOptions")]
    )
    def test_another_word(self, wire: Wire, method: str, kind: str) -> None:
        """Values other than `All` are refused."""
        path = wire.events if method == "POST" else f"{wire.events}/pod.1"
        if method == "DELETE":
            wire.ok("POST", wire.events, wire.event())
        response = wire.request(method, f"{path}?dryRun=Some", None if method == "DELETE" else wire.event())
        cause = {
            "reason": "FieldValueNotSupported",
            "message": 'Unsupported value: ["Some"]: supported values: "All"',
            "field": "dryRun",
        }
        message = f'{kind}.meta.k8s.io "" is invalid: dryRun: {cause["message"]}'
        details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause]}
        assert (response.status, response.body) == (422, failure(422, "Invalid", message, details))


class TestDelete:
    """Deletes with preconditions, and deletes of objects with finalizers."""

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("uid", "the UID in the precondition (x) does not match the UID in record ({})"),
            (
                "resourceVersion",
                "the ResourceVersion in the precondition (x) does not match the ResourceVersion in record ({})",
            ),
        ],
        ids=["uid", "version"],
    )
    def test_preconditions(self, wire: Wire, key: str, text: str) -> None:
        """A delete whose precondition does not match is 409 and deletes nothing."""
        found = wire.ok("POST", wire.events, wire.event())["metadata"]
        response = wire.request("DELETE", f"{wire.events}/pod.1", {"preconditions": {key: "x"}})
        assert (response.status, response.body["reason"]) == (409, "Conflict")
        assert text.format(found[key]) in response.body["message"]
        wire.ok("DELETE", f"{wire.events}/pod.1", {"preconditions": {key: found[key]}})
        assert listed(wire) == []

    @pytest.mark.parametrize("body", [b"{nonsense", b"[]"])
    def test_body(self, wire: Wire, body: bytes) -> None:
        """A delete with a malformed body is 400 and deletes nothing."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("DELETE", f"{wire.events}/pod.1", body)
        assert (response.status, response.body["reason"], listed(wire)) == (400, "BadRequest", ["pod.1"])
        assert response.body["message"].startswith("couldn't get version/kind; json parse error: ")

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"dryRun": "All"}, "string into Go struct field DeleteOptions.dryRun of type []string"),
            ({"dryRun": [1]}, "number into Go struct field DeleteOptions.dryRun of type string"),
            ({"preconditions": 1}, "number into Go struct field DeleteOptions.preconditions of type v1.Preconditions"),
            ({"preconditions": {"uid": 1}}, "number into Go struct field Preconditions.preconditions.uid of type "),
            ({"gracePeriodSeconds": "x"}, "string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        ],
        ids=str,
    )
    def test_options_of_another_shape(self, wire: Wire, body: dict[str, Any], text: str) -> None:
        """An option of the wrong type is 400, and the message names it."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("DELETE", f"{wire.events}/pod.1", body)
        assert (response.status, listed(wire)) == (400, ["pod.1"])
        assert f"json: cannot unmarshal {text}" in response.body["message"]

    def test_without_namespace(self, wire: Wire) -> None:
        """Events of all namespaces cannot be deleted with one request."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.request("DELETE", f"/api/v1/events?fieldSelector=metadata.namespace={wire.namespace}").status == 405
        assert listed(wire) == ["pod.1"]

    def test_finalizers(self, wire: Wire) -> None:
        """An object with finalizers is marked, and removed together with its last finalizer."""
        path = made(wire, finalizers=[FINALIZER])
        version = wire.ok("GET", widgets(wire))["metadata"]["resourceVersion"]
        marked = wire.ok("DELETE", path)
        assert (
            marked["kind"],
            marked["metadata"]["generation"],
            marked["metadata"]["deletionGracePeriodSeconds"],
        ) == ("Widget", 2, 0)
        assert marked == wire.ok("DELETE", path) == wire.ok("GET", path)
        last = wire.ok("PATCH", path, [{"op": "remove", "path": "/metadata/finalizers/0"}], JSON_PATCH)
        assert "finalizers" not in last["metadata"]
        assert wire.request("GET", path).status == 404
        with wire.watching(f"{widgets(wire)}?watch=1&timeoutSeconds=1&resourceVersion={version}") as lines:
            told = [(line["type"], line["object"]["metadata"].get("finalizers")) for line in lines]
        assert told == [("MODIFIED", [FINALIZER]), ("DELETED", [FINALIZER])]

    def test_finalizers_of_an_event(self, wire: Wire) -> None:
        """Finalizers also work for events, and a PUT can remove the last one."""
        body = wire.event()
        body["metadata"]["finalizers"] = [FINALIZER]
        wire.ok("POST", wire.events, body)
        assert wire.ok("DELETE", f"{wire.events}/pod.1")["kind"] == "Event"
        assert wire.request("PUT", f"{wire.events}/pod.1", wire.event()).status == 200
        assert listed(wire) == []

    def test_finalizers_in_a_collection(self, wire: Wire) -> None:
        """A delete of the collection only marks objects with finalizers."""
        path = made(wire, "a", finalizers=[FINALIZER])
        made(wire, "b")
        wire.ok("DELETE", widgets(wire))
        assert names(wire.ok("GET", widgets(wire))) == ["a"]
        assert "deletionTimestamp" in wire.ok("GET", path)["metadata"]

    def test_no_more_finalizers(self, wire: Wire) -> None:
        """An object that is being deleted gets no new finalizers, and no patch removes the mark."""
        path = made(wire, finalizers=[FINALIZER])
        wire.ok("DELETE", path)
        more = {"metadata": {"finalizers": [FINALIZER, "example.com/late"]}}
        response = wire.request("PATCH", path, more, content_type=MERGE)
        assert (response.status, set(causes(response))) == (422, {("metadata.finalizers", "FieldValueForbidden")})
        assert '[]string{"example.com/late"}' in response.body["message"]
        kept = wire.ok("PATCH", path, {"metadata": {"deletionTimestamp": None}}, MERGE)
        assert "deletionTimestamp" in kept["metadata"]

    def test_only_a_delete_begins_a_deletion(self, wire: Wire) -> None:
        """A patch cannot mark an object as being deleted."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        assert (response.status, causes(response)) == (422, [("metadata.deletionTimestamp", "FieldValueInvalid")])
        assert listed(wire) == ["pod.1"]


class TestPut:
    """PUTs and versions."""

    def test_of_a_version_that_is_gone(self, wire: Wire) -> None:
        """A PUT of a deleted event creates it again, whatever its version."""
        body = wire.event()
        body["metadata"]["resourceVersion"] = "5"
        assert wire.request("PUT", f"{wire.events}/pod.1", body).status == 201

    def test_of_a_custom_resource(self, wire: Wire) -> None:
        """A PUT of a custom resource needs a resourceVersion."""
        path = made(wire)
        found = wire.ok("GET", path)
        version = found["metadata"].pop("resourceVersion")
        response = wire.request("PUT", path, found)
        assert (response.status, causes(response)) == (422, [("metadata.resourceVersion", "FieldValueInvalid")])
        found["metadata"]["resourceVersion"] = version
        assert wire.request("PUT", path, found).status == 200


class TestLists:
    """Lists of a version, and pages with selectors."""

    def test_the_last_page_may_be_empty(self, wire: Wire) -> None:
        """A full page has a continue token even if no further object matches the selector."""
        for name, reason in (("a", "x"), ("b", "x"), ("c", "y")):
            wire.ok("POST", wire.events, wire.event(name, reason=reason))
        path = f"{wire.events}?limit=2&fieldSelector=reason%3Dx"
        first = wire.ok("GET", path)
        assert (names(first), "remainingItemCount" in first["metadata"]) == (["a", "b"], False)
        last = wire.ok("GET", f"{path}&continue={first['metadata']['continue']}")
        assert (names(last), set(last["metadata"])) == ([], {"resourceVersion"})

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("resourceVersionMatch=Exact", ["a"]),
            ("limit=9", ["a"]),
            ("resourceVersionMatch=NotOlderThan", ["a", "b"]),
            ("limit=9&resourceVersionMatch=NotOlderThan", ["a", "b"]),
            ("", ["a", "b"]),
        ],
    )
    def test_of_a_version(self, wire: Wire, query: str, expected: list[str]) -> None:
        """A list can be of exactly one version, with `Exact` or with a limit."""
        wire.ok("POST", wire.events, wire.event("a"))
        version = wire.ok("GET", wire.events)["metadata"]["resourceVersion"]
        wire.ok("POST", wire.events, wire.event("b"))
        found = wire.ok("GET", f"{wire.events}?resourceVersion={version}&{query}")
        assert (names(found), version == found["metadata"]["resourceVersion"]) == (expected, len(expected) == 1)

    def test_of_a_forgotten_version(self, wire: Wire) -> None:
        """An exact list of a compacted version is 410."""
        version = wire.ok("GET", wire.events)["metadata"]["resourceVersion"]
        for name in "ab":
            wire.ok("POST", wire.events, wire.event(name))
        wire.subject.compact()
        response = wire.request("GET", f"{wire.events}?resourceVersion={version}&resourceVersionMatch=Exact")
        assert (response.status, response.body) == (410, failure(410, "Expired", TOO_OLD))

    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ("resourceVersionMatch=Exact", ["resourceVersionMatch"]),
            ("resourceVersionMatch=Some&resourceVersion=1", ["resourceVersionMatch"]),
            ("resourceVersionMatch=Exact&resourceVersion=0", ["resourceVersionMatch"]),
            ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", ["resourceVersionMatch"]),
            ("sendInitialEvents=true", ["sendInitialEvents"]),
            ("watch=1&resourceVersionMatch=NotOlderThan", ["resourceVersionMatch"]),
            ("watch=1&sendInitialEvents=true", ["resourceVersionMatch"]),
            ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact", ["resourceVersionMatch"] * 2),
        ],
    )
    def test_a_match_that_does_not_fit(self, wire: Wire, query: str, fields: list[str]) -> None:
        """A `resourceVersionMatch` that contradicts other parameters is 422."""
        response = wire.request("GET", f"{wire.events}?{query}")
        assert (response.status, [field for field, _ in causes(response)]) == (422, fields)
        assert response.body["message"].startswith('ListOptions.meta.k8s.io "" is invalid: ')

    @pytest.mark.parametrize(
        ("limit", "text"), [("x", "invalid syntax"), ("1.5", "invalid syntax"), (str(1 << 63), "value out of range")]
    )
    def test_limit(self, wire: Wire, limit: str, text: str) -> None:
        """A limit that is no number is 400."""
        response = wire.request("GET", f"{wire.events}?limit={limit}")
        message = f'strconv.ParseInt: parsing "{limit}": {text}'
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    def test_limit_below_zero(self, wire: Wire) -> None:
        """A limit below 0 is ignored."""
        for name in "ab":
            wire.ok("POST", wire.events, wire.event(name))
        assert listed(wire, "limit=-1") == ["a", "b"]

    @pytest.mark.parametrize(
        ("include", "kind"), [("", "PartialObjectMetadata"), ("Object", "Event"), ("Metadata", "PartialObjectMetadata")]
    )
    def test_objects_in_tables(self, wire: Wire, include: str, kind: str) -> None:
        """The rows of a table contain the objects as requested. kubectl uses this for sorting."""
        wire.ok("POST", wire.events, wire.event())
        [row] = wire.request("GET", f"{wire.events}?includeObject={include}", accept=TABLE).body["rows"]
        assert (row["object"]["kind"], row["object"]["metadata"]["name"]) == (kind, "pod.1")

    def test_no_objects_in_tables(self, wire: Wire) -> None:
        """The rows of a table can contain no objects. An unknown value is 400."""
        wire.ok("POST", wire.events, wire.event())
        [row] = wire.request("GET", f"{wire.events}?includeObject=None", accept=TABLE).body["rows"]
        assert row["object"] is None
        assert wire.request("GET", f"{wire.events}?includeObject=some", accept=TABLE).status == 400


class TestWatches:
    """Watches that start with a list."""

    LIST_FIRST = "watch=1&timeoutSeconds=1&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

    @pytest.mark.parametrize("new", [False, True], ids=["core", "events"])
    def test_end_of_the_list(self, wire: Wire, new: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """A bookmark marks the end of the initial events, which client-go's informers wait for."""
        version = wire.ok("POST", wire.events, wire.event())["metadata"]["resourceVersion"]
        path = wire.new_events if new else wire.events
        with wire.watching(f"{path}?{self.LIST_FIRST}&sendInitialEvents=true") as lines:
            first, end = list(lines)
        assert (first["type"], end["type"]) == ("ADDED", "BOOKMARK")
        assert first["object"]["apiVersion"] == end["object"]["apiVersion"]
        metadata = end["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(metadata["resourceVersion"]) >= int(version)

    def test_end_of_the_list_in_a_table(self, wire: Wire) -> None:
        """In a table, the bookmark is a row without a name."""
        with wire.watching(f"{wire.events}?{self.LIST_FIRST}&sendInitialEvents=true", TABLE) as lines:
            [end] = list(lines)
        [row] = end["object"]["rows"]
        assert (end["type"], row["cells"][-1]) == ("BOOKMARK", "")

    def test_without_the_list(self, wire: Wire) -> None:
        """With `sendInitialEvents=false`, existing objects are omitted."""
        wire.ok("POST", wire.events, wire.event())
        with wire.watching(f"{wire.events}?{self.LIST_FIRST}&sendInitialEvents=false") as lines:
            assert list(lines) == []

    def test_timeout_that_is_none(self, wire: Wire) -> None:
        """A time-out that is no number is 400."""
        response = wire.request("GET", f"{wire.events}?watch=1&timeoutSeconds=soon")
        message = 'strconv.ParseInt: parsing "soon": invalid syntax'
        assert (response.status, response.body) == (400, failure(400, "BadRequest", message))

    @pytest.mark.parametrize(
        ("word", "kind"), [("", "ADDED"), ("yes", "ADDED"), ("0", "EventList"), ("False", "EventList")]
    )
    def test_words_for_true(self, wire: Wire, word: str, kind: str) -> None:
        """Any value except `0` and `false` starts a watch."""
        wire.ok("POST", wire.events, wire.event())
        body = wire.request("GET", f"{wire.events}?timeoutSeconds=1&watch={word}").body
        assert body.get("type", body.get("kind")) == kind


class TestObjects:
    """Validation of objects and patches."""

    @pytest.mark.parametrize(("length", "status"), [(262_143, 201), (262_144, 422)])
    def test_size_of_annotations(self, wire: Wire, length: int, status: int) -> None:
        """Annotations are limited to 256 KiB in total."""
        body = wire.event()
        body["metadata"]["annotations"] = {"a": "x" * length}
        response = wire.request("POST", wire.events, body)
        assert response.status == status
        if status != 201:
            assert causes(response) == [("metadata.annotations", "FieldValueTooLong")]

    @pytest.mark.parametrize("content_type", [STRATEGIC, MERGE])
    def test_unknown_fields_in_a_patch(self, wire: Wire, content_type: str) -> None:
        """Unknown fields of a patch cause warnings. `Strict` refuses them, `Ignore` accepts them."""
        path = f"{wire.events}/pod.1"
        wire.ok("POST", wire.events, wire.event())
        told = {
            word: wire.request("PATCH", f"{path}?fieldValidation={word}", {"no": 1}, content_type=content_type)
            for word in ("Warn", "Ignore", "Strict")
        }
        assert [response.status for response in told.values()] == [200, 200, 422]
        assert [told[word].headers.get("warning") for word in ("Warn", "Ignore")] == [
            '299 - "unknown field \\"no\\""',
            None,
        ]
        assert told["Strict"].body["message"].endswith(': strict decoding error: unknown field "no"')

    @pytest.mark.parametrize(
        "metadata", [{}, {"name": "a/b"}, {"name": "a", "labels": {"a b": ""}}], ids=["no name", "name", "label"]
    )
    def test_order_in_core(self, wire: Wire, metadata: dict[str, Any]) -> None:
        """In core/v1, errors of the metadata are reported only if the event has no other errors."""
        response = wire.request("POST", wire.events, {"metadata": metadata, "involvedObject": {"namespace": "o"}})
        assert [field for field, _ in causes(response)] == ["involvedObject.namespace"]

    @pytest.mark.parametrize(
        ("metadata", "field"),
        [
            ({}, "metadata.name"),
            ({"name": "A"}, "metadata.name"),
            ({"name": "a", "labels": {"a b": ""}}, "metadata.labels"),
        ],
        ids=["no name", "name", "label"],
    )
    def test_order_in_events(self, wire: Wire, metadata: dict[str, Any], field: str) -> None:
        """In events.k8s.io, all errors are reported together: reference, metadata and the rest."""
        response = wire.request("POST", wire.new_events, {"metadata": metadata})
        expected = ["involvedObject.namespace", field, "eventTime", "type"]
        assert [found for found, _ in causes(response)] == expected

    @pytest.mark.parametrize("value", [1, "x", {}, True, [1], [[]]], ids=repr)
    @pytest.mark.parametrize("field", ["finalizers", "ownerReferences", "managedFields"])
    def test_lists_of_another_shape(self, wire: Wire, field: str, value: object) -> None:
        """A list with items of the wrong type is 400 in a create and 422 in a patch."""
        wire.ok("POST", wire.events, wire.event())
        metadata = {field: value}
        made = wire.request("POST", wire.events, {**wire.event(), "metadata": {"name": "a", **metadata}})
        changed = [wire.patch("pod.1", {"metadata": metadata}, kind).status for kind in (STRATEGIC, MERGE)]
        assert (made.status, changed) == (400, [422, 422])
        assert f"into Go struct field ObjectMeta.metadata.{field} of type " in made.body["message"]

    @pytest.mark.parametrize("value", [[], [1], ["x"]], ids=repr)
    def test_a_list_for_a_number(self, wire: Wire, value: object) -> None:
        """A patch with a list in place of a number is 422."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.patch("pod.1", {"count": value}).status == 422

    def test_annotation_of_null(self, wire: Wire) -> None:
        """A null annotation becomes an empty one."""
        body = wire.event()
        body["metadata"]["annotations"] = {"a": None}
        assert wire.ok("POST", wire.events, body)["metadata"]["annotations"] == {"a": ""}

    def test_long_generate_name(self, wire: Wire) -> None:
        """A generated name has at most 63 characters."""
        body = {**wire.event(), "metadata": {"generateName": "g" * 100}}
        name = wire.ok("POST", wire.events, body)["metadata"]["name"]
        assert (name[:58], len(name)) == ("g" * 58, 63)

    def test_lone_surrogates(self, wire: Wire) -> None:
        """A lone surrogate becomes the replacement character. A pair is unchanged."""
        message = wire.ok("POST", wire.events, wire.event(message="a\ud83d b\U0001f389"))["message"]
        assert message == "a\ufffd b\U0001f389"

    def test_not_a_number(self, wire: Wire) -> None:
        """NaN, which Python's JSON supports, is refused."""
        assert wire.request("POST", wire.events, wire.event(count=float("nan"))).status == 400

    def test_series_without_a_time(self, wire: Wire) -> None:
        """A series always has a time, which can be null."""
        series = wire.ok("POST", wire.events, wire.event(series={"count": 2}))["series"]
        assert series == {"count": 2, "lastObservedTime": None}
        whole = {"count": 2, "lastObservedTime": MICRO}
        assert wire.ok("POST", wire.new_events, wire.new_event("b", series=whole))["series"] == whole

    @pytest.mark.parametrize("path", ["events", "configmaps"])
    def test_no_status(self, wire: Wire, path: str) -> None:
        """A kind without a status has no status path."""
        where = f"/api/v1/namespaces/{wire.namespace}/{path}"
        wire.ok("POST", where, wire.event() if path == "events" else {"metadata": {"name": "pod.1"}})
        assert wire.request("GET", f"{where}/pod.1/status").status == 404

    @pytest.mark.parametrize(
        ("operation", "labels"),
        [
            ({"op": "replace", "path": "/metadata/labels/b", "value": "2"}, {"a": "1", "b": "2"}),
            ({"op": "replace", "path": "/metadata/labels/a", "value": "2"}, {"a": "2"}),
            ({"op": "test", "path": "/metadata/finalizers/0", "value": FINALIZER}, {"a": "1"}),
            ({"op": "replace", "path": "/metadata/finalizers/0", "value": "example.com/b"}, {"a": "1"}),
            ({"op": "replace", "path": "/metadata/finalizers/1", "value": "example.com/b"}, 422),
            ({"op": "test", "path": "/metadata/labels/b", "value": None}, {"a": "1"}),
            ({"op": "copy", "from": "/metadata/no", "path": "/metadata/labels"}, None),
            ({"op": "replace", "path": "/metadata/annotations/b", "value": "2"}, 422),
            ({"op": "move", "from": "/metadata/labels/b", "path": "/metadata/labels/c"}, 422),
            ({"op": "remove", "path": "/metadata/labels/b"}, 422),
        ],
        ids=[
            "replace none",
            "replace",
            "test in list",
            "replace in list",
            "replace none in list",
            "test none",
            "copy none",
            "replace in none",
            "move none",
            "remove none",
        ],
    )
    def test_json_patch_of_nothing(self, wire: Wire, operation: dict[str, Any], labels: object) -> None:
        """A missing field can be replaced, copied and tested for null, but neither moved nor removed."""
        body = wire.event()
        body["metadata"] |= {"labels": {"a": "1"}, "finalizers": [FINALIZER]}
        wire.ok("POST", wire.events, body)
        response = wire.patch("pod.1", [operation], JSON_PATCH)
        assert (response.body["metadata"].get("labels") if response.status == 200 else response.status) == labels

    @pytest.mark.parametrize(
        ("selector", "expected"), [("a>3", ["a"]), ("a<3", []), ("a>5", []), ("a<6", ["a"]), ("a+>+0", ["a"])]
    )
    def test_labels_in_order(self, wire: Wire, selector: str, expected: list[str]) -> None:
        """Numeric labels can be compared. Other and missing labels match no comparison."""
        for name, labels in (("a", {"a": "5"}), ("b", {"a": "x"}), ("c", {})):
            wire.ok("POST", wire.events, {**wire.event(), "metadata": {"name": name, "labels": labels}})
        assert listed(wire, f"labelSelector={selector}") == expected
